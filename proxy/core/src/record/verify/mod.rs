//! Checks a journal: record by record, in one pass, with memory for what is open.
//!
//! The caller reads records and hands them in; this relies on nothing that the
//! writer left beside them. It proves that the records are the ones that the
//! checkpoints were signed over, that no session lost a record, and that
//! whatever went forward under an approval had one. It cannot see what happened
//! after the last checkpoint that somebody kept: that is what checkpoints are sent elsewhere for.

mod commands;
mod keys;
mod known;
mod linkage;
mod report;

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::frame::{self, Frame};
use super::tracker::NO_PREV;
use super::tree::Tree;
use super::{ACCEPTED, Entry};
use crate::id::{Digest, SessionId};
use commands::Commands;
use linkage::{Approvals, Claim};

pub use report::{Alarm, Counts, Finding, Kind, Place, Report, TakenOver, Unreviewed};

/// A wall clock may be stepped by this much without remark.
const WALL_SLACK_NS: u64 = 5_000_000_000;
/// A heartbeat is due each minute.
const HEARTBEAT_SECONDS: u64 = 150;

/// Feed it every record in order, then ask for the [`Report`].
pub struct Verifier {
    /// By size; each with where it comes from.
    checkpoints: Vec<(Checkpoint, String)>,
    next_checkpoint: usize,
    tree: Tree,
    node: Digest,
    /// As its last start says.
    node_name: String,
    sessions: BTreeMap<SessionId, Session>,
    approvals: Approvals,
    process: Process,
    /// Nothing after the first unreadable record means anything.
    broken: bool,
    report: Report,
}

struct Session {
    head: Digest,
    records: u64,
    wall_ns: u64,
    mono_ns: u64,
    /// The process that opened it.
    process: u64,
    commands: Commands,
}

#[derive(Default)]
struct Process {
    number: u64,
    stopped: bool,
    /// Number of the last start record.
    started_at: u64,
    /// The former process's sessions were all closed, or complained of.
    settled: bool,
}

impl Verifier {
    /// `checkpoints`: those whose signatures are good, each with a name for messages.
    pub fn new(mut checkpoints: Vec<(Checkpoint, String)>) -> Self {
        checkpoints.sort_by_key(|(checkpoint, _)| (checkpoint.size, checkpoint.time));
        let mut verifier = Self {
            checkpoints,
            next_checkpoint: 0,
            tree: Tree::default(),
            node: NO_PREV,
            node_name: String::new(),
            sessions: BTreeMap::new(),
            approvals: Approvals::default(),
            process: Process {
                settled: true,
                ..Process::default()
            },
            broken: false,
            report: Report::new(),
        };
        verifier.check_checkpoints();
        verifier
    }

    /// True once the rest cannot be checked; the report says why.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Number of records taken so far.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The reader met bytes that are no record.
    pub fn unreadable(&mut self, place: Place, why: String) {
        self.broken = true;
        let seq = Some(self.tree.size());
        self.fail(Kind::Frame, why, Some(place), seq, None);
    }

    /// The reader met the beginning of a record at the end, that no checkpoint covers.
    /// A crash leaves it, and the next start cuts it off.
    pub fn unfinished(&mut self, place: Place, why: &str) {
        self.report.warn(Finding {
            kind: Kind::Frame,
            message: format!(
                "an unfinished record, as a crash leaves it ({why}); starting the gateway repairs it"
            ),
            place: Some(place),
            seq: Some(self.tree.size()),
            session: None,
        });
    }

    /// Whether what stands behind the last record may be what a crash left: no
    /// checkpoint covers it, and the process did not end in order.
    pub fn may_be_unfinished(&self) -> bool {
        let covered = self
            .checkpoints
            .last()
            .is_none_or(|(checkpoint, _)| checkpoint.size > self.tree.size());
        !covered && !self.process.stopped && !self.broken
    }

    /// A finding that is not about a record, such as a bad signature.
    pub fn other(&mut self, kind: Kind, message: String) {
        self.fail(kind, message, None, None, None);
    }

    pub fn remark(&mut self, kind: Kind, message: String) {
        self.report.warn(Finding {
            kind,
            message,
            place: None,
            seq: None,
            session: None,
        });
    }

    /// Takes the next record's bytes.
    pub fn record(&mut self, file: &str, offset: u64, bytes: &[u8]) {
        if self.broken {
            return;
        }
        let place = || Place {
            file: file.to_owned(),
            offset,
        };
        let frame = match frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.unreadable(place(), error.to_string()),
        };
        let expected = self.tree.size();
        if frame.seq != expected {
            self.broken = true;
            let message = match frame.seq.checked_sub(expected) {
                Some(missing) => format!("{missing} record(s) are missing before this one"),
                None => format!("record {} stands where {expected} should", frame.seq),
            };
            return self.fail(
                Kind::Sequence,
                message,
                Some(place()),
                Some(expected),
                frame.session.clone(),
            );
        }
        let leaf = frame::leaf_hash(bytes);
        self.tree.push(leaf);
        self.report.counts.bytes += bytes.len() as u64;
        self.report.first_ns.get_or_insert(frame.at.wall_ns);
        self.report.last_ns = Some(frame.at.wall_ns);
        for (kind, message) in self.check(&frame, (file, offset), leaf) {
            self.fail(
                kind,
                message,
                Some(place()),
                Some(frame.seq),
                frame.session.clone(),
            );
        }
        self.check_checkpoints();
    }

    pub fn finish(mut self) -> Report {
        let size = self.tree.size();
        self.report.counts.records = size;
        self.report.root = self.tree.root();
        if !self.broken {
            let missing: Vec<_> = self.checkpoints.drain(self.next_checkpoint..).collect();
            for (checkpoint, from) in missing {
                let message = format!(
                    "{} record(s) are missing at the end: the journal has {size}, the checkpoint {from} was signed over {}",
                    checkpoint.size - size,
                    checkpoint.size
                );
                self.fail(Kind::Checkpoint, message, None, Some(size), None);
            }
        }
        let covered = self
            .checkpoints
            .get(..self.next_checkpoint)
            .and_then(<[_]>::last)
            .map_or(0, |(checkpoint, _)| checkpoint.size);
        self.report.uncovered = size.saturating_sub(covered);
        self.report.await_review(self.approvals.unreviewed());
        self.report.open = self.sessions.into_keys().collect();
        self.report
    }

    fn fail(
        &mut self,
        kind: Kind,
        message: String,
        place: Option<Place>,
        seq: Option<u64>,
        session: Option<SessionId>,
    ) {
        self.report.error(Finding {
            kind,
            message,
            place,
            seq,
            session,
        });
    }

    /// Compares the tree with each checkpoint of exactly its present size.
    fn check_checkpoints(&mut self) {
        let size = self.tree.size();
        while let Some((checkpoint, from)) = self.checkpoints.get(self.next_checkpoint)
            && checkpoint.size == size
        {
            self.report.counts.checkpoints += 1;
            let time = checkpoint.time;
            if checkpoint.root != self.tree.root() {
                let message = format!(
                    "the first {size} records are not those that checkpoint {from} was signed over"
                );
                self.fail(Kind::Checkpoint, message, None, Some(size), None);
            }
            let before = self.next_checkpoint.checked_sub(1);
            if let Some((before, _)) = before.map(|at| &self.checkpoints[at])
                && let (Some(a), Some(b)) = (before.time, time)
                && b.saturating_sub(a) > HEARTBEAT_SECONDS
                && self.process.started_at < before.size
            {
                let message = format!(
                    "no checkpoint was signed for {} s before record {size}, where one is due each minute",
                    b - a
                );
                self.remark(Kind::Checkpoint, message);
            }
            self.next_checkpoint += 1;
        }
    }

    fn check(
        &mut self,
        frame: &Frame<'_>,
        place: (&str, u64),
        leaf: Digest,
    ) -> Vec<(Kind, String)> {
        let mut found = Vec::new();
        let entry = match frame.entry() {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.remark(Kind::Newer, format!("record {}: {error}", frame.seq));
                None
            }
        };
        self.check_process(frame, place, entry.as_ref(), &mut found);
        match &frame.session {
            None => {
                if frame.prev != self.node {
                    found.push((
                        Kind::Chain,
                        "the record does not follow the node's last one".into(),
                    ));
                }
                self.node = leaf;
                if let Some(entry) = &entry {
                    found.extend(self.check_approval(frame, entry));
                }
            }
            Some(id) => self.check_session(id, frame, entry.as_ref(), leaf, &mut found),
        }
        found
    }

    fn check_process(
        &mut self,
        frame: &Frame<'_>,
        place: (&str, u64),
        entry: Option<&Entry>,
        found: &mut Vec<(Kind, String)>,
    ) {
        match entry {
            Some(Entry::Start(start)) => {
                self.node_name.clone_from(&start.node);
                self.process.number += 1;
                self.process.stopped = false;
                self.process.started_at = frame.seq;
                self.process.settled = false;
                self.report.counts.processes += 1;
                return;
            }
            _ if self.process.number == 0 => {
                found.push((
                    Kind::Process,
                    "the journal does not begin with a start".into(),
                ));
                // Said once.
                self.process.number = 1;
            }
            _ if self.process.stopped => {
                found.push((Kind::Process, "a record follows the stop".into()));
                self.process.stopped = false;
            }
            _ => {}
        }
        match entry {
            Some(Entry::Stop { .. }) => {
                self.process.stopped = true;
                if let Some(id) = self.sessions.keys().next() {
                    found.push((
                        Kind::Session,
                        format!("session {id} has no close at the stop"),
                    ));
                }
            }
            Some(Entry::Gap { bytes, reason }) => self.gap(frame.seq, place, *bytes, reason),
            // What a start writes about its predecessor.
            Some(Entry::Unknown { .. } | Entry::Settled { .. } | Entry::Close(_)) => {}
            _ if !self.process.settled => {
                self.process.settled = true;
                let left = self.sessions.iter().find(|(id, session)| {
                    session.process != self.process.number && frame.session.as_ref() != Some(id)
                });
                if let Some((id, _)) = left {
                    found.push((
                        Kind::Session,
                        format!("session {id} of a former process was never closed"),
                    ));
                }
            }
            _ => {}
        }
    }

    /// What is not here, by the journal's own word.
    fn gap(&mut self, seq: u64, (file, offset): (&str, u64), bytes: u64, reason: &str) {
        self.report.counts.gaps += 1;
        let accepted = reason.strip_prefix(ACCEPTED);
        let message = match (accepted, bytes) {
            (Some(loss), 0) => format!("a loss was accepted: {loss}"),
            (Some(loss), _) => format!("a loss was accepted, {bytes} bytes: {loss}"),
            (None, 0) => reason.to_owned(),
            (None, _) => format!("{bytes} bytes that a crash left were cut off: {reason}"),
        };
        let finding = Finding {
            kind: Kind::Gap,
            message,
            place: Some(Place {
                file: file.to_owned(),
                offset,
            }),
            seq: Some(seq),
            session: None,
        };
        match accepted {
            Some(_) => self.report.warn(finding),
            None => self.report.note(finding),
        }
    }

    fn check_session(
        &mut self,
        id: &SessionId,
        frame: &Frame<'_>,
        entry: Option<&Entry>,
        leaf: Digest,
        found: &mut Vec<(Kind, String)>,
    ) {
        if let Some(Entry::Open(open)) = entry {
            self.report.counts.sessions += 1;
            if frame.prev != NO_PREV {
                found.push((
                    Kind::Chain,
                    "the session's first record follows another".into(),
                ));
            }
            let session = Session {
                head: leaf,
                records: 1,
                wall_ns: frame.at.wall_ns,
                mono_ns: frame.at.mono_ns,
                process: self.process.number,
                commands: Commands::new(&open.principal),
            };
            if self.sessions.insert(id.clone(), session).is_some() {
                found.push((Kind::Session, "the session was opened twice".into()));
            }
            return;
        }
        let Some(session) = self.sessions.get_mut(id) else {
            found.push((
                Kind::Session,
                "the record belongs to a session that is not open".into(),
            ));
            return;
        };
        if frame.prev != session.head {
            found.push((
                Kind::Chain,
                "the record does not follow its session's last one".into(),
            ));
        }
        if let Some(Entry::Close(close)) = entry {
            if close.records != session.records || close.head != session.head.to_string() {
                found.push((
                    Kind::Session,
                    format!(
                        "the session's close speaks of {} records, {} are here",
                        close.records, session.records
                    ),
                ));
            }
            if close.commands != session.commands.count() {
                found.push((
                    Kind::Session,
                    format!(
                        "the session's close speaks of {} commands, {} are here",
                        close.commands,
                        session.commands.count()
                    ),
                ));
            }
            if let Err(message) = session.commands.closed() {
                found.push((Kind::Approval, message));
            }
            self.sessions.remove(id);
            return;
        }
        session.head = leaf;
        session.records += 1;
        let (wall, mono) = (session.wall_ns, session.mono_ns);
        session.wall_ns = frame.at.wall_ns;
        session.mono_ns = frame.at.mono_ns;
        let same_process = session.process == self.process.number;
        let back = frame.at.wall_ns.saturating_add(WALL_SLACK_NS) < wall
            || (same_process && frame.at.mono_ns.saturating_add(WALL_SLACK_NS) < mono);
        if back {
            self.report.warn(Finding {
                kind: Kind::Clock,
                message: "a clock went back since the session's last record".into(),
                place: None,
                seq: Some(frame.seq),
                session: Some(id.clone()),
            });
        }
        if let Some(entry) = entry {
            found.extend(self.check_approval(frame, entry));
        }
    }

    /// Checks what the entry claims against what was decided before.
    fn check_approval(&mut self, frame: &Frame<'_>, entry: &Entry) -> Option<(Kind, String)> {
        let at = (self.process.number, frame.at.mono_ns);
        let unix = frame.at.unix();
        let id = frame.session.as_ref();
        let counts = &mut self.report.counts;
        let mut commands = id
            .and_then(|id| self.sessions.get_mut(id))
            .map(|session| &mut session.commands);
        let checked = match (entry, &mut commands) {
            (Entry::Command(command), Some(commands)) => {
                counts.commands += 1;
                commands.command(command)
            }
            (Entry::Hold(draft), Some(commands)) => {
                counts.held += 1;
                self.approvals.hold(draft, commands, at)
            }
            (Entry::Vote { vote, refused }, _) => {
                counts.votes += 1;
                match refused {
                    None => self.approvals.vote(vote, at, unix),
                    Some(_) => Ok(()),
                }
            }
            (
                Entry::Settled {
                    approval,
                    state,
                    by,
                    window,
                    ..
                },
                _,
            ) => self
                .approvals
                .settled(approval, state, by, window.as_ref(), at),
            (Entry::Escalated { approval, step }, _) => {
                self.approvals.escalated(approval, *step, at)
            }
            (Entry::Justified { approval, by, .. }, _) => self.approvals.justified(approval, by),
            (
                Entry::BreakGlass {
                    glass,
                    refused: None,
                },
                _,
            ) => self.approvals.glass(glass, frame.seq, unix),
            (Entry::Reviewed { approval, by, .. }, _) => self.approvals.reviewed(approval, by),
            (
                Entry::Claimed {
                    approval,
                    command,
                    digest,
                    number,
                },
                Some(commands),
            ) => {
                let claim = Claim {
                    approval,
                    command: *command,
                    digest,
                    number: *number,
                };
                match id {
                    Some(id) => self.approvals.claimed(&claim, id, commands, at),
                    None => Err("the record must belong to a session".into()),
                }
            }
            (
                Entry::KeyAdded {
                    by,
                    credential,
                    counter,
                    ..
                },
                _,
            ) => self.approvals.keys.added(by, credential, *counter),
            (Entry::KeyRemoved { by, id }, _) => self.approvals.keys.removed(by, id),
            (Entry::WindowEnded { approval, .. }, _) => self.approvals.window_ended(approval),
            (Entry::Given { word }, _) => self.approvals.given(word, at),
            (Entry::Taken(taken), Some(commands)) => match id {
                Some(id) => {
                    self.report.take(TakenOver {
                        seq: frame.seq,
                        approval: taken.word.approval.clone(),
                        from: taken.from.clone(),
                        key: taken.key.clone(),
                        window: taken.word.window,
                    });
                    (self.approvals).taken(taken, (&self.node_name, id), commands, at)
                }
                None => Err("the record must belong to a session".into()),
            },
            (
                Entry::Forward {
                    command,
                    approval,
                    digest,
                },
                Some(commands),
            ) => {
                counts.approved += 1;
                self.approvals.forward(*command, approval, digest, commands)
            }
            (Entry::Refused { command, .. }, Some(commands)) => {
                commands.refused(*command);
                Ok(())
            }
            (
                Entry::Completed {
                    commands: ended, ..
                },
                Some(commands),
            ) => commands.completed(ended),
            (Entry::Unknown { command, approval }, Some(commands)) => {
                self.report.alarm(Alarm {
                    seq: frame.seq,
                    session: id.cloned(),
                    command: *command,
                    approval: approval.clone(),
                });
                commands.unknown(*command)
            }
            (
                Entry::Command(_)
                | Entry::Hold(_)
                | Entry::Forward { .. }
                | Entry::Claimed { .. }
                | Entry::Taken(_)
                | Entry::Refused { .. }
                | Entry::Completed { .. }
                | Entry::Unknown { .. },
                None,
            ) => Err("the record must belong to a session".into()),
            _ => Ok(()),
        };
        checked.err().map(|message| (Kind::Approval, message))
    }
}

#[cfg(test)]
mod tests;
