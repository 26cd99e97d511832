//! Proof that a message between nodes was written by one of them.
//!
//! HMAC-SHA256 under the secret that all nodes share. Whoever has the store alone can
//! delete, delay and repeat messages, and can make none. What a message is and where it
//! lies goes into the proof, so that one of another kind or place is not taken for it.
//!
//! Limits: all nodes have the same secret, so one node can write in another's name.

use hmac::{Hmac, KeyInit as _, Mac as _};
use holdpoint_core::secret::Secret;
use sha2::Sha256;

/// Shorter secrets can be guessed.
const MIN_SECRET: usize = 32;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A vote, for one node.
    Ballot,
    /// That node's answer.
    Answer,
    /// An approval as it is seen.
    Posted,
    /// The public key of a node's journal.
    Key,
    /// Something that one node is to do.
    Errand,
    /// Who is let in no more at one node.
    Revoked,
    /// What one process of a node can be asked.
    Speaks,
}

impl Kind {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Ballot => b"holdpoint ballot 1",
            Self::Answer => b"holdpoint answer 1",
            Self::Posted => b"holdpoint posted 1",
            Self::Key => b"holdpoint key 1",
            Self::Errand => b"holdpoint errand 1",
            Self::Revoked => b"holdpoint revoked 1",
            Self::Speaks => b"holdpoint speaks 1",
        }
    }
}

pub(super) struct Seal(Hmac<Sha256>);

/// The secret cannot be used. Never says what it is.
#[derive(Debug, thiserror::Error)]
#[error(
    "`store.redis.cluster_secret` has {0} bytes, fewer than {MIN_SECRET}: \
     make one with `openssl rand -base64 48`, the same for all nodes"
)]
pub struct WeakSecret(usize);

impl Seal {
    pub(super) fn new(secret: &Secret) -> Result<Self, WeakSecret> {
        let bytes = secret.expose();
        if bytes.len() < MIN_SECRET {
            return Err(WeakSecret(bytes.len()));
        }
        Hmac::new_from_slice(bytes)
            .map(Self)
            .map_err(|_| WeakSecret(bytes.len()))
    }

    /// Hex; `place` is where the message lies.
    pub(super) fn mark(&self, kind: Kind, place: &[&str], body: &[u8]) -> String {
        hex::encode(self.over(kind, place, body).finalize().into_bytes())
    }

    pub(super) fn is_ours(&self, kind: Kind, place: &[&str], body: &[u8], mark: &str) -> bool {
        let mut given = [0; 32];
        hex::decode_to_slice(mark, &mut given).is_ok()
            && self.over(kind, place, body).verify_slice(&given).is_ok()
    }

    fn over(&self, kind: Kind, place: &[&str], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        let mut field = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        field(kind.word());
        field(&(place.len() as u64).to_be_bytes());
        for part in place {
            field(part.as_bytes());
        }
        field(body);
        mac
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(of: u8) -> Seal {
        Seal::new(&Secret::new(vec![of; 32])).unwrap()
    }

    #[test]
    fn a_message_is_ours_as_it_was_written_and_where_it_was_put() {
        let mark = seal(1).mark(Kind::Ballot, &["a", "b"], b"yes");
        let ours = |seal: &Seal, kind, place: &[&str], body| seal.is_ours(kind, place, body, &mark);
        assert!(ours(&seal(1), Kind::Ballot, &["a", "b"], b"yes"));
        assert!(!ours(&seal(2), Kind::Ballot, &["a", "b"], b"yes"));
        assert!(!ours(&seal(1), Kind::Answer, &["a", "b"], b"yes"));
        assert!(!ours(&seal(1), Kind::Ballot, &["a", "c"], b"yes"));
        assert!(!ours(&seal(1), Kind::Ballot, &["ab"], b"yes"));
        assert!(!ours(&seal(1), Kind::Ballot, &["a", "b"], b"yet"));
        assert!(!seal(1).is_ours(Kind::Ballot, &["a", "b"], b"yes", ""));
        assert!(!seal(1).is_ours(Kind::Ballot, &["a", "b"], b"yes", &mark[..62]));
    }

    #[test]
    fn a_short_secret_is_refused_without_showing_it() {
        let error = Seal::new(&Secret::from("hunter2".to_owned())).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("7 bytes") && !said.contains("hunter2"),
            "{said}"
        );
    }
}
