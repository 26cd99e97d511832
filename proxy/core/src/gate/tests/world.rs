//! A gate with the smallest driver that keeps the contract: a journal that
//! answers at once, one approval at a time, and a log of what happened.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::{
    Action, Gate, GateError, GateSetup, HoldLimits, Input, Opened, Settlement, Withdrawal,
};
use crate::Now;
use crate::approval::{Approval, Reviewer, State, Verdict, Vote, VoteOutcome};
use crate::command::{Command, Confidence, Operation};
use crate::decision::{Decision, Hold, Outcome, Reviewers, Step};
use crate::denial::Denial;
use crate::id::SessionId;
use crate::plugin::Completion;
use crate::policy::{Ask, Judge};
use crate::principal::{Identity, Kind, Principal};
use crate::record::{Durability, Entry, NewRecord};

pub(super) const SECOND: u64 = 1_000_000_000;

/// The outcome by the command's first word.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) version: &'static str,
    pub(super) delete: Outcome,
    pub(super) select: Outcome,
}

impl Rules {
    pub(super) fn usual() -> Self {
        Self {
            version: "v1",
            delete: Outcome::Hold(hold(1)),
            select: Outcome::Allow,
        }
    }
}

impl Judge for Rules {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let (outcome, rule) = match ask.command.text.split(|b| *b == b' ').next() {
            Some(b"SELECT") => (self.select.clone(), "base:read"),
            Some(b"DELETE") => (self.delete.clone(), "base:delete"),
            Some(b"DROP") => (
                Outcome::Deny {
                    message: Some("Ask for a migration.".to_owned()),
                },
                "base:no-drop",
            ),
            _ => (Outcome::Deny { message: None }, "no-rule"),
        };
        Decision {
            outcome,
            rule: rule.to_owned(),
            policy: self.version.to_owned(),
            monitored: Vec::new(),
        }
    }

    fn protected(&self, _target: &str) -> crate::policy::Protected {
        crate::policy::Protected::default()
    }

    fn version(&self) -> &str {
        self.version
    }
}

pub(super) fn hold(quorum: u32) -> Hold {
    Hold {
        steps: vec![Step::of(vec![Reviewers::Group("dba".to_owned())], quorum)],
        justify: false,
        windows: Vec::new(),
        break_glass: Vec::new(),
        step_up: None,
        webauthn: false,
        expires_in: Duration::from_secs(600),
        reason: None,
    }
}

pub(super) fn identity(subject: &str) -> Identity {
    Identity {
        issuer: "https://id.example".to_owned(),
        subject: subject.to_owned(),
    }
}

pub(super) fn setup() -> GateSetup {
    GateSetup {
        session: SessionId::from_random(7),
        principal: Arc::new(Principal {
            identity: identity("agent"),
            kind: Kind::Agent,
            label: "agent".to_owned(),
            client_id: None,
            actors: Vec::new(),
            owners: vec![identity("owner")],
            groups: Vec::new(),
            scopes: Vec::new(),
            expires: 10_000,
            token: String::new(),
            token_id: None,
            auth_time: None,
        }),
        target: "billing".to_owned(),
        tags: Vec::new(),
        owners: Vec::new(),
        protocol: "postgres".to_owned(),
        classes: ["read".to_owned(), "write".to_owned()].into(),
        limits: HoldLimits {
            inline_wait_agent: Duration::from_secs(45),
            inline_wait_person: Duration::from_secs(300),
            max_hold: Duration::from_secs(3600),
            max_hold_in_transaction: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
        },
        rules: Arc::new(Rules::usual()),
        clock_skew: Duration::from_secs(30),
        relaxed: false,
    }
}

pub(super) fn command(text: &str) -> Command {
    Command {
        operations: [Operation {
            class: "write".to_owned(),
            effects: Vec::new(),
            objects: Vec::new(),
            functions: Vec::new(),
            unknown_functions: Vec::new(),
            confidence: Confidence::Proven,
            housekeeping: false,
            facts: Vec::new(),
        }]
        .into(),
        text: Bytes::copy_from_slice(text.as_bytes()),
        parameters: Vec::new(),
        secrets: Vec::new(),
        context: Vec::new(),
        in_transaction: false,
        canonical: None,
        reject: None,
        wire: Bytes::from(format!("Q{text}")),
    }
}

pub(super) fn vote(approval: &Approval, subject: &str, verdict: Verdict) -> Vote {
    Vote {
        approval: approval.draft().id.clone(),
        digest: approval.draft().digest,
        verdict,
        reason: (verdict == Verdict::Deny).then(|| "wrong table".to_owned()),
        reviewer: Reviewer {
            identity: identity(subject),
            label: subject.to_owned(),
            groups: vec!["dba".to_owned()],
            on_call: Vec::new(),
            agent: false,
            also: Vec::new(),
            auth_time: None,
        },
        window: None,
        channel: "cli".to_owned(),
        nonce: None,
        assertion: None,
    }
}

pub(super) struct World {
    pub(super) gate: Gate,
    pub(super) now: Now,
    pub(super) approval: Option<Approval>,
    waits: bool,
    /// Answers to open and claim are given at once.
    pub(super) answers: bool,
    log: Vec<String>,
    pub(super) records: Vec<NewRecord>,
    pub(super) denials: Vec<Denial>,
    pub(super) notices: Vec<String>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(setup())
    }

    pub(super) fn with(setup: GateSetup) -> Self {
        Self {
            gate: Gate::new(setup),
            now: Now {
                wall_ns: 1_000 * SECOND,
                mono_ns: SECOND,
            },
            approval: None,
            waits: false,
            answers: true,
            log: Vec::new(),
            records: Vec::new(),
            denials: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// What happened since the last look.
    pub(super) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    #[track_caller]
    pub(super) fn saw(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.log(), expected);
        self
    }

    pub(super) fn submit(&mut self, text: &str) -> &mut Self {
        self.submit_command(command(text))
    }

    #[track_caller]
    pub(super) fn submit_command(&mut self, command: Command) -> &mut Self {
        let random = u128::from(self.gate.submitted()) + 1;
        self.input(Input::Submitted {
            command: Box::new(command),
            random,
        })
    }

    #[track_caller]
    pub(super) fn input(&mut self, input: Input) -> &mut Self {
        assert_eq!(self.try_input(input), Ok(()));
        self
    }

    pub(super) fn try_input(&mut self, input: Input) -> Result<(), GateError> {
        let taken = self.gate.input(input, self.now);
        self.drain();
        taken
    }

    pub(super) fn after(&mut self, seconds: u64) -> &mut Self {
        self.now.mono_ns += seconds * SECOND;
        self.now.wall_ns += seconds * SECOND;
        if self
            .gate
            .deadline()
            .is_some_and(|at| at <= self.now.mono_ns)
        {
            self.input(Input::Tick);
        }
        self
    }

    pub(super) fn withdraw(&mut self, reason: Withdrawal) -> &mut Self {
        self.input(Input::Withdrawn { reason })
    }

    pub(super) fn complete(&mut self, commands: u32) -> Result<(), GateError> {
        self.try_input(Input::Completed(Completion {
            commands,
            status: "DELETE 1".to_owned(),
            failed: false,
            rows: Some(1),
        }))
    }

    /// A reviewer votes; who waits is told of a settlement.
    #[track_caller]
    pub(super) fn reviewer(&mut self, subject: &str, verdict: Verdict) -> &mut Self {
        let approval = self.approval.as_mut().expect("something is held");
        let vote = vote(approval, subject, verdict);
        let outcome = approval.vote(vote, self.now).expect("the vote counts");
        if let VoteOutcome::Settled(state) = outcome
            && self.waits
        {
            self.waits = false;
            self.input(Input::Settled(match state {
                State::Denied { by, label, reason } => Settlement::Denied { by, label, reason },
                _ => Settlement::Approved,
            }));
        }
        self
    }

    pub(super) fn drain(&mut self) {
        while let Some(action) = self.gate.poll() {
            let answer = match action {
                Action::Record(record, durability) => {
                    self.log.push(describe(&record, durability));
                    self.records.push(*record);
                    let more = self.gate.queued_records();
                    (!more).then_some(Input::Recorded)
                }
                Action::Open(draft) => {
                    self.log.push("open".to_owned());
                    if !self.answers {
                        continue;
                    }
                    let opened = match &self.approval {
                        Some(known)
                            if known.serves(&draft)
                                && known.claimable(&draft.digest, self.now).is_ok() =>
                        {
                            Opened::Granted(known.draft().id.clone())
                        }
                        known => {
                            let joined = known.as_ref().is_some_and(|known| {
                                *known.state() == State::Pending && known.serves(&draft)
                            });
                            let now = self.now;
                            let approval = match self.approval.take() {
                                Some(known) if joined => known,
                                _ => Approval::open(*draft, now)
                                    .with_grant_ttl(Duration::from_secs(600)),
                            };
                            self.waits = true;
                            let opened = Opened::Waiting {
                                approval: approval.draft().id.clone(),
                                joined,
                                expires_mono_ns: approval.expires_mono_ns(),
                            };
                            self.approval = Some(approval);
                            opened
                        }
                    };
                    Some(Input::Opened(opened))
                }
                Action::Claim(id) => {
                    self.log.push("claim".to_owned());
                    if !self.answers {
                        continue;
                    }
                    let approval = self.approval.as_mut().expect("known");
                    assert_eq!(approval.draft().id, id);
                    let draft = approval.draft().clone();
                    let command = crate::id::CommandId(self.gate.submitted());
                    Some(Input::Claimed(approval.claim(
                        &draft.digest,
                        &SessionId::from_random(7),
                        command,
                        self.now,
                    )))
                }
                Action::Leave { grant, .. } => {
                    self.log
                        .push(format!("leave{}", if grant { ", grant" } else { "" }));
                    self.waits = false;
                    if !grant && let Some(approval) = &mut self.approval {
                        approval.withdraw();
                    }
                    None
                }
                Action::Forward(permit) => {
                    let id = permit.command();
                    let bytes = permit.into_bytes();
                    self.log
                        .push(format!("forward {id} {}", String::from_utf8_lossy(&bytes)));
                    Some(Input::Sent)
                }
                Action::Refuse(id, denial) => {
                    self.log.push(format!("refuse {id} {}", denial.code));
                    self.denials.push(denial);
                    None
                }
                Action::Notice(text) => {
                    self.log.push("notice".to_owned());
                    self.notices.push(text);
                    None
                }
            };
            if let Some(input) = answer {
                self.gate.input(input, self.now).expect("an answer");
            }
        }
    }
}

pub(super) fn describe(record: &NewRecord, durability: Durability) -> String {
    let what = match &record.entry {
        Entry::Command(entry) => {
            let outcome = match entry.decision.outcome {
                Outcome::Allow => "allow",
                Outcome::Hold(_) => "hold",
                Outcome::Deny { .. } => "deny",
            };
            format!("command {} {outcome}", entry.id)
        }
        Entry::Forward { command, .. } => format!("intent {command}"),
        Entry::Refused { command, denial } => format!("refused {command} {}", denial.code),
        Entry::Completed { commands, .. } => format!("completed {}", commands.len()),
        Entry::Unknown { command, .. } => format!("unknown {command}"),
        other => format!("{other:?}"),
    };
    match durability {
        Durability::Synced => format!("record {what}"),
        Durability::Written => format!("write {what}"),
    }
}
