//! The session after login, where the answer is no: what the client hears in
//! the server's place, and in which state that leaves both sides.

use holdpoint_plugin::{Action, Refusal};

use super::pending::Item;
use super::typed::{Ending, Skip, Typed, protocol};
use crate::classify::Act;
use crate::reply::{self, Severity};

impl Typed {
    /// Answers a refused command in the place where the server would have failed it.
    pub(super) fn deny(&mut self, refusal: &Refusal, ending: Ending, out: &mut Vec<Action>) {
        let mut answer = Vec::new();
        if !self.group.open {
            reply::refusal(&mut answer, Severity::Error, refusal);
            self.failed_here |= self.status == b'T';
            if matches!(ending, Ending::Sync(_) | Ending::Query) {
                reply::ready(&mut answer, self.shown_status());
            } else {
                self.skip = Some(Skip::Answer);
            }
            out.push(Action::ToClient(answer));
            return;
        }
        // Part of the group is with the target, which fails nothing. Its Sync, or
        // the end of a simple Query, would commit what a server had rolled back.
        let half = self.group.effects && (self.status == b'I' || self.leaves_transaction());
        if self.skip.is_none() {
            let owed = !self.pending.is_empty();
            if half || ending == Ending::Query || owed && matches!(ending, Ending::Flush(_)) {
                self.fatal(refusal, out);
                return;
            }
            reply::refusal(&mut answer, Severity::Error, refusal);
            if owed {
                // Without a Flush the target keeps its answers to itself up to the Sync.
                self.untold = Some(answer);
            } else {
                out.push(Action::ToClient(answer));
            }
            self.group.denied = true;
        }
        match ending {
            Ending::Sync(seq) => self.pass_sync(seq, out),
            _ => self.skip = Some(Skip::Pass),
        }
    }

    /// Inside a transaction that failed here nothing runs but its end.
    pub(super) fn answer_aborted(
        &mut self,
        seqs: &[u64],
        ending: Ending,
        commit: bool,
        out: &mut Vec<Action>,
    ) {
        out.extend(seqs.iter().map(|seq| Action::Drop(*seq)));
        let mut answer = Vec::new();
        reply::aborted(&mut answer, commit);
        match ending {
            Ending::Sync(seq) if !self.group.open => {
                reply::ready(&mut answer, b'E');
                out.extend([Action::Drop(seq), Action::ToClient(answer)]);
            }
            Ending::Sync(seq) => {
                out.push(Action::ToClient(answer));
                self.group.denied = true;
                self.pass_sync(seq, out);
            }
            _ => {
                if let Ending::Flush(seq) = ending {
                    out.push(Action::Drop(seq));
                }
                out.push(Action::ToClient(answer));
                self.skip = Some(if self.group.open {
                    Skip::Pass
                } else {
                    Skip::Answer
                });
            }
        }
    }

    pub(super) fn fatal(&mut self, refusal: &Refusal, out: &mut Vec<Action>) {
        let mut answer = Vec::new();
        reply::refusal(&mut answer, Severity::Fatal, refusal);
        out.extend([Action::ToClient(answer), Action::Close]);
        self.closed = true;
    }

    /// Waits for what the target owes. What was sent without a Flush is answered at the
    /// Sync, which is behind what is to be decided now: a client that depends on it goes.
    pub(super) fn drain(&mut self, out: &mut Vec<Action>) -> bool {
        let never = !self.pending.groups() && !self.group.flushed;
        if never {
            let mut refusal = protocol("a command behind others that no Sync or Flush ended");
            refusal.hint = Some("end what leaves a failed transaction with a Sync".to_owned());
            self.fatal(&refusal, out);
        }
        !never
    }

    /// Whether an unanswered command may end the transaction.
    fn leaves_transaction(&self) -> bool {
        let mut acts = self.pending.iter().flat_map(Item::acts);
        acts.any(|act| matches!(act, Act::Commit { .. } | Act::Rollback { .. }))
    }

    pub(super) fn drop_unit(&mut self, out: &mut Vec<Action>) {
        out.extend(self.unit.drain(..).map(|(seq, _)| Action::Drop(seq)));
        self.unit_bytes = 0;
    }

    pub(super) fn shown_status(&self) -> u8 {
        if self.failed_here { b'E' } else { self.status }
    }
}
