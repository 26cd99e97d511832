//! Where sessions meet the gateway's services: each seam of `session::parts`, and
//! what stands behind it.

use std::sync::Arc;

use holdpoint_core::Now;
use holdpoint_core::approval::{ClaimError, Clearance, Draft};
use holdpoint_core::denial::Denial;
use holdpoint_core::framing::Side;
use holdpoint_core::gate::Opened;
use holdpoint_core::id::{ApprovalId, Digest, SessionId};
use holdpoint_core::plugin::{
    Action, Descriptor, Frame, IdentityOutcome, PluginError, Setup, UpstreamAuth, Verdict,
};
use holdpoint_core::principal::Principal;
use holdpoint_core::record::{Durability, NewRecord, PluginUsed};
use holdpoint_core::secret::Secret;

use crate::approvals::{Approvals, Surroundings};
use crate::credential::Credential;
use crate::identity::Authenticator;
use crate::plugins;
use crate::recorder::{self, JournalError, Recorder, Written};
use crate::secrets::Secrets;
use crate::session::{
    Claim, Custody, Desk, Gatekeeper, Instance, Later, Ledger, LedgerError, Protocol, Rules,
    Sessions, Ticket, Waiter,
};

impl Ledger for Recorder {
    fn submit(&self, record: NewRecord, durability: Durability) -> Ticket {
        ticket(Recorder::submit(self, record, durability))
    }

    fn submit_all(
        &self,
        records: &mut Vec<(NewRecord, Durability)>,
        tickets: &mut dyn FnMut(Ticket),
    ) {
        Recorder::submit_all(self, records, |pending| tickets(ticket(pending)));
    }
}

fn ticket(pending: recorder::Pending) -> Ticket {
    let said = |answer: Result<Written, JournalError>| {
        answer
            .map(|_| ())
            .map_err(|error| LedgerError(error.to_string()))
    };
    match pending.now() {
        Ok(answer) => Ticket::Ready(Some(said(answer))),
        Err(pending) => Ticket::Later(Box::pin(async move { said(pending.await) })),
    }
}

impl Gatekeeper for Authenticator {
    fn connect(&self, token: Secret, now: Now) -> Later<Result<Principal, Denial>> {
        let authenticator = self.clone();
        Box::pin(async move {
            Authenticator::connect(&authenticator, token.expose(), now)
                .await
                .map_err(|error| {
                    tracing::info!(cause = %error, "token refused");
                    error.denial()
                })
        })
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        Authenticator::is_revoked(self, principal)
    }
}

impl Desk for Approvals {
    fn open(&self, draft: Draft, now: Now) -> Later<(Opened, Option<Waiter>)> {
        let approvals = self.clone();
        Box::pin(async move {
            let (opened, waiter) = Approvals::open(&approvals, draft, now).await;
            let waiter = waiter.map(|mut waiter| -> Waiter {
                // The gate says by a claim or a leave what becomes of it, also when this
                // is dropped.
                waiter.disarm();
                Box::pin(async move { waiter.settled().await })
            });
            (opened, waiter)
        })
    }

    fn claim(&self, claim: Claim, now: Now) -> Later<Result<Clearance, ClaimError>> {
        let approvals = self.clone();
        Box::pin(async move {
            let Claim {
                approval,
                digest,
                session,
                command,
            } = claim;
            Approvals::claim(&approvals, &approval, &digest, &session, command, now).await
        })
    }

    fn leave(&self, approval: ApprovalId, session: SessionId, grant: bool) -> Later<()> {
        let approvals = self.clone();
        Box::pin(async move { Approvals::leave(&approvals, &approval, &session, grant).await })
    }
}

/// What ends windows: other rules, or the end of their session.
pub(super) struct Around {
    pub(super) rules: Rules,
    pub(super) sessions: Arc<Sessions>,
}

impl Surroundings for Around {
    fn rules(&self) -> String {
        self.rules.load().version().to_owned()
    }

    fn is_live(&self, session: &SessionId) -> bool {
        self.sessions.has(session)
    }
}

impl Custody for Secrets {
    fn password(&self, target: &str) -> Option<Secret> {
        self.get(target)
    }

    fn auth(&self, target: &str, account: &str) -> Box<dyn UpstreamAuth> {
        Box::new(Credential::new(account, self.get(target)))
    }
}

/// A plugin in force, as sessions see it.
pub(super) struct Loaded(pub(super) holdpoint_host::Plugin);

impl Protocol for Loaded {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    fn used(&self) -> PluginUsed {
        plugins::used(&self.0)
    }

    fn instance(
        &self,
        setup: Setup,
        auth: Box<dyn UpstreamAuth>,
    ) -> Result<Box<dyn Instance>, PluginError> {
        Ok(Box::new(self.0.session(setup, auth)?))
    }
}

impl Instance for holdpoint_host::Session {
    fn open(&mut self) -> Result<Vec<Action>, PluginError> {
        self.open()
    }

    fn on_tls(&mut self, side: Side) -> Result<Vec<Action>, PluginError> {
        self.on_tls(side)
    }

    fn belongs_to(&mut self, who: Digest) -> Result<(), PluginError> {
        self.belongs_to(who)
    }

    fn on_frames(&mut self, side: Side, frames: &[Frame]) -> Result<Vec<Action>, PluginError> {
        self.on_frames(side, frames)
    }

    fn on_identity(&mut self, outcome: &IdentityOutcome) -> Result<Vec<Action>, PluginError> {
        self.on_identity(outcome)
    }

    fn on_verdict(&mut self, verdict: &Verdict) -> Result<Vec<Action>, PluginError> {
        self.on_verdict(verdict)
    }

    fn notice(&mut self, text: &str) -> Result<Vec<u8>, PluginError> {
        self.notice(text)
    }

    fn terminate(&mut self, denial: &Denial) -> Vec<u8> {
        self.terminate(denial)
    }

    fn rest(&mut self, notice: Option<&str>) {
        self.rest(notice);
    }

    fn is_awake(&self) -> bool {
        self.is_awake()
    }
}

/// For the listeners.
pub(super) fn protocol(plugin: &holdpoint_host::Plugin) -> Arc<dyn Protocol> {
    Arc::new(Loaded(plugin.clone()))
}
