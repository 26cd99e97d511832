//! An approval as reviewers and their programs read it.
//!
//! Plain words and strings, so that the API, webhooks and the command line show
//! the same. The command's text is whole: escaped, never cut.

use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, Cast, Shown, State, Verdict};
use holdpoint_core::decision::{Reviewers, Step};
use holdpoint_core::display::{escape, escape_line};
use holdpoint_core::principal::{Identity, Kind, Principal};
use holdpoint_core::source::Span;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::recorder::Head;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct View {
    pub id: String,
    /// `pending`, `approved`, `used`, `denied`, `expired`, `withdrawn`, `orphaned`, `revoked`.
    pub state: String,
    /// Of the whole command, hex. A decision echoes it.
    pub digest: String,
    pub session: String,
    /// Within the session, from 1.
    pub command: u64,
    pub target: String,
    pub principal: PrincipalView,
    /// The rule that holds the command, `file:rule`.
    pub rule: String,
    /// Version of the rules.
    pub policy: String,
    /// Why the rule holds, in its author's words.
    pub reason: Option<String>,
    /// Who may decide the current step: `group NAME`, `SUBJECT at ISSUER` or `on call NAME`.
    pub reviewers: Vec<String>,
    /// How many distinct people must approve the current step.
    pub quorum: u32,
    /// How many have.
    pub approvals: u32,
    /// All that must approve, in order.
    #[serde(default)]
    pub steps: Vec<StepView>,
    /// The current one, from 1.
    #[serde(default = "one")]
    pub step: u32,
    pub votes: Vec<VoteView>,
    /// Nobody can approve before the requester said why.
    #[serde(default)]
    pub justify: bool,
    /// Why, in the requester's words, escaped.
    #[serde(default)]
    pub justification: Option<String>,
    /// How else than once it may be approved: `session`, or a time such as `10m`.
    #[serde(default)]
    pub windows: Vec<String>,
    /// Who may let it run at once.
    #[serde(default)]
    pub break_glass: Vec<String>,
    /// How long ago at most whoever approves has signed in, such as `5m`.
    #[serde(default)]
    pub step_up: Option<String>,
    /// An approval has to be signed by the reviewer's security key, in the console.
    #[serde(default)]
    pub webauthn: bool,
    /// Who did.
    #[serde(default)]
    pub glass: Option<GlassView>,
    pub shown: ShownView,
    pub opened_at: String,
    /// When the time to decide is over.
    pub expires_at: String,
    /// Once approved and not used: until when the command may run.
    pub usable_until: Option<String>,
    /// The identical command of the same principal may run again until then, at any node,
    /// unless the window is ended before. Not for windows of one session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_until: Option<String>,
    /// Sessions that wait on their open connection.
    pub waiting: usize,
    /// What a denial said.
    pub denial: Option<DenialView>,
    pub journal: JournalView,
    /// What became of messages to reviewers.
    pub deliveries: Vec<Delivery>,
    /// The node that holds the command, where it is not the one that answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
}

fn one() -> u32 {
    1
}

/// One of the agreements that a held command needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// `done`, `current` or `later`.
    pub state: String,
    pub reviewers: Vec<String>,
    pub quorum: u32,
    pub approvals: u32,
    pub escalation: Option<EscalationView>,
}

/// Who may decide a step too, and from when on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EscalationView {
    /// From the step's beginning, such as `5m`.
    pub after: String,
    pub reviewers: Vec<String>,
    /// Of the current step, while that is to come.
    pub at: Option<String>,
    /// They were asked.
    pub done: bool,
}

/// A person let a held command run in place of its reviewers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GlassView {
    pub by: IdentityView,
    pub label: String,
    /// Escaped.
    pub reason: String,
    pub at: String,
    /// Who looked into it afterwards.
    pub reviewed_by: Option<IdentityView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrincipalView {
    pub issuer: String,
    pub subject: String,
    /// `agent` or `person`.
    pub kind: String,
    pub label: String,
    pub client_id: Option<String>,
    pub actors: Vec<IdentityView>,
    pub owners: Vec<IdentityView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdentityView {
    pub issuer: String,
    pub subject: String,
}

/// What is asked to run. Every text is escaped, and none is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShownView {
    pub text: String,
    pub parameters: Vec<String>,
    /// Session settings that change what the text means: name and value.
    pub context: Vec<Vec<String>>,
    pub class: String,
    pub effects: Vec<String>,
    pub objects: Vec<String>,
    /// Whether the parser is sure of these.
    pub proven: bool,
    pub in_transaction: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VoteView {
    pub reviewer: IdentityView,
    pub label: String,
    /// `approve` or `deny`.
    pub decision: String,
    pub reason: Option<String>,
    /// `api`, `cli`, `console`, `slack:NAME`, `integration:NAME`.
    pub channel: String,
    /// For which step, from 1.
    #[serde(default = "one")]
    pub step: u32,
    /// How an approval lets it run, where that is not once.
    #[serde(default)]
    pub window: Option<String>,
    /// When the reviewer had signed in, where that was proved.
    #[serde(default)]
    pub signed_in_at: Option<String>,
    /// Whether their security key signed it.
    #[serde(default)]
    pub webauthn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DenialView {
    pub by: IdentityView,
    pub label: String,
    pub reason: String,
}

/// The journal's head when this was written: compare it with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalView {
    pub size: u64,
    /// First 8 bytes of the root, hex.
    pub root8: String,
}

/// One channel's message about this approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    pub channel: String,
    /// `approval.pending` or `approval.settled`.
    pub message: String,
    pub attempts: u32,
    pub accepted: bool,
    /// Why not, where it was given up.
    pub error: Option<String>,
}

/// Wall times of an approval, taken when they became known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) opened_ns: u64,
    opened_mono_ns: u64,
    pub(super) expires_ns: u64,
    pub(super) usable_until_ns: Option<u64>,
    /// Of a window that other nodes may have uses of.
    pub(super) window_until_ns: Option<u64>,
}

impl Times {
    pub(super) fn opened(now: Now, expires_in: Duration) -> Self {
        Self {
            opened_ns: now.wall_ns,
            opened_mono_ns: now.mono_ns,
            expires_ns: later(now.wall_ns, expires_in),
            usable_until_ns: None,
            window_until_ns: None,
        }
    }

    /// What people are told of an instant to come.
    fn wall(&self, mono_ns: u64) -> u64 {
        let after = mono_ns.saturating_sub(self.opened_mono_ns);
        self.opened_ns.saturating_add(after)
    }
}

pub(super) fn later(wall_ns: u64, after: Duration) -> u64 {
    wall_ns.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
}

impl View {
    pub(super) fn of(
        approval: &Approval,
        times: Times,
        waiting: usize,
        deliveries: &[Delivery],
        reviewed_by: Option<&Identity>,
        head: Head,
    ) -> Self {
        let draft = approval.draft();
        let (approvals, quorum) = approval.progress();
        let approved = matches!(approval.state(), State::Approved { .. });
        Self {
            id: draft.id.to_string(),
            state: approval.state().word().to_owned(),
            digest: draft.digest.to_string(),
            session: draft.session.to_string(),
            command: draft.command.0,
            target: draft.target.clone(),
            principal: (&*draft.principal).into(),
            rule: draft.rule.clone(),
            policy: draft.policy.clone(),
            reason: draft.hold.reason.clone(),
            reviewers: current(approval),
            quorum,
            approvals,
            steps: steps(approval, times),
            step: approval.place().0,
            votes: approval.votes().iter().map(VoteView::of).collect(),
            justify: draft.hold.justify,
            justification: approval.justification().map(|text| escape(text.as_bytes())),
            windows: draft.hold.windows.iter().map(ToString::to_string).collect(),
            break_glass: draft.hold.break_glass.iter().map(reviewers).collect(),
            step_up: draft.hold.step_up.map(|max| Span(max).to_string()),
            webauthn: draft.hold.webauthn,
            glass: approval
                .broken()
                .map(|glass| GlassView::of(glass, reviewed_by)),
            shown: (&draft.shown).into(),
            opened_at: rfc3339(times.opened_ns),
            expires_at: rfc3339(times.expires_ns),
            usable_until: times.usable_until_ns.filter(|_| approved).map(rfc3339),
            window_until: times.window_until_ns.map(rfc3339),
            waiting,
            denial: match approval.state() {
                State::Denied { by, label, reason } => Some(DenialView {
                    by: by.into(),
                    label: escape_line(label.as_bytes()),
                    reason: reason.clone(),
                }),
                _ => None,
            },
            journal: JournalView {
                size: head.size,
                root8: hex::encode(&head.root.0[..8]),
            },
            deliveries: deliveries.to_vec(),
            node: None,
        }
    }

    /// Whether the reviewers' part is over.
    pub fn is_decided(&self) -> bool {
        self.state != "pending"
    }

    /// Whether approving takes what a chat or an integration cannot show.
    pub fn needs_console(&self) -> bool {
        self.step_up.is_some() || self.webauthn
    }
}

impl VoteView {
    fn of(cast: &Cast) -> Self {
        let vote = &cast.vote;
        Self {
            reviewer: (&vote.reviewer.identity).into(),
            label: escape_line(vote.reviewer.label.as_bytes()),
            decision: match vote.verdict {
                Verdict::Approve => "approve",
                Verdict::Deny => "deny",
            }
            .to_owned(),
            reason: vote.reason.clone(),
            channel: vote.channel.clone(),
            step: cast.step,
            window: vote.window.map(|window| window.to_string()),
            signed_in_at: (vote.reviewer.auth_time)
                .map(|at| rfc3339(at.saturating_mul(1_000_000_000))),
            webauthn: vote.assertion.is_some(),
        }
    }
}

impl From<&Identity> for IdentityView {
    fn from(identity: &Identity) -> Self {
        Self {
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
        }
    }
}

impl From<&Principal> for PrincipalView {
    fn from(principal: &Principal) -> Self {
        Self {
            issuer: principal.identity.issuer.clone(),
            subject: principal.identity.subject.clone(),
            kind: match principal.kind {
                Kind::Agent => "agent",
                Kind::Person => "person",
            }
            .to_owned(),
            label: escape_line(principal.label.as_bytes()),
            client_id: principal.client_id.clone(),
            actors: principal.actors.iter().map(Into::into).collect(),
            owners: principal.owners.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Shown> for ShownView {
    fn from(shown: &Shown) -> Self {
        Self {
            text: shown.text.to_string(),
            parameters: shown.parameters.clone(),
            context: shown
                .context
                .iter()
                .map(|(name, value)| vec![name.clone(), value.clone()])
                .collect(),
            class: shown.class.clone(),
            effects: shown.effects.clone(),
            objects: shown.objects.clone(),
            proven: shown.proven,
            in_transaction: shown.in_transaction,
        }
    }
}

fn current(approval: &Approval) -> Vec<String> {
    let at = usize::try_from(approval.place().0).unwrap_or(0);
    let step = at.checked_sub(1);
    let Some(step) = step.and_then(|at| approval.draft().hold.steps.get(at)) else {
        return Vec::new();
    };
    if approval.is_escalated() {
        step.everyone().map(reviewers).collect()
    } else {
        step.reviewers.iter().map(reviewers).collect()
    }
}

fn steps(approval: &Approval, times: Times) -> Vec<StepView> {
    let (place, _) = approval.place();
    let approved = approval.broken().is_none()
        && matches!(
            approval.state(),
            State::Approved { .. } | State::Used { .. }
        );
    let numbered = (1..).zip(&approval.draft().hold.steps);
    let view = |(number, step): (u32, &Step)| {
        let votes = approval.votes().iter();
        let yes = votes.filter(|cast| cast.step == number && cast.vote.verdict == Verdict::Approve);
        let is_current = number == place && !approved;
        StepView {
            state: match number.cmp(&place) {
                _ if is_current => "current",
                std::cmp::Ordering::Greater => "later",
                _ => "done",
            }
            .to_owned(),
            reviewers: step.reviewers.iter().map(reviewers).collect(),
            quorum: step.quorum.max(1),
            approvals: u32::try_from(yes.count()).unwrap_or(u32::MAX),
            escalation: step.escalate.as_ref().map(|more| EscalationView {
                after: Span(more.after).to_string(),
                reviewers: more.reviewers.iter().map(reviewers).collect(),
                at: approval
                    .escalates_at()
                    .filter(|_| is_current)
                    .map(|at| rfc3339(times.wall(at))),
                done: is_current && approval.is_escalated(),
            }),
        }
    };
    numbered.map(view).collect()
}

pub(super) fn reviewers(set: &Reviewers) -> String {
    match set {
        Reviewers::Group(group) => format!("group {group}"),
        Reviewers::Person { issuer, subject } => format!("{subject} at {issuer}"),
        Reviewers::Owner => "the target's owners".to_owned(),
        Reviewers::OnCall(list) => format!("on call {list}"),
    }
}

/// Whole seconds, UTC.
pub(crate) fn rfc3339(wall_ns: u64) -> String {
    let seconds = i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}
