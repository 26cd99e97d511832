//! A command that is sent again at another node while it is pending at the first.

use holdpoint_tests::Network;

use super::handover::{again, claim, gives, open, takes, two, two_that};
use super::*;
use crate::approvals::Waiter;

/// Sent again at `node`, where it joins the approval of the other.
async fn joins(node: &Node, draft: &Draft, number: u128) -> (Draft, Waiter) {
    let back = again(draft, number);
    let (opened, waiter) = open(node, &back).await;
    let Opened::Waiting {
        approval, joined, ..
    } = opened
    else {
        panic!("{opened:?}");
    };
    assert_eq!((approval, joined), (draft.id.clone(), true));
    assert!(node.approvals.list().is_empty(), "it opened one of its own");
    (back, waiter.unwrap())
}

async fn waiting(node: &Node, draft: &Draft, count: usize) {
    until("so many to wait", || {
        node.approvals.get(&draft.id).unwrap().waiting == count
    })
    .await;
}

fn state(node: &Node, draft: &Draft) -> String {
    node.approvals.get(&draft.id).unwrap().state.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_sent_again_elsewhere_waits_for_the_approval_that_is_pending() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = command(60);
    let (_, first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (back, mut waiter) = joins(&b, &draft, 0x3000).await;
    waiting(&a, &draft, 2).await;
    let joined =
        |entry: &Entry| matches!(entry, Entry::Joined { node: Some(node), .. } if node == "a");
    assert!(b.ledger.all().iter().any(joined));
    // The first connection turns out to be lost: withdrawn were it the only one.
    drop(first);
    waiting(&a, &draft, 1).await;
    assert_eq!(state(&a, &draft), "pending");

    let done = cast(&b, &draft, "rita", Verdict::Approve).await;
    assert_eq!(settled(&done), Some("approved"));
    assert_eq!(waiter.settled().await, Settlement::Approved);
    assert!(claim(&b, &draft.id, &back).await.is_ok());
    assert!(claim(&b, &draft.id, &back).await.is_err());
    assert!(claim(&a, &draft.id, &draft).await.is_err());
    assert_eq!((gives(&a), takes(&b)), (1, 1));
    assert_eq!(state(&a, &draft), "used");

    // Both still there: one of them has it, as with two sessions of one node.
    let draft = command(60);
    let (_, first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (back, mut waiter) = joins(&b, &draft, 0x3001).await;
    cast(&b, &draft, "rita", Verdict::Approve).await.unwrap();
    assert!(claim(&a, &draft.id, &draft).await.is_ok());
    assert_eq!(waiter.settled().await, Settlement::Approved);
    assert!(claim(&b, &draft.id, &back).await.is_err());
    assert_eq!(gives(&a), 1);
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_stands_for_a_while_at_every_node_that_saw_it_asked() {
    let sticky = HoldConfig {
        deny_cooldown: Duration::from_secs(300),
        ..holds()
    };
    let Some((_server, a, b)) = two_that(sticky).await else {
        return;
    };
    let draft = command(60);
    let (_, first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (_, mut waiter) = joins(&b, &draft, 0x3110).await;
    cast(&a, &draft, "rita", Verdict::Deny).await.unwrap();
    waiter.settled().await;
    drop(first);
    for (node, number) in [(&a, 0x3111), (&b, 0x3112)] {
        let (opened, _) = open(node, &again(&draft, number)).await;
        let Opened::Refused(denial) = &opened else {
            panic!("{opened:?}");
        };
        assert_eq!(denial.code, "HP-DENIED");
        let detail = denial.detail.as_deref().unwrap();
        assert!(detail.contains(draft.id.as_str()), "{detail}");
    }
    // Of another command it says nothing.
    let other = command(60);
    assert!(matches!(open(&b, &other).await.0, Opened::Waiting { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_elsewhere_is_told_a_no_and_leaves_as_anybody_does() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    // A no, with its reason.
    let draft = command(60);
    let (_, first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (_, mut waiter) = joins(&b, &draft, 0x3100).await;
    cast(&b, &draft, "rita", Verdict::Deny).await.unwrap();
    let told = waiter.settled().await;
    assert!(
        matches!(&told, Settlement::Denied { reason, .. } if !reason.is_empty()),
        "{told:?}"
    );
    drop(first);

    // Told to ask again at the first, then gone at the second: nobody wants it any more.
    let draft = command(60);
    let (_, first) = open(&a, &draft).await;
    a.approvals.leave(&draft.id, &draft.session, true).await;
    drop(first);
    shown(&b, &draft).await;
    let (back, waiter) = joins(&b, &draft, 0x3101).await;
    waiting(&a, &draft, 1).await;
    // A session of the owner's own is not another node's to take away.
    let own = again(&draft, 0x3104);
    let (_, mine) = open(&a, &own).await;
    waiting(&a, &draft, 2).await;
    a.approvals
        .guest_leaves(&draft.id, &own.session, false)
        .await;
    waiting(&a, &draft, 2).await;
    drop(mine);
    waiting(&a, &draft, 1).await;
    assert_eq!(state(&a, &draft), "pending");
    drop(waiter);
    until("it to be withdrawn", || state(&a, &draft) == "withdrawn").await;
    assert!(claim(&b, &draft.id, &back).await.is_err());

    // Told to ask again at the second, too: it stays, and is a grant when it is approved.
    let draft = command(60);
    let (_, first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (back, waiter) = joins(&b, &draft, 0x3102).await;
    waiting(&a, &draft, 2).await;
    b.approvals.leave(&draft.id, &back.session, true).await;
    drop(waiter);
    a.approvals.leave(&draft.id, &draft.session, true).await;
    drop(first);
    waiting(&a, &draft, 0).await;
    cast(&a, &draft, "rita", Verdict::Approve).await.unwrap();
    let third = again(&draft, 0x3103);
    assert_eq!(open(&b, &third).await.0, Opened::Granted(draft.id.clone()));
    assert!(claim(&b, &draft.id, &third).await.is_ok());

    // Another rule or other rules: not the same command.
    let draft = command(60);
    let (_, _first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (mut other, mut newer) = (again(&draft, 0x3104), again(&draft, 0x3105));
    other.rule = "prod:other".to_owned();
    newer.policy = "p2".to_owned();
    for wrong in [other, newer] {
        let (opened, _waiter) = open(&b, &wrong).await;
        assert!(
            matches!(&opened, Opened::Waiting { approval, .. } if *approval == wrong.id),
            "{opened:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_silent_is_not_waited_for_and_one_that_is_gone_lets_go() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = command(60);
    let (_, _first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    a.network.set(Network::Silent);
    let back = again(&draft, 0x3200);
    let asked = Instant::now();
    let (opened, waiter) = open(&b, &back).await;
    assert!(
        matches!(&opened, Opened::Waiting { approval, .. } if *approval == back.id),
        "{opened:?}"
    );
    let most = b.cluster.0.config.vote_wait + Duration::from_secs(1);
    assert!(asked.elapsed() < most, "{:?}", asked.elapsed());
    drop(waiter);
    a.network.set(Network::Well);

    // Its end is told, and nothing passes on what it held.
    let draft = command(60);
    let (_, _first) = open(&a, &draft).await;
    shown(&b, &draft).await;
    let (opened, waiter) = open(&b, &again(&draft, 0x3201)).await;
    assert!(
        matches!(opened, Opened::Waiting { joined: true, .. }),
        "{opened:?}"
    );
    a.cluster.close().await;
    drop(a);
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        waiter.unwrap().settled().await
    });
    assert_eq!(told.await.unwrap(), Settlement::Orphaned);
    assert_eq!(takes(&b), 0);
}
