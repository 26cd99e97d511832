//! How long this machine let nobody of ours run.
//!
//! A thread of its own asks to be woken every few milliseconds and notes where that came late.
//! It waits for no lock, runtime or task of the program, so nothing that the program does
//! itself is excused: a late end counts as late unless this thread stood still, too, between
//! the deadline and the end.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_millis(5);

/// Shorter ones are how a busy machine is.
const NOTED: Duration = Duration::from_millis(50);

#[derive(Clone, Default)]
pub(super) struct Pulse(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Pulse {
    /// Beats until the last copy is gone.
    pub(super) fn start() -> Self {
        let pulse = Self::default();
        let seen = Arc::downgrade(&pulse.0);
        thread::spawn(move || {
            let mut due = Instant::now() + BEAT;
            loop {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let now = Instant::now();
                let Some(stalls) = seen.upgrade() else {
                    return;
                };
                if now > due + NOTED {
                    stalls.lock().unwrap().push((due, now));
                }
                due = now + BEAT;
            }
        });
        pulse
    }

    /// How much of the time from `start` to `end` this machine stood still.
    pub(super) fn between(&self, start: Instant, end: Instant) -> Duration {
        let stalls = self.0.lock().unwrap();
        let within = |(from, to): &(Instant, Instant)| {
            (*to).min(end).saturating_duration_since((*from).max(start))
        };
        stalls.iter().map(within).sum()
    }

    pub(super) fn longest(&self) -> Duration {
        let stalls = self.0.lock().unwrap();
        stalls
            .iter()
            .map(|(from, to)| to.duration_since(*from))
            .max()
            .unwrap_or_default()
    }
}
