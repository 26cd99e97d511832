//! Several gateways that share a Redis: a reviewer sees and decides at any of them what
//! any of them holds.
//!
//! The node that holds the client's socket owns its approval and is the only one that
//! releases it; its journal is the only ledger. The store is a mailbox. It carries what an
//! owner shows (`owner`), ballots to the owner and its answers (`inbox`, `voting`), and
//! what other nodes show (`mirror`), and what nodes do for each other beside that
//! (`neighbours`). Nothing in it is believed: every message bears the
//! nodes' mark (`seal`), and the owner judges each vote as if it had been cast there.
//!
//! Without the store each node goes on alone: its own approvals are decided there, and
//! what nobody decides expires by the node's own clock. Nothing here relies on the store
//! for that: publish/subscribe, expiry, its clock and what is left of a time to live are
//! not used to decide anything. A lease says which process bears a node's name; it is for
//! people, and losing it stops nothing but the mail.
//!
//! Limits: one node can write in another's name, since all have one secret; but an approval,
//! or a use of a window, passes from node to node only under the signature of its owner's journal.

mod inbox;
mod keys;
mod letter;
mod link;
mod mirror;
mod motions;
mod neighbours;
mod owner;
mod peers;
mod scripts;
mod seal;
mod shares;
mod voting;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{BreakGlass, Reviewer, Vote};
use holdpoint_core::config::RedisConfig;
use holdpoint_core::id::ApprovalId;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry, NewRecord};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::approvals::{
    Approvals, Board, Cast, Change, Clock, Explained, JustifyRefused, Later, Ledger, ReviewView,
    View, VoteRefused,
};
use crate::secrets::{self, SecretError};
use keys::Keys;
use link::Link;
use mirror::Mirror;
use peers::Peers;
use scripts::{Reply, Script};
use seal::Seal;

pub use link::StoreError;
pub use neighbours::Neighbour;
pub use peers::PeersError;
pub use seal::WeakSecret;

/// How long a node's name stays taken after its process was last seen.
const LEASE: Duration = Duration::from_secs(10);

/// Ballots wait at the server, so that they arrive at once.
const BLOCK: Duration = Duration::from_millis(1_000);

/// Changes that a slow subscriber may fall behind before it misses some.
const CHANGES: usize = 1_024;

/// A node's word, signed by its journal's key: what kind it is of, and what it says.
pub type Attest = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;

/// What a node of several is made of.
pub struct ClusterParts {
    pub node: String,
    pub config: RedisConfig,
    /// Those of this node.
    pub approvals: Approvals,
    pub ledger: Arc<dyn Ledger>,
    pub clock: Clock,
    /// Whether somebody may still review, as far as this node knows.
    pub admits: Arc<dyn Fn(&Reviewer) -> bool + Send + Sync>,
    /// A refusal in words that travel.
    pub explain: Arc<dyn Fn(Refusal) -> Explained + Send + Sync>,
    /// What this node does for others beside judging votes.
    pub neighbour: Arc<dyn Neighbour>,
    /// The last signed checkpoint of this node's journal.
    pub checkpoint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Its word, signed by the same key: what kind it is of, and what it says.
    pub attest: Attest,
    /// Its public key.
    pub verifier: String,
    /// Private folder; what is known of other nodes' journals is kept in it.
    pub state: PathBuf,
}

/// What this node did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A vote, a broken glass or its review.
    Vote(VoteRefused),
    /// A justification.
    Words(JustifyRefused),
}

/// Why a gateway does not start beside others.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    WeakSecret(#[from] WeakSecret),
    #[error("store.redis.cluster_secret: {0}")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Peers(#[from] PeersError),
    #[error(
        "`store.redis` leads to a replica, which takes no votes: name the master, \
         or the Sentinels with `urls` and `sentinel_master`"
    )]
    Replica,
    #[error(
        "the store may drop held commands when its memory is full (maxmemory-policy is `{0}`): \
         set `maxmemory-policy noeviction`, or use a Redis of its own"
    )]
    Eviction(String),
    #[error(
        "the store forbids INFO in scripts, by which a failover is told: {0}; allow it \
         (ACL: `+info +eval`), or run this node without `[store.redis]`"
    )]
    InfoForbidden(String),
    #[error(
        "another gateway is running as node `{0}`: give each its own `node`. \
         (After a crash the name is free within {seconds} s.)", seconds = LEASE.as_secs()
    )]
    Taken(String),
}

/// This node among others; clones share it.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    node: String,
    /// Names this process: what was meant for a former one is refused.
    epoch: String,
    config: Arc<RedisConfig>,
    keys: Keys,
    seal: Seal,
    approvals: Approvals,
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    admits: Arc<dyn Fn(&Reviewer) -> bool + Send + Sync>,
    explain: Arc<dyn Fn(Refusal) -> Explained + Send + Sync>,
    neighbour: Arc<dyn Neighbour>,
    checkpoint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    attest: Attest,
    verifier: String,
    /// For everything but waiting for ballots.
    mail: Link,
    /// Waits for ballots.
    inbox: Link,
    /// The life of the store that this node last posted to.
    life: watch::Sender<String>,
    /// Why this node cannot be voted on from others, where the link is well.
    trouble: Mutex<Option<String>>,
    /// Why the store did not take what this node shows, such as that it is full.
    unposted: Mutex<Option<String>>,
    mirror: Mirror,
    peers: Peers,
    changes: broadcast::Sender<Change>,
    counts: Counts,
    stop: watch::Sender<bool>,
    /// When a forged message was last written to the journal.
    alarmed: Mutex<Option<Instant>>,
}

/// For metrics.
#[derive(Default)]
struct Counts {
    posted: AtomicU64,
    cast: AtomicU64,
    counted: AtomicU64,
    refused: AtomicU64,
    forged: AtomicU64,
    stale: AtomicU64,
    lives: AtomicU64,
    checkpoint_alarms: AtomicU64,
}

impl Cluster {
    /// Joins the others. With the store down it goes on alone, and joins when it comes.
    ///
    /// # Errors
    /// What it finds there cannot be used, or another gateway has this node's name.
    pub async fn open(parts: ClusterParts) -> Result<Self, ClusterError> {
        let seal = Seal::new(&secrets::resolve(&parts.config.cluster_secret)?)?;
        let config = Arc::new(parts.config);
        let mail = Link::new(Arc::clone(&config), Duration::ZERO);
        let this = Self(Arc::new(Inner {
            epoch: random()?,
            keys: Keys::new(&config.key_prefix),
            seal,
            approvals: parts.approvals,
            ledger: parts.ledger,
            clock: parts.clock,
            admits: parts.admits,
            explain: parts.explain,
            neighbour: parts.neighbour,
            checkpoint: parts.checkpoint,
            attest: parts.attest,
            verifier: parts.verifier,
            mail,
            inbox: Link::new(Arc::clone(&config), BLOCK),
            life: watch::Sender::new(String::new()),
            trouble: Mutex::default(),
            unposted: Mutex::default(),
            mirror: Mirror::default(),
            peers: Peers::open(&parts.state.join("peers"))?,
            changes: broadcast::Sender::new(CHANGES),
            counts: Counts::default(),
            stop: watch::Sender::new(false),
            alarmed: Mutex::default(),
            node: parts.node,
            config,
        }));
        let mut taken = false;
        match this.begin().await {
            Ok(()) => taken = true,
            Err(ClusterError::Store(error)) if error.is_down() => {
                tracing::warn!(%error, "going on without the other nodes until the store comes");
            }
            Err(error) => return Err(error),
        }
        let away = motions::Away(Arc::downgrade(&this.0));
        (this.0.approvals).look_elsewhere(&this.0.node, Arc::new(away));
        // Before any task looks away: a change between is not missed.
        let changes = this.0.approvals.subscribe();
        tokio::spawn(owner::run(this.clone(), changes, taken));
        tokio::spawn(this.clone().pass_on(this.0.approvals.subscribe()));
        tokio::spawn(inbox::run(this.clone()));
        tokio::spawn(mirror::run(this.clone()));
        Ok(this)
    }

    /// Shows this node's own changes to those who look here, however slow the store is.
    async fn pass_on(self, mut changes: broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(change) => {
                    // Nobody may be listening.
                    let _ = self.0.changes.send(change);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    // Whoever waits for any change looks again.
                    if let Some(view) = self.0.approvals.list().into_iter().next() {
                        let _ = self.0.changes.send(view.into());
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Looks at the store, and takes this node's name.
    async fn begin(&self) -> Result<(), ClusterError> {
        let lease = self.0.keys.lease(&self.0.node);
        probe(&self.0.mail, &lease).await?;
        let until = Instant::now() + LEASE + Duration::from_secs(2);
        loop {
            match self.take("take").await?.word.as_str() {
                "ok" => return Ok(()),
                "taken" if Instant::now() < until => {
                    tracing::info!(node = %self.0.node, "waiting for this node's name to be free");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                "taken" => return Err(ClusterError::Taken(self.0.node.clone())),
                _ => return Err(ClusterError::Replica),
            }
        }
    }

    async fn take(&self, how: &str) -> Result<Reply, StoreError> {
        let inner = &self.0;
        let keys = [inner.keys.lease(&inner.node), inner.keys.votes(&inner.node)];
        let mut cmd = Script::Lease.call(&keys);
        cmd.arg(&inner.epoch)
            .arg(LEASE.as_millis().to_string())
            .arg(how);
        inner.mail.ask(&cmd).await
    }

    /// Shows the others how everything ended here, and gives the node's name back.
    pub async fn close(&self) {
        self.0.stop.send_replace(true);
        let inner = &self.0;
        let gone = async {
            // The owner's task posts what is left, then closes its end.
            inner.stop.closed().await;
            let mut cmd = Script::Release.call(&[inner.keys.lease(&inner.node)]);
            cmd.arg(&inner.epoch);
            let _: Result<Reply, _> = inner.mail.ask(&cmd).await;
            let mut cmd = redis::cmd("ZREM");
            cmd.arg(inner.keys.nodes()).arg(&inner.node);
            let _: Result<u64, _> = inner.mail.ask(&cmd).await;
        };
        if tokio::time::timeout(Duration::from_secs(3), gone)
            .await
            .is_err()
        {
            tracing::warn!("the other nodes were not told of this one's end");
        }
    }

    /// Counters for metrics: name without prefix, value.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let counts = &self.0.counts;
        [
            ("cluster_posted_total", &counts.posted),
            ("cluster_votes_cast_total", &counts.cast),
            ("cluster_votes_counted_total", &counts.counted),
            ("cluster_votes_refused_total", &counts.refused),
            ("cluster_votes_forged_total", &counts.forged),
            ("cluster_votes_stale_total", &counts.stale),
            ("cluster_store_lives_total", &counts.lives),
            ("cluster_checkpoint_alarms_total", &counts.checkpoint_alarms),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .collect()
    }

    /// Where another node holds it.
    fn elsewhere(&self, id: &ApprovalId) -> Option<mirror::Seen> {
        let own = self.0.approvals.get(id).is_some();
        self.0.mirror.seen(id.as_str()).filter(|_| !own)
    }

    fn unposted(&self) -> MutexGuard<'_, Option<String>> {
        let unposted = self.0.unposted.lock();
        unposted.unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        let trouble = self.0.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner)
    }

    /// In the journal and in the log. Where the journal fails, in the log alone.
    async fn alarm(&self, what: &str, about: &str, message: String) {
        tracing::error!(what, node = about, "{message}");
        let record = NewRecord {
            session: None,
            at: (self.0.clock)(),
            entry: Entry::Alarm {
                what: what.to_owned(),
                about: about.to_owned(),
                message,
            },
            blob: bytes::Bytes::new(),
        };
        if let Err(error) = self.0.ledger.write(record, Durability::Synced).await {
            tracing::error!(%error, "an alarm is not in the journal");
        }
    }
}

/// Whether the configured store can be used; takes and changes nothing.
///
/// # Errors
/// It cannot, or cannot be reached.
pub async fn check(node: &str, config: &RedisConfig) -> Result<(), ClusterError> {
    Seal::new(&secrets::resolve(&config.cluster_secret)?)?;
    let config = Arc::new(config.clone());
    let lease = Keys::new(&config.key_prefix).lease(node);
    probe(&Link::new(config, Duration::ZERO), &lease).await
}

async fn probe(link: &Link, key: &str) -> Result<(), ClusterError> {
    let reply: Reply = match link.ask(&Script::Probe.call(&[key.to_owned()])).await {
        Ok(reply) => reply,
        Err(StoreError::Refused(text)) if forbids(&text) => {
            return Err(ClusterError::InfoForbidden(text));
        }
        Err(error) => return Err(error.into()),
    };
    match (reply.word.as_str(), reply.more.as_str()) {
        ("ok", "noeviction") => Ok(()),
        ("ok", other) => Err(ClusterError::Eviction(other.to_owned())),
        _ => Err(ClusterError::Replica),
    }
}

/// The words of servers and of managed services differ.
fn forbids(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "not allowed",
        "noperm",
        "no permission",
        "can't run this command",
        "unknown command",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn random() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Secret("no randomness".to_owned()))?;
    Ok(hex::encode(bytes))
}

impl Board for Cluster {
    fn list(&self) -> Vec<Arc<View>> {
        let mut views = self.0.approvals.list();
        views.extend(self.0.mirror.list());
        views.sort_by(|a, b| (&b.opened_at, &b.id).cmp(&(&a.opened_at, &a.id)));
        views
    }

    fn get(&self, id: &ApprovalId) -> Option<Arc<View>> {
        let own = self.0.approvals.get(id);
        own.or_else(|| self.0.mirror.get(id.as_str()))
    }

    fn decided(&self, id: &ApprovalId) -> Option<Later<'static, Arc<View>>> {
        let own = Board::decided(&self.0.approvals, id);
        own.or_else(|| self.0.mirror.decided(id.as_str()))
    }

    fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    fn pending(&self) -> usize {
        self.0.approvals.pending() + self.0.mirror.pending()
    }

    fn vote(&self, vote: Vote, now: Now) -> Later<'_, Result<Cast, VoteRefused>> {
        match self.elsewhere(&vote.approval) {
            Some(seen) => Box::pin(self.cast(seen, vote)),
            None => Board::vote(&self.0.approvals, vote, now),
        }
    }

    fn justify<'a>(
        &'a self,
        id: &'a ApprovalId,
        by: Identity,
        text: String,
        now: Now,
    ) -> Later<'a, Result<Cast<()>, JustifyRefused>> {
        match self.elsewhere(id) {
            Some(seen) => Box::pin(self.move_words(seen, (id.clone(), by, text))),
            None => Board::justify(&self.0.approvals, id, by, text, now),
        }
    }

    fn break_glass(
        &self,
        glass: BreakGlass,
        now: Now,
    ) -> Later<'_, Result<Cast<String>, VoteRefused>> {
        match self.elsewhere(&glass.approval) {
            Some(seen) => Box::pin(self.move_glass(seen, glass)),
            None => Board::break_glass(&self.0.approvals, glass, now),
        }
    }

    fn review<'a>(
        &'a self,
        id: &'a ApprovalId,
        by: Reviewer,
        note: Option<String>,
    ) -> Later<'a, Result<Cast<()>, VoteRefused>> {
        Box::pin(async move {
            let here = self.0.approvals.reviews().await;
            if here.iter().any(|review| review.id == id.as_str()) {
                return Board::review(&self.0.approvals, id, by, note).await;
            }
            self.move_review((id.clone(), by, note)).await
        })
    }

    fn reviews(&self) -> Later<'_, (Vec<ReviewView>, Vec<String>)> {
        Box::pin(async move {
            let mut all = self.0.approvals.reviews().await;
            let (theirs, missing) = self.their_reviews().await;
            all.extend(theirs);
            all.sort_by(|a, b| a.glass.at.cmp(&b.glass.at));
            (all, missing)
        })
    }

    fn health(&self) -> Result<(), String> {
        if let Some(error) = self.0.mail.trouble() {
            return Err(error.to_string());
        }
        if let Some(why) = self.trouble().clone() {
            return Err(why);
        }
        if let Some(why) = self.unposted().clone() {
            return Err(why);
        }
        match self.0.peers.alarms().into_iter().next() {
            Some(alarm) => Err(alarm),
            None => Ok(()),
        }
    }
}
