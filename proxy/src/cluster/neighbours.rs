//! What nodes do for each other beside votes: tell what is there, end something, and let
//! nobody in who is revoked elsewhere.
//!
//! An errand goes the way that a ballot goes, to one process of one node, and its answer
//! comes back the same way. Revocations are told twice: by an errand, so that whoever revokes
//! sees what it ended everywhere; and as a list that each node keeps in the store, so that one
//! that was away learns of it, and a store that lost everything is given it again. Lists
//! only grow: an old one that somebody puts back takes nothing away, and each node keeps
//! what it learned in its own file.
//!
//! Limits: a node that cannot read the store lets in whom only others have revoked.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::letter::Work;
use super::motions::{To, Unsaid};
use super::seal::Kind;
use super::{Cluster, LEASE, StoreError, owner};
use crate::approvals::{Errand, Later, NoAnswer, Others};

/// This node, as far as others may have it do something. Nothing of it lets a command pass.
pub trait Neighbour: Send + Sync {
    /// Does what `node` asks, writes it to the journal, and says what came of it.
    fn run<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, Value>;

    /// Who is let in no more here, in words that [`Neighbour::learn`] of another understands.
    fn revoked(&self) -> String;

    /// Takes over what the list of `node` has that ours has not. On return it is in force.
    fn learn<'a>(&'a self, node: &'a str, list: &'a str) -> Later<'a, Result<(), String>>;

    /// What others may take up on this node's word: how long the journal was before it was
    /// read, and one line that [`Neighbour::take_up`] of another understands.
    fn shares(&self) -> Option<(u64, String)>;

    /// Takes up what another node says, whose signature is good.
    fn take_up<'a>(
        &'a self,
        node: &'a str,
        number: u64,
        said: &'a str,
    ) -> Later<'a, Result<(), String>>;

    /// Changes whenever [`Neighbour::revoked`] does.
    fn revocations(&self) -> watch::Receiver<u64>;
}

/// The list as it was last put into the store.
#[derive(Default)]
pub(super) struct Told {
    life: String,
    list: String,
    at: Option<Instant>,
}

impl Told {
    /// Puts this node's list where the others read it, if it is not there.
    pub(super) async fn tell(&mut self, cluster: &Cluster) -> Result<(), StoreError> {
        let inner = &cluster.0;
        let (life, list) = (inner.life.borrow().clone(), inner.neighbour.revoked());
        let fresh = self.at.is_some_and(|at| at.elapsed() < 3 * LEASE);
        if fresh && self.life == life && self.list == list {
            return Ok(());
        }
        if list.len() > owner::MAX_BODY {
            tracing::error!("the list of who is revoked is too long for the store");
            return Ok(());
        }
        let place = [inner.node.as_str()];
        let mark = inner.seal.mark(Kind::Revoked, &place, list.as_bytes());
        let mut cmd = redis::cmd("HSET");
        cmd.arg(inner.keys.revoked(&inner.node))
            .arg("list")
            .arg(&list)
            .arg("mark")
            .arg(mark);
        let _: u64 = inner.mail.ask(&cmd).await?;
        *self = Self {
            life,
            list,
            at: Some(Instant::now()),
        };
        Ok(())
    }
}

/// The lists that were taken over, by node: their marks.
pub(super) type Learned = BTreeMap<String, String>;

impl Cluster {
    /// Takes over whom another node lets in no more.
    pub(super) async fn learn(&self, node: &str, learned: &mut Learned) -> Result<(), StoreError> {
        let inner = &self.0;
        let key = inner.keys.revoked(node);
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&key).arg("mark");
        let (mark,): (Option<String>,) = inner.mail.ask(&cmd).await?;
        if mark.is_none() || mark.as_ref() == learned.get(node) {
            return Ok(());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&key).arg("list").arg("mark");
        let (list, mark): (Option<String>, Option<String>) = inner.mail.ask(&cmd).await?;
        let (Some(list), Some(mark)) = (list, mark) else {
            return Ok(());
        };
        if !(inner.seal).is_ours(Kind::Revoked, &[node], list.as_bytes(), &mark) {
            inner.counts.forged.fetch_add(1, Ordering::Relaxed);
            self.forged().await;
            return Ok(());
        }
        match inner.neighbour.learn(node, &list).await {
            Ok(()) => {
                learned.insert(node.to_owned(), mark);
            }
            // In force as far as it was understood; looked at again the next time.
            Err(error) => {
                tracing::error!(node, %error, "who is revoked at another node is not taken over whole");
            }
        }
        Ok(())
    }

    pub(super) async fn errand(
        &self,
        node: &str,
        errand: Errand,
        patience: Duration,
    ) -> Result<Value, NoAnswer> {
        let epoch = self.0.mirror.epoch(node);
        let to = To {
            node,
            epoch: epoch.ok_or_else(|| NoAnswer(format!("node `{node}` is not there")))?,
            life: None,
        };
        match self.send(&to, &Work::Errand(errand), patience).await {
            Ok(answer) => Ok(answer),
            Err(Unsaid::Refused(why)) => Err(NoAnswer(why.detail)),
            Err(Unsaid::NotSent(why) | Unsaid::Silent(why)) => Err(NoAnswer(why)),
        }
    }
}

impl Others for Cluster {
    fn names(&self) -> Vec<String> {
        self.0.mirror.names()
    }

    fn gone(&self) -> Vec<String> {
        self.0.mirror.gone()
    }

    fn ask<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, Result<Value, NoAnswer>> {
        Box::pin(self.errand(node, errand, self.0.config.vote_wait))
    }
}
