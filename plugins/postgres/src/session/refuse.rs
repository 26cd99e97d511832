//! The session after login, where the answer is no: what the client hears in
//! the server's place, and in which state that leaves both sides.

use holdpoint_plugin::{Action, Refusal};

use super::typed::{Ending, Skip, Typed};
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
        let half = self.group.effects && self.status == b'I';
        if self.skip.is_none() {
            if half || ending == Ending::Query {
                self.fatal(refusal, out);
                return;
            }
            reply::refusal(&mut answer, Severity::Error, refusal);
            out.push(Action::ToClient(answer));
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

    pub(super) fn drop_unit(&mut self, out: &mut Vec<Action>) {
        out.extend(self.unit.drain(..).map(|(seq, _)| Action::Drop(seq)));
        self.unit_bytes = 0;
    }

    pub(super) fn shown_status(&self) -> u8 {
        if self.failed_here { b'E' } else { self.status }
    }
}
