//! Records on their way, and what may happen once each is safe.
//!
//! They are answered in the order in which they were asked for, whatever their
//! durability, so that bytes for the client keep their order too.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use holdpoint_core::record::{Durability, Entry, NewRecord};

use super::Session;
use super::line::Chunk;
use super::parts::{Ledger, LedgerError, Ticket};
use crate::upstream::Unjudged;

/// What waits for a record.
pub(super) enum After {
    /// The gate waits for it.
    Gate,
    /// Bytes for the client, who is known to stand between two frames once it has
    /// them where they are `whole`.
    Client {
        bytes: Bytes,
        whole: bool,
    },
    /// Frames of the client that need no permit.
    Pass(Unjudged),
    Nothing,
}

struct Pending {
    /// Absent until the record is handed over.
    ticket: Option<Ticket>,
    after: After,
}

/// Bytes for the client that are not recorded yet.
pub(super) enum Outgoing {
    Response(Chunk),
    Authored(Bytes),
}

#[derive(Default)]
pub(super) struct Journal {
    /// The session's first record is safe, so others may follow.
    pub(super) opened: bool,
    /// What one turn of the session has to say, written together at its end.
    asked: Vec<(NewRecord, Durability)>,
    pending: VecDeque<Pending>,
    /// Records that the gate waits for.
    gate: usize,
    /// Bytes that wait for the client.
    bytes: usize,
    mid_frame: bool,
    outgoing: Vec<Outgoing>,
    /// Authored bytes that wait for the end of the frame that is passing.
    deferred: Vec<Bytes>,
}

impl Journal {
    pub(super) fn ask(&mut self, record: NewRecord, durability: Durability, after: After) {
        match &after {
            After::Gate => self.gate += 1,
            After::Client { bytes, .. } => self.bytes += bytes.len(),
            After::Pass(_) | After::Nothing => {}
        }
        self.asked.push((record, durability));
        self.pending.push_back(Pending {
            ticket: None,
            after,
        });
    }

    /// Gives the ledger what was asked for. Before anyone waits.
    pub(super) fn hand_over(&mut self, ledger: &dyn Ledger) {
        if self.asked.is_empty() {
            return;
        }
        let first = self.pending.len() - self.asked.len();
        let mut waiting = self.pending.range_mut(first..);
        ledger.submit_all(&mut self.asked, &mut |ticket| {
            if let Some(pending) = waiting.next() {
                pending.ticket = Some(ticket);
            }
        });
    }

    /// Gives memory back that it has no use for while nothing happens.
    pub(super) fn rest(&mut self) {
        self.asked.shrink_to_fit();
        self.pending.shrink_to_fit();
        self.outgoing.shrink_to_fit();
        self.deferred.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes for the client that wait for their records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest record's answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<After, LedgerError>> {
        let Some(ticket) = self
            .pending
            .front_mut()
            .and_then(|first| first.ticket.as_mut())
        else {
            return Poll::Pending;
        };
        let answer = match Pin::new(ticket).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(answer) => answer,
        };
        let Some(Pending { after, .. }) = self.pending.pop_front() else {
            return Poll::Pending;
        };
        match &after {
            After::Gate => self.gate -= 1,
            After::Client { bytes, .. } => self.bytes -= bytes.len(),
            After::Pass(_) | After::Nothing => {}
        }
        if let (Ok(()), After::Client { whole, .. }) = (&answer, &after) {
            self.mid_frame = !whole;
        }
        Poll::Ready(answer.map(|()| after))
    }

    /// The client may have part of a frame, behind which nothing can be said.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.mid_frame
    }

    /// All that the gate asked for is safe.
    pub(super) fn gate_is_answered(&self) -> bool {
        self.gate == 0
    }

    pub(super) fn respond(&mut self, chunk: Chunk) {
        if let Some(Outgoing::Response(last)) = self.outgoing.last_mut()
            && last.join(&chunk)
        {
            return;
        }
        self.outgoing.push(Outgoing::Response(chunk));
    }

    /// `mid_frame`: the client has part of a frame, behind which this must wait.
    pub(super) fn author(&mut self, bytes: Bytes, mid_frame: bool) {
        if mid_frame {
            self.deferred.push(bytes);
        } else {
            self.outgoing.push(Outgoing::Authored(bytes));
        }
    }

    /// The frame that was passing has ended.
    pub(super) fn frame_ended(&mut self) {
        self.outgoing
            .extend(self.deferred.drain(..).map(Outgoing::Authored));
    }
}

impl Session {
    /// Asks for a record of this session.
    pub(super) fn record(
        &mut self,
        entry: Entry,
        blob: Bytes,
        durability: Durability,
        after: After,
    ) {
        let record = NewRecord {
            session: Some(self.place.id().clone()),
            at: self.parts.clock.now(),
            entry,
            blob,
        };
        self.journal.ask(record, durability, after);
    }

    /// Records what was put together for the client; it leaves once that is done.
    pub(super) fn commit(&mut self) {
        let durability = if self.parts.sync_responses {
            Durability::Synced
        } else {
            Durability::Written
        };
        let mut outgoing = std::mem::take(&mut self.journal.outgoing);
        // What waits in line is whole frames, so what is let go before it ends with one.
        let ends_whole = !self.upstream_wire.mid_frame() || !self.upstream_line.is_empty();
        let mut left = outgoing.len();
        for part in outgoing.drain(..) {
            left -= 1;
            let (entry, bytes, whole) = match part {
                Outgoing::Response(chunk) => {
                    (Entry::Response, chunk.bytes(), ends_whole && left == 0)
                }
                Outgoing::Authored(bytes) => {
                    let to = "client".to_owned();
                    (Entry::Authored { to }, bytes, true)
                }
            };
            // Before there is a principal there is no session in the journal:
            // whoever knocks must not fill it.
            if self.journal.opened {
                let after = After::Client {
                    bytes: bytes.clone(),
                    whole,
                };
                self.record(entry, bytes, durability, after);
            } else {
                self.client_out.push(bytes);
            }
        }
        self.journal.outgoing = outgoing;
    }
}
