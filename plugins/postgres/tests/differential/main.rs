//! The plugin's classifier against PostgreSQL's own parser.
//!
//! Each text is read twice: by the plugin, and by libpg_query with a walk that is
//! written here (`oracle.rs`). A text that the plugin calls more harmless than the
//! server would run it, or of which it tells less, is a fault (`compare.rs`).
//! The plugin may be too careful; how often is measured and bounded, so that
//! nobody buys safety by refusing everything.
//!
//! `tests/data/written.jsonl` was written by hand, `tests/data/generated.sql` by
//! `grammar.txt`. To make the latter again after a change of the grammar:
//!
//! ```text
//! HOLDPOINT_WRITE_CORPUS=1 cargo test -p holdpoint-plugin-postgres --test differential corpus
//! ```
//!
//! `HOLDPOINT_SEED=N` and `HOLDPOINT_MUTATIONS=N` run other mutations, or more.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by it")]

mod compare;
mod generate;
mod mutate;
mod oracle;
mod random;

use compare::{Tally, compare};
use generate::Grammar;
use random::Random;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
/// Statements in the corpus, and what they were grown from.
const GENERATED: usize = 5500;
const SEED: u64 = 1;
const MUTATIONS: usize = 20_000;

fn written() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{DATA}/written.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn generated() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{DATA}/generated.sql")).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Runs texts on a deep stack: the server's parser recurses.
fn run(texts: Vec<(String, String)>) -> (Tally, Vec<String>) {
    let judge = move || {
        let mut tally = Tally::default();
        let mut faults = Vec::new();
        let trace = std::env::var_os("HOLDPOINT_TRACE").is_some();
        for (name, text) in texts {
            if trace {
                eprintln!("{name}: {text:?}");
            }
            for fault in compare(&text, &mut tally) {
                faults.push(format!("{name}: {fault}\n    {text:?}"));
            }
        }
        (tally, faults)
    };
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(judge)
        .unwrap()
        .join()
        .unwrap()
}

fn named(kind: &str, texts: Vec<String>) -> Vec<(String, String)> {
    texts
        .into_iter()
        .enumerate()
        .map(|(at, text)| (format!("{kind} {}", at + 1), text))
        .collect()
}

fn none(faults: &[String]) {
    let shown = setting("HOLDPOINT_SHOW", 40) as usize;
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults
            .iter()
            .take(shown)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// Fails where `part` is more of `whole` than `limit`.
fn bound(what: &str, part: usize, whole: usize, limit: f64, examples: &[String]) {
    let share = part as f64 / whole.max(1) as f64;
    println!("{what}: {part} of {whole}");
    assert!(
        share <= limit,
        "{what}: {part} of {whole}\n{}",
        examples.join("\n")
    );
}

#[test]
fn the_corpus_is_what_the_grammar_makes() {
    let made = Grammar::read().statements(SEED, GENERATED);
    if std::env::var_os("HOLDPOINT_WRITE_CORPUS").is_some() {
        std::fs::write(format!("{DATA}/generated.sql"), made.join("\n") + "\n").unwrap();
    }
    assert!(
        made == generated(),
        "the corpus differs from what the grammar makes; see the head of this file"
    );
}

#[test]
fn no_statement_of_the_corpus_is_called_more_harmless_than_it_is() {
    let mut texts = named("written", written());
    texts.extend(named("generated", generated()));
    let (tally, faults) = run(texts);
    println!("corpus: {tally:?}");
    none(&faults);
    none(&tally.lenient.0);
    assert!(tally.texts >= 5000);
    bound(
        "too few are statements",
        tally.texts - tally.parsed,
        tally.texts,
        0.05,
        &[],
    );
    bound(
        "too careful about reads",
        tally.refused_reads,
        tally.reads,
        0.06,
        &tally.examples.0,
    );
    bound(
        "too much is unknown",
        tally.unknown,
        tally.statements,
        0.08,
        &[],
    );
}

#[test]
fn no_mutation_is_called_more_harmless_than_it_is() {
    let mut corpus = written();
    corpus.extend(generated());
    let first = setting("HOLDPOINT_SEED", 0);
    let count = setting("HOLDPOINT_MUTATIONS", MUTATIONS as u64);
    let texts = (first..first + count)
        .map(|seed| {
            (
                format!("seed {seed}"),
                mutate::mutated(&corpus, &mut Random::new(seed)),
            )
        })
        .collect();
    let (tally, faults) = run(texts);
    println!("mutations: {tally:?}");
    none(&faults);
    // Whatever the plugin says of them, these do nothing. A rule of the server's
    // that the tree parser does not know is worth a line in `strict.rs`, though.
    bound(
        "harmless, but no statement",
        tally.lenient.0.len(),
        tally.texts,
        0.0005,
        &tally.lenient.0,
    );
}

/// Shows both readings of `HOLDPOINT_SQL`.
#[test]
#[ignore = "a tool"]
fn show() {
    let text = std::env::var("HOLDPOINT_SQL").unwrap();
    for text in text.split("###") {
        println!(
            "== {text}\n{:#?}",
            squawk_syntax::SourceFile::parse(text).syntax_node()
        );
        println!("{:#?}", oracle::ask(text));
        println!(
            "{:#?}",
            holdpoint_plugin_postgres::classify(vec![("sql".to_owned(), text.as_bytes().to_vec())])
        );
    }
}
