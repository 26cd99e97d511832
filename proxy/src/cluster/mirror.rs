//! What other nodes show, as of a moment ago.
//!
//! For people to look at, and to address a vote by. An approval is shown while the process
//! that posted it is seen in the store; one that does not bear the nodes' mark never is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::sync::watch;
use tokio::time::Instant;

use super::letter::Posted;
use super::neighbours::Learned;
use super::seal::Kind;
use super::shares::TakenUp;
use super::{Cluster, LEASE, StoreError};
use crate::approvals::{Later, View};

/// Between looks.
const LOOK: Duration = Duration::from_millis(150);
/// Between looks at who is there, and at journals.
const NODES: Duration = Duration::from_secs(1);
/// More are not looked at.
const MAX_NODES: usize = 64;
/// Of one node.
const MAX_VIEWS: usize = 20_000;
/// Changes that are read at once.
const BATCH: usize = 500;

/// A node that was there within this time, and left without a word, is missed.
const MISSED: u64 = 3_600;

#[derive(Default)]
pub(super) struct Mirror {
    nodes: RwLock<BTreeMap<String, Node>>,
    gone: RwLock<Vec<String>>,
}

#[derive(Default)]
struct Node {
    epoch: String,
    views: HashMap<String, Shown>,
}

struct Shown {
    life: String,
    view: watch::Sender<Arc<View>>,
}

/// An approval of another node, and what addresses a vote on it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) node: String,
    pub(super) epoch: String,
    pub(super) life: String,
}

impl Mirror {
    pub(super) fn list(&self) -> Vec<Arc<View>> {
        let nodes = self.read();
        let views = nodes.values().flat_map(|node| node.views.values());
        views
            .map(|shown| Arc::clone(&shown.view.borrow()))
            .collect()
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<View>> {
        let nodes = self.read();
        let shown = nodes.values().find_map(|node| node.views.get(id))?;
        let view = Arc::clone(&shown.view.borrow());
        Some(view)
    }

    /// The nodes that are there.
    pub(super) fn names(&self) -> Vec<String> {
        let nodes = self.read();
        let there = nodes.iter().filter(|(_, node)| !node.epoch.is_empty());
        there.map(|(name, _)| name.clone()).collect()
    }

    /// Those that were there lately, and have no process now.
    pub(super) fn gone(&self) -> Vec<String> {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        gone.clone()
    }

    /// The process that a node is.
    pub(super) fn epoch(&self, node: &str) -> Option<String> {
        let nodes = self.read();
        let epoch = nodes.get(node).map(|node| node.epoch.clone());
        epoch.filter(|epoch| !epoch.is_empty())
    }

    pub(super) fn seen(&self, id: &str) -> Option<Seen> {
        let nodes = self.read();
        nodes.iter().find_map(|(name, node)| {
            let shown = node.views.get(id)?;
            Some(Seen {
                node: name.clone(),
                epoch: node.epoch.clone(),
                life: shown.life.clone(),
            })
        })
    }

    /// What may cover a command with this digest.
    pub(super) fn with_digest(&self, digest: &str) -> Vec<(Seen, String)> {
        let nodes = self.read();
        let each = nodes.iter().flat_map(|(name, node)| {
            let covers = |shown: &&Shown| {
                let view = shown.view.borrow();
                let open = matches!(view.state.as_str(), "pending" | "approved");
                view.digest == digest && (open || view.window_until.is_some())
            };
            let found = node.views.iter().filter(move |(_, shown)| covers(shown));
            found.map(move |(id, shown)| {
                let seen = Seen {
                    node: name.clone(),
                    epoch: node.epoch.clone(),
                    life: shown.life.clone(),
                };
                (seen, id.clone())
            })
        });
        each.collect()
    }

    pub(super) fn decided(&self, id: &str) -> Option<Later<'static, Arc<View>>> {
        let decided = self.decided_or_gone(id)?;
        Some(Box::pin(async move {
            match decided.await {
                Some(view) => view,
                // Its node is gone: nobody can say, so whoever waits asks again in time.
                None => std::future::pending().await,
            }
        }))
    }

    /// With nothing where it is not seen any more.
    pub(super) fn decided_or_gone(&self, id: &str) -> Option<Later<'static, Option<Arc<View>>>> {
        let nodes = self.read();
        let shown = nodes.values().find_map(|node| node.views.get(id))?;
        let mut view = shown.view.subscribe();
        Some(Box::pin(async move {
            let decided = view.wait_for(|view| view.is_decided()).await;
            decided.ok().map(|view| Arc::clone(&view))
        }))
    }

    pub(super) fn pending(&self) -> usize {
        let nodes = self.read();
        let views = nodes.values().flat_map(|node| node.views.values());
        views
            .filter(|shown| !shown.view.borrow().is_decided())
            .count()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Node>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the looking task remembers of one node.
#[derive(Default)]
struct Followed {
    /// The process that it is; empty while there is none.
    epoch: String,
    /// The last change that was read.
    position: String,
}

pub(super) async fn run(cluster: Cluster) {
    let mut stop = cluster.0.stop.subscribe();
    let mut followed: BTreeMap<String, Followed> = BTreeMap::new();
    let mut learned = (Learned::new(), TakenUp::new());
    let mut look_at_nodes = Instant::now();
    let mut last_seen = Instant::now();
    loop {
        let look = async {
            if Instant::now() >= look_at_nodes {
                look_at_nodes = Instant::now() + NODES;
                cluster.who(&mut followed, &mut learned).await?;
            }
            for (node, followed) in &mut followed {
                cluster.follow(node, followed).await?;
            }
            Ok::<_, StoreError>(())
        };
        let looked = tokio::select! {
            looked = look => looked,
            _ = stop.changed() => return,
        };
        match looked {
            Ok(()) => last_seen = Instant::now(),
            // What was seen is too old to show.
            Err(_) if last_seen.elapsed() > LEASE => {
                followed.clear();
                cluster.0.mirror.write().clear();
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.changed() => return,
        }
    }
}

impl Cluster {
    /// Looks which nodes there are, and at their journals' heads.
    async fn who(
        &self,
        followed: &mut BTreeMap<String, Followed>,
        (learned, taken_up): &mut (Learned, TakenUp),
    ) -> Result<(), StoreError> {
        let inner = &self.0;
        let mut cmd = redis::cmd("ZREVRANGE");
        cmd.arg(inner.keys.nodes()).arg(0).arg(MAX_NODES);
        cmd.arg("WITHSCORES");
        let nodes: Vec<(String, f64)> = inner.mail.ask(&cmd).await?;
        let lately = (inner.clock)().unix().saturating_sub(MISSED);
        let mut seen = Vec::new();
        let mut others = Vec::new();
        for (node, at) in nodes {
            if node == inner.node {
                continue;
            }
            // By that node's clock: for people to look at.
            #[expect(clippy::cast_precision_loss, reason = "a time of day")]
            if at >= lately as f64 {
                seen.push(node.clone());
            }
            others.push(node);
        }
        followed.retain(|node, _| others.contains(node));
        inner.mirror.write().retain(|node, _| others.contains(node));
        for node in others {
            self.look_at_journal(&node).await?;
            self.learn(&node, learned).await?;
            self.take_up(&node, taken_up).await?;
            followed.entry(node).or_default();
        }
        // One that was never looked at may be about to be.
        let there = |node: &String| followed.get(node).is_none_or(|one| !one.epoch.is_empty());
        seen.retain(|node| !there(node));
        *inner
            .mirror
            .gone
            .write()
            .unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// Reads what changed at one node.
    async fn follow(&self, node: &str, followed: &mut Followed) -> Result<(), StoreError> {
        let inner = &self.0;
        let mut cmd = redis::cmd("GET");
        cmd.arg(inner.keys.lease(node));
        let epoch: Option<String> = inner.mail.ask(&cmd).await?;
        let epoch = epoch.unwrap_or_default();
        if epoch != followed.epoch {
            *followed = Followed::default();
            inner.mirror.write().remove(node);
            if epoch.is_empty() {
                return Ok(());
            }
        }
        if followed.epoch.is_empty() {
            followed.position = self.load(node, &epoch).await?;
            followed.epoch = epoch;
            return Ok(());
        }
        let changes = inner.keys.changes(node);
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT").arg(BATCH).arg("STREAMS").arg(&changes);
        cmd.arg(&followed.position);
        let read: Option<StreamReadReply> = inner.mail.ask(&cmd).await?;
        let entries: Vec<_> = read
            .into_iter()
            .flat_map(|read| read.keys)
            .flat_map(|key| key.ids)
            .collect();
        let Some(last) = entries.last() else {
            // Nothing new; or a store that counts from before, since it began anew.
            let newest = self.newest(&changes, 1).await?;
            if newest
                .first()
                .is_some_and(|(id, _)| *id != followed.position)
            {
                followed.epoch.clear();
            }
            return Ok(());
        };
        let position = last.id.clone();
        let mut ids: Vec<String> = entries.iter().filter_map(|entry| entry.get("id")).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            self.fetch(node, &followed.epoch, &id).await?;
        }
        followed.position = position;
        Ok(())
    }

    /// Reads all of one node. Gives where to go on.
    async fn load(&self, node: &str, epoch: &str) -> Result<String, StoreError> {
        let inner = &self.0;
        inner
            .mirror
            .write()
            .entry(node.to_owned())
            .or_default()
            .epoch = epoch.to_owned();
        let newest = self.newest(&inner.keys.changes(node), BATCH).await?;
        let position = newest
            .first()
            .map_or_else(|| "0-0".to_owned(), |(id, _)| id.clone());
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(inner.keys.due(node)).arg(0).arg(MAX_VIEWS);
        let mut ids: Vec<String> = inner.mail.ask(&cmd).await?;
        ids.extend(newest.into_iter().map(|(_, id)| id));
        ids.sort();
        ids.dedup();
        for id in ids {
            self.fetch(node, epoch, &id).await?;
        }
        Ok(position)
    }

    /// The last changes, newest first: position and approval.
    async fn newest(
        &self,
        changes: &str,
        count: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(changes).arg("+").arg("-").arg("COUNT").arg(count);
        let range: StreamRangeReply = self.0.mail.ask(&cmd).await?;
        let entry = |entry: redis::streams::StreamId| {
            let id = entry.get("id").unwrap_or_default();
            (entry.id, id)
        };
        Ok(range.ids.into_iter().map(entry).collect())
    }

    /// Reads one approval of another node.
    async fn fetch(&self, node: &str, epoch: &str, id: &str) -> Result<(), StoreError> {
        let inner = &self.0;
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(inner.keys.request(node, id))
            .arg("body")
            .arg("mark")
            .arg("life");
        let (body, mark, life): (Option<Vec<u8>>, Option<String>, Option<String>) =
            inner.mail.ask(&cmd).await?;
        let (Some(body), Some(mark), Some(life)) = (body, mark, life) else {
            self.forget(node, id);
            return Ok(());
        };
        let place = [node, id];
        let ours = inner.seal.is_ours(Kind::Posted, &place, &body, &mark);
        let posted = ours
            .then(|| serde_json::from_slice::<Posted>(&body).ok())
            .flatten();
        let good = |posted: &Posted| posted.node == node && posted.view.id == id;
        let Some(posted) = posted.filter(good) else {
            inner
                .counts
                .forged
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tracing::error!(
                node,
                "an approval in the store was not written by its node: not shown"
            );
            self.forget(node, id);
            return Ok(());
        };
        if posted.epoch != epoch {
            // Of a former process: nobody waits for it any more.
            self.forget(node, id);
            return Ok(());
        }
        let mut view = posted.view;
        view.node = Some(node.to_owned());
        let view = Arc::new(view);
        // Only where it was seen to wait: how long ago an older answer was given, nobody says.
        // Before it is shown, so that whoever hears of it and asks again is refused.
        if (inner.mirror.get(id)).is_some_and(|have| !have.is_decided()) {
            inner.approvals.denied_elsewhere(&view);
        }
        let changed = {
            let mut nodes = inner.mirror.write();
            let known = nodes.entry(node.to_owned()).or_default();
            make_room(&mut known.views, id);
            match known.views.get_mut(id) {
                Some(shown) => {
                    shown.life = life;
                    // A settled approval stays so, whatever the store says later.
                    shown.view.send_if_modified(|have| {
                        let back = have.is_decided() && !view.is_decided();
                        let news = !back && **have != *view;
                        if news {
                            *have = Arc::clone(&view);
                        }
                        news
                    })
                }
                None => {
                    let view = watch::Sender::new(Arc::clone(&view));
                    known.views.insert(id.to_owned(), Shown { life, view });
                    true
                }
            }
        };
        if changed {
            // Nobody may be listening.
            let _ = inner.changes.send(view.into());
        }
        Ok(())
    }

    fn forget(&self, node: &str, id: &str) {
        if let Some(node) = self.0.mirror.write().get_mut(node) {
            node.views.remove(id);
        }
    }
}

/// Those that are over go first.
fn make_room(views: &mut HashMap<String, Shown>, id: &str) {
    if views.len() < MAX_VIEWS || views.contains_key(id) {
        return;
    }
    views.retain(|_, shown| !shown.view.borrow().is_decided());
    if views.len() >= MAX_VIEWS
        && let Some(one) = views.keys().next().cloned()
    {
        views.remove(&one);
    }
}
