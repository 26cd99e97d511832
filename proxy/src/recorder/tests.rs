//! The writer against real files: what is acknowledged is there, what was torn is cut.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::{Identity, Kind as Who, Principal};
use holdpoint_core::record::checkpoint::CheckpointError;
use holdpoint_core::record::verify::{Kind, Report};
use holdpoint_core::record::{Close, Open, PluginUsed, frame};

use super::*;

/// A directory that goes away with the test.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let path = std::env::temp_dir().join(format!("holdpoint-journal-{}", hex::encode(name)));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    fn config(&self, segment: u64) -> JournalConfig {
        JournalConfig {
            dir: self.journal(),
            sync: Sync::Commands,
            segment,
            key: self.0.join("journal.key"),
        }
    }

    fn open(&self, loss: Loss) -> Result<Recorder, JournalError> {
        Recorder::open(&self.config(64 * 1024), "gw-1", start(), loss)
    }

    fn verify(&self) -> Report {
        self.verify_with(None)
    }

    fn verify_with(&self, checkpoint: Option<PathBuf>) -> Report {
        let key = read_verifier(None, &self.journal()).unwrap();
        let kept: Vec<_> = checkpoint.into_iter().collect();
        check_journal(&self.journal(), &key, &kept, |_| {})
            .unwrap()
            .0
    }

    fn segment(&self) -> PathBuf {
        let last = segment::list(&self.journal()).unwrap().whole.pop().unwrap();
        last.1
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start() -> Start {
    Start {
        node: "gw-1".into(),
        version: "0".into(),
        policy: "p".into(),
        plugins: vec![],
    }
}

fn record(session: Option<u128>, entry: Entry, blob: &[u8]) -> NewRecord {
    NewRecord {
        session: session.map(SessionId::from_random),
        at: now(),
        entry,
        blob: Bytes::copy_from_slice(blob),
    }
}

fn open() -> Entry {
    Entry::Open(Open {
        principal: Principal {
            identity: Identity {
                issuer: "https://issuer".into(),
                subject: "agent".into(),
            },
            kind: Who::Agent,
            label: "agent".into(),
            client_id: None,
            actors: vec![],
            owners: vec![],
            groups: vec![],
            scopes: vec![],
            expires: 0,
            token: "0011223344556677".into(),
            token_id: None,
            auth_time: None,
        },
        target: "shop".into(),
        tags: None,
        listener: "pg".into(),
        source: "127.0.0.1:1".into(),
        tls: true,
        account: "app".into(),
        plugin: PluginUsed {
            name: "postgres".into(),
            version: "1".into(),
            digest: "00".into(),
        },
        entropy: String::new(),
    })
}

fn close() -> Entry {
    Entry::Close(Close {
        reason: "client".into(),
        commands: 0,
        records: 0,
        head: String::new(),
    })
}

async fn session(recorder: &Recorder, number: u128, answers: usize) {
    let synced = Durability::Synced;
    recorder
        .write(record(Some(number), open(), b""), synced)
        .await
        .unwrap();
    for _ in 0..answers {
        let answer = record(Some(number), Entry::Response, &[7; 500]);
        recorder.write(answer, Durability::Written).await.unwrap();
    }
    recorder
        .write(record(Some(number), close(), b""), synced)
        .await
        .unwrap();
}

/// Waits until the thread of a dropped recorder has let go.
async fn gone(journal: &Path) {
    while is_live(journal) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_written_verifies_over_segments_and_restarts() {
    let temp = Temp::new();
    for round in 0..2 {
        let recorder = temp.open(Loss::Refuse).unwrap();
        for number in 0..10 {
            session(&recorder, round * 100 + number, 40).await;
        }
        assert!(temp.verify().ok, "while it is written");
        assert_eq!(recorder.health().state, State::Ok);
        recorder.close().await.unwrap();
        assert_eq!(recorder.health().state, State::Stopped);
        let refused = recorder.write(record(None, Entry::Passed, b""), Durability::Synced);
        assert_eq!(refused.await, Err(JournalError::Stopped));
    }
    let report = temp.verify();
    assert_eq!(report.errors, []);
    assert_eq!(report.counts.sessions, 20);
    assert_eq!(report.counts.processes, 2);
    assert_eq!(report.uncovered, 0);
    assert!(segment::list(&temp.journal()).unwrap().whole.len() > 3);
}

#[tokio::test]
async fn many_sessions_at_once_share_syncs() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    let before = recorder.health().syncs;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32 {
        let recorder = recorder.clone();
        tasks.spawn(async move { session(&recorder, number, 3).await });
    }
    tasks.join_all().await;
    let syncs = recorder.health().syncs - before;
    assert!(syncs < 64, "{syncs} syncs for 64 synced records");
    recorder.close().await.unwrap();
    assert!(temp.verify().ok);
}

#[tokio::test]
async fn a_second_gateway_is_refused() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    assert_eq!(
        temp.open(Loss::Refuse).unwrap_err(),
        JournalError::InUse(temp.journal())
    );
    recorder.close().await.unwrap();
    assert!(temp.open(Loss::Refuse).is_ok());
}

#[tokio::test]
async fn directories_and_keys_that_others_can_touch_are_refused() {
    let temp = Temp::new();
    temp.open(Loss::Refuse).unwrap().close().await.unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let key = temp.0.join("journal.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for (path, bad, good) in [(temp.journal(), 0o770, 0o700), (key, 0o640, 0o600)] {
        mode(&path, bad);
        assert!(matches!(
            temp.open(Loss::Refuse),
            Err(JournalError::Unsafe { .. })
        ));
        mode(&path, good);
    }
    let text = fs::read_to_string(temp.journal().join("journal.pub")).unwrap();
    assert!(text.starts_with("holdpoint/gw-1+"), "{text}");
}

#[tokio::test]
async fn a_start_that_fails_leaves_what_verifies_the_journal() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    let ours = recorder.verifier().id();
    session(&recorder, 1, 3).await;
    recorder.close().await.unwrap();
    let key = temp.0.join("journal.key");
    let publics = [
        temp.journal().join("journal.pub"),
        temp.0.join("journal.pub"),
    ];
    let public = fs::read_to_string(&publics[0]).unwrap();
    let untouched = |told: &str| {
        for path in &publics {
            assert_eq!(fs::read_to_string(path).unwrap(), public, "{told}");
        }
        assert!(temp.verify().ok, "{told}");
    };

    let renamed = Recorder::open(&temp.config(64 * 1024), "gw-2", start(), Loss::Refuse);
    let error = renamed.unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, JournalError::OtherKey { .. }), "{told}");
    assert!(told.contains(&format!("signed by `{ours}`")), "{told}");
    assert!(told.contains("our key is `holdpoint/gw-2+"), "{told}");
    untouched(&told);

    // Without a start, it is found out as well.
    let examined = examine(&temp.config(64 * 1024), "gw-2", Loss::Refuse);
    assert_eq!(examined.unwrap_err().to_string(), told);
    examine(&temp.config(64 * 1024), "gw-1", Loss::Refuse).unwrap();

    let aside = temp.0.join("aside.key");
    fs::rename(&key, &aside).unwrap();
    for loss in [Loss::Refuse, Loss::Accept] {
        let error = temp.open(loss).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, JournalError::NoKey { .. }), "{told}");
        assert!(
            told.contains(&ours) && told.contains("journal.key"),
            "{told}"
        );
        assert!(!key.exists());
        let examined = examine(&temp.config(64 * 1024), "gw-1", loss);
        assert_eq!(examined.unwrap_err().to_string(), told);
        untouched(&told);
    }

    // Another one in its place.
    fs::write(&key, "77".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let told = temp.open(Loss::Refuse).unwrap_err().to_string();
    assert!(told.contains(&ours), "{told}");
    untouched(&told);

    fs::rename(&aside, &key).unwrap();
    temp.open(Loss::Refuse).unwrap().close().await.unwrap();
    untouched("as it was");
}

#[test]
fn to_examine_a_journal_that_is_not_there_yet_makes_nothing() {
    let temp = Temp::new();
    examine(&temp.config(64 * 1024), "gw-1", Loss::Refuse).unwrap();
    assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 0);
    examine(&temp.config(64 * 1024), "g w", Loss::Refuse).unwrap_err();
}

#[test]
fn the_cause_of_a_bad_key_is_said_once() {
    let error = JournalError::from(CheckpointError::Key);
    assert!(std::error::Error::source(&error).is_none());
}

#[tokio::test]
async fn what_a_crash_left_open_is_ended_by_the_next_start() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    let open = record(Some(1), open(), b"");
    recorder.write(open, Durability::Synced).await.unwrap();
    drop(recorder);
    gone(&temp.journal()).await;
    assert_eq!(temp.verify().open.len(), 1);
    let recorder = temp.open(Loss::Refuse).unwrap();
    // An approval's fate may outlive its session, what the session does may not.
    let late = recorder.write(record(Some(1), Entry::Passed, b""), Durability::Synced);
    assert!(matches!(late.await, Err(JournalError::Order(_))));
    recorder.close().await.unwrap();
    let report = temp.verify();
    assert!(report.ok && report.open.is_empty(), "{:?}", report.errors);
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_back_and_continued() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    session(&recorder, 1, 0).await;
    recorder.close().await.unwrap();
    let checkpoints = fs::read(temp.journal().join("checkpoints")).unwrap();
    let recorder = temp.open(Loss::Refuse).unwrap();
    let start_end = used(&temp.segment());
    for number in 0..3 {
        let passed = record(None, Entry::Passed, &[number; 5]);
        recorder.write(passed, Durability::Synced).await.unwrap();
    }
    drop(recorder);
    gone(&temp.journal()).await;
    // The last three records, as if no checkpoint had been signed since.
    let whole = fs::read(temp.segment()).unwrap();
    let mut unfinished = 0;
    for cut in start_end..=used(&temp.segment()) {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        fs::write(temp.segment(), &torn).unwrap();
        fs::write(temp.journal().join("checkpoints"), &checkpoints).unwrap();
        let report = temp.verify();
        assert!(report.ok, "cut at {cut}: {:?}", report.errors);
        unfinished += report.warning_count;
        let recorder = temp.open(Loss::Refuse).unwrap();
        recorder.close().await.unwrap();
        let report = temp.verify();
        assert!(report.ok, "cut at {cut}: {:?}", report.errors);
        assert_eq!(report.note_count, report.counts.gaps);
        assert!(report.open.is_empty());
        fs::write(temp.segment(), &whole).unwrap();
    }
    // All but where a record ends, and where its last bytes are zeros anyway.
    assert!(unfinished > 200, "{unfinished}");
    // With a whole record behind it, or in a checkpoint, it is no end.
    let mut bad = whole.clone();
    bad[start_end + 90] ^= 1;
    fs::write(temp.segment(), &bad).unwrap();
    fs::write(temp.journal().join("checkpoints"), &checkpoints).unwrap();
    assert!(!temp.verify().ok);
    bad[start_end + 100..].fill(0);
    fs::write(temp.segment(), &bad).unwrap();
    let report = temp.verify();
    assert!(report.ok, "{:?}", report.errors);
    let told = &report.warnings[0].message;
    assert!(
        told.starts_with("an unfinished record, as a crash leaves it"),
        "{told}"
    );
    let recorder = temp.open(Loss::Refuse).unwrap();
    recorder.close().await.unwrap();
    let mut bad = fs::read(temp.segment()).unwrap();
    let last = *starts(&temp.segment()).last().unwrap();
    bad[last + 80] ^= 1;
    fs::write(temp.segment(), &bad).unwrap();
    assert!(!temp.verify().ok);
}

fn used(segment: &Path) -> usize {
    let bytes = fs::read(segment).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[tokio::test]
async fn records_that_a_checkpoint_covers_must_be_there() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    session(&recorder, 1, 3).await;
    recorder.close().await.unwrap();
    let segment = OpenOptions::new().write(true).open(temp.segment()).unwrap();
    let end = used(&temp.segment()) as u64;
    segment.write_all_at(&[0; 40], end - 40).unwrap();
    assert!(!temp.verify().ok);
    let refused = temp.open(Loss::Refuse).unwrap_err();
    assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
    // As if the last records had never been.
    let start = starts(&temp.segment())[2];
    let zeros = vec![0; end as usize - start];
    segment.write_all_at(&zeros, start as u64).unwrap();
    assert!(!temp.verify().ok);
    let refused = temp.open(Loss::Refuse).unwrap_err();
    assert!(matches!(refused, JournalError::Lost { .. }), "{refused}");
    let recorder = temp.open(Loss::Accept).unwrap();
    recorder.close().await.unwrap();
    // Written down, and still evident.
    let report = temp.verify();
    assert!(report.counts.gaps >= 1 && !report.ok);
    let warnings = report.warnings;
    assert!(
        warnings.iter().any(|warning| warning
            .message
            .starts_with("a loss was accepted: 5 record(s)")),
        "{warnings:?}"
    );
    temp.open(Loss::Refuse).unwrap().close().await.unwrap();
}

/// Where each record of a segment begins.
fn starts(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).unwrap();
    let (mut at, mut starts) = (0, Vec::new());
    while let Some(len) = frame::record_len(&bytes[at..]).unwrap() {
        starts.push(at);
        at += len;
    }
    starts
}

#[tokio::test]
async fn one_bad_record_does_not_take_the_good_ones_behind_it_away() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    session(&recorder, 1, 20).await;
    recorder.close().await.unwrap();
    let segment = temp.segment();
    let copies = ["damaged", "damaged1"].map(|name| segment.with_extension(name));
    for (round, copy) in copies.iter().enumerate() {
        let mut bad = fs::read(&segment).unwrap();
        let at = starts(&segment)[3];
        bad[at + 90] ^= 1;
        fs::write(&segment, &bad).unwrap();
        let refused = temp.open(Loss::Refuse).unwrap_err();
        let told = refused.to_string();
        assert!(
            told.contains(&format!("record 3 in `00000001.seg` at byte {at}"))
                && told.contains("checksum mismatch"),
            "{told}"
        );
        assert_eq!(fs::read(&segment).unwrap(), bad);
        temp.open(Loss::Accept).unwrap().close().await.unwrap();
        assert_eq!(fs::read(copy).unwrap(), bad, "round {round}");
        let name = copy.file_name().unwrap().to_string_lossy().into_owned();
        let warnings = temp.verify().warnings;
        assert!(
            warnings.iter().any(|warning| warning.kind == Kind::Gap
                && warning.place.is_some()
                && warning.message.contains(&name)
                && warning
                    .message
                    .contains(&format!("at byte {at} was damaged"))),
            "{warnings:?}"
        );
        temp.open(Loss::Refuse).unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn without_checkpoints_nobody_knows_that_an_end_is_torn() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    session(&recorder, 1, 3).await;
    recorder.close().await.unwrap();
    fs::remove_file(temp.journal().join("checkpoints")).unwrap();
    let mut bad = fs::read(temp.segment()).unwrap();
    // Of the first record, so that none is left.
    bad[90] ^= 1;
    fs::write(temp.segment(), &bad).unwrap();
    let refused = temp.open(Loss::Refuse).unwrap_err();
    assert!(
        matches!(refused, JournalError::NoCheckpoint(_)),
        "{refused}"
    );
    assert_eq!(fs::read(temp.segment()).unwrap(), bad);
    temp.open(Loss::Accept).unwrap().close().await.unwrap();
    let copy = temp.segment().with_extension("damaged");
    assert_eq!(fs::read(copy).unwrap(), bad);
}

#[tokio::test]
async fn damage_that_no_crash_explains_stops_the_start() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    for number in 0..10 {
        session(&recorder, number, 30).await;
    }
    recorder.close().await.unwrap();
    let first = temp.journal().join(segment::name_of(1));
    let good = fs::read(&first).unwrap();
    let mut bad = good.clone();
    bad[5_000] ^= 1;
    fs::write(&first, &bad).unwrap();
    let refused = temp.open(Loss::Refuse).unwrap_err();
    assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
    fs::write(&first, &good).unwrap();
    let aside = temp.0.join("checkpoints");
    fs::rename(temp.journal().join("checkpoints"), &aside).unwrap();
    let refused = temp.open(Loss::Refuse).unwrap_err();
    assert!(
        matches!(refused, JournalError::NoCheckpoint(_)),
        "{refused}"
    );
    assert!(!temp.verify().ok);
    assert!(temp.verify_with(Some(aside)).counts.checkpoints > 0);
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_the_directory_is_found() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    for number in 0..4 {
        session(&recorder, number, 40).await;
    }
    recorder.close().await.unwrap();
    for name in ["00000001.seg", "00000002.seg", "checkpoints"] {
        let path = temp.journal().join(name);
        let good = fs::read(&path).unwrap();
        let bits = good.len() * 8;
        // Zeros after the last record count as well.
        let mut bit = 0;
        for _ in 0..150 {
            bit = (bit + 1_000_003) % bits;
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert!(!temp.verify().ok, "{name} bit {bit}");
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(temp.verify().ok);
    fs::remove_file(temp.journal().join("00000001.seg")).unwrap();
    assert!(!temp.verify().ok);
}

#[tokio::test]
async fn up_to_a_segment_that_is_missing_the_journal_is_read_and_can_be_continued() {
    for missing in [1, 2] {
        let temp = Temp::new();
        let recorder = temp.open(Loss::Refuse).unwrap();
        for number in 0..10 {
            session(&recorder, number, 30).await;
        }
        recorder.close().await.unwrap();
        let segments = segment::list(&temp.journal()).unwrap().whole;
        assert!(segments.len() > 2);
        let name = segment::name_of(missing);
        fs::remove_file(temp.journal().join(&name)).unwrap();
        let report = temp.verify();
        assert_eq!(report.error_count, 1, "{:?}", report.errors);
        assert_eq!(report.errors[0].place.as_ref().unwrap().file, name);
        assert_eq!(report.counts.records > 0, missing > 1);
        let refused = temp.open(Loss::Refuse).unwrap_err();
        assert!(matches!(&refused, JournalError::Missing { file, .. } if *file == name));
        let recorder = temp.open(Loss::Accept).unwrap();
        session(&recorder, 100, 3).await;
        recorder.close().await.unwrap();
        let warnings = temp.verify().warnings;
        let told = format!("`{name}` was not there");
        assert!(
            warnings
                .iter()
                .any(|warning| warning.message.contains(&told)),
            "{warnings:?}"
        );
        for (_, path) in segments.iter().filter(|(number, _)| *number > missing) {
            assert!(path.with_extension("lost").exists(), "{}", path.display());
        }
        temp.open(Loss::Refuse).unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_without_a_checkpoint_says_nothing_about_the_journal() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    session(&recorder, 1, 1).await;
    recorder.close().await.unwrap();
    let key = read_verifier(None, &temp.journal()).unwrap();
    let kept = temp.0.join("kept");
    let note = fs::read_to_string(temp.journal().join("checkpoints")).unwrap();
    let one = note.find("\n\nholdpoint/").unwrap() + 1;
    for (text, why) in [
        (String::new(), "it is empty"),
        (format!("{key}\n"), "give it with --key"),
        ("INFO started\nINFO listening\n".into(), "one begins with"),
        (
            "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n".into(),
            "one begins with",
        ),
        ("As\n\n\u{2014} somebody said\n".into(), "one begins with"),
        (note[..one - 5].to_owned(), "is cut off"),
    ] {
        fs::write(&kept, &text).unwrap();
        let told = check_journal(&temp.journal(), &key, std::slice::from_ref(&kept), |_| {})
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("kept` holds no checkpoint") && told.contains(why),
            "{told}"
        );
    }
    fs::write(&kept, &note[..note.len() - 5]).unwrap();
    let report = temp.verify_with(Some(kept.clone()));
    assert!(report.ok, "{:?}", report.errors);
    assert!(report.warnings[0].message.contains("kept` is cut off"));
    fs::write(&kept, &note[..one]).unwrap();
    let report = temp.verify_with(Some(kept));
    assert!(report.ok && report.warnings.is_empty());
}

#[tokio::test]
async fn a_record_longer_than_a_segment_gets_one_of_its_own() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    let long = vec![1; 300_000];
    for _ in 0..2 {
        let record = record(None, Entry::Passed, &long);
        recorder.write(record, Durability::Synced).await.unwrap();
    }
    session(&recorder, 1, 1).await;
    recorder.close().await.unwrap();
    assert!(temp.verify().ok);
}

#[tokio::test]
async fn a_full_disk_refuses_new_records_keeps_ends_and_recovers() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    recorder
        .write(record(Some(1), open(), b""), Durability::Synced)
        .await
        .unwrap();
    // A directory in its place is as good as a full disk: no spare can be made.
    let blocked = temp.journal().join("spare.tmp");
    while fs::create_dir(&blocked).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut refused = None;
    for _ in 0..1_000 {
        let answer = record(Some(1), Entry::Response, &[7; 500]);
        if let Err(error) = recorder.write(answer, Durability::Written).await {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(JournalError::Full(_))),
        "{refused:?}"
    );
    recorder
        .write(record(Some(1), close(), b""), Durability::Synced)
        .await
        .unwrap();
    assert!(matches!(recorder.health().state, State::Full(_)));
    fs::remove_dir(&blocked).unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        while recorder.health().state != State::Ok {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    session(&recorder, 2, 3).await;
    recorder.close().await.unwrap();
    let report = temp.verify();
    assert!(report.ok, "{:?}", report.errors);
    assert_eq!(report.counts.gaps, 1);
}

#[tokio::test]
async fn much_that_is_only_written_is_synced_at_once() {
    let temp = Temp::new();
    let config = temp.config(64 << 20);
    let recorder = Recorder::open(&config, "gw-1", start(), Loss::Refuse).unwrap();
    let due = || recorder.shared.desk().unwrap().writer().unwrap().sync_due();
    let long = vec![1; 5 << 20];
    let written = recorder.submit(record(None, Entry::Passed, &long), Durability::Written);
    assert!(matches!(written.now(), Ok(Ok(_))));
    // Due, or done already.
    assert!(due().is_none_or(|due| due <= Instant::now()));
    recorder.close().await.unwrap();
    assert!(temp.verify().ok);
}

#[tokio::test]
async fn the_head_is_what_a_checkpoint_will_say() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    session(&recorder, 1, 0).await;
    let head = recorder.head();
    assert_eq!(head.size, 3);
    let text = head.to_string();
    assert!(text.starts_with("3/") && text.len() == 10, "{text}");
    recorder.close().await.unwrap();
    let key = read_verifier(None, &temp.journal()).unwrap();
    let file = read_checkpoints(&temp.journal().join("checkpoints"), &key).unwrap();
    assert_eq!(file.good.last().unwrap().0.size, 4);
}

#[tokio::test]
async fn a_panic_under_the_lock_refuses_everything_and_leaves_nobody_waiting() {
    let temp = Temp::new();
    let recorder = temp.open(Loss::Refuse).unwrap();
    let shared = Arc::clone(&recorder.shared);
    let (ack, waits) = oneshot::channel();
    let broken = std::thread::spawn(move || {
        let mut desk = shared.desk().unwrap();
        // Somebody waits, and whoever has the lock fails before the keeper sees it.
        desk.waiting.push(Waiting { ack, seq: 0 });
        shared.wake.notify_one();
        panic!("on purpose");
    });
    assert!(broken.join().is_err());
    let answer = tokio::time::timeout(Duration::from_secs(5), waits).await;
    assert!(answer.expect("it waits for ever").is_err());
    let refused = recorder.write(record(None, Entry::Passed, b""), Durability::Written);
    assert!(matches!(refused.await, Err(JournalError::Failed(_))));
    assert!(matches!(recorder.health().state, State::Failed(_)));
    gone(&temp.journal()).await;
}
