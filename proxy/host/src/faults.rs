//! In whose sessions a plugin failed, and when that is enough.
//!
//! Whoever can make a plugin fail at will must not take it from everybody else. So
//! each principal counts once: a plugin is quarantined after it failed for several
//! of them. One for whom it fails again and again is shut out alone.
//!
//! What fails before anybody is known counts for nothing: whoever knocks could
//! make it happen. Such a session is over all the same.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdpoint_core::id::Digest;

/// How often it failed, by principal. Grows to one entry for each session that was
/// open when the plugin was quarantined, since none begins afterwards.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<BTreeMap<Digest, u32>>);

impl Faults {
    /// Counts one; gives how many principals there are now.
    pub(crate) fn count(&self, who: Digest) -> usize {
        let mut all = self.all();
        let of_one = all.entry(who).or_default();
        *of_one = of_one.saturating_add(1);
        all.len()
    }

    pub(crate) fn of(&self, who: &Digest) -> u32 {
        self.all().get(who).copied().unwrap_or(0)
    }

    pub(crate) fn principals(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Digest, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
