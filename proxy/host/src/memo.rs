//! What an instance was told, from which its equal can be made.
//!
//! A plugin has no clock, no randomness and no file: whoever tells a fresh instance
//! the same things in the same order has the same instance. So one that only waits
//! can be given up, since a few KiB of memo stand for ten times that of memory, and
//! made again when it is needed. The memo ends once a session has said more than
//! fits; its instance then stays for good.

use std::ops::Deref;

use bytes::Bytes;
use holdpoint_core::denial::Denial;
use holdpoint_core::framing::Side;
use holdpoint_core::plugin::{Frame, IdentityOutcome, Setup, Verdict};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::protocol::{self, GuestSession};
use crate::bindings::types;
use crate::convert;
use crate::guest::Guest;

/// Bytes that a memo may have: many times what a login and a command take.
const MOST: usize = 16 << 10;

/// One call of an instance. Small, since each session keeps a dozen of them.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Open,
    Tls(Side),
    Frames(Side, Part<'a, [Frame]>),
    Identity(Part<'a, IdentityOutcome>),
    Verdict(Part<'a, Verdict>),
    Notice(Part<'a, str>),
    Terminate(Part<'a, Denial>),
}

/// What a call says: the caller's while it is made, our own once it is kept.
#[derive(Debug)]
pub(crate) enum Part<'a, T: ?Sized> {
    Told(&'a T),
    Kept(Box<T>),
}

impl<T: ?Sized> Deref for Part<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Told(part) => part,
            Self::Kept(part) => part,
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
            Self::Terminate(denial) => guest
                .call_terminate(store, session, &convert::refusal(denial))
                .map(Reply::Bytes),
        }
    }

    /// What it costs to keep, roughly.
    fn size(&self) -> usize {
        let denied = |denial: &Denial| {
            let more = [&denial.detail, &denial.hint];
            let more = more.into_iter().flatten().map(String::len);
            denial.code.len() + denial.message.len() + more.sum::<usize>()
        };
        let text = match self {
            Self::Open | Self::Tls(_) => 0,
            Self::Frames(_, frames) => frames
                .iter()
                .map(|frame| size_of::<Frame>() + frame.body.len())
                .sum(),
            Self::Identity(outcome) => match &**outcome {
                IdentityOutcome::Refused(denial) => denied(denial),
                IdentityOutcome::Accepted {
                    subject,
                    label,
                    groups,
                } => {
                    let groups = groups.iter().map(|group| size_of::<String>() + group.len());
                    subject.len() + label.len() + groups.sum::<usize>()
                }
            },
            Self::Verdict(verdict) => match &**verdict {
                Verdict::Forwarded => 0,
                Verdict::Refused(denial) => denied(denial),
            },
            Self::Notice(text) => text.len(),
            Self::Terminate(denial) => denied(denial),
        };
        size_of::<Self>() + text
    }

    /// A copy that does not keep a connection's whole read buffer in memory.
    fn kept(&self) -> Call<'static> {
        match self {
            Self::Open => Call::Open,
            Self::Tls(side) => Call::Tls(*side),
            Self::Frames(side, frames) => {
                let frames = frames.iter().map(|frame| Frame {
                    body: Bytes::copy_from_slice(&frame.body),
                    ..*frame
                });
                Call::Frames(*side, Part::Kept(frames.collect()))
            }
            Self::Identity(outcome) => Call::Identity(Part::Kept(Box::new((**outcome).clone()))),
            Self::Verdict(verdict) => Call::Verdict(Part::Kept(Box::new((**verdict).clone()))),
            Self::Notice(text) => Call::Notice(Part::Kept((**text).into())),
            Self::Terminate(denial) => Call::Terminate(Part::Kept(Box::new((**denial).clone()))),
        }
    }
}

/// As much of an answer as is kept, to know the plugin again by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Actions(usize),
    Fault,
    /// Rare and short: what is told to a client that waits, or at the end.
    Bytes(Vec<u8>),
}

impl Reply {
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Event(Ok(actions)) => Answer::Actions(actions.len()),
            Self::Event(Err(_)) => Answer::Fault,
            Self::Bytes(bytes) => Answer::Bytes(bytes.clone()),
        }
    }
}

/// All calls of an instance, from its first.
#[derive(Debug)]
pub(crate) struct Memo {
    pub(crate) setup: Setup,
    /// The answer is absent where none came.
    pub(crate) calls: Vec<(Call<'static>, Option<Answer>)>,
    bytes: usize,
}

impl Memo {
    pub(crate) fn new(setup: Setup) -> Self {
        let settings = setup.settings.iter();
        let bytes = settings.map(|(name, value)| name.len() + value.len()).sum();
        Self {
            setup,
            calls: Vec::new(),
            bytes,
        }
    }

    /// False where there is no room for it; the memo is of no more use then.
    #[must_use]
    pub(crate) fn note(&mut self, call: &Call<'_>) -> bool {
        self.bytes = self.bytes.saturating_add(call.size());
        let fits = self.bytes <= MOST;
        if fits {
            self.calls.push((call.kept(), None));
        }
        fits
    }

    /// What the last call was answered with.
    pub(crate) fn answered(&mut self, reply: &Reply) {
        if let Some((_, answer)) = self.calls.last_mut() {
            *answer = Some(reply.answer());
        }
    }

    /// No call is expected for a while.
    pub(crate) fn rest(&mut self) {
        self.calls.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_call_is_small() {
        assert!(size_of::<Call<'_>>() <= 32, "{}", size_of::<Call<'_>>());
    }
}
