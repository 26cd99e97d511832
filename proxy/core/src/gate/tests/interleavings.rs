//! Whatever happens in whatever order, nothing goes that must not go.
//!
//! A driver that keeps the gate's contract, but answers late, in bursts and
//! across withdrawals, beside a registry of real approvals. Its ledger knows
//! what was durable when a permit came out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{Rules, SECOND, command, hold, setup, vote};
use crate::Now;
use crate::approval::{Approval, ClaimError, Draft, State, Verdict, VoteOutcome};
use crate::decision::Outcome;
use crate::gate::{Action, Gate, Input, Opened, Settlement, Withdrawal};
use crate::id::{ApprovalId, CommandId, SessionId};
use crate::plugin::Completion;
use crate::record::Entry;

#[derive(Debug, Clone)]
enum Step {
    Submit(u8),
    Poll,
    Durable,
    AnswerOpen,
    AnswerClaim,
    Vote(u8, bool),
    Tell,
    Withdraw(u8),
    Pass(u8),
    Rules(u8),
    Complete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![1 => Just(0), 4 => Just(1), 1 => Just(2u8)].prop_map(Step::Submit),
        24 => Just(Step::Poll),
        12 => Just(Step::Durable),
        10 => Just(Step::AnswerOpen),
        10 => Just(Step::AnswerClaim),
        10 => (0..4u8, prop::bool::weighted(0.85)).prop_map(|(who, yes)| Step::Vote(who, yes)),
        10 => Just(Step::Tell),
        1 => (0..12u8).prop_map(Step::Withdraw),
        2 => (0..40u8).prop_map(Step::Pass),
        1 => (0..4u8).prop_map(Step::Rules),
        1 => Just(Step::Complete),
    ]
}

/// What each command came to, as the world outside of the gate saw it.
#[derive(Default)]
struct Ledger {
    /// Records taken out, and those that are durable.
    taken: Vec<(&'static str, CommandId)>,
    durable: BTreeSet<(&'static str, CommandId)>,
    held: BTreeSet<CommandId>,
    withdrawn: BTreeSet<CommandId>,
    forwarded: BTreeSet<CommandId>,
    refused: BTreeSet<CommandId>,
    used: BTreeMap<CommandId, ApprovalId>,
}

struct Driver {
    gate: Gate,
    now: Now,
    ledger: Ledger,
    approvals: Vec<Approval>,
    waits_for: Option<ApprovalId>,
    opens: VecDeque<Draft>,
    claims: VecDeque<(ApprovalId, CommandId)>,
    settlements: VecDeque<Settlement>,
    unanswered: bool,
}

impl Driver {
    fn new() -> Self {
        Self {
            gate: Gate::new(setup()),
            now: Now {
                wall_ns: 1_000 * SECOND,
                mono_ns: SECOND,
            },
            ledger: Ledger::default(),
            approvals: Vec::new(),
            waits_for: None,
            opens: VecDeque::new(),
            claims: VecDeque::new(),
            settlements: VecDeque::new(),
            unanswered: false,
        }
    }

    fn current(&self) -> CommandId {
        CommandId(self.gate.submitted())
    }

    fn give(&mut self, input: Input) {
        self.gate.input(input, self.now).expect("contract kept");
    }

    fn run(&mut self, step: &Step, ended: &mut bool) {
        match step {
            Step::Submit(kind) => {
                if !*ended && self.gate.idle() {
                    let text = ["SELECT 1", "DELETE x", "DROP x"][usize::from(*kind)];
                    let random = u128::from(self.gate.submitted()) + 1;
                    let command = Box::new(command(text));
                    self.give(Input::Submitted { command, random });
                    if *kind == 1 {
                        self.ledger.held.insert(self.current());
                    }
                }
            }
            Step::Poll => self.poll(),
            Step::Durable => {
                if std::mem::take(&mut self.unanswered) {
                    self.ledger.durable.extend(self.ledger.taken.drain(..));
                    self.give(Input::Recorded);
                }
            }
            Step::AnswerOpen => self.answer_open(),
            Step::AnswerClaim => {
                if let Some((id, command)) = self.claims.pop_front() {
                    let now = self.now;
                    let known = self.approvals.iter_mut().find(|a| a.draft().id == id);
                    let claimed = known.map_or(Err(ClaimError::Used), |approval| {
                        let digest = approval.draft().digest;
                        approval.claim(&digest, &SessionId::from_random(7), command, now)
                    });
                    if claimed.is_ok() {
                        self.ledger.used.insert(command, id);
                    }
                    self.give(Input::Claimed(claimed));
                }
            }
            Step::Vote(who, yes) => self.vote(*who, *yes),
            Step::Tell => {
                if let Some(settlement) = self.settlements.pop_front() {
                    self.give(Input::Settled(settlement));
                }
            }
            Step::Withdraw(reason) => {
                let reason = match reason {
                    0 => Withdrawal::ClientGone,
                    1 => Withdrawal::Revoked,
                    2 => Withdrawal::Shutdown,
                    _ => Withdrawal::Cancelled,
                };
                *ended |= reason != Withdrawal::Cancelled;
                let current = self.current();
                self.give(Input::Withdrawn { reason });
                if !self.ledger.forwarded.contains(&current) {
                    self.ledger.withdrawn.insert(current);
                }
            }
            Step::Pass(seconds) => {
                self.now.mono_ns += u64::from(*seconds) * SECOND;
                self.now.wall_ns += u64::from(*seconds) * SECOND;
                for approval in &mut self.approvals {
                    if approval.tick(self.now) == Some(State::Expired)
                        && self.waits_for.as_ref() == Some(&approval.draft().id)
                    {
                        self.settlements.push_back(Settlement::Expired);
                    }
                }
                self.give(Input::Tick);
            }
            Step::Rules(which) => {
                let delete = match which {
                    0 => Outcome::Deny { message: None },
                    1 => Outcome::Hold(hold(2)),
                    2 => Outcome::Allow,
                    _ => Outcome::Hold(hold(1)),
                };
                let version = ["v2", "v3", "v4", "v1"][usize::from(*which)];
                let rules = Rules {
                    version,
                    delete,
                    ..Rules::usual()
                };
                self.give(Input::Rules(Arc::new(rules)));
                // What is allowed from now on needs no approval.
            }
            Step::Complete => {
                if self.gate.outstanding() > 0 {
                    self.give(Input::Completed(Completion {
                        commands: 1,
                        status: String::new(),
                        failed: false,
                        rows: None,
                    }));
                }
            }
        }
    }

    fn poll(&mut self) {
        match self.gate.poll() {
            None | Some(Action::Notice(_)) => {}
            Some(Action::Record(record, _)) => {
                self.unanswered = true;
                match &record.entry {
                    Entry::Command(entry) => {
                        if entry.decision.outcome == Outcome::Allow {
                            self.ledger.held.remove(&entry.id);
                        }
                        self.ledger.taken.push(("command", entry.id));
                    }
                    Entry::Forward { command, .. } => self.ledger.taken.push(("intent", *command)),
                    Entry::Refused { command, .. } => self.ledger.taken.push(("refused", *command)),
                    _ => {}
                }
            }
            Some(Action::Open(draft)) => self.opens.push_back(*draft),
            Some(Action::Claim(id)) => self.claims.push_back((id, self.current())),
            Some(Action::Leave { approval, grant }) => {
                if self.waits_for.as_ref() == Some(&approval) {
                    self.waits_for = None;
                    self.settlements.clear();
                }
                let known = self
                    .approvals
                    .iter_mut()
                    .find(|known| known.draft().id == approval);
                if !grant && let Some(known) = known {
                    known.withdraw();
                }
            }
            Some(Action::Forward(permit)) => {
                let id = permit.command();
                let ledger = &mut self.ledger;
                assert!(ledger.durable.contains(&("command", id)), "record first");
                assert!(!ledger.withdrawn.contains(&id), "withdrawn");
                assert!(!ledger.refused.contains(&id), "refused");
                assert!(ledger.forwarded.insert(id), "at most once");
                if ledger.held.contains(&id) {
                    assert!(ledger.durable.contains(&("intent", id)), "intent first");
                    assert!(ledger.used.contains_key(&id), "approved and used");
                }
                self.give(Input::Sent);
            }
            Some(Action::Refuse(id, _)) => {
                let ledger = &mut self.ledger;
                assert!(ledger.durable.contains(&("refused", id)), "record first");
                assert!(!ledger.forwarded.contains(&id), "sent already");
                assert!(ledger.refused.insert(id), "told once");
            }
        }
    }

    fn answer_open(&mut self) {
        let Some(draft) = self.opens.pop_front() else {
            return;
        };
        let now = self.now;
        let granted = self
            .approvals
            .iter()
            .find(|known| known.serves(&draft) && known.claimable(&draft.digest, now).is_ok());
        let opened = if let Some(granted) = granted {
            Opened::Granted(granted.draft().id.clone())
        } else {
            let pending = self
                .approvals
                .iter()
                .position(|known| *known.state() == State::Pending && known.serves(&draft));
            let joined = pending.is_some();
            let at = pending.unwrap_or_else(|| {
                let fresh = Approval::open(draft, now).with_grant_ttl(Duration::from_secs(60));
                self.approvals.push(fresh);
                self.approvals.len() - 1
            });
            let approval = &self.approvals[at];
            self.waits_for = Some(approval.draft().id.clone());
            self.settlements.clear();
            Opened::Waiting {
                approval: approval.draft().id.clone(),
                joined,
                expires_mono_ns: approval.expires_mono_ns(),
            }
        };
        self.give(Input::Opened(opened));
    }

    fn vote(&mut self, who: u8, yes: bool) {
        let who = ["rita", "sam", "agent", "owner"][usize::from(who)];
        let verdict = if yes { Verdict::Approve } else { Verdict::Deny };
        let Some(approval) = self.approvals.last_mut() else {
            return;
        };
        let vote = vote(approval, who, verdict);
        let outcome = approval.vote(vote, self.now);
        if matches!(who, "agent" | "owner") {
            assert!(outcome.is_err(), "behind the request");
        }
        if let Ok(VoteOutcome::Settled(state)) = outcome
            && self.waits_for.as_ref() == Some(&approval.draft().id)
        {
            self.settlements.push_back(match state {
                State::Denied { by, label, reason } => Settlement::Denied { by, label, reason },
                _ => Settlement::Approved,
            });
        }
    }

    /// Answers all that is asked until nothing more happens.
    fn settle(&mut self) {
        for _ in 0..200 {
            for step in [
                Step::Poll,
                Step::Durable,
                Step::AnswerOpen,
                Step::AnswerClaim,
            ] {
                self.run(&step, &mut true);
            }
        }
    }
}

/// Guards the properties below against being true of nothing.
#[test]
fn the_interleavings_reach_releases() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(step(), 60..120);
    let released = (0..500)
        .filter(|_| {
            let steps = strategy.new_tree(&mut runner).unwrap().current();
            let mut driver = Driver::new();
            let mut ended = false;
            for step in &steps {
                driver.run(step, &mut ended);
            }
            let ledger = &driver.ledger;
            ledger.used.keys().any(|id| ledger.forwarded.contains(id))
        })
        .count();
    assert!(released >= 50, "{released} of 500");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_command_is_sent_with_all_its_proofs_or_refused_and_never_both(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut driver = Driver::new();
        let mut ended = false;
        for step in &steps {
            driver.run(step, &mut ended);
        }
        driver.run(&Step::Withdraw(0), &mut ended);
        driver.settle();
        prop_assert!(driver.gate.idle());
        prop_assert_eq!(driver.gate.deadline(), None);
        let ledger = &driver.ledger;
        for id in (1..=driver.gate.submitted()).map(CommandId) {
            prop_assert!(ledger.forwarded.contains(&id) ^ ledger.refused.contains(&id));
        }
        let mut approvals: Vec<_> = ledger.used.values().collect();
        approvals.sort();
        approvals.dedup();
        prop_assert_eq!(approvals.len(), ledger.used.len(), "one command per approval");
    }

    /// A driver that answers nonsense gets errors, and a withdrawn command stays where it is.
    #[test]
    fn nothing_goes_after_a_withdrawal_even_from_a_driver_in_disorder(
        before in proptest::collection::vec(0..6u8, 0..12),
        after in proptest::collection::vec(0..6u8, 0..24),
        text in prop_oneof![Just("SELECT 1"), Just("DELETE x")],
    ) {
        let mut gate = Gate::new(setup());
        let now = Now { wall_ns: 1_000 * SECOND, mono_ns: SECOND };
        let submitted = Input::Submitted { command: Box::new(command(text)), random: 1 };
        prop_assert_eq!(gate.input(submitted, now), Ok(()));
        let mut forwarded = false;
        let poke = |gate: &mut Gate, what: u8| {
            let input = match what {
                0 => {
                    let action = gate.poll();
                    return matches!(action, Some(Action::Forward(_)));
                }
                1 => Input::Recorded,
                2 => Input::Settled(Settlement::Approved),
                3 => Input::Claimed(Err(ClaimError::Used)),
                4 => Input::Tick,
                _ => Input::Opened(Opened::Granted(ApprovalId::from_random(1))),
            };
            let _ = gate.input(input, now);
            false
        };
        for what in before {
            forwarded |= poke(&mut gate, what);
        }
        let _ = gate.input(Input::Withdrawn { reason: Withdrawal::Cancelled }, now);
        for what in after {
            let goes = poke(&mut gate, what);
            prop_assert!(!goes);
        }
        prop_assert_eq!(gate.outstanding(), usize::from(forwarded));
    }
}
