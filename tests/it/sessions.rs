//! Sessions as operators and their programs see them: live, ended by force, taken out.

use std::process::Stdio;

use holdpoint_tests::desk::{Desk, text};
use holdpoint_tests::{Gateway, PgServer, need};
use serde_json::Value;

async fn desk() -> Option<Desk> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Desk::new(Gateway::start(&server.database()).await))
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_ends_a_session_and_what_it_holds_never_runs() {
    let Some(desk) = desk().await else {
        return;
    };
    let gateway = &desk.gateway;
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    let session = view["session"].as_str().unwrap();
    let tail = desk
        .command(&["sessions", "tail", "journal", session, "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    let kill = |token: &str| {
        desk.command(&["sessions", "kill", session, "--json"])
            .env("HOLDPOINT_TOKEN", token)
            .output()
            .unwrap()
    };
    let output = kill(&gateway.agent("ada"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("HP-SCOPE"), "{output:?}");
    let token = gateway.issuer.reviewer("rita", &["reviewers"]);
    gateway.keep_secret(&token);
    let output = kill(&token);
    assert_eq!(lines(&output.stdout)[0]["session"], session, "{output:?}");
    assert_ne!(psql.wait().code, Some(0));
    // It ends with the session.
    let tailed = lines(&tail.wait_with_output().unwrap().stdout);
    assert!(tailed[0]["entry"]["open"].is_object(), "{tailed:?}");
    let last = tailed.last().unwrap();
    assert_eq!(last["entry"]["close"]["reason"], "revoked", "{last}");
    assert!(!gateway.tap.saw("DROP TABLE"));
    assert_eq!(kill(&token).status.code(), Some(1));

    let output = desk.run(&["sessions", "export", "journal", session]);
    let records = lines(&output.stdout);
    let of = |name: &str| {
        records
            .iter()
            .find(|record| record["entry"].get(name).is_some())
            .unwrap_or_else(|| panic!("no `{name}`: {records:?}"))
    };
    assert_eq!(of("killed")["entry"]["killed"]["by"]["subject"], "rita");
    let settled = of("settled");
    assert_ne!(settled["entry"]["settled"]["state"], "approved");
    assert_eq!(of("open")["entry"]["open"]["tags"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_every_record_and_every_byte() {
    let Some(desk) = desk().await else {
        return;
    };
    let done = desk.gateway.psql().run("SELECT '\u{e4}' || chr(255)");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    desk.gateway.stop();
    let output = desk.run(&["sessions", "export", "journal", "-o", "all.jsonl"]);
    assert!(output.status.success(), "{output:?}");
    let all = lines(&std::fs::read(desk.gateway.dir.join("all.jsonl")).unwrap());
    // None is left out.
    for (n, record) in all.iter().enumerate() {
        assert_eq!(record["seq"], n, "{record}");
    }
    let start = all[0]["entry"].get("start");
    assert!(start.is_some(), "{}", all[0]);
    let bodies = all.iter().filter(|record| record.get("body").is_some());
    assert!(bodies.count() > 0);
    // A file that is there is somebody's: it is not written over.
    let output = desk.run(&["sessions", "export", "journal", "-o", "all.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
}

/// The login's bytes are no command's, and of a statement that comes again each time is
/// recorded like the first.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_statement_over_and_over_has_as_many_records_that_say_the_same() {
    let Some(desk) = desk().await else {
        return;
    };
    let asked: Vec<String> = (10..30)
        .map(|n| format!("SELECT {n} WHERE 1 = {n}"))
        .collect();
    let done = desk
        .gateway
        .psql()
        .start(&asked.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(done.wait().code, Some(0));
    desk.gateway.stop();
    let output = desk.run(&["sessions", "list", "journal", "--json"]);
    let sessions: Value = serde_json::from_slice(&output.stdout).unwrap();
    let session = sessions[0]["session"].as_str().unwrap();
    let output = desk.run(&["sessions", "export", "journal", session]);
    let records = lines(&output.stdout);
    let all = |name: &str| -> Vec<Value> {
        let entries = records
            .iter()
            .filter_map(|record| record["entry"].get(name));
        entries.cloned().collect()
    };
    let texts: Vec<Value> = all("command")
        .iter()
        .map(|entry| entry["text"].clone())
        .collect();
    assert_eq!(
        texts,
        asked
            .iter()
            .map(|text| Value::from(text.as_str()))
            .collect::<Vec<_>>()
    );
    let mut completed = all("completed");
    assert_eq!(completed.len(), asked.len());
    let numbers = completed.iter_mut().map(|entry| entry["commands"].take());
    let numbers: Vec<Value> = numbers.collect();
    assert_eq!(
        numbers,
        (1..=asked.len())
            .map(|n| serde_json::json!([n]))
            .collect::<Vec<_>>()
    );
    assert!(
        completed.iter().all(|entry| *entry == completed[0]),
        "{completed:?}"
    );
    assert_eq!(completed[0]["status"], "SELECT 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_learns_how_to_reach_a_target_and_no_secret() {
    let Some(desk) = desk().await else {
        return;
    };
    let ca = desk.gateway.dir.join("ca.pem").display().to_string();
    let output = desk.run(&["env", "shop", "--ca", &ca]);
    let said = text(&output.stdout);
    let port = desk.gateway.address.port();
    assert!(said.contains(&format!("export PGPORT='{port}'")), "{said}");
    assert!(
        said.contains(&format!("export PGSSLROOTCERT='{ca}'")),
        "{said}"
    );
    assert!(!said.contains("export PGPASSWORD"), "{said}");
    let output = desk.run(&["env", "nowhere", "--ca", &ca]);
    assert!(text(&output.stderr).contains("it has: shop"), "{output:?}");
}
