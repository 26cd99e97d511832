//! One connection's instance.
//!
//! The first failure is the last thing the instance does: every later call
//! repeats it. So that the client still hears why, the words for the end are
//! asked for right after `open`, while all is well.

use std::fmt;

use holdpoint_core::denial::Denial;
use holdpoint_core::framing::Side;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{Action, Frame, IdentityOutcome, PluginError, Setup, Verdict};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::StreamPlugin;
use crate::convert::{self, Shown};
use crate::forecast::Deferred;
use crate::guest::{Answers, Guest};
use crate::kept::Kept;
use crate::memo::{Call, Memo, Part, Reply};
use crate::plugin::Plugin;

/// Bytes of a client's commands past which a spent CPU budget says something of
/// them and nothing of the plugin.
const LARGE: usize = 64 << 10;

/// Of an instance that was made again.
const FICKLE: &str = "told the same again it answered otherwise: a plugin must be deterministic";

/// Of a forecast that did not come true.
const FALSE: &str =
    "it foretold another answer than it gives: what was done in its name is not its own";

/// Cannot be, and so nothing goes on from there.
const UNREADABLE: &str = "what its instance was told before cannot be read any more";

pub struct Session {
    plugin: Plugin,
    /// Absent once its memory cannot be trusted, and while it rests.
    instance: Option<Instance>,
    /// How to make the instance again. Absent once that would take too much.
    memo: Option<Memo>,
    /// What the target's login answered to the instance that rests.
    resting: Option<Answers>,
    /// The last notice, where nothing was called since: the same text gets the same
    /// bytes, and nobody has to wake for it.
    notice: Option<(String, Vec<u8>)>,
    /// Why nothing but the end is left.
    over: Option<PluginError>,
    /// Whose session it is, once that is known.
    who: Option<Digest>,
    /// Bytes of the client since the last verdict.
    input: usize,
    shown: Shown,
    kept: Kept,
    /// An exchange that was foretold and is not over.
    deferred: Option<Box<Deferred>>,
    /// Bytes that end the session when the instance no longer can.
    farewell: Vec<u8>,
}

pub(crate) struct Instance {
    pub(crate) store: Store<Guest>,
    pub(crate) plugin: StreamPlugin,
    pub(crate) session: ResourceAny,
}

impl Session {
    pub(crate) fn new(plugin: Plugin, setup: Setup, instance: Instance) -> Self {
        Self {
            plugin,
            instance: Some(instance),
            memo: Some(Memo::new(setup)),
            resting: None,
            notice: None,
            over: None,
            who: None,
            input: 0,
            shown: Shown { last: 0, frames: 0 },
            kept: Kept::default(),
            deferred: None,
            farewell: Vec::new(),
        }
    }

    /// Called once, first.
    ///
    /// # Errors
    /// As all calls here: the plugin gave up, failed or broke the interface. The
    /// session is over, and [`Session::terminate`] has its last bytes.
    pub fn open(&mut self) -> Result<Vec<Action>, PluginError> {
        let actions = self.event(&Call::Open)?;
        self.farewell = self.bytes(&Call::Farewell)?;
        Ok(actions)
    }

    /// A handshake that was asked for has succeeded.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_tls(&mut self, origin: Side) -> Result<Vec<Action>, PluginError> {
        self.event(&Call::Tls(origin))
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
        self.shown.frames = self.shown.frames.saturating_add(frames.len());
        self.shown.last = frames
            .iter()
            .map(|frame| frame.seq)
            .fold(self.shown.last, u64::max);
        self.alive()?;
        if let Some(actions) = self.foretold(origin, frames) {
            return Ok(actions);
        }
        self.event(&Call::Frames(origin, Part::Told(frames)))
    }

    /// What the plugin would answer, where it said so before.
    fn foretold(&mut self, origin: Side, frames: &[Frame]) -> Option<Vec<Action>> {
        match (origin, &mut self.deferred) {
            (Side::Client, None) => {
                let deferred = self.kept.forecasts.asked(frames)?;
                let actions = deferred.submission();
                self.deferred = Some(Box::new(deferred));
                // What it says while a command is held may be of that command.
                self.notice = None;
                Some(actions)
            }
            (Side::Upstream, Some(deferred)) => {
                let actions = deferred.answered(frames)?;
                self.deferred.take_if(|deferred| deferred.is_over());
                Some(actions)
            }
            (Side::Client, Some(_)) | (Side::Upstream, None) => None,
        }
    }

    /// What came of the token.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_identity(&mut self, outcome: &IdentityOutcome) -> Result<Vec<Action>, PluginError> {
        self.event(&Call::Identity(Part::Told(outcome)))
    }

    /// The decision on the outstanding submission.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn on_verdict(&mut self, verdict: &Verdict) -> Result<Vec<Action>, PluginError> {
        self.input = 0;
        self.event(&Call::Verdict(Part::Told(verdict)))
    }

    /// Bytes that tell the client `text` while its command is held.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub fn notice(&mut self, text: &str) -> Result<Vec<u8>, PluginError> {
        self.alive()?;
        if let Some((_, bytes)) = self.notice.as_ref().filter(|(said, _)| said == text) {
            return Ok(bytes.clone());
        }
        let bytes = self.bytes(&Call::Notice(Part::Told(text)))?;
        self.notice = Some((text.to_owned(), bytes.clone()));
        Ok(bytes)
    }

    /// Bytes that end the session. Never fails: where the plugin cannot put this
    /// refusal into words any more, the prepared ones are given, and nothing where
    /// it failed before it could prepare any.
    pub fn terminate(&mut self, denial: &Denial) -> Vec<u8> {
        self.bytes(&Call::Terminate(Part::Told(denial)))
            .unwrap_or_else(|_| self.farewell.clone())
    }

    /// Why the session is over, if it is.
    pub fn failure(&self) -> Option<&PluginError> {
        self.over.as_ref()
    }

    fn alive(&self) -> Result<(), PluginError> {
        self.over.clone().map_or(Ok(()), Err)
    }

    /// Gives the instance's memory back until the next call, which makes it again
    /// (a fraction of a millisecond). For a session that is going to wait. `notice` is
    /// what its client will hear meanwhile, for which nobody wakes.
    pub fn rest(&mut self, notice: Option<&str>) {
        if self.memo.is_none() || self.over.is_some() {
            return;
        }
        // A failure is told by the next call.
        if let Some(text) = notice.filter(|_| self.is_awake())
            && self.notice(text).is_err()
        {
            return;
        }
        let Some(memo) = self.memo.as_mut().filter(|_| self.over.is_none()) else {
            return;
        };
        if let Some(instance) = self.instance.take() {
            self.resting = Some(instance.store.into_data().into_answers());
            self.kept = Kept::default();
            memo.rest();
        }
    }

    /// Whether its instance has memory.
    pub fn is_awake(&self) -> bool {
        self.instance.is_some()
    }

    fn event(&mut self, call: &Call<'_>) -> Result<Vec<Action>, PluginError> {
        self.alive()?;
        self.catch_up()?;
        let reply = self.call(call)?;
        self.actions(reply)
    }

    /// Tells the plugin what went by without it, before it hears anything else.
    fn catch_up(&mut self) -> Result<(), PluginError> {
        let Some(deferred) = self.deferred.take() else {
            return Ok(());
        };
        for (origin, frames, done) in deferred.untold() {
            let reply = self.call(&Call::Frames(origin, Part::Told(&frames)))?;
            if self.actions(reply)? != done {
                return Err(self.give_up(self.plugin.misbehaved(FALSE.to_owned())));
            }
        }
        Ok(())
    }

    fn actions(&mut self, reply: Reply) -> Result<Vec<Action>, PluginError> {
        match reply {
            Reply::Event(Ok(actions)) => convert::actions(actions, self.shown, &mut self.kept)
                .map_err(|wrong| self.give_up(self.plugin.misbehaved(wrong))),
            Reply::Event(Err(fault)) => {
                // An orderly end: the plugin can still say goodbye.
                let plugin = self.plugin.name().to_owned();
                let error = PluginError::Fault {
                    plugin,
                    message: fault.message,
                };
                self.over = Some(error.clone());
                Err(error)
            }
            Reply::Bytes(_) => Ok(Vec::new()),
        }
    }

    fn bytes(&mut self, call: &Call<'_>) -> Result<Vec<u8>, PluginError> {
        self.catch_up()?;
        match self.call(call)? {
            Reply::Bytes(bytes) => Ok(bytes),
            Reply::Event(_) => Ok(Vec::new()),
        }
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Reply, PluginError> {
        self.notice = None;
        if let Some(answers) = self.resting.take() {
            self.wake(answers)?;
        }
        let Some(instance) = &mut self.instance else {
            let plugin = self.plugin.name().to_owned();
            let message = "its instance is gone".to_owned();
            return Err(self
                .over
                .clone()
                .unwrap_or(PluginError::Misbehaved { plugin, message }));
        };
        if let Some(memo) = &mut self.memo
            && !memo.note(call)
        {
            self.memo = None;
        }
        // Whatever it is told: what it expected before need not come any more.
        self.kept.forecasts.forget_expected();
        match instance.tell(&self.plugin, call) {
            Ok(reply) => {
                if let Some(memo) = &mut self.memo {
                    memo.answered(&reply);
                }
                Ok(reply)
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Makes the instance again. What it answers now was carried out back then, and is
    /// looked at only to see that it is the same plugin in the same state: one that answers
    /// otherwise may not go on where the other one stood.
    fn wake(&mut self, answers: Answers) -> Result<(), PluginError> {
        let Some(memo) = &self.memo else {
            return Ok(());
        };
        let setup = memo.setup.clone();
        let made = self
            .plugin
            .instance(setup, Guest::recalling(answers))
            .and_then(|mut instance| {
                let mut kept = Kept::default();
                for noted in memo.calls() {
                    let unreadable = |_| self.plugin.misbehaved(UNREADABLE.to_owned());
                    let (call, answer) = noted.map_err(unreadable)?;
                    let again = instance.tell(&self.plugin, &call)?;
                    if answer.is_some_and(|answer| answer != again.answer()) {
                        return Err(self.plugin.misbehaved(FICKLE.to_owned()));
                    }
                    if let Reply::Event(Ok(actions)) = again {
                        let wrong = |wrong| self.plugin.misbehaved(wrong);
                        kept.hear_again(actions).map_err(wrong)?;
                    }
                }
                instance.store.data_mut().speak();
                Ok((instance, kept))
            });
        match made {
            Ok((instance, kept)) => {
                self.instance = Some(instance);
                self.kept = kept;
                Ok(())
            }
            Err(error) => Err(self.give_up(error)),
        }
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

impl Instance {
    fn tell(&mut self, plugin: &Plugin, call: &Call<'_>) -> Result<Reply, PluginError> {
        let guest = self.plugin.holdpoint_plugin_stream_protocol().session();
        let session = self.session;
        plugin.call(&mut self.store, |store| call.make(&guest, store, session))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::NoAuth;
    use crate::{Engine, Limits};

    /// What is told to the instance that is made again is changed here, as if the plugin had
    /// a clock or a coin after all.
    #[test]
    fn a_plugin_that_answers_otherwise_when_it_is_told_the_same_goes_on_no_further() {
        let test = std::env::current_exe().unwrap();
        let out = test.ancestors().nth(3).unwrap().join("plugins");
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
        let built = holdpoint_plugin_build::build(&dir, &out).unwrap();
        let engine = Engine::new(Limits::default(), None).unwrap();
        let plugin = engine
            .load(&std::fs::read(built.path).unwrap(), None)
            .unwrap();
        for (deed, fickle) in [("nothing", false), ("chatter", true), ("fault", true)] {
            let setup = Setup {
                settings: vec![("do".to_owned(), String::new())],
                client_tls: true,
                entropy: [7; 32],
            };
            let mut session = plugin.session(setup, Box::new(NoAuth)).unwrap();
            session.open().unwrap();
            let frame = |seq| {
                [Frame {
                    seq,
                    kind: None,
                    body: bytes::Bytes::from_static(b"go"),
                }]
            };
            session.on_frames(Side::Client, &frame(1)).unwrap();
            let memo = session.memo.as_mut().unwrap();
            memo.setup.settings[0].1 = deed.to_owned();
            session.rest(None);
            let next = session.on_frames(Side::Client, &frame(2));
            let said = next.map(|_| ()).map_err(|error| error.to_string());
            let says = matches!(&said, Err(said) if said.contains("deterministic"));
            assert_eq!(says, fickle, "{deed}: {said:?}");
        }
    }
}
