//! Known clients through holdpoint and around it, alternated in one run.
//!
//! Five ways to one PostgreSQL: *direct*, a bare *splice* (64 KiB copies), a *TLS
//! splice* (which ends the client's TLS, as the others do), *PgBouncer* (session mode, TLS to the
//! client) and *holdpoint* with rules and recording on. Ratios are what counts: client, server and proxy
//! share the machine's cores.
//!
//! `cargo bench -p holdpoint-benches --bench load -- --help`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at what it did not expect"
)]

mod bouncer;
mod large;
mod pgbench;
mod splice;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use holdpoint_tests::{Database, Gateway, PgServer, Settings};
use splice::Splice;

/// Load benchmarks, side by side.
#[derive(Parser)]
struct Args {
    /// Seconds a pgbench run takes
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Alternated rounds; medians are printed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    clients: Vec<u32>,
    /// How pgbench sends its statement
    #[arg(long, value_delimiter = ',', default_values_t = ["simple".to_owned(), "prepared".to_owned()])]
    modes: Vec<String>,
    /// Only these ways, such as `PgBouncer,relaxed`; all without it
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// MiB of the large result; 0 leaves it out
    #[arg(long, default_value_t = 500)]
    large: u64,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

/// One way to the server.
pub(crate) struct Way {
    name: &'static str,
    env: BTreeMap<&'static str, String>,
}

const RULES: &str = "[[rule]]\nname = \"reads\"\nmatch = { classes = [\"read\"], confidence = \"proven\" }\nallow = true\n";

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let server = PgServer::shared().context("PostgreSQL is missing: run `make bench`")?;
    let database = server.database();
    pgbench::prepare(&database)?;
    let splice = Splice::start(database.address).await?;
    let bouncer = bouncer::Bouncer::start(&database)?;
    let synced = gateway(&database, "commands").await;
    let relaxed = gateway(&database, "relaxed").await;
    let mut ways = vec![
        direct(&database),
        Way {
            name: "splice",
            ..clear(&database, splice.clear)
        },
        Way {
            name: "TLS splice",
            ..encrypted(clear(&database, splice.tls))
        },
        bouncer.way(),
        through("holdpoint", &synced),
        through("holdpoint relaxed", &relaxed),
    ];
    ways.retain(|way| args.only.is_empty() || args.only.iter().any(|one| way.name.ends_with(one)));
    println!("machine: {}", machine());
    println!(
        "start of a gateway: {:.0?} (look each 20 ms)",
        start(&relaxed).await
    );
    println!(
        "{} rounds of {} s, medians; ratio to PgBouncer in brackets\n",
        args.rounds, args.seconds
    );
    pgbench::run(args, &ways)?;
    if args.large > 0 {
        large::run(args, &database, &splice, &synced).await?;
    }
    // The gateways' oracle reads every byte again, which a benchmark's volume does not need.
    for gateway in [&synced, &relaxed] {
        gateway.waive("all");
    }
    Ok(())
}

/// From the start of a gateway whose plugin is compiled already until it is ready.
async fn start(gateway: &Gateway) -> Duration {
    gateway.stop();
    let began = Instant::now();
    gateway.spawn();
    gateway.wait_ready().await;
    began.elapsed()
}

async fn gateway(database: &Database, sync: &str) -> Gateway {
    let settings = Settings {
        rules: RULES.to_owned(),
        journal: format!("segment = \"64MiB\"\nsync = \"{sync}\"\n"),
        log: "warn".to_owned(),
        tapped: false,
        ..Settings::default()
    };
    Gateway::with(database, settings).await
}

fn direct(database: &Database) -> Way {
    Way {
        name: "direct",
        ..clear(database, database.address)
    }
}

fn clear(database: &Database, address: std::net::SocketAddr) -> Way {
    let env = BTreeMap::from([
        ("PGHOST", "127.0.0.1".to_owned()),
        ("PGPORT", address.port().to_string()),
        ("PGUSER", database.user.clone()),
        ("PGDATABASE", database.name.clone()),
        ("PGPASSWORD", database.password.clone()),
        ("PGSSLMODE", "disable".to_owned()),
    ]);
    Way { name: "", env }
}

fn through(name: &'static str, gateway: &Gateway) -> Way {
    let claims = gateway
        .issuer
        .claims("ada", "holdpoint.connect", &["agents"], 7200);
    let env = BTreeMap::from([
        ("PGHOST", "127.0.0.1".to_owned()),
        ("PGPORT", gateway.address.port().to_string()),
        ("PGUSER", "agent".to_owned()),
        ("PGDATABASE", "shop".to_owned()),
        ("PGPASSWORD", gateway.issuer.sign(&claims)),
        ("PGSSLMODE", "require".to_owned()),
    ]);
    Way { name, env }
}

fn encrypted(mut way: Way) -> Way {
    way.env.insert("PGSSLMODE", "require".to_owned());
    way
}

/// What the numbers were measured on.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{cores} cores, {}, load average {}",
        model.unwrap_or("unknown CPU"),
        load.split(' ').next().unwrap_or("?")
    )
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
