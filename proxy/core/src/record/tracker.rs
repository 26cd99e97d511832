//! What the writer must remember of a journal to continue it: the next
//! sequence number, the tree, each chain's end, and what is unfinished.
//!
//! After a crash the same value is rebuilt from the records that are left, and
//! [`Tracker::unfinished`] tells what to write so that nothing stays open.
//! Memory is bounded by open sessions, approvals and reviews, not by the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::frame::Frame;
use super::tree::Tree;
use super::{Close, Entry};
use crate::approval::{BreakGlass, Draft};
use crate::decision::Outcome;
use crate::id::{ApprovalId, CommandId, Digest, SessionId};

/// `prev` of the first record of a chain.
pub const NO_PREV: Digest = Digest([0; 32]);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracker {
    tree: Tree,
    /// Leaf hash of the last record that belongs to no session.
    node: Digest,
    sessions: BTreeMap<SessionId, Session>,
    /// Approvals that are pending, or approved and unused; with what may be needed later
    /// where somebody may break the glass.
    approvals: BTreeMap<ApprovalId, Option<Arc<Draft>>>,
    /// Nobody has looked into these yet.
    reviews: BTreeMap<ApprovalId, OpenReview>,
}

/// A command that went by a broken glass, until somebody else has looked into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReview {
    pub draft: Arc<Draft>,
    pub glass: BreakGlass,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    head: Digest,
    records: u64,
    commands: u64,
    /// Commands that may have reached the target and have no end yet.
    sent: BTreeMap<CommandId, Option<ApprovalId>>,
}

/// A record that does not belong where it is put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    #[error("session {0} is not open in this journal")]
    NotOpen(SessionId),
    #[error("session {0} is open already")]
    Reopened(SessionId),
    #[error("an `open` or `close` record needs a session")]
    NoSession,
    #[error("record {expected} should stand here, not {found}")]
    Sequence { expected: u64, found: u64 },
    #[error("the record does not continue its chain: another record stood before it")]
    Chain,
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            tree: Tree::default(),
            node: NO_PREV,
            sessions: BTreeMap::new(),
            approvals: BTreeMap::new(),
            reviews: BTreeMap::new(),
        }
    }
}

impl Tracker {
    pub fn next_seq(&self) -> u64 {
        self.tree.size()
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn open_sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.sessions.keys()
    }

    /// What is still to be looked into, of this process and those before it.
    pub fn open_reviews(&self) -> impl Iterator<Item = &OpenReview> {
        self.reviews.values()
    }

    /// The chain that the record joins, and where that chain ends now.
    ///
    /// What concerns an approval may outlive the session that asked for it: such
    /// a record of a session that is over joins the node's own chain.
    pub fn place(
        &self,
        session: Option<&SessionId>,
        entry: &Entry,
    ) -> Result<(Option<SessionId>, Digest), TrackError> {
        let Some(id) = session else {
            return match entry {
                Entry::Open(_) | Entry::Close(_) => Err(TrackError::NoSession),
                _ => Ok((None, self.node)),
            };
        };
        match (self.sessions.get(id), entry) {
            (None, Entry::Open(_)) => Ok((Some(id.clone()), NO_PREV)),
            (Some(_), Entry::Open(_)) => Err(TrackError::Reopened(id.clone())),
            (Some(session), _) => Ok((Some(id.clone()), session.head)),
            (None, entry) if entry.approval().is_some() => Ok((None, self.node)),
            (None, _) => Err(TrackError::NotOpen(id.clone())),
        }
    }

    /// Fills in what only the writer knows. Commands are those that are here: one
    /// that a full disk refused is not, and the session that ends over it cannot tell.
    pub fn complete_close(&self, session: &SessionId, close: &mut Close) {
        if let Some(session) = self.sessions.get(session) {
            close.commands = session.commands;
            close.records = session.records;
            close.head = session.head.to_string();
        }
    }

    /// Takes note of a record that was encoded for the place that [`Tracker::place`] gave.
    pub fn push(&mut self, session: Option<&SessionId>, entry: &Entry, leaf: Digest) {
        self.extend(session, leaf, matches!(entry, Entry::Close(_)));
        self.note(session, entry);
    }

    /// Takes over a record that was read back.
    pub fn accept(&mut self, frame: &Frame<'_>, leaf: Digest) -> Result<(), TrackError> {
        if frame.seq != self.next_seq() {
            return Err(TrackError::Sequence {
                expected: self.next_seq(),
                found: frame.seq,
            });
        }
        // What a newer version wrote is chained all the same.
        let entry = frame.entry().ok();
        let prev = match (&frame.session, &entry) {
            (None, _) => self.node,
            (Some(id), Some(entry)) => match self.place(Some(id), entry)? {
                (Some(_), prev) => prev,
                (None, _) => return Err(TrackError::NotOpen(id.clone())),
            },
            (Some(id), None) => {
                self.sessions
                    .get(id)
                    .ok_or_else(|| TrackError::NotOpen(id.clone()))?
                    .head
            }
        };
        if frame.prev != prev {
            return Err(TrackError::Chain);
        }
        let closes = matches!(entry, Some(Entry::Close(_)));
        self.extend(frame.session.as_ref(), leaf, closes);
        if let Some(entry) = &entry {
            self.note(frame.session.as_ref(), entry);
        }
        Ok(())
    }

    /// What must be written so that nothing stays open: alarms for commands whose
    /// end was not seen, approvals that no one can use any more, closed sessions.
    pub fn unfinished(&self, reason: &str) -> Vec<(Option<SessionId>, Entry)> {
        let mut out = Vec::new();
        for approval in self.approvals.keys() {
            let settled = Entry::Settled {
                approval: approval.clone(),
                state: "orphaned".into(),
                by: Vec::new(),
                reason: Some(format!("the gateway ended ({reason})")),
                window: None,
            };
            out.push((None, settled));
        }
        for (id, session) in &self.sessions {
            for (command, approval) in &session.sent {
                let unknown = Entry::Unknown {
                    command: *command,
                    approval: approval.clone(),
                };
                out.push((Some(id.clone()), unknown));
            }
            let close = Close {
                reason: reason.to_owned(),
                commands: session.commands,
                records: 0,
                head: String::new(),
            };
            out.push((Some(id.clone()), Entry::Close(close)));
        }
        out
    }

    fn extend(&mut self, session: Option<&SessionId>, leaf: Digest, closes: bool) {
        self.tree.push(leaf);
        match session {
            None => self.node = leaf,
            Some(id) if closes => {
                self.sessions.remove(id);
            }
            Some(id) => {
                let session = self.sessions.entry(id.clone()).or_insert(Session {
                    head: NO_PREV,
                    records: 0,
                    commands: 0,
                    sent: BTreeMap::new(),
                });
                session.head = leaf;
                session.records += 1;
            }
        }
    }

    fn note(&mut self, session: Option<&SessionId>, entry: &Entry) {
        match entry {
            Entry::Hold(draft) => {
                let kept = !draft.hold.break_glass.is_empty();
                let kept = kept.then(|| Arc::clone(draft));
                self.approvals.insert(draft.id.clone(), kept);
            }
            Entry::BreakGlass {
                glass,
                refused: None,
            } => {
                let draft = self.approvals.get(&glass.approval);
                if let Some(Some(draft)) = draft {
                    let review = OpenReview {
                        draft: Arc::clone(draft),
                        glass: (**glass).clone(),
                    };
                    self.reviews.insert(glass.approval.clone(), review);
                }
            }
            Entry::Reviewed { approval, .. } => {
                self.reviews.remove(approval);
            }
            Entry::Settled {
                approval, state, ..
            } if state != "approved" => {
                self.approvals.remove(approval);
            }
            Entry::Forward { approval, .. } => {
                self.approvals.remove(approval);
            }
            // A use of a window leaves the approval's own as it was.
            Entry::Given { word } if word.window.is_some() => {}
            Entry::Taken(taken) if taken.word.window.is_some() => {}
            Entry::Given { word } => {
                self.approvals.remove(&word.approval);
            }
            Entry::Taken(taken) => {
                self.approvals.insert(taken.word.approval.clone(), None);
            }
            _ => {}
        }
        let Some(session) = session.and_then(|id| self.sessions.get_mut(id)) else {
            return;
        };
        match entry {
            Entry::Command(command) => {
                session.commands += 1;
                if command.decision.outcome == Outcome::Allow {
                    session.sent.insert(command.id, None);
                }
            }
            Entry::Forward {
                command, approval, ..
            } => {
                session.sent.insert(*command, Some(approval.clone()));
            }
            Entry::Refused { command, .. } | Entry::Unknown { command, .. } => {
                session.sent.remove(command);
            }
            Entry::Completed { commands, .. } => {
                for command in commands {
                    session.sent.remove(command);
                }
            }
            _ => {}
        }
    }
}
