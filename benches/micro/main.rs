//! What small things cost: frames, a decision, a Wasm call, a record.
//!
//! `cargo bench -p holdpoint-benches --bench micro`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at what it did not expect"
)]

mod burst;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint::recorder::{Loss, Recorder, check_journal, now, read_verifier};
use holdpoint_core::config::{JournalConfig, Sync};
use holdpoint_core::framing::{Cut, Layout, LengthPrefixed};
use holdpoint_core::policy::{Ask, Policy, RuleFile};
use holdpoint_core::principal::{Identity, Kind, Principal};
use holdpoint_core::record::{Durability, Entry, NewRecord, Start};
use holdpoint_host::{Engine, Limits, Plugin};
use holdpoint_tests::TestDir;

/// 200 bytes, as an agent would write it.
const STATEMENT: &str = "SELECT o.id, o.total, c.name FROM public.orders AS o JOIN public.customers AS c ON c.id = o.customer_id WHERE o.created_at > '2026-01-01' AND o.total > 100 ORDER BY o.created_at DESC, o.id LIMIT 50000";

fn main() -> anyhow::Result<()> {
    assert_eq!(STATEMENT.len(), 200);
    println!("| what | p50 | p99 | |\n|---|---|---|---|");
    frames();
    let dir = TestDir::new("micro");
    let postgres = plugin(dir.path())?;
    burst::bursts(&postgres)?;
    classify(&postgres);
    decide(&postgres)?;
    journal(dir.path())
}

/// Times `once` and prints the middle and the tail.
fn time(what: &str, note: &str, rounds: u32, mut once: impl FnMut()) {
    for _ in 0..rounds / 10 {
        once();
    }
    let took = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            once();
            began.elapsed()
        })
        .collect();
    print(what, note, took);
}

fn print(what: &str, note: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("| {what} | {:?} | {:?} | {note} |", at(50), at(99));
}

fn frames() {
    let layout = Layout::LengthPrefixed(LengthPrefixed {
        header: 5,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 4,
        little_endian: false,
        adjust: 1,
    });
    let mut burst = Vec::new();
    for _ in 0..600 {
        burst.extend_from_slice(b"D\0\0\0\x68");
        burst.extend_from_slice(&[b'x'; 100]);
    }
    time("cut 600 rows of 105 bytes", "native framing", 5000, || {
        let mut rest = burst.as_slice();
        while let Ok(Cut::Frame(frame)) = layout.cut(rest, 1 << 20) {
            rest = &rest[black_box(frame.size)..];
        }
    });
}

fn plugin(dir: &Path) -> anyhow::Result<Plugin> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let component = holdpoint_plugin_build::build(
        &root.join("plugins/postgres"),
        &root.join("target/plugins"),
    )?;
    let bytes = std::fs::read(component.path)?;
    let cache = dir.join("cache");
    let began = Instant::now();
    Engine::new(Limits::default(), Some(cache.clone()))?.load(&bytes, None)?;
    println!(
        "| compile the postgres plugin | {:?} | | once per version |",
        began.elapsed()
    );
    let began = Instant::now();
    let plugin = Engine::new(Limits::default(), Some(cache))?.load(&bytes, None)?;
    println!(
        "| load it from the cache | {:?} | | at each start |",
        began.elapsed()
    );
    Ok(plugin)
}

fn classify(postgres: &Plugin) {
    let cached = [("sql".to_owned(), STATEMENT.as_bytes().to_vec())];
    time(
        "classify 200 bytes in Wasm",
        "fresh instance, same text",
        2000,
        || {
            black_box(postgres.classify(black_box(&cached)).unwrap());
        },
    );
    // `plugins/postgres/tests/speed.rs` measures the same without a sandbox.
    let mut classifier = postgres.classifier();
    for (what, place) in [("another table", "orders"), ("another constant", "50000")] {
        let mut round = 0;
        time(
            "classify 200 bytes in Wasm",
            &format!("kept instance, {what} each time"),
            5000,
            || {
                round += 1;
                let text = STATEMENT.replacen(place, &format!("{place}{round}"), 1);
                let asked = [("sql".to_owned(), text.into_bytes())];
                black_box(classifier.classify(black_box(&asked)).unwrap());
            },
        );
    }
}

fn decide(postgres: &Plugin) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |name: &str| -> anyhow::Result<RuleFile> {
        let text = std::fs::read_to_string(root.join(format!("policies/{name}.toml")))?;
        Ok(RuleFile {
            name: name.to_owned(),
            text,
        })
    };
    let policy = Policy::compile(&[read("default")?, read("postgres")?], &BTreeMap::new())?;
    let command = postgres.classify(&[("sql".to_owned(), STATEMENT.as_bytes().to_vec())])?;
    let principal = agent();
    let ask = Ask {
        command: &command,
        principal: &principal,
        target: "shop",
        tags: &[],
        owners: None,
        protocol: "postgres",
        classes: &postgres.descriptor().classes,
        now: 0,
    };
    time("decide by the shipped rules", "", 50_000, || {
        black_box(policy.decide(black_box(&ask)));
    });
    time("digest of a command", "", 50_000, || {
        black_box(command.digest(&principal, "shop", policy.version()));
    });
    Ok(())
}

fn agent() -> Principal {
    Principal {
        identity: Identity {
            issuer: "bench".to_owned(),
            subject: "agent".to_owned(),
        },
        kind: Kind::Agent,
        label: "agent".to_owned(),
        client_id: None,
        actors: Vec::new(),
        owners: Vec::new(),
        groups: vec!["holdpoint-agents".to_owned()],
        scopes: Vec::new(),
        expires: u64::MAX,
        token: String::new(),
        token_id: None,
        auth_time: None,
    }
}

fn journal(dir: &Path) -> anyhow::Result<()> {
    let config = JournalConfig {
        dir: dir.join("journal"),
        sync: Sync::Commands,
        segment: 64 << 20,
        key: dir.join("journal.key"),
    };
    let start = Start {
        node: "bench".to_owned(),
        version: "0".to_owned(),
        policy: String::new(),
        plugins: Vec::new(),
    };
    let recorder = Recorder::open(&config, "bench", start, Loss::Refuse)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let record = || NewRecord {
        session: None,
        at: now(),
        entry: Entry::Passed,
        blob: Bytes::from_static(&[b'x'; 400]),
    };
    for (what, durability) in [
        ("written", Durability::Written),
        ("synced", Durability::Synced),
    ] {
        time(
            &format!("one record {what}, 400 bytes"),
            "one producer",
            500,
            || {
                runtime
                    .block_on(recorder.write(record(), durability))
                    .unwrap();
            },
        );
    }
    let began = Instant::now();
    let each = 1000;
    runtime.block_on(async {
        let producers: Vec<_> = (0..64)
            .map(|_| {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        let record = NewRecord {
                            session: None,
                            at: now(),
                            entry: Entry::Passed,
                            blob: Bytes::from_static(&[b'x'; 400]),
                        };
                        recorder.write(record, Durability::Synced).await.unwrap();
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.await.unwrap();
        }
    });
    let rate = f64::from(64 * each) / began.elapsed().as_secs_f64();
    println!("| 64 producers, each record synced | {rate:.0} records/s | | |");
    // As a large answer is recorded.
    for _ in 0..2000 {
        let blob = Bytes::from_static(&[b'x'; 64 << 10]);
        let record = NewRecord { blob, ..record() };
        runtime.block_on(recorder.write(record, Durability::Written))?;
    }
    runtime.block_on(recorder.close())?;
    verify(&config)
}

fn verify(config: &JournalConfig) -> anyhow::Result<()> {
    let key = read_verifier(None, &config.dir)?;
    let (began, mut bytes) = (Instant::now(), 0);
    let (report, _) = check_journal(&config.dir, &key, &[], |now| bytes = now.bytes)?;
    anyhow::ensure!(report.ok, "{:?}", report.errors);
    let rate = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    println!(
        "| `holdpoint verify` of {} MB | {rate:.0} MB/s | | one core |",
        bytes / 1_000_000
    );
    Ok(())
}
