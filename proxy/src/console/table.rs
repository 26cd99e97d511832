//! What the console remembers between requests, bounded: who is signed in, and who is about to.
//!
//! Entries are found by the hash of a secret, so that neither looking one up nor a copy of
//! this memory tells a secret. Gone with the process: people sign in again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdpoint_core::id::Digest;

/// Values that end by themselves; past `most`, the oldest makes room.
pub(super) struct Table<T> {
    most: usize,
    entries: Mutex<HashMap<Digest, Entry<T>>>,
}

struct Entry<T> {
    born: u64,
    until: u64,
    value: Arc<T>,
}

impl<T> Table<T> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            entries: Mutex::default(),
        }
    }

    /// Times are of the monotonic clock, in nanoseconds.
    pub(super) fn put(&self, secret: &str, value: T, now: u64, until: u64) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.until > now);
        if entries.len() >= self.most {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.born);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                entries.remove(&key);
            }
        }
        let entry = Entry {
            born: now,
            until,
            value: Arc::new(value),
        };
        entries.insert(Digest::of(secret.as_bytes()), entry);
    }

    pub(super) fn get(&self, secret: &str, now: u64) -> Option<Arc<T>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&Digest::of(secret.as_bytes()))?;
        (entry.until > now).then(|| Arc::clone(&entry.value))
    }

    /// Gives it out for the last time.
    pub(super) fn take(&self, secret: &str, now: u64) -> Option<Arc<T>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.remove(&Digest::of(secret.as_bytes()))?;
        (entry.until > now).then_some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_time_ends_the_rest() {
        let table = Table::new(2);
        table.put("a", 1, 10, 100);
        table.put("b", 2, 11, 100);
        table.put("c", 3, 12, 50);
        assert!(table.get("a", 12).is_none());
        assert_eq!(table.get("b", 12).as_deref(), Some(&2));
        assert!(table.get("c", 50).is_none());
        // Nothing that is over takes a place.
        table.put("d", 4, 60, 100);
        assert!(table.get("b", 60).is_some() && table.get("d", 60).is_some());
    }

    #[test]
    fn what_is_taken_is_gone() {
        let table = Table::new(2);
        table.put("a", 1, 0, 100);
        assert!(table.take("a", 1).is_some());
        assert!(table.take("a", 1).is_none());
    }
}
