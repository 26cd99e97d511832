//! The session after login, the client's side: collecting units, submitting
//! commands, answering refusals.
//!
//! Frames are decided strictly in order. The session stands still while a
//! verdict is outstanding, while a refusal waits for the answers that come
//! before it, and while a name's meaning hangs on an answer. Each of these ends
//! without the client's help: the target owes an answer, or the host a verdict.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use holdpoint_plugin::{Action, Fault, Frame, Refusal, RefusalKind, RowPlan, Verdict};

use super::context::Context;
use super::decide::Proposal;
use super::foresee::Foreseen;
use super::known::Known;
use super::names::Names;
use super::pending::{Item, Pending};
use super::undo;
use crate::adapter;
use crate::classify::{Act, Classifier, Field, Settings, is_utf8};
use crate::extended::Message;
use crate::frame::{self, Malformed};
use crate::login::Established;
use crate::reply;

/// A pipeline longer than this is judged in parts, as if the client had sent a
/// Flush: a real server runs what it has and does not wait for the end either.
const MAX_UNIT_MESSAGES: usize = 1000;
/// The same where it ends in no Execute, which no client that means it sends.
const MAX_MESSAGES: usize = 4 * MAX_UNIT_MESSAGES;
const MAX_UNIT_BYTES: usize = 1 << 20;

pub(crate) struct Typed {
    pub(super) classifier: Classifier,
    pub(super) names: Names,
    pub(super) known: Known,
    pub(super) foreseen: Foreseen,
    pub(super) context: Context,
    pub(super) pending: Pending,
    /// What the target reported, and whether a command may have changed who we are.
    pub(super) reported: BTreeMap<String, String>,
    pub(super) identity_asked: bool,
    /// The target's transaction status: `I`, `T` or `E`.
    pub(super) status: u8,
    /// A command was refused inside a transaction that the target holds for
    /// healthy. The client sees a failed one until it rolls back.
    pub(super) failed_here: bool,
    /// The host refused a command and has sent no undo since: it sends one then.
    pub(super) may_undo: bool,
    pub(super) group: Group,
    /// The refusal of the group, to be told at its end.
    pub(super) untold: Option<Vec<u8>>,
    pub(super) copy: Copying,
    pub(super) every_reply: bool,
    /// What the target said of the rows of the simple Query's statement that runs.
    pub(super) fields: Option<Rc<[Field]>>,
    /// What the host was told about rows.
    pub(super) rows: Option<RowPlan>,
    pub(super) skip: Option<Skip>,
    pub(super) wait: Wait,
    pub(super) outcome: super::upstream::Outcome,
    pub(super) closed: bool,
    /// Shown and undecided.
    pub(super) queue: VecDeque<Frame>,
    pub(super) unit: Vec<(u64, Message)>,
    pub(super) unit_bytes: usize,
    /// The unit is complete and is to be decided next.
    pub(super) ending: Option<Ending>,
    pub(super) nothing: Rc<[u8]>,
}

/// What was sent since the last Sync.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// Something was: a Flush sent it on.
    pub(super) open: bool,
    /// A Flush came last: all of it will be answered without the client's help.
    pub(super) flushed: bool,
    pub(super) commands: u32,
    /// Something in it changes more than the session.
    pub(super) effects: bool,
    pub(super) denied: bool,
    pub(super) exits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Sync(u64),
    Flush(u64),
    /// The unit grew too long.
    Full,
    /// A simple Query came behind messages without a Sync.
    BeforeQuery,
    /// Not a unit: a simple Query.
    Query,
}

/// Messages are ignored up to the next Sync, as a server does after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// The target has part of the group and needs the Sync.
    Pass,
    /// The target has nothing of it: the Sync is answered here.
    Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    No,
    Simple,
    Extended,
    /// Of the extended protocol: the client has ended the data, and a Sync may follow.
    Ended,
}

pub(super) enum Wait {
    Nothing,
    Verdict(Proposed),
    /// Until no earlier group is unanswered.
    Settle,
    /// Until everything is answered, or a COPY wants the data that stands next.
    Drain,
    /// Until everything is answered; then the client hears of this refusal.
    Deny(Refusal, Ending),
}

/// A submitted command. What it will do is in `pending` already, so that the
/// usual case, that it goes forward, needs no further call.
pub(super) struct Proposed {
    pub(super) items: usize,
    pub(super) before: Group,
    pub(super) ending: Ending,
    /// The Sync was kept back, since the target needs it even after a refusal.
    pub(super) sync: Option<u64>,
    pub(super) notify: bool,
}

pub(super) fn protocol(message: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Malformed,
        code: "HP-PROTOCOL".to_owned(),
        message: message.to_owned(),
        detail: None,
        hint: None,
    }
}

impl Typed {
    pub(crate) fn new(established: Established, entropy: &[u8]) -> Self {
        let protects = established.protected.is_some();
        let encoding = established.reported.get("server_encoding");
        let utf8 = encoding.is_some_and(|name| is_utf8(name));
        Self {
            classifier: Classifier::new(
                Settings {
                    server_encoding_utf8: utf8,
                    ..Settings::default()
                },
                established.limits,
                established.protected,
            ),
            names: Names::new(utf8),
            known: Known::default(),
            foreseen: Foreseen::default(),
            context: Context::new(
                established.database,
                established.user,
                established.settings,
                entropy,
            ),
            pending: Pending::default(),
            reported: established.reported,
            identity_asked: false,
            status: established.status,
            failed_here: false,
            may_undo: false,
            group: Group::default(),
            untold: None,
            copy: Copying::No,
            every_reply: protects,
            fields: None,
            rows: protects.then_some(RowPlan::Refuse),
            skip: None,
            wait: Wait::Nothing,
            outcome: super::upstream::Outcome::default(),
            closed: false,
            queue: VecDeque::new(),
            unit: Vec::new(),
            unit_bytes: 0,
            ending: None,
            nothing: Rc::from([]),
        }
    }

    pub(crate) fn on_client(&mut self, frames: Vec<Frame>, out: &mut Vec<Action>) {
        // Client frames are shown only after the verdict, so this one went forward.
        if matches!(&self.wait, Wait::Verdict(proposed) if !proposed.notify) {
            self.wait = Wait::Nothing;
        }
        self.queue.extend(frames);
        self.advance(out);
    }

    pub(crate) fn on_verdict(
        &mut self,
        verdict: Verdict,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        let Wait::Verdict(proposed) = std::mem::replace(&mut self.wait, Wait::Nothing) else {
            return Err(Fault {
                message: "a verdict without a command".to_owned(),
            });
        };
        match verdict {
            Verdict::Forwarded => {
                if let Some(sync) = proposed.sync {
                    self.pass_sync(sync, out);
                }
            }
            Verdict::Refused(refusal) => {
                self.may_undo = true;
                self.take_back(&proposed);
                self.group = proposed.before;
                if self.copies() {
                    // The server would have ended the COPY with an error; nothing here can.
                    self.fatal(&refusal, out);
                } else {
                    self.wait = Wait::Deny(refusal, proposed.ending);
                }
            }
        }
        self.advance(out);
        Ok(())
    }

    /// What was proposed was never sent. The target may have failed what came before it.
    fn take_back(&mut self, proposed: &Proposed) {
        let taken = self.pending.retract(proposed.items);
        if !taken && proposed.ending == Ending::Query {
            // Its end would have been that of the group's other commands as well.
            let ended = proposed.before.commands + 1;
            self.outcome.skipped = self.outcome.skipped.saturating_sub(ended);
        }
    }

    /// Decides frames until there are none, or until something must come first.
    pub(super) fn advance(&mut self, out: &mut Vec<Action>) {
        loop {
            if self.closed {
                // Nothing may be asked for behind a Close, and what is undecided is never sent.
                self.queue.clear();
                return;
            }
            match &self.wait {
                Wait::Nothing => {}
                Wait::Verdict(_) => return,
                Wait::Settle if self.pending.groups() => return,
                Wait::Drain if !self.pending.is_empty() => return,
                Wait::Deny(..) if self.pending.groups() => return,
                Wait::Deny(..) if self.group.flushed && !self.pending.is_empty() => return,
                _ => {
                    let over = std::mem::replace(&mut self.wait, Wait::Nothing);
                    if let Wait::Deny(refusal, ending) = over {
                        self.deny(&refusal, ending, out);
                        continue;
                    }
                }
            }
            if let Some(ending) = self.ending.take() {
                self.decide(ending, out);
            } else if let Some(frame) = self.queue.pop_front() {
                let refused = self.step(frame, out);
                if let Err(Malformed(why)) = refused {
                    self.fatal(&protocol(&format!("invalid message: {why}")), out);
                }
            } else {
                return;
            }
        }
    }

    /// The target takes what is sent for the data of a COPY.
    pub(super) fn copies(&self) -> bool {
        matches!(self.copy, Copying::Simple | Copying::Extended)
    }

    fn step(&mut self, frame: Frame, out: &mut Vec<Action>) -> Result<(), Malformed> {
        let kind = frame.kind.unwrap_or(0);
        if kind == b'X' {
            // What is collected was never sent, and the server would roll it back.
            self.closed = true;
            self.drop_unit(out);
            out.extend([Action::Pass(frame.seq), Action::Close]);
            return Ok(());
        }
        if let Some(skip) = self.skip {
            self.drop_unit(out);
            match (kind, skip) {
                (b'S', Skip::Pass) => self.pass_sync(frame.seq, out),
                (b'S', Skip::Answer) => {
                    self.skip = None;
                    let mut ready = Vec::new();
                    reply::ready(&mut ready, self.shown_status());
                    out.extend([Action::Drop(frame.seq), Action::ToClient(ready)]);
                }
                (b'H', _) if self.untold.is_some() => {
                    // It asks for the error now, which comes behind answers that the
                    // target gives at the Sync.
                    self.fatal(&protocol("a Flush behind a command that was refused"), out);
                }
                _ => out.push(Action::Drop(frame.seq)),
            }
            return Ok(());
        }
        match kind {
            b'Q' => self.query(frame, out)?,
            b'S' | b'H' if !frame.body.is_empty() => {
                // The server fails it and skips, at a place that no answer tells.
                return Err(Malformed("bytes where none belong"));
            }
            // The server ignores both while it takes data, and would not where it has failed.
            b'S' | b'H' if self.copies() => out.push(Action::Drop(frame.seq)),
            b'S' if self.unit.is_empty()
                && self.copy == Copying::No
                && self.pending.iter().any(Item::asks_for_data) =>
            {
                self.queue.push_front(frame);
                self.wait = Wait::Drain;
            }
            b'S' => self.ending = Some(Ending::Sync(frame.seq)),
            b'H' => self.ending = Some(Ending::Flush(frame.seq)),
            b'P' | b'B' | b'D' | b'C' | b'E' => self.collect(kind, &frame)?,
            b'd' | b'c' | b'f' => self.data(kind, frame, out),
            b'F' => {
                out.push(Action::Drop(frame.seq));
                let mut refusal = protocol("function calls by message are not served");
                refusal.hint = Some("call the function in a SELECT".to_owned());
                self.wait = Wait::Deny(refusal, Ending::Query);
            }
            _ => return Err(Malformed("not one that a client sends after login")),
        }
        Ok(())
    }

    fn collect(&mut self, kind: u8, frame: &Frame) -> Result<(), Malformed> {
        if self.copies() {
            return Err(Malformed("a new command inside the data of a COPY"));
        }
        let classifier = &mut self.classifier;
        let message = Message::read(kind, &frame.body, |text| classifier.classify(text))?;
        self.unit.push((frame.seq, message));
        self.unit_bytes += frame.body.len();
        let long = self.unit.len() >= MAX_UNIT_MESSAGES || self.unit_bytes >= MAX_UNIT_BYTES;
        if kind == b'E' && long || self.unit.len() >= MAX_MESSAGES {
            self.ending = Some(Ending::Full);
        }
        Ok(())
    }

    /// Data of a COPY, or what is left of it after the server gave up, which it ignores.
    fn data(&mut self, kind: u8, frame: Frame, out: &mut Vec<Action>) {
        if self.copies() {
            out.push(Action::Pass(frame.seq));
            if kind != b'd' {
                self.copy = match self.copy {
                    Copying::Extended => Copying::Ended,
                    _ => Copying::No,
                };
                out.push(Action::Subscribe(frame::client_commands(false)));
            }
        } else if self.copy == Copying::Ended {
            out.push(Action::Drop(frame.seq));
        } else if !self.unit.is_empty() {
            // What it is data for may not be sent yet.
            self.queue.push_front(frame);
            self.ending = Some(Ending::Full);
        } else if self.pending.is_empty() {
            out.push(Action::Drop(frame.seq));
        } else {
            // A COPY may be about to ask for it, and does so without a Sync.
            self.queue.push_front(frame);
            if self.pending.may_take_data() || self.drain(out) {
                self.wait = Wait::Drain;
            }
        }
    }

    fn query(&mut self, frame: Frame, out: &mut Vec<Action>) -> Result<(), Malformed> {
        if !self.unit.is_empty() {
            self.queue.push_front(frame);
            self.ending = Some(Ending::BeforeQuery);
            return Ok(());
        }
        if self.copies() {
            return Err(Malformed("a new command inside the data of a COPY"));
        }
        if self.failed_here && !self.pending.is_empty() || self.pending.may_take_data() {
            self.queue.push_front(frame);
            if self.drain(out) {
                self.wait = Wait::Drain;
            }
            return Ok(());
        }
        let Frame { seq, kind, body } = frame;
        let mut text = frame::query(body)?;
        let analysis = self.classifier.classify(&text);
        if self.settings_unsettled()
            || self.pending.groups() && self.names_unsettled(&analysis.statements)
        {
            text.push(0);
            self.queue.push_front(Frame {
                seq,
                kind,
                body: text,
            });
            self.wait = Wait::Settle;
            return Ok(());
        }
        let first = analysis.statements.first().map(|statement| &statement.act);
        let exits = matches!(first, Some(Act::Rollback { .. } | Act::RollbackTo));
        if self.failed_here && !exits {
            if self.may_undo && !self.group.open && undo::ends(&analysis) {
                self.give_up((seq, seq), None, Vec::new(), Ending::Query, out);
                return Ok(());
            }
            let mut answer = Vec::new();
            if analysis.statements.is_empty() && analysis.reject.is_none() {
                // The server has nothing against nothing; pools ask so if it is alive.
                reply::empty_query(&mut answer);
            } else {
                reply::aborted(&mut answer, matches!(first, Some(Act::Commit { .. })));
            }
            reply::ready(&mut answer, b'E');
            out.extend([Action::Drop(seq), Action::ToClient(answer)]);
            return Ok(());
        }
        let mut command = adapter::blank(self.context_now(), self.in_transaction());
        command.secrets = adapter::spans(&analysis);
        // Mode and text are all there is; the text is in the digest by itself.
        command.canonical = Some(b"Q".to_vec());
        command.reject.clone_from(&analysis.reject);
        let mut known = std::mem::take(&mut self.known);
        let told = known.tell(analysis.statements.iter(), || {
            let lookup = |space, name: &[u8]| self.find(&[], space, name);
            adapter::all_operations(&analysis.statements, &lookup, &mut command)
        });
        self.known = known;
        self.tell_named(&analysis.statements, &[], &mut command);
        let kept = if adapter::keeps_text(&analysis) {
            Rc::from(text.as_slice())
        } else {
            Rc::clone(&self.nothing)
        };
        command.text = text;
        let before = self.group;
        self.group.exits |= exits;
        self.pending.push(Item::Query {
            analysis,
            text: kept,
            done: 0,
        });
        self.end_group(true, 1);
        let proposal = Proposal {
            before,
            items: 2,
            ending: Ending::Query,
            sync: None,
            undo: false,
        };
        self.propose(proposal, (seq, seq), command, told, out);
        Ok(())
    }
}
