//! What is on disk after a gateway: whole, and any change to it is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdpoint_tests::{Gateway, PgServer, eventually, need};

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::start(&server.database()).await)
}

fn verify(gateway: &Gateway, journal: &Path) -> (Option<i32>, String) {
    let done = gateway.holdpoint(&["verify", &journal.display().to_string()]);
    (
        done.status.code(),
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned(),
    )
}

fn copy(from: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    to
}

fn first_segment(journal: &Path) -> PathBuf {
    let mut all: Vec<_> = fs::read_dir(journal)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    all.sort();
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_whole_while_it_is_written_and_after() {
    let Some(gateway) = gateway().await else {
        return;
    };
    assert_eq!(gateway.psql().run("SELECT 1").code, Some(0));
    let (code, said) = verify(&gateway, &gateway.journal());
    assert_eq!(code, Some(0), "while running: {said}");
    gateway.stop();
    let (code, said) = verify(&gateway, &gateway.journal());
    assert_eq!(code, Some(0), "after: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_anywhere_is_found() {
    let Some(gateway) = gateway().await else {
        return;
    };
    assert_eq!(gateway.psql().run("SELECT 1").code, Some(0));
    gateway.stop();
    let copy = copy(&gateway.journal(), gateway.dir.join("copy"));
    let segment = first_segment(&copy);
    let sound = fs::read(&segment).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for n in 0..40 {
        let mut bytes = sound.clone();
        bytes[used * n / 40] ^= 1 << (n % 8);
        fs::write(&segment, bytes).unwrap();
        let (code, said) = verify(&gateway, &copy);
        assert_eq!(code, Some(1), "byte {} of {used}: {said}", used * n / 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_a_journal_that_recovers_and_runs_nothing_again() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    gateway.kill();
    psql.wait();
    gateway.spawn();
    gateway.wait_ready().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Nothing held is resumed, and the old approval cannot be decided any more.
    assert!(rita.approve(&view).await.0.is_client_error());
    assert!(!gateway.tap.saw("DROP TABLE"));
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
    gateway.stop();
    let (code, said) = verify(&gateway, &gateway.journal());
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_can_be_listed_shown_and_replayed() {
    let Some(gateway) = gateway().await else {
        return;
    };
    assert_eq!(
        gateway
            .psql()
            .run("SELECT customer FROM invoices WHERE id = 2")
            .stdout,
        "bob\n"
    );
    let journal = gateway.journal().display().to_string();
    let listed = eventually("the session in the list", 10, || {
        let done = gateway.holdpoint(&["sessions", "list", &journal, "--json"]);
        let all: serde_json::Value = serde_json::from_slice(&done.stdout).ok()?;
        let first = all
            .as_array()
            .or_else(|| all["sessions"].as_array())?
            .first()?
            .clone();
        Some(first)
    });
    let id = listed["id"]
        .as_str()
        .or_else(|| listed["session"].as_str())
        .unwrap()
        .to_owned();
    for verb in ["show", "replay"] {
        let done = gateway.holdpoint(&["sessions", verb, &journal, &id]);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(
            said.contains("SELECT customer FROM invoices WHERE id = 2"),
            "{verb}: {said}"
        );
    }
}
