//! Feeds the gate, and does what it asks.

use std::sync::Arc;

use bytes::Bytes;
use holdpoint_core::approval::{ClaimError, Clearance};
use holdpoint_core::gate::{Action, GateError, Input, Opened, Withdrawal};
use holdpoint_core::id::ApprovalId;
use holdpoint_core::plugin::Verdict;

use super::Session;
use super::end::End;
use super::io::Event;
use super::journal::After;
use super::parts::{Claim, Waiter};
use super::signals::Signal;
use crate::{crash, upstream};

/// What came of something asked of the desk.
pub(super) enum Answer {
    Opened(Opened, Option<Waiter>),
    Claimed(Result<Clearance, ClaimError>),
    Left,
}

impl Session {
    pub(super) fn on_event(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Client(0) => Err(End::ClientLeft),
            Event::Upstream(0) => Err(End::UpstreamLeft),
            Event::Client(_) | Event::Upstream(_) => Ok(()),
            Event::ClientBroke(error) => Err(End::ClientBroke(error)),
            Event::UpstreamBroke(error) => Err(End::UpstreamBroke(error)),
            Event::Recorded(answer) => self.recorded(answer?),
            Event::Sent(count) => {
                crash::point("P5");
                (0..count).try_for_each(|_| self.feed(Input::Sent))
            }
            Event::Desk(Answer::Opened(opened, waiter)) => {
                self.waiter = waiter;
                self.feed(Input::Opened(opened))
            }
            Event::Desk(Answer::Claimed(claimed)) => {
                self.take_over_rules()?;
                self.feed(Input::Claimed(claimed))
            }
            Event::Desk(Answer::Left) => Ok(()),
            Event::Settled(settlement) => {
                self.take_over_rules()?;
                self.feed(Input::Settled(settlement))
            }
            Event::Signal(signal) => self.signal(signal),
            Event::Time => self.time(),
        }
    }

    fn recorded(&mut self, after: After) -> Result<(), End> {
        match after {
            After::Gate if self.journal.gate_is_answered() => self.feed(Input::Recorded),
            After::Gate | After::Nothing => Ok(()),
            After::Client { bytes, .. } => {
                if self
                    .gate
                    .as_ref()
                    .is_some_and(|gate| gate.submitted() > 0 && gate.idle())
                {
                    crash::point("P7");
                }
                self.client_out.push(bytes);
                Ok(())
            }
            After::Pass(frames) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.pass(frames);
                }
                Ok(())
            }
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<(), End> {
        match signal {
            Signal::Cancel if self.undecided.is_some() => self.feed(Input::Withdrawn {
                reason: Withdrawal::Cancelled,
            }),
            Signal::Cancel => {
                tokio::spawn(self.cancel_at_target());
                Ok(())
            }
            Signal::Rules => self.judge_again(),
            Signal::Revoked => Err(End::Revoked),
            Signal::Killed => Err(End::Killed),
            Signal::Shutdown => Err(End::Shutdown),
            // Seen by `is_drained`, before anything else happens.
            Signal::Drain => Ok(()),
        }
    }

    fn time(&mut self) -> Result<(), End> {
        if !self.ready && self.is_past(Some(self.handshake_by)) {
            let target = self.upstream.is_some();
            return Err(if target { End::UpstreamSlow } else { End::Slow });
        }
        if self.is_past(self.over_by) {
            return Err(End::Expired);
        }
        self.rest_if_quiet();
        match &self.gate {
            Some(gate) if gate.deadline().is_some() => self.feed(Input::Tick),
            _ => Ok(()),
        }
    }

    /// Before login there is nothing to judge, and the gate begins with the newest rules.
    fn judge_again(&mut self) -> Result<(), End> {
        if self.gate.is_some() {
            self.take_over_rules()
        } else {
            Ok(())
        }
    }

    /// New rules count from here on.
    pub(super) fn take_over_rules(&mut self) -> Result<(), End> {
        let current = self.parts.rules.load();
        if Arc::ptr_eq(&current, &self.rules) {
            return Ok(());
        }
        self.rules = Arc::clone(&current);
        drop(current);
        self.feed(Input::Rules(Arc::clone(&*self.rules)))
    }

    /// Tells the gate, and does what it asks in answer.
    pub(super) fn feed(&mut self, input: Input) -> Result<(), End> {
        let now = self.parts.clock.now();
        let Some(gate) = &mut self.gate else {
            return Err(GateError::Ended.into());
        };
        gate.input(input, now)?;
        while let Some(action) = self.gate.as_mut().and_then(|gate| gate.poll()) {
            self.gate_action(action)?;
        }
        Ok(())
    }

    fn gate_action(&mut self, action: Action) -> Result<(), End> {
        match action {
            Action::Forward(permit) => {
                let Some(upstream) = &mut self.upstream else {
                    return Err(End::UpstreamLeft);
                };
                crash::point("P4");
                upstream.send(permit)?;
                if self.undecided.take() == Some(true) {
                    let actions = self.plugin.on_verdict(&Verdict::Forwarded)?;
                    self.todo.push_back(actions);
                }
            }
            Action::Refuse(command, denial) => {
                tracing::info!(command = command.0, code = denial.code, "refused");
                self.undecided = None;
                self.refused = true;
                let actions = self.plugin.on_verdict(&Verdict::Refused(denial))?;
                self.todo.push_back(actions);
            }
            Action::Notice(text) => {
                let bytes = self.plugin.notice(&text)?;
                if !bytes.is_empty() {
                    self.author_client(bytes.into());
                    self.commit();
                }
            }
            other => self.quiet_action(other),
        }
        Ok(())
    }

    /// What neither the plugin nor the target hears of.
    pub(super) fn quiet_action(&mut self, action: Action) {
        let session = self.place.id().clone();
        let now = self.parts.clock.now();
        let desk = Arc::clone(&self.parts.desk);
        match action {
            Action::Record(record, durability) => {
                self.journal.ask(*record, durability, After::Gate);
            }
            Action::Open(draft) => {
                self.asked = Some((draft.digest, draft.command));
                tracing::info!(approval.id = %draft.id, rule = draft.rule, "held");
                let open = desk.open(*draft, now);
                self.desk.push_back(Box::pin(async move {
                    let (opened, waiter) = open.await;
                    Answer::Opened(opened, waiter)
                }));
            }
            Action::Claim(approval) => self.claim(approval),
            Action::Leave { approval, grant } => {
                self.waiter = None;
                let leave = desk.leave(approval, session, grant);
                self.desk.push_back(Box::pin(async move {
                    leave.await;
                    Answer::Left
                }));
            }
            Action::Forward(_) | Action::Refuse(..) | Action::Notice(_) => {}
        }
    }

    fn claim(&mut self, approval: ApprovalId) {
        let Some((digest, command)) = self.asked else {
            self.desk
                .push_back(Box::pin(async { Answer::Claimed(Err(ClaimError::Digest)) }));
            return;
        };
        let session = self.place.id().clone();
        let desk = Arc::clone(&self.parts.desk);
        let clock = self.parts.clock;
        self.desk.push_back(Box::pin(async move {
            let claim = Claim {
                approval,
                digest,
                session,
                command,
            };
            Answer::Claimed(desk.claim(claim, clock.now()).await)
        }));
    }

    pub(super) fn register_cancel(&mut self, key: Vec<u8>, packet: Bytes) -> Result<(), End> {
        if self.principal.is_none() || self.cancel.is_some() {
            return Err(End::misbehaved(
                "it registered a cancel key where it may not",
            ));
        }
        let registered = self
            .parts
            .cancels
            .register(key, self.place.signals().clone());
        let registered =
            registered.ok_or_else(|| End::misbehaved("its cancel key is short or taken"))?;
        self.cancel = Some((registered, packet));
        Ok(())
    }

    pub(super) fn cancel_other(&self, key: &[u8]) -> Result<(), End> {
        if self.ready || self.principal.is_some() {
            return Err(End::misbehaved("it asked for a cancel after login"));
        }
        self.parts.cancels.cancel(key);
        Ok(())
    }

    /// Only what this session has at the target may be stopped, so nothing is asked
    /// where nothing runs: the key could meet somebody else's command by then.
    pub(super) fn cancel_at_target(&self) -> impl Future<Output = ()> + Send + use<> {
        let runs = self
            .gate
            .as_ref()
            .is_some_and(|gate| gate.outstanding() > 0);
        let packet = self.cancel.as_ref().filter(|_| runs);
        let packet = packet.map(|(_, packet)| packet.clone());
        let route = Arc::clone(&self.route);
        async move {
            if let Some(packet) = packet
                && let Err(error) = upstream::cancel(&route.target, &packet).await
            {
                tracing::warn!(%error, "the cancel did not reach the target");
            }
        }
    }
}
