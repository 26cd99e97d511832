//! What a verification found, for people and for machines.

use serde::Serialize;

use crate::id::{ApprovalId, CommandId, Digest, SessionId};

/// Findings that are kept; the rest is only counted.
const KEPT: usize = 200;

/// Where a record lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The segment's file name.
    pub file: String,
    /// Of the record's first byte.
    pub offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The bytes are not records, or not those that were written.
    Frame,
    /// A record is missing, doubled or out of order.
    Sequence,
    /// A session's records do not follow each other.
    Chain,
    /// A session has no beginning, no end, or another number of records than its end says.
    Session,
    /// The records are not those that a checkpoint was signed over, or fewer.
    Checkpoint,
    /// A command went forward, or ended, without what its decision asked for.
    Approval,
    /// The process's own records are out of order.
    Process,
    Clock,
    /// Something is not here, and the journal says so itself.
    Gap,
    /// Not understood by this version; chained and checked all the same.
    Newer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// A forwarded command whose end nobody saw. Not a fault of the record: somebody must look at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    pub seq: u64,
    pub session: Option<SessionId>,
    pub command: CommandId,
    pub approval: Option<ApprovalId>,
}

/// A command that went by a broken glass and that nobody else has looked into. Not a fault of
/// the record: somebody must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreviewed {
    pub seq: u64,
    pub approval: ApprovalId,
    pub by: String,
    pub reason: String,
    /// Unix seconds.
    pub at: u64,
}

/// A command that ran under an approval of another node. Its votes are in that node's journal,
/// under the signature of this key: compare it with that node's `journal.pub`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenOver {
    pub seq: u64,
    pub approval: ApprovalId,
    pub from: String,
    pub key: String,
    /// Which use of its window; otherwise the approval's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub records: u64,
    /// Of all records.
    pub bytes: u64,
    pub sessions: u64,
    pub commands: u64,
    pub held: u64,
    /// Forwarded under an approval.
    pub approved: u64,
    pub votes: u64,
    pub processes: u64,
    /// Torn tails that were cut back after a crash, times without space, losses that were accepted.
    pub gaps: u64,
    pub checkpoints: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// No errors. Warnings and alarms do not count.
    pub ok: bool,
    /// In the order of the journal: the first names the first bad record.
    pub errors: Vec<Finding>,
    pub error_count: u64,
    pub warnings: Vec<Finding>,
    pub warning_count: u64,
    /// What a crash or a full disk explains. In the order of the journal.
    pub notes: Vec<Finding>,
    pub note_count: u64,
    pub unknown: Vec<Alarm>,
    pub unknown_count: u64,
    /// In the order of the journal.
    pub unreviewed: Vec<Unreviewed>,
    pub unreviewed_count: u64,
    /// In the order of the journal.
    pub taken: Vec<TakenOver>,
    pub taken_count: u64,
    /// Sessions without an end where no later process should have closed them.
    pub open: Vec<SessionId>,
    pub counts: Counts,
    /// The tree's root over all records.
    pub root: Digest,
    /// Records at the end that no checkpoint covers yet.
    pub uncovered: u64,
    /// Wall clock of the first and the last record, Unix nanoseconds.
    pub first_ns: Option<u64>,
    pub last_ns: Option<u64>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            ok: true,
            errors: Vec::new(),
            error_count: 0,
            warnings: Vec::new(),
            warning_count: 0,
            notes: Vec::new(),
            note_count: 0,
            unknown: Vec::new(),
            unknown_count: 0,
            unreviewed: Vec::new(),
            unreviewed_count: 0,
            taken: Vec::new(),
            taken_count: 0,
            open: Vec::new(),
            counts: Counts::default(),
            root: Digest::of(b""),
            uncovered: 0,
            first_ns: None,
            last_ns: None,
        }
    }

    pub(super) fn error(&mut self, finding: Finding) {
        self.ok = false;
        self.error_count += 1;
        if self.errors.len() < KEPT {
            self.errors.push(finding);
        }
    }

    pub(super) fn warn(&mut self, finding: Finding) {
        self.warning_count += 1;
        if self.warnings.len() < KEPT {
            self.warnings.push(finding);
        }
    }

    pub(super) fn note(&mut self, finding: Finding) {
        self.note_count += 1;
        if self.notes.len() < KEPT {
            self.notes.push(finding);
        }
    }

    pub(super) fn await_review(&mut self, mut open: Vec<Unreviewed>) {
        open.sort_by_key(|one| one.seq);
        self.unreviewed_count = open.len() as u64;
        open.truncate(KEPT);
        self.unreviewed = open;
    }

    pub(super) fn take(&mut self, taken: TakenOver) {
        self.taken_count += 1;
        if self.taken.len() < KEPT {
            self.taken.push(taken);
        }
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        self.unknown_count += 1;
        if self.unknown.len() < KEPT {
            self.unknown.push(alarm);
        }
    }
}
