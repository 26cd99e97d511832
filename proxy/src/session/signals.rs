//! What a session is told from outside, until it looks.
//!
//! A channel would take most of a KiB for each session, and most hear nothing ever. What
//! is told twice before it is heard is heard once, which is all that any of it means.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a session is told from outside. What ends it is heard first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The gateway stops now.
    Shutdown,
    /// An operator ended it.
    Killed,
    /// Its identity was revoked.
    Revoked,
    /// Its client asked, on another connection, to stop what runs.
    Cancel,
    /// New rules are in force: a held command is judged again.
    Rules,
    /// The gateway stops: end once nothing is with the target.
    Drain,
}

const ALL: [Signal; 6] = [
    Signal::Shutdown,
    Signal::Killed,
    Signal::Revoked,
    Signal::Cancel,
    Signal::Rules,
    Signal::Drain,
];

/// One session's; clones are the same. Whoever has one may tell, and the session hears.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// A bit for each signal.
    unheard: u8,
    listener: Option<Waker>,
}

impl Signals {
    pub(super) fn tell(&self, signal: Signal) {
        let mut told = self.told();
        told.unheard |= 1 << signal as u8;
        let listener = told.listener.take();
        drop(told);
        if let Some(listener) = listener {
            listener.wake();
        }
    }

    pub(super) fn poll_hear(&self, cx: &mut Context<'_>) -> Poll<Signal> {
        let mut told = self.told();
        for signal in ALL {
            let bit = 1 << signal as u8;
            if told.unheard & bit != 0 {
                told.unheard &= !bit;
                return Poll::Ready(signal);
            }
        }
        match &mut told.listener {
            Some(listener) => listener.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The next one. Nothing is lost by dropping it.
    pub(super) async fn hear(&self) -> Signal {
        poll_fn(|cx| self.poll_hear(cx)).await
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_is_heard_once_and_the_end_first() {
        let signals = Signals::default();
        for signal in [
            Signal::Rules,
            Signal::Cancel,
            Signal::Cancel,
            Signal::Killed,
        ] {
            signals.tell(signal);
        }
        for signal in [Signal::Killed, Signal::Cancel, Signal::Rules] {
            assert_eq!(signals.hear().await, signal);
        }
        let listener = signals.clone();
        let heard = tokio::spawn(async move { listener.hear().await });
        tokio::task::yield_now().await;
        for signal in ALL {
            if signal == Signal::Drain {
                signals.tell(signal);
            }
        }
        assert_eq!(heard.await.unwrap(), Signal::Drain);
    }
}
