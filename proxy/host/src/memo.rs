//! What an instance was told, from which its equal can be made.
//!
//! A plugin has no clock, no randomness and no file: whoever tells a fresh instance
//! the same things in the same order has the same instance. So one that only waits
//! can be given up, since a few KiB of memo stand for ten times that of memory, and
//! made again when it is needed. The memo ends once a session has said more than
//! fits; its instance then stays for good.

mod codec;

use std::ops::Deref;

use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::framing::Side;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{Frame, IdentityOutcome, Setup, Verdict};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::protocol::{self, GuestSession};
use crate::bindings::types;
use crate::convert;
use crate::guest::Guest;

/// Bytes that a memo may have: many times what a login and a command take.
const MOST: usize = 16 << 10;

/// One call of an instance.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Open,
    /// [`Call::Terminate`] with [`failed`], which every session asks for.
    Farewell,
    Tls(Side),
    Frames(Side, Part<'a, [Frame]>),
    Identity(Part<'a, IdentityOutcome>),
    Verdict(Part<'a, Verdict>),
    Notice(Part<'a, str>),
    Terminate(Part<'a, Denial>),
}

/// What a call says: the caller's the first time, our own when it is made again.
#[derive(Debug)]
pub(crate) enum Part<'a, T: ?Sized> {
    Told(&'a T),
    Read(Box<T>),
}

impl<T: ?Sized> Deref for Part<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Told(part) => part,
            Self::Read(part) => part,
        }
    }
}

/// What it answers.
pub(crate) enum Reply {
    Event(Result<Vec<protocol::Action>, types::Fault>),
    Bytes(Vec<u8>),
}

impl Call<'_> {
    pub(crate) fn make(
        &self,
        guest: &GuestSession<'_>,
        store: &mut Store<Guest>,
        session: ResourceAny,
    ) -> wasmtime::Result<Reply> {
        match self {
            Self::Open => guest.call_open(store, session).map(Reply::Event),
            Self::Tls(side) => guest
                .call_on_tls(store, session, convert::side_out(*side))
                .map(Reply::Event),
            Self::Frames(side, frames) => {
                let frames: Vec<protocol::Frame> = frames.iter().map(convert::frame).collect();
                guest
                    .call_on_frames(store, session, convert::side_out(*side), &frames)
                    .map(Reply::Event)
            }
            Self::Identity(outcome) => guest
                .call_on_identity(store, session, &convert::identity(outcome))
                .map(Reply::Event),
            Self::Verdict(verdict) => guest
                .call_on_verdict(store, session, &convert::verdict(verdict))
                .map(Reply::Event),
            Self::Notice(text) => guest.call_notice(store, session, text).map(Reply::Bytes),
            Self::Farewell => guest
                .call_terminate(store, session, &convert::refusal(&failed()))
                .map(Reply::Bytes),
            Self::Terminate(denial) => guest
                .call_terminate(store, session, &convert::refusal(denial))
                .map(Reply::Bytes),
        }
    }
}

/// What a client is told at the end when its instance can no longer say anything.
fn failed() -> Denial {
    Denial::new(
        Kind::Unavailable,
        "HP-PLUGIN",
        "the gateway's protocol plugin failed; the session is over",
    )
    .hint("the operator's log and journal say more; connect again")
}

/// As much of an answer as is kept, to know the plugin again by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Actions(u32),
    Fault,
    Bytes(Digest),
}

impl Reply {
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Event(Ok(actions)) => {
                Answer::Actions(u32::try_from(actions.len()).unwrap_or(u32::MAX))
            }
            Self::Event(Err(_)) => Answer::Fault,
            Self::Bytes(bytes) => Answer::Bytes(Digest::of(bytes)),
        }
    }
}

/// A memo that says something else than what was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// All calls of an instance, from its first, in one piece of memory: a session has two
/// dozen of them at least, most of a few bytes.
#[derive(Debug)]
pub(crate) struct Memo {
    pub(crate) setup: Setup,
    calls: Vec<u8>,
    /// The answer to the last call is not known yet.
    unanswered: bool,
    /// Bytes of the settings.
    base: usize,
}

impl Memo {
    pub(crate) fn new(setup: Setup) -> Self {
        let settings = setup.settings.iter();
        let base = settings.map(|(name, value)| name.len() + value.len()).sum();
        Self {
            setup,
            calls: Vec::new(),
            unanswered: false,
            base,
        }
    }

    /// False where there is no room for it; the memo is of no more use then.
    #[must_use]
    pub(crate) fn note(&mut self, call: &Call<'_>) -> bool {
        if std::mem::replace(&mut self.unanswered, true) {
            codec::write_answer(&mut self.calls, None);
        }
        // Asked first: a frame may be as large as commands may.
        let fits = self.base + self.calls.len() + codec::len(call) <= MOST;
        if fits {
            codec::write(&mut self.calls, call);
        }
        fits
    }

    /// What the last call was answered with.
    pub(crate) fn answered(&mut self, reply: &Reply) {
        if std::mem::take(&mut self.unanswered) {
            codec::write_answer(&mut self.calls, Some(&reply.answer()));
        }
    }

    /// Each call in turn with its answer, which is absent where none came. An error is a
    /// memo that cannot be read, from which nothing may be made.
    pub(crate) fn calls(
        &self,
    ) -> impl Iterator<Item = Result<(Call<'static>, Option<Answer>), Unreadable>> {
        codec::Calls(&self.calls)
    }

    /// No call is expected for a while.
    pub(crate) fn rest(&mut self) {
        self.calls.shrink_to_fit();
    }
}
