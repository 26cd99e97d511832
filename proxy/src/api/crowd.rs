//! How many of a thing each caller has at once, so that none has all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by caller.
pub(super) struct Crowd<K> {
    most: usize,
    counts: Mutex<HashMap<K, usize>>,
}

/// One of a caller's places; given back when dropped.
pub(super) struct Place<K: Eq + Hash> {
    crowd: Arc<Crowd<K>>,
    caller: K,
}

impl<K: Eq + Hash + Clone> Crowd<K> {
    /// `most` for each.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let counts = Mutex::default();
        Arc::new(Self { most, counts })
    }

    /// `None` for one too many.
    pub(super) fn enter(self: &Arc<Self>, caller: K) -> Option<Place<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        let crowd = Arc::clone(self);
        Some(Place { crowd, caller })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self
            .crowd
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_their_own() {
        let crowd = Crowd::new(2);
        let mut places = vec![crowd.enter("ada"), crowd.enter("ada"), crowd.enter("bob")];
        assert!(places.iter().all(Option::is_some));
        assert!(crowd.enter("ada").is_none());
        places.remove(0);
        assert!(crowd.enter("ada").is_some());
        places.clear();
        assert!(crowd.counts.lock().unwrap().is_empty());
    }
}
