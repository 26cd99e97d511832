//! A small journal, and everything that somebody might do to it.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::Now;
use crate::approval::{Draft, Reviewer, Shown, Verdict, Vote};
use crate::command::Confidence;
use crate::decision::{Decision, Hold, Outcome, Reviewers, Step};
use crate::id::{ApprovalId, CommandId};
use crate::principal::{Identity, Kind as Who, Principal};
use crate::record::checkpoint::NodeKey;
use crate::record::tracker::Tracker;
use crate::record::{Close, CommandEntry, Entry, Open, Start};

fn person(name: &str) -> Identity {
    Identity {
        issuer: "https://issuer".into(),
        subject: name.into(),
    }
}

fn principal() -> Principal {
    Principal {
        identity: person("agent"),
        kind: Who::Agent,
        label: "agent".into(),
        client_id: None,
        actors: vec![],
        owners: vec![person("olga")],
        groups: vec![],
        scopes: vec![],
        expires: 0,
        token: "0011223344556677".into(),
        token_id: None,
        auth_time: None,
    }
}

fn plugin() -> super::super::PluginUsed {
    super::super::PluginUsed {
        name: "postgres".into(),
        version: "1".into(),
        digest: "00".into(),
    }
}

fn hold(quorum: u32) -> Hold {
    Hold {
        steps: vec![Step::of(vec![Reviewers::Group("dba".into())], quorum)],
        justify: false,
        windows: vec![],
        break_glass: vec![],
        step_up: None,
        webauthn: false,
        expires_in: Duration::from_secs(60),
        reason: None,
    }
}

fn start() -> Entry {
    Entry::Start(Start {
        node: "gw-1".into(),
        version: "0".into(),
        policy: "p".into(),
        plugins: vec![plugin()],
    })
}

fn open() -> Entry {
    Entry::Open(Open {
        principal: principal(),
        target: "shop".into(),
        tags: None,
        listener: "pg".into(),
        source: "127.0.0.1:1".into(),
        tls: true,
        account: "app".into(),
        plugin: plugin(),
        entropy: String::new(),
    })
}

fn digest(command: u64) -> Digest {
    Digest::of(&command.to_le_bytes())
}

fn command(id: u64, outcome: Outcome) -> Entry {
    Entry::Command(Box::new(CommandEntry {
        id: CommandId(id),
        digest: digest(id),
        wire: digest(id),
        blob: None,
        text: "SELECT 1".into(),
        operations: [].into(),
        class: "read".into(),
        confidence: Confidence::Proven,
        parameters: vec![],
        context: vec![],
        in_transaction: false,
        decision: Decision {
            outcome,
            rule: "rules.toml:r".into(),
            policy: "p".into(),
            monitored: vec![],
        },
    }))
}

fn approval() -> ApprovalId {
    ApprovalId::from_random(5)
}

fn draft(id: u64, quorum: u32) -> Entry {
    Entry::Hold(Arc::new(Draft {
        id: approval(),
        digest: digest(id),
        session: session(1),
        command: CommandId(id),
        target: "shop".into(),
        principal: principal().into(),
        hold: hold(quorum),
        rule: "rules.toml:r".into(),
        policy: "p".into(),
        shown: Shown {
            text: "SELECT 1".into(),
            parameters: vec![],
            context: vec![],
            class: "write".into(),
            effects: vec![],
            objects: vec![],
            proven: true,
            in_transaction: false,
        },
    }))
}

fn vote(who: &str, verdict: Verdict) -> Vote {
    Vote {
        approval: approval(),
        digest: digest(1),
        verdict,
        reason: None,
        window: None,
        reviewer: Reviewer {
            identity: person(who),
            label: who.into(),
            groups: vec!["dba".into()],
            on_call: vec![],
            agent: false,
            also: vec![],
            auth_time: None,
        },
        channel: "cli".into(),
        nonce: None,
        assertion: None,
    }
}

fn counted(vote: Vote) -> Entry {
    Entry::Vote {
        vote,
        refused: None,
    }
}

fn approves(who: &str) -> Entry {
    counted(vote(who, Verdict::Approve))
}

fn settled(state: &str) -> Entry {
    Entry::Settled {
        approval: approval(),
        state: state.into(),
        by: vec![],
        reason: None,
        window: None,
    }
}

fn forward(id: u64) -> Entry {
    Entry::Forward {
        command: CommandId(id),
        approval: approval(),
        digest: digest(id),
    }
}

fn completed(id: u64) -> Entry {
    Entry::Completed {
        commands: vec![CommandId(id)],
        status: "OK".into(),
        failed: false,
        rows: None,
        bytes: 0,
    }
}

fn close(commands: u64) -> Entry {
    Entry::Close(Close {
        reason: "client".into(),
        commands,
        records: 0,
        head: String::new(),
    })
}

fn deny() -> Outcome {
    Outcome::Deny { message: None }
}

fn session(number: u128) -> SessionId {
    SessionId::from_random(number)
}

/// Writes as the recorder does, into memory.
#[derive(Default, Clone)]
struct Journal {
    tracker: Tracker,
    records: Vec<Vec<u8>>,
    clock: u64,
}

impl Journal {
    fn add(&mut self, session: Option<u128>, mut entry: Entry, blob: &[u8]) -> &mut Self {
        let session = session.map(super::tests::session);
        let (session, prev) = self.tracker.place(session.as_ref(), &entry).unwrap();
        if let (Entry::Close(close), Some(id)) = (&mut entry, &session) {
            // Of the commands the test says how many it wants to claim.
            let commands = close.commands;
            self.tracker.complete_close(id, close);
            close.commands = commands;
        }
        let meta = serde_json::to_vec(&entry).unwrap();
        self.clock += 1_000_000;
        let frame = Frame {
            seq: self.tracker.next_seq(),
            session,
            at: Now {
                wall_ns: self.clock,
                mono_ns: self.clock,
            },
            prev,
            meta: &meta,
            blob,
        };
        let mut bytes = Vec::new();
        let leaf = frame.encode(&mut bytes).unwrap();
        self.tracker.push(frame.session.as_ref(), &entry, leaf);
        self.records.push(bytes);
        self
    }

    fn checkpoint(&self) -> Checkpoint {
        let key = NodeKey::new("gw-1", &[1; 32]).unwrap();
        let tree = self.tracker.tree();
        let note = key.sign(tree.size(), tree.root(), 0);
        key.verifier().open(&note).unwrap()
    }

    fn stream(&self) -> Vec<u8> {
        self.records.concat()
    }
}

fn one_session(journal: &mut Journal, number: u128) {
    let s = Some(number);
    journal
        .add(s, open(), b"")
        .add(s, command(1, Outcome::Allow), b"SELECT 1")
        .add(s, Entry::Response, &[7; 300])
        .add(s, completed(1), b"")
        .add(s, command(2, deny()), b"DROP TABLE t")
        .add(s, close(2), b"");
}

fn held_session(journal: &mut Journal) {
    let s = Some(1);
    journal
        .add(s, open(), b"")
        .add(s, command(1, Outcome::Hold(hold(2))), b"DELETE")
        .add(s, draft(1, 2), b"")
        .add(None, approves("rita"), b"")
        .add(None, approves("bob"), b"")
        .add(None, settled("approved"), b"")
        .add(s, forward(1), b"")
        .add(s, completed(1), b"")
        .add(s, close(1), b"");
}

fn sample() -> Journal {
    let mut journal = Journal::default();
    journal.add(None, start(), b"");
    held_session(&mut journal);
    one_session(&mut journal, 2);
    one_session(&mut journal, 3);
    journal.add(None, Entry::Stop { sessions: 3 }, b"");
    journal
}

/// Cuts the bytes as a reader does.
fn verify(mut stream: &[u8], checkpoints: &[Checkpoint]) -> Report {
    let named = checkpoints.iter().map(|c| (c.clone(), "x".into()));
    let mut verifier = Verifier::new(named.collect());
    while !stream.is_empty() && !verifier.is_broken() {
        let place = Place {
            file: "f".into(),
            offset: 0,
        };
        match frame::record_len(stream) {
            Ok(Some(len)) if len <= stream.len() => {
                let (record, rest) = stream.split_at(len);
                verifier.record("f", 0, record);
                stream = rest;
            }
            Ok(None) if stream.iter().all(|byte| *byte == 0) => break,
            _ => verifier.unreadable(place, "cut off".into()),
        }
    }
    verifier.finish()
}

/// Reports errors of a session that has this in its middle.
fn report_of(entries: impl IntoIterator<Item = Entry>) -> Report {
    let mut journal = Journal::default();
    journal.add(None, start(), b"").add(Some(1), open(), b"");
    for entry in entries {
        journal.add(Some(1), entry, b"");
    }
    verify(&journal.stream(), &[journal.checkpoint()])
}

fn told(entries: impl IntoIterator<Item = Entry>) -> Vec<String> {
    let errors = report_of(entries).errors.into_iter();
    errors.map(|e| e.message).collect()
}

fn says(entries: impl IntoIterator<Item = Entry>, what: &str) {
    let messages = told(entries);
    assert!(
        messages.iter().any(|message| message.contains(what)),
        "{what}: {messages:?}"
    );
}

fn held(quorum: u32, rest: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut entries = vec![command(1, Outcome::Hold(hold(quorum))), draft(1, quorum)];
    entries.extend(rest);
    entries
}

#[test]
fn a_journal_that_nobody_touched_is_ok() {
    let journal = sample();
    let report = verify(&journal.stream(), &[journal.checkpoint()]);
    assert_eq!(report.errors, []);
    assert_eq!(report.warnings, []);
    assert!(report.ok && report.open.is_empty());
    assert_eq!(report.counts.sessions, 3);
    assert_eq!(report.counts.commands, 5);
    assert_eq!((report.counts.held, report.counts.approved), (1, 1));
    assert_eq!(report.uncovered, 0);
}

#[test]
fn every_flipped_bit_is_found() {
    let journal = sample();
    let good = journal.stream();
    let checkpoint = [journal.checkpoint()];
    // A stride that is prime to the length visits positions all over.
    let bits = good.len() * 8;
    let mut bit = 0;
    for _ in 0..4_000 {
        bit = (bit + 1_000_003) % bits;
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify(&bad, &checkpoint).ok, "bit {bit}");
    }
}

#[test]
fn dropped_doubled_swapped_and_cut_records_are_found() {
    let journal = sample();
    let checkpoint = [journal.checkpoint()];
    let records = &journal.records;
    let bad = |records: Vec<Vec<u8>>| !verify(&records.concat(), &checkpoint).ok;
    for at in 0..records.len() {
        let mut dropped = records.clone();
        let taken = dropped.remove(at);
        assert!(bad(dropped), "dropped {at}");
        for to in [0, at, records.len()] {
            let mut doubled = records.clone();
            doubled.insert(to, taken.clone());
            assert!(bad(doubled), "doubled {at} at {to}");
        }
        for other in at + 1..records.len() {
            let mut swapped = records.clone();
            swapped.swap(at, other);
            assert!(bad(swapped), "swapped {at} and {other}");
        }
        assert!(bad(records[..at].to_vec()), "cut before {at}");
    }
    let stream = journal.stream();
    // Every byte of the last records, and samples before.
    let last: usize = records.iter().rev().take(3).map(Vec::len).sum();
    let tail = stream.len() - last..stream.len();
    for cut in (0..tail.start).step_by(61).chain(tail) {
        assert!(!verify(&stream[..cut], &checkpoint).ok, "cut at {cut}");
    }
}

#[test]
fn a_copy_of_yesterday_is_found_by_a_checkpoint_of_today() {
    let mut journal = Journal::default();
    journal.add(None, start(), b"");
    one_session(&mut journal, 2);
    let old = journal.clone();
    one_session(&mut journal, 3);
    assert!(verify(&old.stream(), &[old.checkpoint()]).ok);
    let report = verify(&old.stream(), &[journal.checkpoint()]);
    assert_eq!(report.errors[0].kind, Kind::Checkpoint);
    assert!(report.errors[0].message.contains("6 record(s) are missing"));
}

#[test]
fn a_journal_rewritten_with_the_nodes_key_is_found_by_a_checkpoint_kept_elsewhere() {
    let honest = sample();
    let mut rewritten = Journal::default();
    rewritten.add(None, start(), b"");
    one_session(&mut rewritten, 2);
    one_session(&mut rewritten, 3);
    for _ in 0..9 {
        rewritten.add(
            None,
            Entry::Authored {
                to: "client".into(),
            },
            b"",
        );
    }
    rewritten.add(None, Entry::Stop { sessions: 2 }, b"");
    assert!(verify(&rewritten.stream(), &[rewritten.checkpoint()]).ok);
    let report = verify(&rewritten.stream(), &[honest.checkpoint()]);
    assert_eq!(report.errors[0].kind, Kind::Checkpoint);
}

#[test]
fn a_first_bad_record_is_named() {
    let journal = sample();
    let mut records = journal.records.clone();
    let at = records[4].len() - 10;
    records[4][at] ^= 1;
    let report = verify(&records.concat(), &[journal.checkpoint()]);
    assert_eq!(report.errors[0].seq, Some(4));
    assert_eq!(report.errors[0].kind, Kind::Frame);
}

#[test]
fn sessions_need_a_beginning_an_end_and_their_count() {
    let mut journal = Journal::default();
    journal.add(None, start(), b"").add(Some(1), open(), b"");
    assert_eq!(
        verify(&journal.stream(), &[journal.checkpoint()]).open,
        [session(1)]
    );
    let mut stopped = journal.clone();
    stopped.add(None, Entry::Stop { sessions: 1 }, b"");
    let report = verify(&stopped.stream(), &[stopped.checkpoint()]);
    assert!(report.errors[0].message.contains("no close at the stop"));
    let mut crashed = journal.clone();
    crashed.add(None, start(), b"");
    for (session, entry) in crashed.tracker.unfinished("crash") {
        let number = session.map(|_| 1);
        crashed.add(number, entry, b"");
    }
    crashed.add(Some(2), open(), b"");
    assert!(verify(&crashed.stream(), &[crashed.checkpoint()]).ok);
    let mut forgotten = journal.clone();
    forgotten.add(None, start(), b"").add(Some(2), open(), b"");
    let report = verify(&forgotten.stream(), &[forgotten.checkpoint()]);
    assert!(report.errors[0].message.contains("was never closed"));
    says(
        [command(1, Outcome::Allow), close(0)],
        "0 commands, 1 are here",
    );
}

#[test]
fn a_crash_raises_an_alarm_for_what_may_have_run() {
    let mut journal = Journal::default();
    journal.add(None, start(), b"").add(Some(1), open(), b"");
    for entry in held(1, [approves("rita"), settled("approved"), forward(1)]) {
        journal.add(Some(1), entry, b"");
    }
    journal.add(None, start(), b"");
    for (session, entry) in journal.tracker.clone().unfinished("crash") {
        journal.add(session.map(|_| 1), entry, b"");
    }
    let report = verify(&journal.stream(), &[journal.checkpoint()]);
    assert_eq!(report.errors, []);
    assert_eq!(report.unknown.len(), 1);
    assert_eq!(report.unknown[0].approval, Some(approval()));
}

#[test]
fn an_accepted_loss_is_a_warning_and_a_torn_end_a_note() {
    let mut journal = Journal::default();
    journal.add(None, start(), b"");
    for (bytes, reason) in [
        (12, "the record is cut off"),
        (7, "accepted: 3 are missing"),
    ] {
        let reason = reason.to_owned();
        journal.add(None, Entry::Gap { bytes, reason }, b"");
    }
    let report = verify(&journal.stream(), &[journal.checkpoint()]);
    assert!(report.ok);
    let told = |findings: &[Finding]| {
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].place.is_some());
        (findings[0].seq, findings[0].message.clone())
    };
    assert_eq!(
        told(&report.notes),
        (
            Some(1),
            "12 bytes that a crash left were cut off: the record is cut off".into()
        )
    );
    assert_eq!(
        told(&report.warnings),
        (
            Some(2),
            "a loss was accepted, 7 bytes: 3 are missing".into()
        )
    );
    assert_eq!((report.counts.gaps, report.note_count), (2, 1));
}

#[test]
fn a_forward_needs_its_approval() {
    assert_eq!(
        told(held(
            1,
            [
                approves("rita"),
                settled("approved"),
                forward(1),
                completed(1)
            ]
        )),
        [""; 0]
    );
    says(held(1, [forward(1)]), "before approval");
    says(held(1, [approves("rita"), forward(1)]), "before approval");
    says(held(1, [completed(1)]), "without a recorded forward");
    says([command(1, deny()), completed(1)], "was denied");
    says([command(1, deny()), forward(1)], "was denied");
    says(
        [command(1, Outcome::Allow), forward(1)],
        "needed no approval",
    );
    says(
        held(2, [approves("rita"), settled("approved")]),
        "1 of 2 people",
    );
    says(
        held(2, [approves("rita"), approves("rita"), settled("approved")]),
        "1 of 2 people",
    );
    let mut alias = vote("rita-admin", Verdict::Approve);
    alias.reviewer.also = vec![person("rita")];
    says(
        held(2, [approves("rita"), counted(alias), settled("approved")]),
        "1 of 2 people",
    );
    says(
        held(
            1,
            [
                counted(vote("rita", Verdict::Deny)),
                approves("bob"),
                settled("approved"),
            ],
        ),
        "after a denial",
    );
    let once = [
        approves("rita"),
        settled("approved"),
        forward(1),
        completed(1),
    ];
    says(held(1, once.into_iter().chain([forward(1)])), "second time");
    let denied = [settled("denied"), settled("approved")];
    says(held(1, denied), "was not pending");
    let forwarded = [approves("rita"), settled("approved"), forward(1), close(1)];
    says(held(1, forwarded), "neither completed nor unknown");
}

#[test]
fn a_vote_counts_only_from_those_who_may() {
    says(held(1, [approves("agent")]), "a request of their own");
    says(held(1, [approves("olga")]), "a request of their own");
    let mut agent = vote("bot", Verdict::Approve);
    agent.reviewer.agent = true;
    says(held(1, [counted(agent)]), "is an agent");
    let mut stranger = vote("eve", Verdict::Approve);
    stranger.reviewer.groups = vec!["sales".into()];
    says(held(1, [counted(stranger)]), "not among the reviewers");
    let mut other = vote("rita", Verdict::Approve);
    other.digest = digest(9);
    says(held(1, [counted(other)]), "for another command");
    let mut lowered = held(1, []);
    lowered[0] = command(1, Outcome::Hold(hold(2)));
    says(lowered, "other reviewers than the decision");
    let refused = Entry::Vote {
        vote: vote("olga", Verdict::Approve),
        refused: Some("own".into()),
    };
    assert_eq!(told(held(1, [refused])), [""; 0]);
}

#[test]
fn an_entry_of_a_newer_version_is_chained_and_remarked() {
    let mut journal = sample();
    let meta = br#"{"from_the_future":{}}"#;
    let (_, prev) = journal.tracker.place(None, &Entry::Passed).unwrap();
    let mut bytes = Vec::new();
    journal.records.pop();
    let frame = Frame {
        seq: journal.records.len() as u64,
        session: None,
        at: Now {
            wall_ns: 0,
            mono_ns: 0,
        },
        prev,
        meta,
        blob: b"",
    };
    frame.encode(&mut bytes).unwrap();
    journal.records.push(bytes);
    let report = verify(&journal.stream(), &[]);
    assert_eq!(report.warnings[0].kind, Kind::Newer);
}

mod handover;
mod rules;
mod step_up;
