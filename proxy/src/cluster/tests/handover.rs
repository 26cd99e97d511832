//! A grant that is used at another node than its own.

use std::sync::Arc;

use holdpoint_core::approval::{ClaimError, Clearance};
use holdpoint_core::id::{CommandId, SessionId};
use holdpoint_core::record::checkpoint::NodeKey;
use holdpoint_tests::{Network, need};

use super::*;
use crate::approvals::Waiter;

pub(super) async fn two() -> Option<(RedisServer, Node, Node)> {
    two_that(holds()).await
}

pub(super) async fn two_that(hold: HoldConfig) -> Option<(RedisServer, Node, Node)> {
    let server = need!(RedisServer::start(), "redis-server")?;
    let start = async |name| {
        let node = Node::holding(name, &server, hold.clone(), |_, _| {}).await;
        node.unwrap()
    };
    let (a, b) = (start("a").await, start("b").await);
    until("b to know the key of a", || {
        b.cluster.0.peers.key("a").is_some()
    })
    .await;
    Some((server, a, b))
}

/// The identical command in another session.
pub(super) fn again(draft: &Draft, number: u128) -> Draft {
    // Far from the ids of `command`, which count up over all tests.
    let number = (1 << 48) + number;
    Draft {
        id: ApprovalId::from_random(number),
        session: SessionId::from_random(number),
        command: CommandId(7),
        ..draft.clone()
    }
}

/// Held at `a`, told to ask again, and approved.
async fn granted(a: &Node, b: &Node) -> Draft {
    let draft = command(60);
    let (_, waiter) = a.approvals.open(draft.clone(), a.clock.now()).await;
    a.approvals.leave(&draft.id, &draft.session, true).await;
    drop(waiter);
    shown(b, &draft).await;
    let done = cast(a, &draft, "rita", Verdict::Approve).await;
    assert_eq!(settled(&done), Some("approved"));
    draft
}

pub(super) async fn open(node: &Node, draft: &Draft) -> (Opened, Option<Waiter>) {
    node.approvals.open(draft.clone(), node.clock.now()).await
}

pub(super) async fn claim(
    node: &Node,
    id: &ApprovalId,
    draft: &Draft,
) -> Result<Clearance, ClaimError> {
    let now = node.clock.now();
    let (digest, session) = (&draft.digest, &draft.session);
    (node
        .approvals
        .claim(id, digest, session, draft.command, now))
    .await
}

pub(super) fn gives(node: &Node) -> usize {
    let entries = node.ledger.all();
    let given = |entry: &&Entry| matches!(entry, Entry::Given { .. });
    entries.iter().filter(given).count()
}

pub(super) fn takes(node: &Node) -> usize {
    let entries = node.ledger.all();
    let taken = |entry: &&Entry| matches!(entry, Entry::Taken(_));
    entries.iter().filter(taken).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_used_at_the_node_that_the_client_came_back_to_and_once() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = granted(&a, &b).await;
    let back = again(&draft, 0xb1);
    let (opened, waiter) = open(&b, &back).await;
    assert_eq!(opened, Opened::Granted(draft.id.clone()));
    assert!(waiter.is_none());
    assert_eq!((gives(&a), takes(&b)), (1, 1));
    assert_eq!(a.approvals.get(&draft.id).unwrap().state, "used");
    // For that command of that session alone, and once.
    let mut other = back.clone();
    other.command = CommandId(8);
    assert!(claim(&b, &draft.id, &other).await.is_err());
    let clearance = claim(&b, &draft.id, &back).await.unwrap();
    assert!(clearance.covers(&draft.digest, &back.session, back.command));
    assert!(claim(&b, &draft.id, &back).await.is_err());
    assert!(claim(&a, &draft.id, &draft).await.is_err());
    // The next one asks anew, at either.
    for (node, number) in [(&a, 0xa2), (&b, 0xb2)] {
        let (opened, _waiter) = open(node, &again(&draft, number)).await;
        assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
    }
    assert_eq!((gives(&a), takes(&b)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_is_not_free_or_not_for_it_is_not_given() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    // Somebody waits for it on an open connection.
    let draft = command(60);
    let (_, _waiter) = open(&a, &draft).await;
    shown(&b, &draft).await;
    cast(&a, &draft, "rita", Verdict::Approve).await.unwrap();
    let (opened, _w) = open(&b, &again(&draft, 0xc1)).await;
    assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");

    let draft = granted(&a, &b).await;
    let mut wrong = Vec::new();
    for number in 0..4_u128 {
        wrong.push(again(&draft, 0xc10 + number));
    }
    wrong[0].rule = "prod:other".to_owned();
    wrong[1].policy = "p2".to_owned();
    wrong[2].hold.steps[0].quorum = 2;
    Arc::make_mut(&mut wrong[3].principal).owners.clear();
    for wrong in wrong {
        let (opened, _w) = open(&b, &wrong).await;
        assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
        // Out of the way: the next one must not join it.
        b.approvals.leave(&wrong.id, &wrong.session, false).await;
    }
    assert_eq!((gives(&a), takes(&b)), (0, 0));
    // It was there for the right one all the time.
    let (opened, _) = open(&b, &again(&draft, 0xc20)).await;
    assert_eq!(opened, Opened::Granted(draft.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_silent_gone_or_cannot_write_gives_nothing_that_is_used() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    // It does not hear in time: nobody uses it, and what it then gives is lost.
    let draft = granted(&a, &b).await;
    a.network.set(Network::Silent);
    let back = again(&draft, 0xd1);
    let (opened, _w) = open(&b, &back).await;
    assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
    a.network.set(Network::Well);
    until("a to have given it in vain", || gives(&a) == 1).await;
    assert!(claim(&b, &draft.id, &back).await.is_err());
    assert!(claim(&a, &draft.id, &draft).await.is_err());
    assert_eq!(takes(&b), 0);

    // Its journal does not take it: it may lie there or not, so nobody uses it.
    let draft = granted(&a, &b).await;
    a.ledger.fails.store(true, Ordering::SeqCst);
    let (opened, _w) = open(&b, &again(&draft, 0xd2)).await;
    assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
    a.ledger.fails.store(false, Ordering::SeqCst);
    assert!(claim(&a, &draft.id, &draft).await.is_err());

    // Ours does not: given, taken by nobody.
    let draft = granted(&a, &b).await;
    b.ledger.fails.store(true, Ordering::SeqCst);
    let (opened, _w) = open(&b, &again(&draft, 0xd3)).await;
    assert!(matches!(opened, Opened::Refused(_)), "{opened:?}");
    b.ledger.fails.store(false, Ordering::SeqCst);
    assert_eq!((gives(&a), takes(&b)), (2, 0));

    // It is gone.
    let draft = granted(&a, &b).await;
    a.cluster.close().await;
    drop(a);
    until("b to see no a", || b.cluster.0.mirror.names().is_empty()).await;
    let (opened, _w) = open(&b, &again(&draft, 0xd4)).await;
    assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
    assert_eq!(takes(&b), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_signed_by_the_owners_journal_is_not_used() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = granted(&a, &b).await;
    // All that the nodes share is known to it; the key of the journal is not.
    *a.signer.lock().unwrap() = Arc::new(NodeKey::new("a", &[8; 32]).unwrap());
    let (opened, _w) = open(&b, &again(&draft, 0xe1)).await;
    assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
    assert_eq!(takes(&b), 0);
    let alarm = |entry: &Entry| matches!(entry, Entry::Alarm { .. });
    assert!(b.ledger.all().iter().any(alarm));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_over_and_is_not_used_ends_and_is_written() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = granted(&a, &b).await;
    let back = again(&draft, 0xf1);
    let (opened, _) = open(&b, &back).await;
    assert_eq!(opened, Opened::Granted(draft.id.clone()));
    // Another session has nothing to leave.
    let other = SessionId::from_random(0xf9);
    b.approvals.leave(&draft.id, &other, false).await;
    assert!(b.ledger.settled(&draft.id).is_empty());
    b.approvals.leave(&draft.id, &back.session, false).await;
    assert_eq!(b.ledger.settled(&draft.id), ["withdrawn"]);
    assert!(claim(&b, &draft.id, &back).await.is_err());

    let draft = granted(&a, &b).await;
    let back = again(&draft, 0xf2);
    open(&b, &back).await;
    let who = back.principal.identity.clone();
    b.approvals.revoke_principal(&who).await;
    assert_eq!(b.ledger.settled(&draft.id), ["revoked"]);
    assert!(claim(&b, &draft.id, &back).await.is_err());

    let draft = granted(&a, &b).await;
    let back = again(&draft, 0xf3);
    open(&b, &back).await;
    b.approvals.orphan_all().await;
    assert_eq!(b.ledger.settled(&draft.id), ["orphaned"]);
    assert!(claim(&b, &draft.id, &back).await.is_err());
}

/// Its owner's own client and another node's, at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_reach_for_a_grant_one_has_it() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let mut used = (0, 0);
    for round in 0..30_u128 {
        let draft = granted(&a, &b).await;
        let (here, there) = (
            again(&draft, 0x1000 + 2 * round),
            again(&draft, 0x1001 + 2 * round),
        );
        let reach = async |node: &Node, draft: &Draft| match open(node, draft).await.0 {
            Opened::Granted(id) => claim(node, &id, draft).await.is_ok(),
            _ => false,
        };
        // Now one is first and now the other.
        let late = Duration::from_millis(u64::try_from(round % 5).unwrap());
        let (one, other) = tokio::join!(
            async {
                tokio::time::sleep(late).await;
                reach(&a, &here).await
            },
            reach(&b, &there)
        );
        assert!(!(one && other), "round {round}: used twice");
        used.0 += u32::from(one);
        used.1 += u32::from(other);
        assert_eq!(takes(&b), usize::try_from(used.1).unwrap(), "round {round}");
        for (node, draft) in [(&a, &here), (&b, &there)] {
            node.approvals.leave(&draft.id, &draft.session, false).await;
        }
    }
    assert_eq!(gives(&a), takes(&b));
    assert_eq!(used.0 + used.1, 30, "{used:?}");
}
