//! Rules change safely: what was recorded is judged again by others.

use std::fs;

use holdpoint_tests::{Gateway, PgServer, RULES, need};
use serde_json::Value;

/// A read, and a change that waits until its client leaves.
async fn recorded() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let gateway = Gateway::start(&server.database()).await;
    let done = gateway
        .psql()
        .run("SELECT customer FROM invoices WHERE id = 2");
    assert_eq!(done.stdout, "bob\n", "{}", done.stderr);
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    assert!(rita.deny(&view, "not today").await.0.is_success());
    psql.wait();
    gateway.stop();
    Some(gateway)
}

fn replay(gateway: &Gateway, args: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["policy", "replay", "journal", "--json"];
    all.extend(args);
    let done = gateway.holdpoint(&all);
    let said = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&done.stderr)));
    (done.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_in_force_would_say_the_same_again() {
    let Some(gateway) = recorded().await else {
        return;
    };
    for args in [&["-c", "holdpoint.toml"][..], &["--policy", "rules.toml"]] {
        let (code, said) = replay(&gateway, &[args, &["--fail-on-drift"]].concat());
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said["damage"], serde_json::json!([]), "{said}");
        assert_eq!(said["counts"]["commands"], said["counts"]["same"], "{said}");
        assert!(said["counts"]["commands"].as_u64().unwrap() >= 2, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_rules_would_change_is_told_command_by_command() {
    let Some(gateway) = recorded().await else {
        return;
    };
    // Changes are let through, and reads need somebody.
    let looser = RULES
        .replace("\nallow = true", "\nhold = { reviewers = [\"group:dba\"] }")
        .replace(
            "hold = { reviewers = [\"group:reviewers\"], reason = \"it changes something\" }",
            "allow = true",
        );
    gateway.rewrite("candidate.toml", &looser);
    let (code, said) = replay(&gateway, &["--policy", "candidate.toml"]);
    assert_eq!(code, Some(0), "{said}");
    let drift = said["drift"].as_array().unwrap();
    let one = |text: &str| {
        drift
            .iter()
            .find(|one| one["text"].as_str().unwrap().contains(text))
            .unwrap_or_else(|| panic!("{text} did not drift: {said}"))
    };
    let read = one("SELECT customer");
    assert_eq!(read["principal"], "ada");
    assert_eq!(read["target"], "shop");
    assert_eq!(read["old"]["outcome"], "allow");
    assert_eq!(read["old"]["rule"], "rules:reads");
    assert_eq!(read["new"]["outcome"], "hold");
    assert_eq!(read["new"]["rule"], "candidate:reads");
    let drop = one("DROP TABLE victims");
    assert_eq!(drop["old"]["outcome"], "hold");
    assert_eq!(drop["new"]["outcome"], "allow");
    assert!(said["counts"]["drift"]["hold → allow"].as_u64() >= Some(1));

    let args = ["--policy", "candidate.toml", "--fail-on-drift"];
    assert_eq!(replay(&gateway, &args).0, Some(1));
    // For people, too.
    let done = gateway.holdpoint(&["policy", "replay", "journal", "--policy", "candidate.toml"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        said.contains("hold `rules:changes` → allow `candidate:changes`"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_called_that() {
    let Some(gateway) = recorded().await else {
        return;
    };
    let copy = gateway.dir.join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(gateway.journal()).unwrap().flatten() {
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        let mut bytes = fs::read(entry.path()).unwrap();
        // What was allowed becomes what was denied, and the checksum tells.
        let allow = b"\"allow\"";
        if let Some(at) = bytes.windows(allow.len()).position(|part| part == allow) {
            bytes[at + 1] = b'A';
        }
        fs::write(copy.join(entry.file_name()), bytes).unwrap();
    }
    let args = [
        "policy",
        "replay",
        "copy",
        "--policy",
        "rules.toml",
        "--json",
    ];
    let done = gateway.holdpoint(&args);
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(!said["damage"].as_array().unwrap().is_empty(), "{said}");
}
