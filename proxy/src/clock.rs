//! The one place where the program asks what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdpoint_core::Now;
use tokio::time::Instant;

/// Reads both clocks, as every record's `at` should be.
pub fn now() -> Now {
    let wall = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let mono = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = |seconds: u64, nanos: u64| seconds.saturating_mul(1_000_000_000) + nanos;
    Now {
        wall_ns: nanos(wall.as_secs(), wall.subsec_nanos().into()),
        mono_ns: nanos(
            mono.tv_sec.try_into().unwrap_or_default(),
            mono.tv_nsec.try_into().unwrap_or_default(),
        ),
    }
}

/// Both clocks. Copies share their start, so that monotonic readings compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// The monotonic reading at `start`, on the scale of the journal's own records.
    base_ns: u64,
}

impl Clock {
    /// Make one for the whole process.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            base_ns: now().mono_ns,
        }
    }

    pub fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Now {
            wall_ns: nanos(wall),
            mono_ns: self.base_ns.saturating_add(nanos(self.start.elapsed())),
        }
    }

    /// The instant of a monotonic reading, for timers.
    pub fn instant(&self, mono_ns: u64) -> Instant {
        self.start
            .checked_add(Duration::from_nanos(mono_ns.saturating_sub(self.base_ns)))
            .unwrap_or_else(|| self.start + Duration::from_secs(u64::from(u32::MAX)))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
