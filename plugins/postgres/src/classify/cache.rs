//! What was said of a text, for the next time.
//!
//! Bounded by entries and by bytes, both small enough for one per session. A
//! second chance per entry keeps what a program repeats while one-off texts
//! pass through.

use std::collections::HashMap;
use std::rc::Rc;

const MAX_ENTRIES: usize = 256;
/// Sum of the keys. A longer single text is judged afresh each time.
const MAX_BYTES: usize = 128 << 10;
const MAX_KEY: usize = 8 << 10;

pub(super) struct Cache<V> {
    entries: HashMap<Rc<str>, Entry<V>>,
    /// The clock's hand goes over the keys in the order they came.
    clock: std::collections::VecDeque<Rc<str>>,
    bytes: usize,
}

struct Entry<V> {
    said: Rc<V>,
    used: bool,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            clock: std::collections::VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<V> Cache<V> {
    pub(super) fn get_or(&mut self, key: &str, judge: impl FnOnce(&str) -> V) -> Rc<V> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = true;
            return entry.said.clone();
        }
        let said = Rc::new(judge(key));
        if key.len() <= MAX_KEY {
            self.insert(key.into(), said.clone());
        }
        said
    }

    fn insert(&mut self, key: Rc<str>, said: Rc<V>) {
        while self.entries.len() >= MAX_ENTRIES || self.bytes + key.len() > MAX_BYTES {
            let Some(oldest) = self.clock.pop_front() else {
                break;
            };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.clock.push_back(oldest);
                }
                _ => {
                    self.entries.remove(&oldest);
                    self.bytes -= oldest.len();
                }
            }
        }
        self.bytes += key.len();
        self.clock.push_back(key.clone());
        self.entries.insert(key, Entry { said, used: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_and_repeated_texts_stay() {
        let mut cache = Cache::default();
        for round in 0..5000 {
            cache.get_or("again", |_| 1);
            cache.get_or(&format!("{round}{}", "x".repeat(round % 3000)), |_| 0);
        }
        assert!(cache.entries.len() <= MAX_ENTRIES && cache.bytes <= MAX_BYTES);
        assert_eq!(cache.entries.len(), cache.clock.len());
        assert_eq!(*cache.get_or("again", |_| 2), 1);
    }
}
