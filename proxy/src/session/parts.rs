//! What a session is given: the gateway's services behind narrow seams, and the
//! one target that its listener leads to.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use holdpoint_core::Now;
use holdpoint_core::approval::{ClaimError, Clearance, Draft};
use holdpoint_core::config::{Limits, OnTokenExpiry, Target};
use holdpoint_core::denial::Denial;
use holdpoint_core::framing::Side;
use holdpoint_core::gate::{HoldLimits, Opened, Settlement};
use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
use holdpoint_core::plugin::{
    Action, Descriptor, Frame, IdentityOutcome, PluginError, Setup, UpstreamAuth, Verdict,
};
use holdpoint_core::policy::Judge;
use holdpoint_core::principal::Principal;
use holdpoint_core::record::{Durability, NewRecord, PluginUsed};
use holdpoint_core::secret::Secret;

use super::cancel::Cancels;
use super::registry::Sessions;
use crate::clock::Clock;
use crate::transport::{ClientTls, ServerTls};

pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One connection's instance of a protocol plugin. After an error only
/// [`Instance::terminate`] may be called.
pub trait Instance: Send {
    fn open(&mut self) -> Result<Vec<Action>, PluginError>;
    fn on_tls(&mut self, side: Side) -> Result<Vec<Action>, PluginError>;
    /// Says whose session it is; refused where the plugin failed too often. After
    /// this error the instance is well.
    fn belongs_to(&mut self, who: Digest) -> Result<(), PluginError>;
    fn on_frames(&mut self, side: Side, frames: &[Frame]) -> Result<Vec<Action>, PluginError>;
    fn on_identity(&mut self, outcome: &IdentityOutcome) -> Result<Vec<Action>, PluginError>;
    fn on_verdict(&mut self, verdict: &Verdict) -> Result<Vec<Action>, PluginError>;
    /// Empty where the protocol has no notices.
    fn notice(&mut self, text: &str) -> Result<Vec<u8>, PluginError>;
    /// Never fails: prepared bytes where the instance is gone.
    fn terminate(&mut self, denial: &Denial) -> Vec<u8>;
    /// Nothing but this notice will be asked of it for a while, so it may give memory
    /// back.
    fn rest(&mut self, _notice: Option<&str>) {}
    /// Whether it has any to give.
    fn is_awake(&self) -> bool {
        false
    }
}

/// A plugin in force, from which instances are made.
pub trait Protocol: Send + Sync {
    fn descriptor(&self) -> &Descriptor;
    fn used(&self) -> PluginUsed;
    fn instance(
        &self,
        setup: Setup,
        auth: Box<dyn UpstreamAuth>,
    ) -> Result<Box<dyn Instance>, PluginError>;
}

/// The journal cannot be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LedgerError(pub String);

/// Writes records, in the order in which they are given.
pub trait Ledger: Send + Sync {
    /// The record is in line when this returns; the answer comes once it is at
    /// its durability. An error means that nothing later will be written either.
    fn submit(&self, record: NewRecord, durability: Durability) -> Ticket;

    /// As [`Ledger::submit`] for each in turn, for the price of one write.
    fn submit_all(
        &self,
        records: &mut Vec<(NewRecord, Durability)>,
        tickets: &mut dyn FnMut(Ticket),
    ) {
        for (record, durability) in records.drain(..) {
            tickets(self.submit(record, durability));
        }
    }
}

/// A record's answer. Most are there at once, which costs nothing.
#[must_use = "the record may not be as safe yet as it was asked to be"]
pub enum Ticket {
    /// Taken when it is polled.
    Ready(Option<Result<(), LedgerError>>),
    Later(Later<Result<(), LedgerError>>),
}

impl Future for Ticket {
    type Output = Result<(), LedgerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(later) => later.as_mut().poll(cx),
        }
    }
}

/// Tells who a token's bearer is.
pub trait Gatekeeper: Send + Sync {
    fn connect(&self, token: Secret, now: Now) -> Later<Result<Principal, Denial>>;
    fn is_revoked(&self, principal: &Principal) -> bool;
}

pub type Waiter = Later<Settlement>;

/// Where held commands wait for their reviewers.
pub trait Desk: Send + Sync {
    /// The waiter belongs to [`Opened::Waiting`].
    fn open(&self, draft: Draft, now: Now) -> Later<(Opened, Option<Waiter>)>;
    fn claim(&self, claim: Claim, now: Now) -> Later<Result<Clearance, ClaimError>>;
    fn leave(&self, approval: ApprovalId, session: SessionId, grant: bool) -> Later<()>;
}

/// Which command uses which approval up.
#[derive(Debug, Clone)]
pub struct Claim {
    pub approval: ApprovalId,
    pub digest: Digest,
    pub session: SessionId,
    pub command: CommandId,
}

/// Accounts at targets.
pub trait Custody: Send + Sync {
    /// The password of a target, where it has one.
    fn password(&self, target: &str) -> Option<Secret>;
    /// Logs in as the target's account without showing the password.
    fn auth(&self, target: &str, account: &str) -> Box<dyn UpstreamAuth>;
}

/// The rules in force; sessions take over new ones before their next command.
pub type Rules = Arc<ArcSwap<Arc<dyn Judge>>>;

/// The gateway's services, the same for all sessions.
pub struct Parts {
    pub clock: Clock,
    pub ledger: Arc<dyn Ledger>,
    pub gatekeeper: Arc<dyn Gatekeeper>,
    pub desk: Arc<dyn Desk>,
    pub custody: Arc<dyn Custody>,
    pub rules: Rules,
    pub sessions: Arc<Sessions>,
    pub cancels: Arc<Cancels>,
    pub limits: Limits,
    pub hold: HoldLimits,
    pub clock_skew: std::time::Duration,
    pub max_session: std::time::Duration,
    pub on_token_expiry: OnTokenExpiry,
    /// Commands that policy allows need only be written before they go.
    pub relaxed: bool,
    /// Answers are on stable storage before they are released.
    pub sync_responses: bool,
}

/// The way from one listener to its target.
pub struct Route {
    /// The listener's name.
    pub listener: String,
    /// The target's name.
    pub name: String,
    pub target: Target,
    pub tls: ServerTls,
    /// Absent where the target is spoken to in clear.
    pub upstream_tls: Option<ClientTls>,
}
