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
use holdpoint_core::approval::{BreakGlass, Vote};
use holdpoint_core::decision::Reviewers;
use holdpoint_core::principal::Identity;

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
    let told = async { while news.recv().await.unwrap().view().state != "approved" {} };
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

/// A rule that asks why, and has a glass that `dba` may break.
fn asking() -> Draft {
    let mut draft = command(60);
    draft.hold.justify = true;
    draft.hold.break_glass = vec![Reviewers::Group("dba".to_owned())];
    draft
}

fn glass(draft: &Draft, who: &str) -> BreakGlass {
    BreakGlass {
        approval: draft.id.clone(),
        digest: draft.digest,
        by: reviewer(who),
        reason: "it burns".to_owned(),
        channel: "api".to_owned(),
        at: 1,
    }
}

promise!(who_asked_says_why_once_and_it_is_in_the_journal, world, {
    let draft = asking();
    let mut waiter = world.hold(&draft).await;
    let say = async |who: &str, text: &str| {
        let by = Identity {
            issuer: draft.principal.identity.issuer.clone(),
            subject: who.to_owned(),
        };
        let said = world
            .board
            .justify(&draft.id, by, text.to_owned(), crate::clock::now());
        said.await.map_err(Problem::from).map_err(|why| why.code)
    };
    let early = world.vote(&draft, "rita", Verdict::Approve).await;
    assert_eq!(early.unwrap_err().code, "HP-NOT-JUSTIFIED");
    assert_eq!(say("mallory", "x").await.unwrap_err(), "HP-NOT-FOUND");
    assert_eq!(say("agent", " ").await.unwrap_err(), "HP-REQUEST");
    world.ledger.fails.store(true, Ordering::SeqCst);
    assert_eq!(say("agent", "lost").await.unwrap_err(), "HP-JOURNAL");
    world.ledger.fails.store(false, Ordering::SeqCst);
    assert_eq!(world.entries("Justified"), 0);
    assert_eq!(say("agent", "it is old").await, Ok(Cast::Final(())));
    assert_eq!(world.entries("Justified"), 1);
    assert_eq!(say("agent", "or so").await.unwrap_err(), "HP-JUSTIFIED");
    let seen = || world.board.get(&draft.id).unwrap().justification.clone();
    until("the board to show it", || {
        seen().as_deref() == Some("it is old")
    })
    .await;
    world.vote(&draft, "rita", Verdict::Approve).await.unwrap();
    assert_eq!(waiter.settled().await, Settlement::Approved);
    assert_eq!(say("agent", "late").await.unwrap_err(), "HP-SETTLED");
});

promise!(
    a_broken_glass_is_written_first_and_looked_into_by_another,
    world,
    {
        let draft = asking();
        let mut waiter = world.hold(&draft).await;
        let break_it = async |glass: BreakGlass| {
            let broken = world.board.break_glass(glass, crate::clock::now()).await;
            broken.map_err(Problem::from).map_err(|why| why.code)
        };
        let mut stranger = glass(&draft, "sam");
        stranger.by.groups.clear();
        assert_eq!(break_it(stranger).await.unwrap_err(), "HP-NOT-ELIGIBLE");
        let mut other = glass(&draft, "rita");
        other.digest = holdpoint_core::id::Digest::of(b"another command");
        assert_eq!(break_it(other).await.unwrap_err(), "HP-DIGEST");
        let mut silent = glass(&draft, "rita");
        silent.reason.clear();
        assert_eq!(break_it(silent).await.unwrap_err(), "HP-REQUEST");
        world.ledger.fails.store(true, Ordering::SeqCst);
        assert_eq!(
            break_it(glass(&draft, "rita")).await.unwrap_err(),
            "HP-JOURNAL"
        );
        world.ledger.fails.store(false, Ordering::SeqCst);
        assert_eq!(world.board.get(&draft.id).unwrap().state, "pending");
        assert!(world.board.reviews().await.0.is_empty());

        let broken = break_it(glass(&draft, "rita")).await.unwrap();
        assert_eq!(broken, Cast::Final("approved".to_owned()));
        assert_eq!(world.ledger.settled(&draft.id), ["approved"]);
        assert_eq!(waiter.settled().await, Settlement::Approved);
        assert_eq!(
            break_it(glass(&draft, "rita")).await.unwrap_err(),
            "HP-SETTLED"
        );

        let (open, missing) = world.board.reviews().await;
        assert_eq!((open.len(), missing.len()), (1, 0));
        assert_eq!(
            (open[0].id.as_str(), open[0].glass.reason.as_str()),
            (draft.id.as_str(), "it burns")
        );
        let review = async |who: &str| {
            let done = world.board.review(&draft.id, reviewer(who), None).await;
            done.map_err(Problem::from).map_err(|why| why.code)
        };
        assert_eq!(review("rita").await.unwrap_err(), "HP-NOT-ELIGIBLE");
        assert_eq!(world.entries("Reviewed"), 0);
        assert_eq!(review("ruth").await, Ok(Cast::Final(())));
        assert_eq!(world.entries("Reviewed"), 1);
        assert_eq!(review("ruth").await.unwrap_err(), "HP-NOT-FOUND");
        assert!(world.board.reviews().await.0.is_empty());
    }
);

promise!(what_is_not_there_is_not_found, world, {
    let draft = command(60);
    assert!(world.board.get(&draft.id).is_none());
    assert!(world.board.decided(&draft.id).is_none());
    let refused = world
        .vote(&draft, "rita", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(refused.code, "HP-NOT-FOUND");
    let (by, words) = (draft.principal.identity.clone(), "why".to_owned());
    let said = world
        .board
        .justify(&draft.id, by, words, crate::clock::now());
    assert_eq!(Problem::from(said.await.unwrap_err()).code, "HP-NOT-FOUND");
    let broken = world
        .board
        .break_glass(glass(&draft, "rita"), crate::clock::now());
    assert_eq!(
        Problem::from(broken.await.unwrap_err()).code,
        "HP-NOT-FOUND"
    );
    let closed = world.board.review(&draft.id, reviewer("ruth"), None).await;
    assert_eq!(Problem::from(closed.unwrap_err()).code, "HP-NOT-FOUND");
});
