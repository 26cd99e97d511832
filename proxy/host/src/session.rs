//! One connection's instance.
//!
//! The first failure is the last thing the instance does: every later call
//! repeats it. So that the client still hears why, the words for the end are
//! asked for right after `open`, while all is well.

use std::fmt;

use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::framing::Side;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{Action, Frame, IdentityOutcome, PluginError, Verdict};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::protocol::{self, GuestSession};
use crate::bindings::{StreamPlugin, types};
use crate::convert::{self, Shown};
use crate::guest::Guest;
use crate::plugin::Plugin;

/// Bytes of a client's commands past which a spent CPU budget says something of
/// them and nothing of the plugin.
const LARGE: usize = 64 << 10;

/// What a plugin may answer to an event.
type Answer = Result<Vec<protocol::Action>, types::Fault>;

pub struct Session {
    plugin: Plugin,
    /// Absent once its memory cannot be trusted.
    instance: Option<Instance>,
    /// Why nothing but the end is left.
    over: Option<PluginError>,
    /// Whose session it is, once that is known.
    who: Option<Digest>,
    /// Bytes of the client since the last verdict.
    input: usize,
    shown: Shown,
    /// Bytes that end the session when the instance no longer can.
    farewell: Vec<u8>,
}

struct Instance {
    store: Store<Guest>,
    plugin: StreamPlugin,
    session: ResourceAny,
}

impl Session {
    pub(crate) fn new(
        plugin: Plugin,
        store: Store<Guest>,
        bindings: StreamPlugin,
        session: ResourceAny,
    ) -> Self {
        Self {
            plugin,
            instance: Some(Instance {
                store,
                plugin: bindings,
                session,
            }),
            over: None,
            who: None,
            input: 0,
            shown: Shown { last: 0, frames: 0 },
            farewell: Vec::new(),
        }
    }

    /// Called once, first.
    ///
    /// # Errors
    /// As all calls here: the plugin gave up, failed or broke the interface. The
    /// session is over, and [`Session::terminate`] has its last bytes.
    pub fn open(&mut self) -> Result<Vec<Action>, PluginError> {
        let actions = self.event(|session, store, handle| session.call_open(store, handle))?;
        let denial = Denial::new(
            Kind::Unavailable,
            "HP-PLUGIN",
            "the gateway's protocol plugin failed; the session is over",
        )
        .hint("the operator's log and journal say more; connect again");
        let denial = convert::refusal(&denial);
        self.farewell =
            self.call(|session, store, handle| session.call_terminate(store, handle, &denial))?;
        Ok(actions)
    }

    /// A handshake that was asked for has succeeded.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_tls(&mut self, origin: Side) -> Result<Vec<Action>, PluginError> {
        let origin = convert::side_out(origin);
        self.event(|session, store, handle| session.call_on_tls(store, handle, origin))
    }

    /// Says whose session it is, before the plugin hears of it. `who` is the same
    /// for all sessions of a principal, and no other's.
    ///
    /// # Errors
    /// The plugin has failed too often, for this principal or for many. The
    /// instance is well and can say so with [`Session::terminate`].
    pub fn belongs_to(&mut self, who: Digest) -> Result<(), PluginError> {
        self.plugin.admit(&who)?;
        self.who = Some(who);
        Ok(())
    }

    /// Frames of one side, in order.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_frames(
        &mut self,
        origin: Side,
        frames: &[Frame],
    ) -> Result<Vec<Action>, PluginError> {
        if origin == Side::Client {
            let bytes = frames.iter().map(|frame| frame.body.len()).sum();
            self.input = self.input.saturating_add(bytes);
        }
        let origin = convert::side_out(origin);
        self.shown.frames = self.shown.frames.saturating_add(frames.len());
        self.shown.last = frames
            .iter()
            .map(|frame| frame.seq)
            .fold(self.shown.last, u64::max);
        let frames: Vec<protocol::Frame> = frames.iter().map(convert::frame).collect();
        self.event(|session, store, handle| session.call_on_frames(store, handle, origin, &frames))
    }

    /// What came of the token.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_identity(&mut self, outcome: &IdentityOutcome) -> Result<Vec<Action>, PluginError> {
        let outcome = convert::identity(outcome);
        self.event(|session, store, handle| session.call_on_identity(store, handle, &outcome))
    }

    /// The decision on the outstanding submission.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_verdict(&mut self, verdict: &Verdict) -> Result<Vec<Action>, PluginError> {
        self.input = 0;
        let verdict = convert::verdict(verdict);
        self.event(|session, store, handle| session.call_on_verdict(store, handle, &verdict))
    }

    /// Bytes that tell the client `text` while its command is held.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn notice(&mut self, text: &str) -> Result<Vec<u8>, PluginError> {
        self.alive()?;
        self.call(|session, store, handle| session.call_notice(store, handle, text))
    }

    /// Bytes that end the session. Never fails: where the plugin cannot put this
    /// refusal into words any more, the prepared ones are given, and nothing where
    /// it failed before it could prepare any.
    pub fn terminate(&mut self, denial: &Denial) -> Vec<u8> {
        let denial = convert::refusal(denial);
        self.call(|session, store, handle| session.call_terminate(store, handle, &denial))
            .unwrap_or_else(|_| self.farewell.clone())
    }

    /// Why the session is over, if it is.
    pub fn failure(&self) -> Option<&PluginError> {
        self.over.as_ref()
    }

    fn alive(&self) -> Result<(), PluginError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    fn event(
        &mut self,
        call: impl FnOnce(&GuestSession<'_>, &mut Store<Guest>, ResourceAny) -> wasmtime::Result<Answer>,
    ) -> Result<Vec<Action>, PluginError> {
        self.alive()?;
        match self.call(call)? {
            Ok(actions) => convert::actions(actions, self.shown)
                .map_err(|wrong| self.give_up(self.plugin.misbehaved(wrong))),
            Err(fault) => {
                // An orderly end: the plugin can still say goodbye.
                let plugin = self.plugin.name().to_owned();
                let error = PluginError::Fault {
                    plugin,
                    message: fault.message,
                };
                self.over = Some(error.clone());
                Err(error)
            }
        }
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&GuestSession<'_>, &mut Store<Guest>, ResourceAny) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        let Some(instance) = &mut self.instance else {
            let plugin = self.plugin.name().to_owned();
            let message = "its instance is gone".to_owned();
            return Err(self
                .over
                .clone()
                .unwrap_or(PluginError::Misbehaved { plugin, message }));
        };
        let Instance {
            store,
            plugin,
            session,
        } = instance;
        let guest = plugin.holdpoint_plugin_stream_protocol().session();
        let handle = *session;
        self.plugin
            .call(store, |store| call(&guest, store, handle))
            .map_err(|error| self.give_up(error))
    }

    fn give_up(&mut self, error: PluginError) -> PluginError {
        let large = self.input > LARGE && matches!(error, PluginError::Deadline { .. });
        if let Some(who) = self.who.filter(|_| !large) {
            self.plugin.failed_for(who);
        }
        self.instance = None;
        self.over = Some(error.clone());
        error
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("plugin", &self.plugin)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
