//! Some seconds of what the targets in `fuzz/` do for hours, on every machine.
//!
//! Inputs are the checked-in corpora, changed, and bytes of a seeded generator.
//! `HOLDPOINT_FUZZ_SECONDS=N` runs each entry that long.

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

/// One input: a statement or random bytes, then changed in a few places; or for
/// a session, such bytes as the bodies of messages.
fn input(random: &mut Random, corpus: &[&[u8]], framed: bool) -> Vec<u8> {
    let piece = |random: &mut Random| -> Vec<u8> {
        let mut bytes = match random.below(3) {
            0 => (0..random.below(64)).map(|_| random.next() as u8).collect(),
            _ => corpus[random.below(corpus.len())].to_vec(),
        };
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() + 1);
            match random.below(3) {
                0 => bytes.insert(at, random.next() as u8),
                1 if at < bytes.len() => bytes[at] = b"'\"$\\/*-;()\0\n"[random.below(12)],
                _ => bytes.truncate(at),
            }
        }
        bytes
    };
    if !framed {
        return piece(random);
    }
    let mut all = Vec::new();
    for _ in 0..random.below(12) {
        let mut body = piece(random);
        if random.below(4) > 0 {
            body.push(0);
        }
        body.truncate(255);
        all.extend([
            random.next() as u8,
            random.below(24) as u8,
            body.len() as u8,
        ]);
        all.extend(body);
    }
    all
}

fn run(entry: fn(&[u8]), framed: bool) {
    let seconds = std::env::var("HOLDPOINT_FUZZ_SECONDS").map_or(2, |n| n.parse().unwrap());
    let corpus: Vec<&[u8]> = STATEMENTS.lines().map(str::as_bytes).collect();
    let start = Instant::now();
    let mut seed = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        let bytes = input(&mut Random(seed), &corpus, framed);
        if std::panic::catch_unwind(|| entry(&bytes)).is_err() {
            panic!("seed {seed}: {:?}", bytes.escape_ascii().to_string());
        }
        seed += 1;
    }
    println!("{seed} inputs");
}

#[test]
fn any_text_is_classified() {
    run(entries::classifier, false);
}

#[test]
fn any_message_of_a_client_is_read_or_refused() {
    run(entries::downstream_frames, false);
}

#[test]
fn any_message_of_a_target_is_read_or_refused() {
    run(entries::upstream_frames, false);
}

#[test]
fn a_session_outlives_or_ends_with_any_client() {
    run(entries::downstream_session, true);
}

#[test]
fn a_session_outlives_or_ends_with_any_target() {
    run(entries::upstream_session, true);
}
