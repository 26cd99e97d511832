//! What each node gives to the others on its own word: the security keys and the chat accounts
//! of those who review there.
//!
//! The node signs it with its journal's key, whose checkpoints the others know: a key in the
//! store that no node signed is nobody's. The word has a number that grows with the journal in
//! which each change stands, and that no two of a node's lists have, so that an older one, such as
//! one with a key that was removed since, is not taken for the latest.
//!
//! Limits: a node that sees another for the first time takes what it is shown.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use holdpoint_core::record::checkpoint::Verifier;
use tokio::time::Instant;

use super::{Cluster, LEASE, StoreError, owner};

/// The kind of note.
const PEOPLE: &str = "people 1";

/// Numbers between two sizes of the journal. Each start writes to it, so that those of a former
/// process are smaller.
const PER_RECORD: u64 = 1 << 16;

/// What was last put into the store.
#[derive(Default)]
pub(super) struct Given {
    life: String,
    said: String,
    /// Of what was last said; that may lie in the store or not.
    number: u64,
    at: Option<Instant>,
}

/// The number of another list than that of `before`.
fn next(before: u64, journal: u64) -> u64 {
    let least = journal.saturating_mul(PER_RECORD);
    least.max(before.saturating_add(1))
}

impl Given {
    /// Puts this node's word where the others read it, if it is not there.
    pub(super) async fn give(&mut self, cluster: &Cluster) -> Result<(), StoreError> {
        let inner = &cluster.0;
        let Some((journal, said)) = inner.neighbour.shares() else {
            return Ok(());
        };
        let life = inner.life.borrow().clone();
        let fresh = self.at.is_some_and(|at| at.elapsed() < 3 * LEASE);
        if fresh && self.life == life && self.said == said {
            return Ok(());
        }
        if said.len() > owner::MAX_BODY {
            tracing::error!("the list of who has which security key is too long for the store");
            return Ok(());
        }
        if self.number == 0 || self.said != said {
            // Counted before it is sent: a list that may have arrived keeps its number.
            self.number = next(self.number, journal);
        }
        let note = (inner.attest)(PEOPLE, &format!("{} {said}", self.number));
        let mut cmd = redis::cmd("HSET");
        cmd.arg(inner.keys.shared(&inner.node))
            .arg("note")
            .arg(note);
        let _: u64 = inner.mail.ask(&cmd).await?;
        *self = Self {
            life,
            said,
            number: self.number,
            at: Some(Instant::now()),
        };
        Ok(())
    }
}

/// The words that were taken up, by node.
pub(super) type TakenUp = BTreeMap<String, String>;

impl Cluster {
    /// Takes up what another node says.
    pub(super) async fn take_up(&self, node: &str, taken: &mut TakenUp) -> Result<(), StoreError> {
        let inner = &self.0;
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(inner.keys.shared(node)).arg("note");
        let (note,): (Option<String>,) = inner.mail.ask(&cmd).await?;
        // Without its key nobody can tell whose word it is.
        let (Some(note), Some(key)) = (note, inner.peers.key(node)) else {
            return Ok(());
        };
        if taken.get(node) == Some(&note) {
            return Ok(());
        }
        let said = key.parse::<Verifier>().and_then(|key| {
            let said = key.attested(PEOPLE, &note)?;
            Ok(said.to_owned())
        });
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                tracing::error!(node, %error, "what another node is said to share is not signed by it");
                inner.counts.forged.fetch_add(1, Ordering::Relaxed);
                self.forged().await;
                return Ok(());
            }
        };
        let parts = said.split_once(' ');
        let parts = parts.and_then(|(number, said)| Some((number.parse().ok()?, said)));
        let done = match parts {
            Some((number, said)) => inner.neighbour.take_up(node, number, said).await,
            None => Err("it has no number".to_owned()),
        };
        match done {
            Ok(()) => {
                taken.insert(node.to_owned(), note);
            }
            Err(error) => {
                tracing::error!(node, error, "what another node shares is not taken up");
            }
        }
        Ok(())
    }
}
