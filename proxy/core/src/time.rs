use serde::Serialize;

/// One reading of both clocks, taken by whoever does the IO.
///
/// Deadlines compare `mono_ns`, so that a stepped wall clock neither opens nor
/// closes anything; `wall_ns` is for records and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Now {
    /// Nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// Nanoseconds on a clock that never goes back, from an arbitrary start.
    pub mono_ns: u64,
}

impl Now {
    /// The monotonic instant `after` this one, in nanoseconds.
    pub fn deadline(self, after: std::time::Duration) -> u64 {
        self.mono_ns
            .saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Unix time in whole seconds.
    pub fn unix(self) -> u64 {
        self.wall_ns / 1_000_000_000
    }
}
