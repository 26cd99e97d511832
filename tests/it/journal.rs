//! What is on disk after a gateway: whole, and any change to it is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdpoint_tests::wire::{query, read_all};
use holdpoint_tests::{Gateway, PgServer, Settings, SmallDisk, eventually, need};
use tokio::io::AsyncWriteExt as _;

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

/// A gateway whose journal is on a disk of four megabytes, not started.
async fn on(disk: &SmallDisk) -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let settings = Settings {
        journal: "segment = \"1MiB\"\n".to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::prepare(&server.database(), settings).await;
    std::os::unix::fs::symlink(disk.path(), gateway.journal()).unwrap();
    Some(gateway)
}

/// Reads, each with a mark, until one is refused; gives its number and the refusal.
fn read_until_refused(gateway: &Gateway) -> (usize, String) {
    let padding = "x".repeat(100_000);
    for n in 0..100 {
        // A large record and a small answer: it is the command that finds no place.
        let sql = format!("SELECT 'full {n}', length('{padding}')");
        let done = gateway.psql().run(&sql);
        if done.code != Some(0) {
            return (n, done.stderr);
        }
    }
    panic!("never refused: {}", gateway.log());
}

async fn ready(gateway: &Gateway) -> u16 {
    let admin = gateway.admin;
    holdpoint_tests::reviewer::request(admin, hyper::Method::GET, "/readyz", &[], "")
        .await
        .0
        .as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_space_given_back_is_enough_to_go_on() {
    let Some(disk) = need!(SmallDisk::mount(), "the right to mount a file system") else {
        return;
    };
    let Some(gateway) = on(&disk).await else {
        return;
    };
    gateway.spawn();
    gateway.wait_ready().await;
    let mut open = gateway.wire(&gateway.agent("ada")).await;
    let held = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    disk.fill();
    let (refused, said) = read_until_refused(&gateway);
    assert!(said.contains("HP-JOURNAL"), "{said}");
    assert!(!gateway.tap.saw(&format!("full {refused}'")));
    assert_eq!(ready(&gateway).await, 503);
    // What is small may still find its place, for a while.
    let mut last = 0;
    let said = loop {
        let sql = format!("SELECT 'small {last}'");
        open.write_all(&query(sql.as_bytes())).await.unwrap();
        let (kinds, text) = read_all(&mut open).await;
        if kinds != "TDCZ" {
            break text;
        }
        last += 1;
    };
    assert!(
        said.contains("FATAL") && said.contains("HP-JOURNAL"),
        "{said}"
    );
    // Where it was the answer that found no place, the command is recorded: the oracle looks.
    // One that was held all the time.
    rita.approve(&view).await;
    let done = held.wait();
    assert!(done.stderr.contains("HP-"), "{}", done.stderr);
    assert!(!gateway.tap.saw("DROP TABLE"), "forwarded without a record");

    disk.empty();
    for _ in 0..200 {
        if ready(&gateway).await == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let done = gateway.psql().run("SELECT 'again'");
    assert_eq!(done.stdout, "again\n", "{}", done.stderr);
    gateway.stop();
    assert!(gateway.verified()["counts"]["gaps"].as_u64() >= Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_loses_a_write_refuses_everything_until_a_restart() {
    let Some(disk) = need!(SmallDisk::mount(), "the right to mount a file system") else {
        return;
    };
    let Some(gateway) = on(&disk).await else {
        return;
    };
    gateway.spawn();
    gateway.wait_ready().await;
    let mut open = gateway.wire(&gateway.agent("ada")).await;
    // The segment's blocks that are not written yet are taken from under it, as a
    // thin volume does that promised more than it has.
    let segment = first_segment(&gateway.journal());
    let bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let hole = used.next_multiple_of(4096);
    let punched = std::process::Command::new("fallocate")
        .args(["--punch-hole", "--offset", &hole.to_string()])
        .args(["--length", &(bytes.len() - hole).to_string()])
        .arg(&segment)
        .status();
    assert!(punched.unwrap().success());
    disk.fill();
    let (refused, said) = read_until_refused(&gateway);
    assert!(said.contains("HP-JOURNAL"), "{said}");
    assert!(!gateway.tap.saw(&format!("full {refused}'")));
    assert_eq!(ready(&gateway).await, 503);
    open.write_all(&query(b"SELECT 'on the open one'"))
        .await
        .unwrap();
    let (_, text) = read_all(&mut open).await;
    assert!(text.contains("HP-JOURNAL"), "{text}");
    assert!(!gateway.tap.saw("on the open one"));
    // Space alone does not mend it: nobody knows what is on the disk.
    disk.empty();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let done = gateway.psql().run("SELECT 1");
    assert!(done.stderr.contains("HP-JOURNAL"), "{}", done.stderr);
    gateway.stop();
    gateway.spawn();
    gateway.wait_ready().await;
    assert_eq!(gateway.psql().run("SELECT 'again'").stdout, "again\n");
    gateway.stop();
    gateway.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_written_is_refused_at_start() {
    let Some(disk) = need!(SmallDisk::mount(), "the right to mount a file system") else {
        return;
    };
    let Some(gateway) = on(&disk).await else {
        return;
    };
    disk.fill();
    gateway.spawn();
    assert!(!gateway.wait_exit(30).success());
    assert!(gateway.log().contains("No space left"), "{}", gateway.log());
    disk.empty();
    // A journal that was fine before.
    gateway.spawn();
    gateway.wait_ready().await;
    gateway.stop();
    disk.read_only();
    gateway.spawn();
    assert!(!gateway.wait_exit(30).success());
    assert!(gateway.log().contains("Read-only"), "{}", gateway.log());
    disk.writable();
    gateway.spawn();
    gateway.wait_ready().await;
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
    gateway.stop();
    gateway.verified();
}
