//! What each input does. Every step ends in one of three ways: the command
//! moves on, it is refused, or the input is an error of the driver.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::undecided::{Holding, Next, Stage, Undecided};
use super::{Action, Gate, GateError, Input, Opened, Settlement, Withdrawal, entry, text};
use crate::Now;
use crate::approval::{ClaimError, Clearance, Draft, Shown};
use crate::command::Command;
use crate::decision::{Decision, Hold, Outcome};
use crate::denial::Denial;
use crate::id::{ApprovalId, CommandId};
use crate::plugin::Completion;
use crate::policy::Ask;
use crate::principal::Kind;
use crate::record::{Durability, Entry};

/// Notices are due at even multiples of this, in nanoseconds: of thousands of commands that
/// are held many are then due at once, and the process wakes once for them.
const TOGETHER: u64 = 200_000_000;

impl Gate {
    pub(super) fn step(&mut self, input: Input, now: Now) -> Result<(), GateError> {
        match input {
            Input::Submitted { command, random } => self.submitted_command(command, random, now)?,
            Input::Recorded => self.recorded(now),
            Input::Opened(opened) => self.opened(opened, now)?,
            Input::Settled(settlement) => self.settled(settlement, now),
            Input::Claimed(claimed) => self.claimed(claimed, now)?,
            Input::Sent => {
                self.unsent = self
                    .unsent
                    .checked_sub(1)
                    .ok_or(GateError::Unasked("Sent"))?;
            }
            Input::Completed(completion) => self.completed(completion, now)?,
            Input::Withdrawn { reason } => self.withdrawn(reason, now),
            Input::Rules(rules) => {
                self.setup.rules = rules;
                self.rules_changed(now);
            }
            Input::Tick => self.tick(now),
        }
        Ok(())
    }

    /// Judges a command and asks for its record, whatever the verdict.
    fn submitted_command(
        &mut self,
        command: Box<Command>,
        random: u128,
        now: Now,
    ) -> Result<(), GateError> {
        if self.ended {
            return Err(GateError::Ended);
        }
        if self.undecided.is_some() {
            return Err(GateError::Busy);
        }
        self.submitted += 1;
        let id = CommandId(self.submitted);
        let policy = self.setup.rules.version().to_owned();
        let digest = command.digest(&self.setup.principal, &self.setup.target, &policy);

        let (decision, refusal) = if self.token_expired(now) {
            (
                built_in("token-expired", &policy),
                Some(text::token_expired()),
            )
        } else if let Some(reason) = &command.reject {
            (built_in("rejected", &policy), Some(text::rejected(reason)))
        } else {
            let decision = self.decide(&command, now);
            let refusal = matches!(decision.outcome, Outcome::Deny { .. })
                .then(|| text::denied(&decision, &self.setup.target));
            (decision, refusal)
        };
        let allowed = decision.outcome == Outcome::Allow;
        let next = if allowed { Next::Forward } else { Next::Open };

        let (entry, blob) = entry::command(id, digest, &command, &self.setup.classes, &decision);
        let durability = if allowed && self.setup.relaxed {
            Durability::Written
        } else {
            Durability::Synced
        };
        self.record(entry, blob, durability, now);
        self.undecided = Some(Undecided {
            id,
            command,
            digest,
            policy,
            decision,
            random,
            stage: Stage::Recording(next),
            waits_for: None,
            released_by: None,
        });
        if let Some(denial) = refusal {
            self.refuse(denial, now);
        }
        Ok(())
    }

    fn recorded(&mut self, now: Now) {
        // A record that was not even taken out cannot be durable: this answer is
        // for earlier ones, and another will come.
        let untaken = self.queue.iter().any(|action| {
            matches!(action, Action::Record(record, _)
                if !matches!(record.entry, Entry::Completed { .. }))
        });
        if untaken {
            return;
        }
        let Some(undecided) = &mut self.undecided else {
            return;
        };
        match &mut undecided.stage {
            Stage::Recording(Next::Refuse(denial)) => {
                let denial = denial.clone();
                let id = undecided.id;
                self.undecided = None;
                self.queue.push_back(Action::Refuse(id, denial));
            }
            Stage::Recording(Next::Forward) => undecided.stage = Stage::Ready,
            Stage::Recording(Next::Open) => match self.draft() {
                Some(draft) => {
                    self.set_stage(Stage::Opening);
                    self.queue.push_back(Action::Open(Box::new(draft)));
                }
                None => self.refuse(text::internal(), now),
            },
            _ => {}
        }
    }

    fn opened(&mut self, opened: Opened, now: Now) -> Result<(), GateError> {
        if let Some(grant) = self.stale_opens.pop_front() {
            if let Opened::Waiting { approval, .. } = opened {
                self.queue.push_back(Action::Leave { approval, grant });
            }
            return Ok(());
        }
        let Some((undecided, hold)) = self.undecided.as_mut().and_then(|undecided| {
            match (&undecided.stage, &undecided.decision.outcome) {
                (Stage::Opening, Outcome::Hold(hold)) => {
                    let hold = hold.clone();
                    Some((undecided, hold))
                }
                _ => None,
            }
        }) else {
            return Err(GateError::Unasked("Opened"));
        };
        match opened {
            Opened::Refused(denial) => self.refuse(denial, now),
            Opened::Granted(approval) => self.release(approval, now),
            Opened::Waiting {
                approval,
                joined,
                expires_mono_ns,
            } => {
                undecided.waits_for = Some(approval.clone());
                let in_transaction = undecided.command.in_transaction;
                let notice = text::holding(
                    &approval,
                    &undecided.decision.rule,
                    &hold,
                    joined,
                    expires_mono_ns,
                    now,
                );
                let inline_end = now.deadline(self.inline_wait(in_transaction));
                self.set_stage(Stage::Holding(Holding {
                    approval,
                    expires: expires_mono_ns,
                    inline_end,
                    next_notice: self.next_notice(now),
                }));
                if now.mono_ns < inline_end.min(expires_mono_ns) {
                    self.queue.push_back(Action::Notice(notice));
                } else {
                    self.tick(now);
                }
            }
        }
        Ok(())
    }

    /// Ignored where nothing is held: it crossed with our own leaving.
    fn settled(&mut self, settlement: Settlement, now: Now) {
        let Some(Undecided {
            stage: Stage::Holding(hold),
            ..
        }) = &self.undecided
        else {
            return;
        };
        let Holding {
            approval, expires, ..
        } = hold.clone();
        match settlement {
            Settlement::Approved if now.mono_ns >= expires => {
                self.give_up(text::expired("nobody decided in time"), false, now);
            }
            Settlement::Approved => self.release(approval, now),
            Settlement::Denied { label, reason, .. } => {
                let denial = text::denied_by_reviewer(&approval, &label, &reason);
                self.refuse_settled(denial, now);
            }
            Settlement::Expired => {
                self.refuse_settled(text::expired("nobody decided in time"), now);
            }
            Settlement::Orphaned => self.refuse_settled(text::shutdown(), now),
            Settlement::Revoked => self.refuse_settled(text::revoked(), now),
        }
    }

    /// Asks to use up an approval, if the command may still go.
    fn release(&mut self, approval: ApprovalId, now: Now) {
        match self.recheck(now) {
            Err(denial) => {
                self.leave(false);
                self.refuse(denial, now);
            }
            Ok(()) => {
                self.set_stage(Stage::Claiming(approval.clone()));
                self.queue.push_back(Action::Claim(approval));
            }
        }
    }

    fn claimed(
        &mut self,
        claimed: Result<Clearance, ClaimError>,
        now: Now,
    ) -> Result<(), GateError> {
        if self.stale_claims > 0 {
            // Used up for a command that was given up: nothing is sent for it, ever.
            self.stale_claims -= 1;
            return Ok(());
        }
        let setup = &self.setup;
        let Some(undecided) = &mut self.undecided else {
            return Err(GateError::Unasked("Claimed"));
        };
        let Stage::Claiming(approval) = &undecided.stage else {
            return Err(GateError::Unasked("Claimed"));
        };
        undecided.waits_for = None;
        let clearance = match claimed {
            Ok(clearance) => clearance,
            Err(error) => {
                self.refuse(claim_refused(&error), now);
                return Ok(());
            }
        };
        // From the bytes once more: what goes is what was shown.
        let digest = undecided
            .command
            .digest(&setup.principal, &setup.target, &undecided.policy);
        let covered = digest == undecided.digest
            && clearance.approval() == approval
            && clearance.covers(&digest, &setup.session, undecided.id);
        if !covered {
            self.refuse(text::internal(), now);
            return Ok(());
        }
        let approval = approval.clone();
        let command = undecided.id;
        undecided.released_by = Some(approval.clone());
        if let Err(denial) = self.recheck(now) {
            self.refuse(denial, now);
            return Ok(());
        }
        self.set_stage(Stage::Recording(Next::Forward));
        let intent = Entry::Forward {
            command,
            approval,
            digest,
        };
        self.record(intent, Bytes::new(), Durability::Synced, now);
        Ok(())
    }

    fn completed(&mut self, completion: Completion, now: Now) -> Result<(), GateError> {
        let outstanding = self.forwarded.len();
        let count = usize::try_from(completion.commands).unwrap_or(usize::MAX);
        if count > outstanding {
            return Err(GateError::Completion {
                got: completion.commands,
                outstanding,
            });
        }
        let entry = Entry::Completed {
            commands: self.forwarded.drain(..count).map(|(id, _)| id).collect(),
            status: completion.status,
            failed: completion.failed,
            rows: completion.rows,
            bytes: std::mem::take(&mut self.response_bytes),
        };
        self.record(entry, Bytes::new(), Durability::Written, now);
        Ok(())
    }

    fn withdrawn(&mut self, reason: Withdrawal, now: Now) {
        self.ended |= reason.ends_session();
        let denial = match reason {
            Withdrawal::ClientGone | Withdrawal::Cancelled => text::withdrawn(),
            Withdrawal::Revoked => text::revoked(),
            Withdrawal::Shutdown => text::shutdown(),
        };
        self.give_up(denial, reason.keeps_grant(), now);
    }

    /// The new rules hold from here on, see the module comment of the gate.
    fn rules_changed(&mut self, now: Now) {
        let Some(undecided) = &self.undecided else {
            return;
        };
        let about_to_go = match &undecided.stage {
            Stage::Recording(Next::Refuse(_)) => return,
            Stage::Recording(Next::Open) | Stage::Opening | Stage::Holding(_) => false,
            Stage::Claiming(_) | Stage::Recording(Next::Forward) | Stage::Ready => true,
        };
        let stopped = if about_to_go {
            self.recheck(now).err()
        } else {
            let decision = self.decide(&undecided.command, now);
            matches!(decision.outcome, Outcome::Deny { .. })
                .then(|| text::denied(&decision, &self.setup.target))
        };
        if let Some(denial) = stopped {
            self.give_up(denial, false, now);
        }
    }

    fn tick(&mut self, now: Now) {
        let next_notice = self.next_notice(now);
        let Some(undecided) = &mut self.undecided else {
            return;
        };
        let Stage::Holding(hold) = &mut undecided.stage else {
            return;
        };
        if now.mono_ns >= hold.expires {
            self.give_up(text::expired("nobody decided in time"), false, now);
        } else if now.mono_ns >= hold.inline_end {
            let denial = text::pending(
                &hold.approval,
                &undecided.decision,
                hold.expires,
                undecided.command.in_transaction,
                now,
            );
            self.give_up(denial, true, now);
        } else if hold.next_notice.is_some_and(|at| now.mono_ns >= at) {
            hold.next_notice = next_notice;
            let notice = text::still_holding(&hold.approval, hold.expires, now);
            self.queue.push_back(Action::Notice(notice));
        }
    }

    /// Whether the command may still go under the rules as they are now. An approval
    /// counts if it gave all that is asked for now. The token was good when the
    /// command was submitted, and may be over by now.
    fn recheck(&self, now: Now) -> Result<(), Denial> {
        let Some(undecided) = &self.undecided else {
            return Err(text::internal());
        };
        let decision = self.decide(&undecided.command, now);
        match (&decision.outcome, &undecided.decision.outcome) {
            (Outcome::Deny { .. }, _) => Err(text::denied(&decision, &self.setup.target)),
            (Outcome::Allow, _) => Ok(()),
            (Outcome::Hold(hold), Outcome::Hold(asked))
                if decision.rule == undecided.decision.rule && hold.met_by(asked) =>
            {
                Ok(())
            }
            (Outcome::Hold(_), _) => Err(text::expired(
                "the rules changed in the meantime and ask for another approval",
            )),
        }
    }

    fn decide(&self, command: &Command, now: Now) -> Decision {
        self.setup.rules.decide(&Ask {
            command,
            principal: &self.setup.principal,
            target: &self.setup.target,
            tags: &self.setup.tags,
            owners: Some(&self.setup.owners),
            protocol: &self.setup.protocol,
            classes: &self.setup.classes,
            now: now.unix(),
        })
    }

    /// Stops the undecided command: answers still to come are for nothing, its
    /// approval is left, and it is refused. A command already refused stays as it is.
    pub(super) fn give_up(&mut self, denial: Denial, grant: bool, now: Now) {
        let Some(undecided) = &mut self.undecided else {
            return;
        };
        if undecided.is_refused() {
            return;
        }
        match undecided.stage {
            // Questions that were not taken out are not asked at all.
            Stage::Opening => {
                let asked = !self.unask(|action| matches!(action, Action::Open(_)));
                if asked {
                    self.stale_opens.push_back(grant);
                }
            }
            Stage::Claiming(_) => {
                let asked = !self.unask(|action| matches!(action, Action::Claim(_)));
                if asked {
                    self.stale_claims += 1;
                    self.waits_no_more();
                }
            }
            _ => {}
        }
        self.leave(grant);
        self.refuse(denial, now);
    }

    fn leave(&mut self, grant: bool) {
        if let Some(approval) = self.waits_no_more() {
            self.queue.push_back(Action::Leave { approval, grant });
        }
    }

    fn waits_no_more(&mut self) -> Option<ApprovalId> {
        self.undecided.as_mut()?.waits_for.take()
    }

    /// Drops matching actions that the driver has not taken out; whether there were any.
    fn unask(&mut self, which: impl Fn(&Action) -> bool) -> bool {
        let before = self.queue.len();
        self.queue.retain(|action| !which(action));
        self.queue.len() < before
    }

    /// Refuses a command whose approval has ended, so there is nothing to leave.
    fn refuse_settled(&mut self, denial: Denial, now: Now) {
        self.waits_no_more();
        self.refuse(denial, now);
    }

    /// Records the refusal; the plugin is told when that is durable.
    fn refuse(&mut self, denial: Denial, now: Now) {
        let Some(undecided) = &mut self.undecided else {
            return;
        };
        let entry = Entry::Refused {
            command: undecided.id,
            denial: denial.clone(),
        };
        undecided.stage = Stage::Recording(Next::Refuse(denial));
        self.record(entry, Bytes::new(), Durability::Synced, now);
    }

    fn record(&mut self, entry: Entry, blob: Bytes, durability: Durability, now: Now) {
        let record = entry::record(&self.setup.session, now, entry, blob);
        self.queue
            .push_back(Action::Record(Box::new(record), durability));
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(undecided) = &mut self.undecided {
            undecided.stage = stage;
        }
    }

    /// What reviewers of the undecided command are asked; `None` where it is not held.
    fn draft(&self) -> Option<Draft> {
        let undecided = self.undecided.as_ref()?;
        let Outcome::Hold(hold) = &undecided.decision.outcome else {
            return None;
        };
        let setup = &self.setup;
        Some(Draft {
            id: ApprovalId::from_random(undecided.random),
            digest: undecided.digest,
            session: setup.session.clone(),
            command: undecided.id,
            target: setup.target.clone(),
            principal: Arc::clone(&setup.principal),
            hold: Hold {
                expires_in: hold.expires_in.min(setup.limits.max_hold),
                ..hold.clone()
            },
            rule: undecided.decision.rule.clone(),
            policy: undecided.policy.clone(),
            shown: Shown::of(&undecided.command, &setup.classes),
        })
    }

    fn token_expired(&self, now: Now) -> bool {
        let until = self
            .setup
            .principal
            .expires
            .saturating_add(self.setup.clock_skew.as_secs());
        now.unix() >= until
    }

    fn inline_wait(&self, in_transaction: bool) -> Duration {
        let limits = &self.setup.limits;
        let wait = match self.setup.principal.kind {
            Kind::Agent => limits.inline_wait_agent,
            Kind::Person => limits.inline_wait_person,
        };
        if in_transaction {
            wait.min(limits.max_hold_in_transaction)
        } else {
            wait
        }
    }

    /// Never later than the operator asked for, see [`TOGETHER`].
    fn next_notice(&self, now: Now) -> Option<u64> {
        let heartbeat = self.setup.limits.heartbeat;
        if heartbeat.is_zero() {
            return None;
        }
        let latest = now.deadline(heartbeat);
        let even = latest - latest % TOGETHER;
        Some(if even > now.mono_ns { even } else { latest })
    }
}

fn built_in(rule: &str, policy: &str) -> Decision {
    Decision {
        outcome: Outcome::Deny { message: None },
        rule: rule.to_owned(),
        policy: policy.to_owned(),
        monitored: Vec::new(),
    }
}

fn claim_refused(error: &ClaimError) -> Denial {
    match error {
        ClaimError::NotApproved("denied") => text::expired("a reviewer denied this command"),
        ClaimError::NotApproved("revoked") => text::revoked(),
        ClaimError::NotApproved(_) | ClaimError::Used | ClaimError::Expired => {
            text::expired(&error.to_string())
        }
        // Its uses are written before they count, as everything else is.
        ClaimError::NotWritten => text::journal(),
        ClaimError::Digest | ClaimError::Session => text::internal(),
    }
}
