//! What happens before a session is ready: TLS, the token, the target's login.

use std::future::{Future, poll_fn};
use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::framing::Side;
use holdpoint_core::gate::{Gate, GateSetup};
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{CredentialFrame, CredentialSlot, IdentityOutcome};
use holdpoint_core::principal::{Identity, Principal};
use holdpoint_core::record::{Durability, Entry, NewRecord, Open};
use holdpoint_core::secret::Secret;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroize as _;

use super::Session;
use super::end::End;
use super::signals::{Signal, Signals};
use crate::transport::nowhere;
use crate::upstream::Upstream;

/// Waits for `work`, but not past the deadline and not past the session's end.
pub(super) async fn within<T>(
    deadline: Instant,
    signals: &Signals,
    work: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = sleep_until(deadline) => return Err(End::Slow),
            signal = signals.hear() => match signal {
                // Nothing runs yet that could be cancelled.
                Signal::Cancel | Signal::Rules => {}
                Signal::Revoked => return Err(End::Revoked),
                Signal::Killed => return Err(End::Killed),
                Signal::Shutdown => return Err(End::Shutdown),
                // The session sees it by itself, once it gets to run.
                Signal::Drain => {}
            },
        }
    }
}

impl Session {
    pub(super) async fn start_client_tls(&mut self) -> Result<(), End> {
        if self.ready || self.client_tls || self.principal.is_some() {
            return Err(End::misbehaved(
                "it asked for TLS with the client where none may begin",
            ));
        }
        // Whoever put bytes in front of the handshake would have them read as if
        // the client had sent them inside of it (CVE-2021-23222).
        if self.client_wire.len() > 0 {
            return Err(End::Protocol(
                "bytes in clear before the TLS handshake".to_owned(),
            ));
        }
        self.commit();
        let flush = poll_fn(|cx| self.client_out.poll_flush(cx, &mut self.client));
        within(self.handshake_by, self.place.signals(), flush)
            .await?
            .map_err(End::ClientBroke)?;
        let io = mem::replace(&mut self.client, nowhere());
        let accept = self.route.tls.accept(io);
        let accepted = within(self.handshake_by, self.place.signals(), accept).await?;
        let (io, _) = accepted.map_err(End::ClientBroke)?;
        self.client = io;
        self.client_tls = true;
        let actions = self.plugin.on_tls(Side::Client)?;
        self.todo.push_back(actions);
        Ok(())
    }

    pub(super) async fn start_upstream_tls(&mut self) -> Result<(), End> {
        if self.upstream_wire.len() > 0 {
            return Err(End::misbehaved(
                "bytes of the target came in clear before its TLS",
            ));
        }
        let (Some(upstream), Some(login), Some(tls)) = (
            &mut self.upstream,
            &self.upstream_login,
            &self.route.upstream_tls,
        ) else {
            return Err(End::misbehaved(
                "it asked for TLS with the target where none may begin",
            ));
        };
        if upstream.is_tls() {
            return Err(End::misbehaved("it asked for TLS with the target twice"));
        }
        let start = upstream.start_tls(login, tls);
        within(self.handshake_by, self.place.signals(), start)
            .await
            .map_err(End::at_target)??;
        let actions = self.plugin.on_tls(Side::Upstream)?;
        self.todo.push_back(actions);
        Ok(())
    }

    pub(super) fn expect_credential(&mut self, slot: CredentialSlot) -> Result<(), End> {
        if !self.client_tls {
            return Err(End::misbehaved("it asked for a token in clear"));
        }
        if self.slot.is_some() || self.principal.is_some() {
            return Err(End::misbehaved("it asked for a second token"));
        }
        self.slot = Some(slot);
        Ok(())
    }

    /// Takes the token out of the next frame, which nobody else gets to see.
    pub(super) async fn take_credential(&mut self) -> Result<bool, End> {
        let taken = self.client_wire.take_frame();
        let taken = taken.map_err(|error| End::Protocol(error.to_string()))?;
        let Some((frame, mut bytes)) = taken else {
            return Ok(false);
        };
        let Some(slot) = self.slot.take() else {
            return Ok(false);
        };
        if frame.kind != slot.kind {
            // Such as a client that hangs up to ask its user for a password.
            return Err(End::ClientLeft);
        }
        let from = frame.header.saturating_add(usize::from(slot.skip));
        let token =
            token(&bytes, from, slot.nul_terminated).map(|token| Secret::new(token.to_vec()));
        bytes.as_mut().zeroize();
        let token =
            token.ok_or_else(|| End::Protocol("there is no token in its place".to_owned()))?;
        let outcome = self.authenticate(token).await?;
        let actions = self.plugin.on_identity(&outcome)?;
        self.todo.push_back(actions);
        Ok(true)
    }

    async fn authenticate(&mut self, token: Secret) -> Result<IdentityOutcome, End> {
        let now = self.parts.clock.now();
        let connect = self.parts.gatekeeper.connect(token, now);
        let principal = match within(self.handshake_by, self.place.signals(), connect).await? {
            Ok(principal) => principal,
            Err(denial) => return Ok(self.turn_away(denial)),
        };
        self.note_principal(&principal);
        let most = self.parts.limits.max_sessions_per_principal;
        let Some(principal) = self.place.admit(principal, most) else {
            let denial = Denial::new(
                Kind::Unavailable,
                "HP-LIMIT",
                "you have too many sessions open at this gateway",
            )
            .hint("close some of them, or wait until they end");
            return Ok(self.turn_away(denial));
        };
        // Revoked between the check of the token and the place in the registry.
        if self.parts.gatekeeper.is_revoked(&principal) {
            return Err(End::Revoked);
        }
        self.open_record(&principal).await?;
        self.plugin.belongs_to(digest(&principal.identity))?;
        self.over_by = Some(self.session_end(&principal));
        self.gate = Some(Gate::new(self.gate_setup(&principal)));
        let outcome = IdentityOutcome::Accepted {
            subject: principal.identity.subject.clone(),
            label: principal.label.clone(),
            groups: principal.groups.clone(),
        };
        self.principal = Some(principal);
        Ok(outcome)
    }

    fn turn_away(&self, denial: Denial) -> IdentityOutcome {
        self.place.refused();
        tracing::warn!(
            code = denial.code,
            message = denial.message,
            "login refused"
        );
        IdentityOutcome::Refused(denial)
    }

    /// The session's first record, safe before the target hears anything.
    async fn open_record(&mut self, principal: &Principal) -> Result<(), End> {
        let open = Open {
            principal: principal.clone(),
            target: self.route.name.clone(),
            tags: Some(self.route.target.tags.clone()),
            listener: self.route.listener.clone(),
            source: self.source.clone(),
            tls: self.client_tls,
            account: self.route.target.user.clone(),
            plugin: self.protocol.used(),
            entropy: hex::encode(self.entropy),
        };
        let record = NewRecord {
            session: Some(self.place.id().clone()),
            at: self.parts.clock.now(),
            entry: Entry::Open(open),
            blob: Bytes::new(),
        };
        let safe = self.parts.ledger.submit(record, Durability::Synced);
        // Once asked for it may be there, so it needs its end whatever comes.
        self.journal.opened = true;
        within(self.handshake_by, self.place.signals(), safe).await??;
        Ok(())
    }

    fn gate_setup(&self, principal: &Arc<Principal>) -> GateSetup {
        GateSetup {
            session: self.place.id().clone(),
            principal: Arc::clone(principal),
            target: self.route.name.clone(),
            tags: self.route.target.tags.clone(),
            owners: self.route.target.owners.clone(),
            protocol: self.plugin_name().to_owned(),
            classes: self.protocol.descriptor().classes.clone(),
            limits: self.parts.hold.clone(),
            rules: Arc::clone(&*self.rules),
            clock_skew: self.parts.clock_skew,
            relaxed: self.parts.relaxed,
        }
    }

    fn session_end(&self, principal: &Principal) -> Instant {
        use holdpoint_core::config::OnTokenExpiry;
        let now = self.parts.clock.now();
        let mut left = self.parts.max_session;
        if self.parts.on_token_expiry == OnTokenExpiry::Close {
            let good = std::time::Duration::from_secs(principal.expires.saturating_sub(now.unix()));
            left = left.min(good.saturating_add(self.parts.clock_skew));
        }
        self.parts.clock.instant(now.deadline(left))
    }

    pub(super) async fn connect(&mut self) -> Result<(), End> {
        if self.principal.is_none() || self.upstream.is_some() || self.ready {
            return Err(End::misbehaved("it asked for the target where it may not"));
        }
        let dial = Upstream::dial(&self.route.target, self.place.id().clone());
        let (upstream, login) = within(self.handshake_by, self.place.signals(), dial)
            .await
            .map_err(End::at_target)??;
        self.upstream = Some(upstream);
        self.upstream_login = Some(login);
        Ok(())
    }

    /// Writes the target's password where the plugin's protocol wants it. It goes
    /// into no record.
    pub(super) fn give_credential(&mut self, frame: &CredentialFrame) -> Result<(), End> {
        let (Some(upstream), Some(login)) = (&mut self.upstream, &self.upstream_login) else {
            return Err(End::misbehaved(
                "it asked for the password outside of login",
            ));
        };
        if self.route.upstream_tls.is_some() && !upstream.is_tls() {
            return Err(End::misbehaved("it asked for the password in clear"));
        }
        let password = self.parts.custody.password(&self.route.name);
        let password =
            password.ok_or_else(|| End::misbehaved("it asked for a password; there is none"))?;
        let bytes = filled(frame, password.expose())
            .ok_or_else(|| End::misbehaved("the password does not fit the frame it gave"))?;
        upstream.author(login, bytes);
        Ok(())
    }

    pub(super) fn get_ready(&mut self) -> Result<(), End> {
        let Some(upstream) = &self.upstream else {
            return Err(End::misbehaved("it was ready without a target"));
        };
        if self.ready || self.gate.is_none() {
            return Err(End::misbehaved(
                "it was ready twice, or without a principal",
            ));
        }
        if self.route.upstream_tls.is_some() && !upstream.is_tls() {
            return Err(End::misbehaved("it was ready without TLS to the target"));
        }
        if !self.protected.is_empty() && !self.upstream_wire.guards_rows() {
            return Err(End::misbehaved(
                "columns of this target are protected, and it does not mask",
            ));
        }
        self.upstream_login = None;
        // Counts anew from here.
        self.drain_by = None;
        self.ready = true;
        tracing::info!(tls = upstream.is_tls(), "session ready");
        Ok(())
    }
}

/// An identity as one number: issuers' names hold no line ends.
fn digest(identity: &Identity) -> Digest {
    Digest::of(format!("{}\n{}", identity.issuer, identity.subject).as_bytes())
}

/// The token's place in a frame.
fn token(bytes: &[u8], from: usize, nul_terminated: bool) -> Option<&[u8]> {
    let rest = bytes.get(from..)?;
    let token = if nul_terminated {
        let end = rest.iter().position(|byte| *byte == 0)?;
        // Anything behind it would be a second answer to one question.
        if end + 1 != rest.len() {
            return None;
        }
        &rest[..end]
    } else {
        rest
    };
    (!token.is_empty()).then_some(token)
}

/// The frame with the password in it, its length field grown by as much.
fn filled(frame: &CredentialFrame, password: &[u8]) -> Option<Bytes> {
    let mut bytes =
        BytesMut::with_capacity(frame.before.len() + password.len() + frame.after.len());
    bytes.extend_from_slice(&frame.before);
    if let Some((offset, width)) = frame.length {
        let at = usize::from(offset);
        let field = bytes.get_mut(at..at.checked_add(usize::from(width))?)?;
        if field.len() > 8 {
            return None;
        }
        let value = field
            .iter()
            .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let mut value = value.checked_add(password.len() as u64)?;
        for byte in field.iter_mut().rev() {
            *byte = u8::try_from(value & 0xff).ok()?;
            value >>= 8;
        }
        if value != 0 {
            return None;
        }
    }
    bytes.extend_from_slice(password);
    bytes.extend_from_slice(&frame.after);
    Some(bytes.freeze())
}
