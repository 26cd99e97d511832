//! Cancel keys: what a client shows on a second connection to stop a command of its first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::signals::{Signal, Signals};

/// Shorter keys could be guessed.
const MIN_KEY: usize = 8;

/// Keys of all open sessions.
#[derive(Debug, Default)]
pub struct Cancels(Mutex<HashMap<Vec<u8>, Signals>>);

/// A registered key; taken back when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    cancels: Arc<Cancels>,
    key: Vec<u8>,
}

impl Cancels {
    /// `None` where the key is too short or taken.
    pub(super) fn register(self: &Arc<Self>, key: Vec<u8>, session: Signals) -> Option<Registered> {
        if key.len() < MIN_KEY {
            return None;
        }
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.contains_key(&key) {
            return None;
        }
        keys.insert(key.clone(), session);
        Some(Registered {
            cancels: Arc::clone(self),
            key,
        })
    }

    /// Tells the session whose key this is, and nobody who asked whether there is one.
    pub(super) fn cancel(&self, key: &[u8]) {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = keys.get(key) {
            session.tell(Signal::Cancel);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
