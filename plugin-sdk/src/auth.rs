//! Logging in to the target with a secret that stays in the host.
//!
//! The plugin relays the target's challenges and puts the answers where its
//! protocol wants them.

pub use crate::bindings::holdpoint::plugin::upstream_auth::AuthError;

#[cfg(target_arch = "wasm32")]
use crate::bindings::holdpoint::plugin::upstream_auth as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing as host;

/// The account to log in as at the target; empty where none is configured.
pub fn username() -> String {
    host::username()
}

/// One login. The host allows a few per session, and none once it is ready.
pub struct Exchange(host::Exchange);

impl Exchange {
    /// `scram-sha-256`, `md5` (PostgreSQL's), …; an unknown name is an error of
    /// the first [`Exchange::step`].
    pub fn new(mechanism: &str) -> Self {
        Self(host::Exchange::new(mechanism))
    }

    /// Answers one challenge. The first is the mechanism's own beginning: empty
    /// for SCRAM, the salt for md5. An empty answer ends a verified exchange.
    ///
    /// # Errors
    /// The login cannot go on, and nothing is to be sent.
    pub fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, AuthError> {
        self.0.step(challenge)
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchange")
    }
}
