//! Shows other nodes what this one holds, and keeps its name.
//!
//! One task, so that what was shown later is what stays. What could not be posted is
//! kept, the latest of each approval, and posted when the store is back; a store that
//! lost what it had (a failover, a restart, a flush) is given all of it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::letter::Posted;
use super::neighbours::Told;
use super::scripts::{Reply, Script};
use super::seal::Kind;
use super::shares::Given;
use super::{Cluster, StoreError, probe};
use crate::approvals::{Change, View};

/// How often the name is kept.
const KEEP: Duration = Duration::from_secs(2);
/// After the store failed.
const AGAIN: Duration = Duration::from_millis(250);

/// A longer one is decided at its own node: the store is no place for it.
pub(super) const MAX_BODY: usize = 4 << 20;

/// How long others can look at what is over.
const KEEP_SETTLED: Duration = Duration::from_secs(15 * 60);
/// What a node that died leaves behind goes away after this.
const KEEP_OPEN: Duration = Duration::from_secs(24 * 3_600);

struct Owner {
    cluster: Cluster,
    /// What others have not seen, by id.
    unseen: BTreeMap<String, Arc<View>>,
    /// This node has its name.
    held: bool,
    /// It had it once: ballots of a former process are gone.
    taken: bool,
    due: Instant,
    /// Who is let in no more, as the others can read it.
    told: Told,
    given: Given,
    /// The store has another life, or another holder of the name: nothing is wrong with it.
    stale: bool,
}

pub(super) async fn run(cluster: Cluster, mut changes: broadcast::Receiver<Change>, taken: bool) {
    let mut stop = cluster.0.stop.subscribe();
    let mut revocations = cluster.0.neighbour.revocations();
    let mut owner = Owner {
        cluster,
        unseen: BTreeMap::new(),
        held: false,
        taken,
        due: Instant::now(),
        told: Told::default(),
        given: Given::default(),
        stale: false,
    };
    loop {
        loop {
            match changes.try_recv() {
                Ok(change) => owner.changed(Arc::clone(change.view())),
                Err(TryRecvError::Lagged(_)) => owner.everything(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        owner.turn().await;
        if *stop.borrow() {
            return;
        }
        tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => owner.changed(Arc::clone(change.view())),
                Err(RecvError::Lagged(_)) => owner.everything(),
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep_until(owner.due) => {}
            Ok(()) = revocations.changed() => owner.due = Instant::now(),
            _ = stop.changed() => {}
        }
    }
}

impl Owner {
    fn changed(&mut self, view: Arc<View>) {
        self.unseen.insert(view.id.clone(), view);
    }

    fn everything(&mut self) {
        for view in self.cluster.0.approvals.list() {
            self.unseen.insert(view.id.clone(), view);
        }
    }

    async fn turn(&mut self) {
        if Instant::now() >= self.due {
            match self.keep().await {
                Ok(held) => {
                    self.held = held;
                    self.due = Instant::now() + KEEP;
                }
                Err(error) => self.failed(&error),
            }
        }
        if !self.held {
            return;
        }
        match self.post_all().await {
            Ok(()) => *self.cluster.unposted() = None,
            Err(error) => self.failed(&error),
        }
    }

    /// Until it is mended nothing is posted. A link that is down says so itself.
    fn failed(&mut self, error: &StoreError) {
        if !error.is_down() && !std::mem::take(&mut self.stale) {
            let why = format!("what this node holds is not shown to the others: {error}");
            let before = self.cluster.unposted().replace(why.clone());
            if before.as_ref() != Some(&why) {
                tracing::error!("{why}");
            }
        }
        self.held = false;
        self.due = Instant::now() + AGAIN;
    }

    /// Keeps the name. Gives whether it is ours.
    async fn keep(&mut self) -> Result<bool, StoreError> {
        let cluster = self.cluster.clone();
        let reply = cluster
            .take(if self.taken { "keep" } else { "take" })
            .await?;
        match reply.word.as_str() {
            "ok" => self.taken = true,
            "taken" => {
                let node = &cluster.0.node;
                let why = format!(
                    "another gateway is running as node `{node}`: nobody can vote from other nodes; \
                     give each node its own name"
                );
                if cluster.trouble().replace(why.clone()).as_ref() != Some(&why) {
                    cluster.alarm("node", node, why).await;
                }
                return Ok(false);
            }
            _ => {
                *cluster.trouble() =
                    Some("the store is a replica now: no master is found".to_owned());
                // Whoever is asked next may know the master.
                cluster.0.mail.again().await;
                cluster.0.inbox.again().await;
                return Ok(false);
            }
        }
        if self.new_life(&reply).await {
            self.everything();
        }
        self.announce().await?;
        self.told.tell(&cluster).await?;
        self.given.give(&cluster).await?;
        Ok(true)
    }

    /// Whether others may not have what this node showed.
    async fn new_life(&mut self, reply: &Reply) -> bool {
        let inner = &self.cluster.0;
        let before = inner.life.borrow().clone();
        let same = before == reply.life;
        if same && reply.more == "kept" && self.held {
            return false;
        }
        let key = inner.keys.lease(&inner.node);
        let trouble = probe(&inner.mail, &key).await.err();
        *self.cluster.trouble() = trouble.map(|why| why.to_string());
        if !same && !before.is_empty() {
            tracing::warn!("the store began anew or failed over: votes under way are refused");
            inner.counts.lives.fetch_add(1, Ordering::Relaxed);
            inner.inbox.again().await;
        }
        if !same {
            inner.life.send_replace(reply.life.clone());
        }
        true
    }

    /// Tells the others of this node, and of its journal.
    async fn announce(&self) -> Result<(), StoreError> {
        let inner = &self.cluster.0;
        let mut cmd = redis::cmd("ZADD");
        let seconds = (inner.clock)().unix();
        cmd.arg(inner.keys.nodes()).arg(seconds).arg(&inner.node);
        let _: u64 = inner.mail.ask(&cmd).await?;
        self.cluster.say_version().await?;
        let Some(note) = (inner.checkpoint)() else {
            return Ok(());
        };
        let place = [inner.node.as_str()];
        let mark = inner
            .seal
            .mark(Kind::Key, &place, inner.verifier.as_bytes());
        let mut cmd = redis::cmd("HSET");
        cmd.arg(inner.keys.checkpoint(&inner.node))
            .arg("note")
            .arg(note)
            .arg("key")
            .arg(&inner.verifier)
            .arg("mark")
            .arg(mark);
        let _: u64 = inner.mail.ask(&cmd).await?;
        Ok(())
    }

    async fn post_all(&mut self) -> Result<(), StoreError> {
        while let Some((id, view)) = self.unseen.pop_first() {
            if let Err(error) = self.post(&view).await {
                self.unseen.entry(id).or_insert(view);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn post(&mut self, view: &View) -> Result<(), StoreError> {
        let inner = &self.cluster.0;
        let posted = Posted {
            node: inner.node.clone(),
            epoch: inner.epoch.clone(),
            view: view.clone(),
        };
        let body = serde_json::to_vec(&posted).map_err(|error| {
            StoreError::Refused(format!("an approval cannot be written: {error}"))
        })?;
        if body.len() > MAX_BODY {
            tracing::warn!(
                approval.id = %view.id,
                "too long for the store: it can be decided at this node only"
            );
            return Ok(());
        }
        let place = [inner.node.as_str(), view.id.as_str()];
        let mark = inner.seal.mark(Kind::Posted, &place, &body);
        let keys = [
            inner.keys.lease(&inner.node),
            inner.keys.request(&inner.node, &view.id),
            inner.keys.due(&inner.node),
            inner.keys.changes(&inner.node),
        ];
        let kept = match view.state.as_str() {
            "pending" | "approved" => KEEP_OPEN,
            _ if view.window_until.is_some() => KEEP_OPEN,
            _ => KEEP_SETTLED,
        };
        let life = inner.life.borrow().clone();
        let mut cmd = Script::Post.call(&keys);
        cmd.arg(&inner.epoch)
            .arg(life)
            .arg(&view.id)
            .arg(&view.state)
            .arg(&view.digest)
            .arg(body)
            .arg(mark)
            .arg(kept.as_millis().to_string())
            .arg(unix(&view.expires_at))
            .arg(if listed(view) { "1" } else { "" });
        let reply: Reply = inner.mail.ask(&cmd).await?;
        if reply.word != "ok" {
            // Another life, or the name is not ours: looked at before anything is posted.
            self.stale = true;
            return Err(StoreError::Refused(reply.word));
        }
        inner.counts.posted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether nodes that come later must find it, however much changed since.
fn listed(view: &View) -> bool {
    view.state == "pending" || view.window_until.is_some()
}

/// For the order in which people see them.
fn unix(rfc3339: &str) -> i64 {
    OffsetDateTime::parse(rfc3339, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}
