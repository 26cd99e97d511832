//! Approve, deny, expire and leave at once, from both nodes, while the store comes and goes
//! and somebody sets the clocks on the wall.
//!
//! `make chaos` runs it at full size: `HOLDPOINT_CHAOS_RACES` commands in all, and one failover
//! of the store for every `HOLDPOINT_CHAOS_CALM` of them. A race is over when its last voter
//! was answered, which takes seconds where the store is gone, so one pair of nodes sees
//! ten failovers a minute at most; `HOLDPOINT_CHAOS_WORLDS` pairs, each with a store of its
//! own, race beside each other.

use std::sync::atomic::AtomicUsize;

use holdpoint_tests::{Network, need};

use super::stall::Pulse;
use super::*;

/// No approval ends later than this after its deadline, whatever fails.
const BOUND: Duration = Duration::from_secs(1);

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

/// How an approval ended.
struct Ended {
    state: String,
    deadline: std::time::Instant,
    at: std::time::Instant,
}

/// One command of node `owner`, and everything at once.
async fn race(owner: Arc<Node>, other: Arc<Node>, told: Arc<Told>, seed: u64) -> Ended {
    let mut dice = Dice(seed);
    let mut draft = command(1);
    let millis = 100 + dice.roll(1_200);
    draft.hold.expires_in = Duration::from_millis(millis);
    // Before it is opened: what the service's own reading adds counts as late.
    let deadline = std::time::Instant::now() + draft.hold.expires_in;
    let session = owner.hold(draft.clone()).await;
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
    let state = loop {
        match owner.approvals.get(&draft.id) {
            None => break "forgotten".to_owned(),
            Some(view) if view.is_decided() => break view.state.clone(),
            Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let at = std::time::Instant::now();
    for voter in voters {
        voter.await.unwrap();
    }
    let _ = session.await;
    Ended {
        state,
        deadline,
        at,
    }
}

/// What one pair of nodes lived through.
#[derive(Default)]
struct Story {
    races: usize,
    failovers: usize,
    /// Of those, how many went to a copy and how many to a server that knows nothing.
    copies: usize,
    empty: usize,
    /// How often no node could reach any store for a while.
    dead: usize,
    steps: usize,
    forwarded: usize,
    twice: usize,
    after_denial: usize,
    told: Arc<Told>,
    ended: Vec<Ended>,
}

/// An address where nobody listens.
fn nowhere() -> std::net::SocketAddr {
    std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 1))
}

async fn server() -> RedisServer {
    // Waits by sleeping: not on a thread that runs nodes.
    let started = tokio::task::spawn_blocking(RedisServer::start).await;
    started.unwrap().unwrap()
}

async fn ask(server: &Arc<RedisServer>, command: &'static [&'static str], port: Option<u16>) {
    let server = Arc::clone(server);
    let asked = tokio::task::spawn_blocking(move || {
        let port = port.map(|port| port.to_string());
        let command: Vec<&str> = command.iter().copied().chain(port.as_deref()).collect();
        server.ask(&command)
    });
    asked.await.unwrap();
}

async fn world(number: usize, races: usize, calm: usize, seed: u64) -> Story {
    let mut dice = Dice(seed.wrapping_add(number as u64));
    let first = Arc::new(server().await);
    let a = Arc::new(Node::start("a", &first).await);
    let b = Arc::new(Node::start("b", &first).await);
    let mut story = Story::default();
    // Each store in turn; the former ones go on, as in a split brain.
    let mut stores = vec![first];
    while story.races < races {
        let batch = calm.min(races - story.races);
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
                Arc::clone(&story.told),
                dice.roll(u64::MAX >> 1),
            ));
        }
        // In the middle of all this somebody sets the clocks, an hour or less to either side.
        tokio::time::sleep(Duration::from_millis(dice.roll(800))).await;
        for node in [&a, &b] {
            if dice.roll(2) == 0 {
                node.clock
                    .set(i64::try_from(dice.roll(7_200)).unwrap() - 3_600);
                story.steps += 1;
            }
        }
        // And the store fails over, sometimes for one node first, sometimes after it was away.
        let old = Arc::clone(stores.last().unwrap());
        let next = Arc::new(server().await);
        if dice.roll(3) > 0 {
            let copy = &["REPLICAOF", "127.0.0.1"];
            ask(&next, copy, Some(old.address.port())).await;
            tokio::time::sleep(Duration::from_millis(dice.roll(1_500))).await;
            ask(&next, &["REPLICAOF", "NO", "ONE"], None).await;
            story.copies += 1;
        } else {
            story.empty += 1;
        }
        match dice.roll(5) {
            0 => a.network.set(Network::Silent),
            1 => b.network.set(Network::ServerUnheard),
            2 => a.network.set(Network::Slow(Duration::from_millis(50))),
            3 => {
                for node in [&a, &b] {
                    node.network.lead_to(nowhere());
                }
                story.dead += 1;
                tokio::time::sleep(Duration::from_millis(500 + dice.roll(1_500))).await;
            }
            _ => {}
        }
        a.network.lead_to(next.address);
        tokio::time::sleep(Duration::from_millis(dice.roll(700))).await;
        b.network.lead_to(next.address);
        story.failovers += 1;
        stores.push(next);
        if stores.len() > 2 {
            stores.remove(0);
        }
        while let Some(ended) = running.join_next().await {
            story.ended.push(ended.unwrap());
        }
        for node in [&a, &b] {
            node.network.set(Network::Well);
        }
        story.races += batch;
    }
    let denied = story.told.denied.lock().unwrap().clone();
    for node in [&a, &b] {
        let forwards = node.forwards.lock().unwrap();
        story.forwarded += forwards.len();
        story.twice += forwards.values().filter(|count| **count > 1).count();
        story.after_denial += denied.iter().filter(|id| forwards.contains_key(id)).count();
    }
    a.reconcile();
    b.reconcile();
    story
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_races_and_whatever_fails_nothing_goes_twice_or_unasked() {
    let Some(_) = need!(
        holdpoint_tests::needs::program("redis-server"),
        "redis-server"
    ) else {
        return;
    };
    let races = setting("HOLDPOINT_CHAOS_RACES", 240);
    let calm = setting("HOLDPOINT_CHAOS_CALM", 60).max(1);
    let worlds = setting("HOLDPOINT_CHAOS_WORLDS", 2).max(1);
    let seed = setting("HOLDPOINT_CHAOS_SEED", 1);
    let pulse = Pulse::start();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..worlds {
        let share = races / worlds + usize::from(number < races % worlds);
        running.spawn(world(number, share, calm, seed as u64));
    }
    let stories: Vec<Story> = running.join_all().await;
    let sum = |of: &dyn Fn(&Story) -> usize| stories.iter().map(of).sum::<usize>();
    let told = |of: fn(&Told) -> &AtomicUsize| sum(&|one| of(&one.told).load(Ordering::Relaxed));
    let ended = || stories.iter().flat_map(|story| &story.ended);
    let late = |one: &Ended| one.at.saturating_duration_since(one.deadline);
    let stalled = |one: &Ended| pulse.between(one.deadline, one.at);
    let mut expired: Vec<_> = ended()
        .filter(|one| one.state == "expired")
        .map(late)
        .collect();
    expired.sort();
    assert!(
        !expired.is_empty(),
        "nothing expired: the test shows nothing"
    );
    let part = |of: usize| expired.get((expired.len() * of / 100).min(expired.len() - 1));
    let worst = ended().max_by_key(|one| late(one)).unwrap();
    let own = ended().map(|one| late(one).saturating_sub(stalled(one)));
    let excused = ended().filter(|one| late(one) > BOUND).count();
    let (twice, after_denial) = (sum(&|one| one.twice), sum(&|one| one.after_denial));
    let forwarded = sum(&|one| one.forwarded);
    println!(
        "races {}, failovers {} (to a copy {}, to an empty store {}), no store at all {} times, \
         clocks set {} times (seed {seed}, {worlds} pairs of nodes)\n\
         forwarded {forwarded}, twice {twice}, after a told denial {after_denial}\n\
         votes: final {}, submitted {}, refused {}; denials told {}\n\
         expired {}: after the deadline p50 {:?}, p99 {:?}, latest {:?}\n\
         of any end: latest {:?}, of which the machine stood still {:?}; without such stalls latest {:?}; \
         {excused} past {BOUND:?}; longest stall {:?}",
        sum(&|one| one.races),
        sum(&|one| one.failovers),
        sum(&|one| one.copies),
        sum(&|one| one.empty),
        sum(&|one| one.dead),
        sum(&|one| one.steps),
        told(|told| &told.finals),
        told(|told| &told.submitted),
        told(|told| &told.refused),
        sum(&|one| one.told.denied.lock().unwrap().len()),
        expired.len(),
        part(50).unwrap(),
        part(99).unwrap(),
        expired.last().unwrap(),
        late(worst),
        stalled(worst),
        own.max().unwrap(),
        pulse.longest(),
    );
    assert_eq!((twice, after_denial), (0, 0));
    assert_eq!(ended().count(), races);
    for one in ended().filter(|one| late(one) > BOUND) {
        let (late, stalled) = (late(one), stalled(one));
        assert!(
            late.saturating_sub(stalled) <= BOUND,
            "{} {late:?} after its deadline, and the machine stood still for {stalled:?} of that",
            one.state
        );
    }
    assert!(forwarded > 0, "nothing ran: the test shows nothing");
}
