//! Approve, deny, expire and leave at once, from both nodes, while the store comes and goes.
//!
//! `make chaos` runs it longer: `HOLDPOINT_CHAOS_RACES` commands, and a failover of the
//! store after every `HOLDPOINT_CHAOS_CALM` of them.

use std::sync::atomic::AtomicUsize;

use holdpoint_tests::{Network, need};

use super::*;

fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A small generator: the same seed gives the same faults.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[derive(Default)]
struct Told {
    /// Approvals whose denial a reviewer was told.
    denied: Mutex<Vec<ApprovalId>>,
    finals: AtomicUsize,
    submitted: AtomicUsize,
    refused: AtomicUsize,
}

impl Told {
    fn hear(&self, draft: &Draft, heard: &Result<Cast, Problem>) {
        let count = match heard {
            Ok(Cast::Final(_)) => &self.finals,
            Ok(Cast::Submitted { .. }) => &self.submitted,
            Err(_) => &self.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if settled(heard) == Some("denied") {
            self.denied.lock().unwrap().push(draft.id.clone());
        }
    }
}

/// One command of node `owner`, and everything at once.
async fn race(owner: Arc<Node>, other: Arc<Node>, told: Arc<Told>, seed: u64) -> Duration {
    let mut dice = Dice(seed);
    let mut draft = command(1);
    let millis = 100 + dice.roll(1_200);
    draft.hold.expires_in = Duration::from_millis(millis);
    let session = owner.hold(draft.clone()).await;
    let deadline = Instant::now() + draft.hold.expires_in;
    let voter = |node: &Arc<Node>, who: &'static str, verdict, after: u64| {
        let (node, draft, told) = (Arc::clone(node), draft.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            told.hear(&draft, &cast(&node, &draft, who, verdict).await);
        })
    };
    let voters = [
        voter(&other, "rita", Verdict::Approve, dice.roll(millis + 100)),
        voter(&other, "ruth", Verdict::Deny, dice.roll(2 * millis)),
        voter(&owner, "rolf", Verdict::Approve, dice.roll(3 * millis)),
    ];
    if dice.roll(4) == 0 {
        tokio::time::sleep(Duration::from_millis(dice.roll(millis))).await;
        session.abort();
        owner
            .approvals
            .leave(&draft.id, &draft.session, false)
            .await;
    }
    let over = || {
        owner
            .approvals
            .get(&draft.id)
            .is_none_or(|view| view.is_decided())
    };
    while !over() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = Instant::now().saturating_duration_since(deadline);
    for voter in voters {
        voter.await.unwrap();
    }
    let _ = session.await;
    late
}

/// How long this machine let a task of ours wait, at worst: other programs run here, too.
fn pulse() -> Arc<Mutex<Duration>> {
    let worst = Arc::new(Mutex::new(Duration::ZERO));
    let seen = Arc::downgrade(&worst);
    tokio::spawn(async move {
        let beat = Duration::from_millis(10);
        while let Some(worst) = seen.upgrade() {
            let start = Instant::now();
            tokio::time::sleep(beat).await;
            let late = start.elapsed().saturating_sub(beat);
            let mut worst = worst.lock().unwrap();
            *worst = late.max(*worst);
        }
    });
    worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_races_and_whatever_fails_nothing_goes_twice_or_unasked() {
    let Some(server) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let races = setting("HOLDPOINT_CHAOS_RACES", 240);
    let calm = setting("HOLDPOINT_CHAOS_CALM", 60).max(1);
    let seed = setting("HOLDPOINT_CHAOS_SEED", 1);
    let mut dice = Dice(seed as u64);
    let a = Arc::new(Node::start("a", &server).await);
    let b = Arc::new(Node::start("b", &server).await);
    let told = Arc::new(Told::default());
    let pulse = pulse();
    let (mut latest, mut failovers, mut done) = (Duration::ZERO, 0, 0);
    // Each store in turn; the former ones go on, as in a split brain.
    let mut stores = vec![server];
    while done < races {
        let batch = calm.min(races - done);
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..batch {
            let (owner, other) = if dice.roll(2) == 0 {
                (&a, &b)
            } else {
                (&b, &a)
            };
            running.spawn(race(
                Arc::clone(owner),
                Arc::clone(other),
                Arc::clone(&told),
                dice.roll(u64::MAX >> 1),
            ));
        }
        // In the middle of all this the store fails over, sometimes for one node first.
        tokio::time::sleep(Duration::from_millis(dice.roll(800))).await;
        let old = stores.last().unwrap();
        let next = RedisServer::start().unwrap();
        if dice.roll(3) > 0 {
            next.ask(&["REPLICAOF", "127.0.0.1", &old.address.port().to_string()]);
            tokio::time::sleep(Duration::from_millis(dice.roll(1_500))).await;
            next.ask(&["REPLICAOF", "NO", "ONE"]);
        }
        match dice.roll(4) {
            0 => a.network.set(Network::Silent),
            1 => b.network.set(Network::ServerUnheard),
            2 => a.network.set(Network::Slow(Duration::from_millis(50))),
            _ => {}
        }
        a.network.lead_to(next.address);
        tokio::time::sleep(Duration::from_millis(dice.roll(700))).await;
        b.network.lead_to(next.address);
        failovers += 1;
        stores.push(next);
        if stores.len() > 2 {
            stores.remove(0);
        }
        while let Some(late) = running.join_next().await {
            latest = latest.max(late.unwrap());
        }
        for node in [&a, &b] {
            node.network.set(Network::Well);
        }
        done += batch;
    }
    let (mut twice, mut after_denial) = (0, 0);
    for node in [&a, &b] {
        let forwards = node.forwards.lock().unwrap();
        twice += forwards.values().filter(|count| **count > 1).count();
        let denied = told.denied.lock().unwrap();
        after_denial += denied.iter().filter(|id| forwards.contains_key(id)).count();
    }
    let forwarded = a.forwards.lock().unwrap().len() + b.forwards.lock().unwrap().len();
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let stalled = *pulse.lock().unwrap();
    println!(
        "races {done}, failovers {failovers}, forwarded {forwarded}, twice {twice}, \
         after a told denial {after_denial}, \
         votes: final {}, submitted {}, refused {}; latest end {latest:?} after its deadline, \
         longest stall of the machine {stalled:?} (seed {seed})",
        count(&told.finals),
        count(&told.submitted),
        count(&told.refused),
    );
    assert_eq!((twice, after_denial), (0, 0));
    a.reconcile();
    b.reconcile();
    assert!(
        latest < Duration::from_secs(1) + stalled,
        "{latest:?} after the deadline"
    );
    assert!(forwarded > 0, "nothing ran: the test shows nothing");
}
