//! Statements and what they are, one JSON object a line: `sql` (or `hex`, its
//! bytes), `class` (the worst), `tables`, and whether it is `dangerous`.
//!
//! `HOLDPOINT_CORPUS=FILE` runs another file of the same form through it.

#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

use holdpoint_plugin::Command;
use holdpoint_plugin_postgres::{classify, describe};
use serde_json::Value;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
        .collect()
}

fn words(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// What is wrong with what was said of one line.
fn judge(case: &Value, command: &Command, order: &[String]) -> Vec<String> {
    let rank = |class: &str| order.iter().position(|word| word == class).unwrap();
    let class = command
        .operations
        .iter()
        .map(|op| op.class.as_str())
        .max_by_key(|c| rank(c));
    let class = class.unwrap_or("nothing");
    let mut wrong = Vec::new();
    let mut right = words(&case["accept"]);
    right.extend(case["class"].as_str().map(str::to_owned));
    if !right.iter().any(|word| word == class) {
        wrong.push(format!("class {class}, not {right:?}"));
    }
    let limit = matches!(case["verdict"].as_str(), Some("limit" | "table-rule"));
    if case["dangerous"] == true && class == "read" && !limit {
        wrong.push("dangerous, and called a read".to_owned());
    }
    if case["dangerous"] == true && command.operations.iter().all(|op| op.housekeeping) {
        wrong.push("dangerous, and called housekeeping".to_owned());
    }
    if let Some(reject) = case["reject"].as_bool()
        && reject != command.reject.is_some()
    {
        wrong.push(format!("reject {:?}", command.reject));
    }
    let effects: Vec<&str> = command
        .operations
        .iter()
        .flat_map(|op| op.effects.iter().map(String::as_str))
        .collect();
    for effect in words(&case["effects"]) {
        if !effects.contains(&effect.as_str()) {
            wrong.push(format!("no effect `{effect}` in {effects:?}"));
        }
    }
    let mut tables: Vec<String> = command
        .operations
        .iter()
        .flat_map(|op| &op.objects)
        .filter(|object| matches!(object.kind.as_str(), "table" | "view"))
        .map(|object| match &object.schema {
            Some(schema) => format!("{schema}.{}", object.name),
            None => object.name.clone(),
        })
        .collect();
    tables.sort();
    tables.dedup();
    let mut expected = words(&case["tables"]);
    expected.sort();
    if class != "unknown" && case["tables_any"] != true && tables != expected {
        wrong.push(format!("tables {tables:?}, not {expected:?}"));
    }
    wrong
}

fn run(file: &str) {
    let order = describe().classes;
    let text = std::fs::read_to_string(file).unwrap();
    let (mut all, mut failed) = (0, Vec::new());
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let sql = match case["hex"].as_str() {
            Some(hex) => unhex(hex),
            None => case["sql"].as_str().unwrap().as_bytes().to_vec(),
        };
        let mut input = vec![("sql".to_owned(), sql.clone())];
        for (name, value) in case["settings"].as_object().into_iter().flatten() {
            input.push((
                format!("settings.{name}"),
                value.as_str().unwrap().as_bytes().to_vec(),
            ));
        }
        all += 1;
        let command = classify(input).unwrap();
        assert_eq!(command.text, sql, "the text is the client's own");
        let wrong = judge(&case, &command, &order);
        if !wrong.is_empty() {
            let shown: String = String::from_utf8_lossy(&sql).chars().take(120).collect();
            failed.push(format!("{shown:?}: {}", wrong.join("; ")));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {all} wrong\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn statements_are_what_the_corpus_says() {
    run(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus.jsonl"));
    if let Ok(file) = std::env::var("HOLDPOINT_CORPUS") {
        run(&file);
    }
}
