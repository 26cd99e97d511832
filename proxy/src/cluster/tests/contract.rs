//! What every board promises, held against each of them.

use std::sync::atomic::Ordering;

use holdpoint_tests::need;

use super::*;
use crate::approvals::testing::reviewer;

/// Where commands are held, and where people look.
struct World {
    owner: Approvals,
    ledger: Arc<MemoryLedger>,
    board: Arc<dyn Board>,
    _nodes: Vec<Node>,
}

impl World {
    fn embedded() -> Self {
        let ledger = Arc::new(MemoryLedger::default());
        let owner = Approvals::new(holds(), ledger.clone(), Arc::new(crate::clock::now), None);
        Self {
            board: Arc::new(owner.clone()),
            owner,
            ledger,
            _nodes: Vec::new(),
        }
    }

    async fn redis(server: &RedisServer) -> Self {
        let (a, b) = (
            Node::start("a", server).await,
            Node::start("b", server).await,
        );
        Self {
            owner: a.approvals.clone(),
            ledger: a.ledger.clone(),
            board: Arc::new(b.cluster.clone()),
            _nodes: vec![a, b],
        }
    }

    async fn hold(&self, draft: &Draft) -> crate::approvals::Waiter {
        let (opened, waiter) = self.owner.open(draft.clone(), crate::clock::now()).await;
        assert!(matches!(opened, Opened::Waiting { .. }), "refused");
        let see = || self.board.get(&draft.id).is_some();
        until("the board to show it", see).await;
        waiter.unwrap()
    }

    async fn vote(&self, draft: &Draft, who: &str, verdict: Verdict) -> Result<Counted, Problem> {
        self.cast(vote(draft, who, verdict)).await
    }

    async fn cast(&self, vote: Vote) -> Result<Counted, Problem> {
        match self.board.vote(vote, crate::clock::now()).await? {
            Cast::Final(counted) => Ok(counted),
            Cast::Submitted { node } => panic!("node {node} did not answer"),
        }
    }

    fn entries(&self, what: &str) -> usize {
        let entries = self.ledger.all();
        entries
            .iter()
            .filter(|entry| format!("{entry:?}").starts_with(what))
            .count()
    }
}

use crate::approvals::Counted;
use holdpoint_core::approval::Vote;

/// Runs a promise against every board.
macro_rules! promise {
    ($(#[$doc:meta])* $name:ident, $world:ident, $body:block) => {
        mod $name {
            use super::*;

            async fn keeps($world: World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                keeps(World::embedded()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                let Some(server) = need!(RedisServer::start(), "redis-server") else {
                    return;
                };
                keeps(World::redis(&server).await).await;
            }
        }
    };
}

promise!(a_command_is_shown_whole, world, {
    let draft = command(60);
    let _waiter = world.hold(&draft).await;
    let (here, there) = (
        world.owner.get(&draft.id).unwrap(),
        world.board.get(&draft.id).unwrap(),
    );
    let mut there = (*there).clone();
    there.node = None;
    there.journal = here.journal.clone();
    assert_eq!(there, *here);
    assert_eq!(world.board.list().len(), 1);
    assert_eq!(world.board.pending(), 1);
});

promise!(an_approval_is_told_when_it_is_in_the_journal, world, {
    let draft = command(60);
    let mut waiter = world.hold(&draft).await;
    let counted = world.vote(&draft, "rita", Verdict::Approve).await.unwrap();
    assert_eq!(
        (counted.outcome.as_str(), counted.state.as_str()),
        ("settled", "approved")
    );
    assert_eq!((counted.approvals, counted.quorum), (1, 1));
    assert_eq!(world.ledger.settled(&draft.id), ["approved"]);
    assert_eq!(waiter.settled().await, Settlement::Approved);
});

promise!(a_denial_reaches_the_session_with_its_reason, world, {
    let draft = command(60);
    let mut waiter = world.hold(&draft).await;
    let counted = world.vote(&draft, "rita", Verdict::Deny).await.unwrap();
    assert_eq!(counted.state, "denied");
    let settlement = waiter.settled().await;
    assert!(matches!(settlement, Settlement::Denied { reason, .. } if reason == "no"));
    let late = world
        .vote(&draft, "ruth", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(
        (late.code.as_str(), late.state.as_deref()),
        ("HP-SETTLED", Some("denied"))
    );
});

promise!(two_people_are_two_and_one_is_one, world, {
    let mut draft = command(60);
    draft.hold.steps[0].quorum = 2;
    let _waiter = world.hold(&draft).await;
    let first = world.vote(&draft, "rita", Verdict::Approve).await.unwrap();
    assert_eq!((first.outcome.as_str(), first.approvals), ("counted", 1));
    let again = world.vote(&draft, "rita", Verdict::Approve).await.unwrap();
    assert_eq!(again.outcome, "repeated");
    let other = world.vote(&draft, "rita", Verdict::Deny).await.unwrap_err();
    assert_eq!(other.code, "HP-VOTED");
    let second = world.vote(&draft, "ruth", Verdict::Approve).await.unwrap();
    assert_eq!((second.outcome.as_str(), second.approvals), ("settled", 2));
});

promise!(who_may_not_decide_does_not, world, {
    let draft = command(60);
    let _waiter = world.hold(&draft).await;
    let code = async |vote| world.cast(vote).await.unwrap_err().code;
    // Answers for the agent.
    assert_eq!(
        code(vote(&draft, "olivia", Verdict::Approve)).await,
        "HP-NOT-ELIGIBLE"
    );
    let mut robot = vote(&draft, "robot", Verdict::Approve);
    robot.reviewer.agent = true;
    assert_eq!(code(robot).await, "HP-NOT-ELIGIBLE");
    let mut stranger = vote(&draft, "sam", Verdict::Approve);
    stranger.reviewer = holdpoint_core::approval::Reviewer {
        groups: Vec::new(),
        ..reviewer("sam")
    };
    assert_eq!(code(stranger).await, "HP-NOT-ELIGIBLE");
    let mut other = vote(&draft, "rita", Verdict::Approve);
    other.digest = holdpoint_core::id::Digest::of(b"another command");
    assert_eq!(code(other).await, "HP-DIGEST");
    let mut silent = vote(&draft, "rita", Verdict::Deny);
    silent.reason = None;
    assert_eq!(code(silent).await, "HP-REQUEST");
    assert_eq!(world.board.get(&draft.id).unwrap().state, "pending");
    assert_eq!(world.entries("Settled"), 0);
});

promise!(a_vote_that_the_journal_did_not_take_did_not_count, world, {
    let draft = command(60);
    let _waiter = world.hold(&draft).await;
    world.ledger.fails.store(true, Ordering::SeqCst);
    let refused = world
        .vote(&draft, "rita", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(refused.code, "HP-JOURNAL");
    world.ledger.fails.store(false, Ordering::SeqCst);
    let counted = world.vote(&draft, "rita", Verdict::Approve).await.unwrap();
    assert_eq!(counted.state, "approved");
});

promise!(whoever_waits_hears_of_the_decision_and_not_before, world, {
    let draft = command(60);
    let _waiter = world.hold(&draft).await;
    let mut news = world.board.subscribe();
    let mut decided = world.board.decided(&draft.id).unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), &mut decided).await;
    assert!(early.is_err());
    world.vote(&draft, "rita", Verdict::Approve).await.unwrap();
    let view = tokio::time::timeout(Duration::from_secs(5), decided)
        .await
        .unwrap();
    assert_eq!(view.state, "approved");
    let told = async { while news.recv().await.unwrap().state != "approved" {} };
    tokio::time::timeout(Duration::from_secs(5), told)
        .await
        .unwrap();
});

promise!(what_nobody_decides_expires_and_is_shown_so, world, {
    let draft = command(1);
    let mut waiter = world.hold(&draft).await;
    let start = Instant::now();
    assert_eq!(waiter.settled().await, Settlement::Expired);
    assert!(start.elapsed() < Duration::from_secs(2));
    let expired = || {
        world
            .board
            .get(&draft.id)
            .is_some_and(|view| view.state == "expired")
    };
    until("the board to show that it expired", expired).await;
    let late = world
        .vote(&draft, "rita", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(late.code, "HP-SETTLED");
});

promise!(what_is_not_there_is_not_found, world, {
    let draft = command(60);
    assert!(world.board.get(&draft.id).is_none());
    assert!(world.board.decided(&draft.id).is_none());
    let refused = world
        .vote(&draft, "rita", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(refused.code, "HP-NOT-FOUND");
});
