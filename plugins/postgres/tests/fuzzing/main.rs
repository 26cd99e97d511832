//! Some seconds of what the targets in `fuzz/` do for hours, on every machine.
//!
//! Inputs are the checked-in corpora, changed, and bytes of a seeded generator: two
//! seconds for each entry, ten where `CI` is set, `HOLDPOINT_FUZZ_SECONDS=N` where that
//! is. `corpus/` has a folder for each entry, which cargo-fuzz takes as it is;
//! `make-corpus` wrote it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by it")]

mod entries;

use std::time::{Duration, Instant};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

const STATEMENTS: &str = include_str!("../data/generated.sql");

/// The seeds of one entry, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/fuzzing/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{folder} has {} seeds", files.len());
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// One input: a seed, two of them joined, or random bytes; then changed in a few places.
fn input(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let seed = |random: &mut Random| corpus[random.below(corpus.len())].clone();
    let mut bytes: Vec<u8> = match random.below(8) {
        0 => (0..random.below(64)).map(|_| random.next() as u8).collect(),
        1 | 2 => {
            let mut head = seed(random);
            let tail = seed(random);
            head.truncate(random.below(head.len() + 1));
            head.extend_from_slice(&tail[random.below(tail.len() + 1)..]);
            head
        }
        _ => seed(random),
    };
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 => bytes.insert(at, random.next() as u8),
            1 if at < bytes.len() => bytes[at] = b"'\"$\\/*-;()\0\n"[random.below(12)],
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            _ => {
                // A stretch once more, or gone.
                let end = (at + 1 + random.below(24)).min(bytes.len());
                let stretch: Vec<u8> = bytes.drain(at.min(end)..end).collect();
                if random.below(2) == 0 {
                    let twice = [stretch.as_slice(), &stretch].concat();
                    bytes.splice(at.min(bytes.len())..at.min(bytes.len()), twice);
                }
            }
        }
    }
    bytes
}

/// Tries inputs for `time`, and gives the first at which the entry panics.
fn hunt(entry: fn(&[u8]), corpus: &[Vec<u8>], time: Duration) -> Result<u64, Vec<u8>> {
    let start = Instant::now();
    let mut seed = 0;
    while start.elapsed() < time {
        let bytes = match corpus.get(seed as usize) {
            Some(whole) => whole.clone(),
            None => input(&mut Random(seed), corpus),
        };
        if std::panic::catch_unwind(|| entry(&bytes)).is_err() {
            return Err(bytes);
        }
        seed += 1;
    }
    Ok(seed)
}

fn time() -> Duration {
    let usual = if std::env::var_os("CI").is_some() {
        10
    } else {
        2
    };
    let seconds = std::env::var("HOLDPOINT_FUZZ_SECONDS").map_or(usual, |n| n.parse().unwrap());
    Duration::from_secs(seconds)
}

fn run(entry: fn(&[u8]), corpus: &[Vec<u8>]) {
    match hunt(entry, corpus, time()) {
        Ok(count) => println!("{count} inputs"),
        Err(bytes) => panic!("at {:?}", bytes.escape_ascii().to_string()),
    }
}

#[test]
fn any_text_is_classified() {
    let mut texts = corpus("classifier");
    texts.extend(STATEMENTS.lines().map(|line| line.as_bytes().to_vec()));
    run(entries::classifier, &texts);
}

#[test]
fn any_message_of_a_client_is_read_or_refused() {
    run(entries::downstream_frames, &corpus("downstream_frames"));
}

#[test]
fn any_message_of_a_target_is_read_or_refused() {
    run(entries::upstream_frames, &corpus("upstream_frames"));
}

#[test]
fn a_session_outlives_or_ends_with_any_client() {
    run(entries::downstream_session, &corpus("downstream_session"));
}

#[test]
fn a_session_outlives_or_ends_with_any_target() {
    run(entries::upstream_session, &corpus("upstream_session"));
}

/// Mistakes as they are made: a length that is believed, a quote that is not closed, a
/// state that two messages in a row reach. Were they in the code, they would be found.
#[test]
fn seeded_faults_are_found() {
    fn believes_a_length(body: &[u8]) {
        let Some(end) = body.iter().position(|byte| *byte == 0) else {
            return;
        };
        if let [_, high, low, rest @ ..] = &body[end..] {
            let _ = &rest[..usize::from(u16::from_be_bytes([*high, *low])) * 2];
        }
    }
    fn forgets_the_end_of_a_quote(text: &[u8]) {
        if let Some(open) = text.windows(2).position(|pair| pair == b"E'") {
            let close = text[open + 2..].iter().position(|byte| *byte == b'\'');
            let _ = close.unwrap();
        }
    }
    fn a_refusal_behind_a_flush(events: &[u8]) {
        let kinds: Vec<u8> = events.chunks(3).map(|event| event[0] % 16).collect();
        assert!(
            !kinds.windows(2).any(|two| two == [1, 1]),
            "two refusals in a row"
        );
    }
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let most = Duration::from_secs(60);
    let found = [
        hunt(believes_a_length, &corpus("downstream_frames"), most),
        hunt(forgets_the_end_of_a_quote, &corpus("classifier"), most),
        hunt(
            a_refusal_behind_a_flush,
            &corpus("downstream_session"),
            most,
        ),
    ];
    std::panic::set_hook(quiet);
    for (fault, found) in found.iter().enumerate() {
        assert!(
            found.is_err(),
            "fault {fault} was not found in {found:?} inputs"
        );
    }
}
