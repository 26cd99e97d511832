//! Nodes in one process, a real Redis between them, and a network that breaks.

mod chaos;
mod contract;
mod faults;
mod guests;
mod handover;
mod motions;
mod neighbours;
mod stall;
mod start;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use holdpoint_core::approval::{Draft, Verdict};
use holdpoint_core::config::{HoldConfig, RedisPlace, RedisUrl, SecretRef};
use holdpoint_core::gate::{Opened, Settlement};
use holdpoint_core::id::Digest;
use holdpoint_core::record::tree;
use holdpoint_tests::{FaultProxy, RedisServer, TestDir};
use tokio::task::JoinHandle;

use super::*;
use crate::api::Problem;
use crate::approvals::Errand;
use crate::approvals::testing::{MemoryLedger, config, draft, vote};

/// A node, its way to the store, and what it sent to its target.
pub(super) struct Node {
    pub(super) approvals: Approvals,
    pub(super) ledger: Arc<MemoryLedger>,
    pub(super) cluster: Cluster,
    pub(super) network: FaultProxy,
    /// How often each approval's command was forwarded.
    pub(super) forwards: Arc<Mutex<BTreeMap<ApprovalId, u32>>>,
    pub(super) clock: Stepped,
    pub(super) neighbour: Arc<Listening>,
    /// Its journal's key, as far as it signs words.
    pub(super) signer: Arc<Mutex<Arc<holdpoint_core::record::checkpoint::NodeKey>>>,
    pub(super) dir: TestDir,
}

/// Remembers what others had it do. Subjects by comma are who is revoked.
#[derive(Default)]
pub(super) struct Listening {
    pub(super) done: Mutex<Vec<(String, Errand)>>,
    revoked: Mutex<BTreeSet<String>>,
    changes: watch::Sender<u64>,
    /// The leaves of its journal, and how often that was written.
    pub(super) journal: Mutex<(Vec<Digest>, u64)>,
    approvals: std::sync::OnceLock<Approvals>,
    pub(super) shares: Mutex<Option<(u64, String)>>,
    pub(super) taken_up: Mutex<Vec<(String, u64, String)>>,
}

/// A journal's leaves.
pub(super) fn leaves(of: u8, count: u64) -> Vec<Digest> {
    let leaf = |at: u64| Digest::of(&[&[of][..], &at.to_be_bytes()].concat());
    (0..count).map(leaf).collect()
}

impl Listening {
    pub(super) fn revoke(&self, subject: &str) {
        self.revoked.lock().unwrap().insert(subject.to_owned());
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn write(&self, leaves: Vec<Digest>) {
        let mut journal = self.journal.lock().unwrap();
        *journal = (leaves, journal.1 + 1);
    }

    pub(super) fn has(&self, subject: &str) -> bool {
        self.revoked.lock().unwrap().contains(subject)
    }
}

impl Neighbour for Listening {
    fn run<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, serde_json::Value> {
        if let Errand::Prove { from, .. } = errand {
            let leaves = self.journal.lock().unwrap().0.clone();
            let proof = tree::consistency_proof(&leaves, usize::try_from(from).unwrap());
            return Box::pin(async move { serde_json::json!(proof) });
        }
        if let (Errand::Reviews, Some(approvals)) = (&errand, self.approvals.get()) {
            return Box::pin(async { serde_json::json!(approvals.reviews().await) });
        }
        let mut done = self.done.lock().unwrap();
        done.push((node.to_owned(), errand));
        let count = done.len();
        Box::pin(async move { count.into() })
    }

    fn revoked(&self) -> String {
        let revoked: Vec<_> = self.revoked.lock().unwrap().iter().cloned().collect();
        revoked.join(",")
    }

    fn learn<'a>(&'a self, _: &'a str, list: &'a str) -> Later<'a, Result<(), String>> {
        for subject in list.split(',').filter(|subject| !subject.is_empty()) {
            if !self.has(subject) {
                self.revoke(subject);
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn shares(&self) -> Option<(u64, String)> {
        self.shares.lock().unwrap().clone()
    }

    fn take_up<'a>(
        &'a self,
        node: &'a str,
        number: u64,
        said: &'a str,
    ) -> Later<'a, Result<(), String>> {
        let taken = (node.to_owned(), number, said.to_owned());
        self.taken_up.lock().unwrap().push(taken);
        Box::pin(async { Ok(()) })
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The machine's clocks, of which somebody sets the one on the wall.
#[derive(Clone, Default)]
pub(super) struct Stepped(Arc<AtomicI64>);

impl Stepped {
    /// From the right time, in seconds.
    pub(super) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Now {
        let now = crate::clock::now();
        let step = self.0.load(Ordering::Relaxed).saturating_mul(1_000_000_000);
        Now {
            wall_ns: now.wall_ns.saturating_add_signed(step),
            ..now
        }
    }
}

pub(super) fn holds() -> HoldConfig {
    HoldConfig {
        max_pending: 100_000,
        max_pending_per_principal: 100_000,
        deny_cooldown: Duration::ZERO,
        ..config()
    }
}

pub(super) fn store(dir: &TestDir, at: SocketAddr) -> RedisConfig {
    let secret = dir.write("cluster.secret", "a secret of more than thirty-two bytes");
    RedisConfig {
        place: RedisPlace::Single(RedisUrl {
            tls: false,
            host: at.ip().to_string(),
            port: at.port(),
            db: 0,
        }),
        username: None,
        password: None,
        sentinel_password: None,
        ca: None,
        cluster_secret: SecretRef::File(secret),
        key_prefix: "hp".to_owned(),
        replicas: 0,
        vote_wait: Duration::from_secs(2),
        danger_allow_cleartext: false,
    }
}

impl Node {
    pub(super) async fn start(name: &str, redis: &RedisServer) -> Self {
        Self::with(name, redis, |_, _| {}).await.unwrap()
    }

    pub(super) async fn with(
        name: &str,
        redis: &RedisServer,
        change: impl FnOnce(&TestDir, &mut RedisConfig),
    ) -> Result<Self, ClusterError> {
        Self::holding(name, redis, holds(), change).await
    }

    pub(super) async fn holding(
        name: &str,
        redis: &RedisServer,
        holds: HoldConfig,
        change: impl FnOnce(&TestDir, &mut RedisConfig),
    ) -> Result<Self, ClusterError> {
        let dir = TestDir::new("node");
        let network = FaultProxy::start(redis.address).await;
        let mut config = store(&dir, network.address);
        change(&dir, &mut config);
        let ledger = Arc::new(MemoryLedger::default());
        let stepped = Stepped::default();
        let reading = stepped.clone();
        let clock: Clock = Arc::new(move || reading.now());
        let approvals = Approvals::new(holds, ledger.clone(), Arc::clone(&clock), None);
        let key =
            Arc::new(holdpoint_core::record::checkpoint::NodeKey::new(name, &[7; 32]).unwrap());
        let signer = Arc::new(Mutex::new(Arc::clone(&key)));
        let signs = Arc::clone(&signer);
        let verifier = key.verifier().to_string();
        let neighbour = Arc::new(Listening::default());
        let _ = neighbour.approvals.set(approvals.clone());
        let journal = Arc::clone(&neighbour);
        let note = move || {
            let (leaves, time) = journal.journal.lock().unwrap().clone();
            key.sign(leaves.len() as u64, tree::root_of(&leaves), 1 + time)
        };
        let cluster = Cluster::open(ClusterParts {
            node: name.to_owned(),
            config,
            approvals: approvals.clone(),
            ledger: ledger.clone(),
            clock,
            admits: Arc::new(|reviewer| reviewer.identity.subject != "revoked"),
            explain: Arc::new(|refusal| {
                Explained::from(&match refusal {
                    Refusal::Vote(refused) => Problem::from(refused),
                    Refusal::Words(refused) => Problem::from(refused),
                })
            }),
            neighbour: neighbour.clone(),
            checkpoint: Arc::new(move || Some(note())),
            attest: Arc::new(move |kind, said| signs.lock().unwrap().attest(kind, said)),
            verifier,
            state: dir.path().to_owned(),
        })
        .await?;
        Ok(Self {
            approvals,
            ledger,
            cluster,
            network,
            forwards: Arc::default(),
            clock: stepped,
            neighbour,
            signer,
            dir,
        })
    }

    /// A session whose command is held: it forwards when it is released, once.
    pub(super) async fn hold(&self, draft: Draft) -> JoinHandle<Settlement> {
        let (opened, waiter) = self.approvals.open(draft.clone(), self.clock.now()).await;
        assert!(matches!(opened, Opened::Waiting { .. }), "refused");
        let mut waiter = waiter.unwrap();
        let (approvals, forwards) = (self.approvals.clone(), Arc::clone(&self.forwards));
        let clock = self.clock.clone();
        tokio::spawn(async move {
            let settlement = waiter.settled().await;
            if settlement == Settlement::Approved {
                let claimed = approvals
                    .claim(
                        &draft.id,
                        &draft.digest,
                        &draft.session,
                        draft.command,
                        clock.now(),
                    )
                    .await;
                if claimed.is_ok() {
                    *forwards
                        .lock()
                        .unwrap()
                        .entry(draft.id.clone())
                        .or_default() += 1;
                }
            }
            settlement
        })
    }

    /// Nothing went out that should not, nothing twice, and nothing is left pending.
    pub(super) fn reconcile(&self) {
        let (mut settled, mut approved) = (BTreeMap::<_, Vec<_>>::new(), BTreeSet::new());
        for entry in self.ledger.all() {
            match entry {
                Entry::Settled {
                    approval, state, ..
                } => settled.entry(approval).or_default().push(state),
                Entry::Vote {
                    vote,
                    refused: None,
                } if vote.verdict == Verdict::Approve => {
                    approved.insert(vote.approval);
                }
                _ => {}
            }
        }
        for (id, count) in &*self.forwards.lock().unwrap() {
            assert_eq!(*count, 1, "{id} was forwarded {count} times");
            assert_eq!(settled[id], ["approved"], "{id}");
            assert!(approved.contains(id), "{id} went out with no vote");
        }
        for view in self.approvals.list() {
            assert_ne!(view.state, "pending", "{} is still pending", view.id);
        }
    }
}

/// A command of its own, decided within `seconds`.
pub(super) fn command(seconds: u64) -> Draft {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let session = (u128::from(std::process::id()) << 64) + (u128::from(number) << 8) + 1;
    let mut draft = draft("agent", &format!("DROP TABLE t{number}"), session);
    draft.hold.expires_in = Duration::from_secs(seconds);
    draft
}

pub(super) async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    for _ in 0..1_500 {
        if probe() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 15 s for {what}");
}

/// Until `node` shows it.
pub(super) async fn shown(node: &Node, draft: &Draft) {
    until("another node to show it", || {
        node.cluster
            .0
            .mirror
            .get(draft.id.as_str())
            .is_some_and(|view| view.state == "pending")
    })
    .await;
}

pub(super) async fn cast(
    node: &Node,
    draft: &Draft,
    who: &str,
    verdict: Verdict,
) -> Result<Cast, Problem> {
    let vote = vote(draft, who, verdict);
    node.cluster
        .vote(vote, node.clock.now())
        .await
        .map_err(Problem::from)
}

pub(super) fn settled(cast: &Result<Cast, Problem>) -> Option<&str> {
    match cast {
        Ok(Cast::Final(counted)) => Some(&counted.state),
        _ => None,
    }
}
