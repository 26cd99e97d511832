//! Windows of one node that commands at another use.

use holdpoint_core::decision::Window;
use holdpoint_core::record::checkpoint::NodeKey;
use holdpoint_tests::Network;

use super::handover::{again, claim, gives, open, takes, two};
use super::*;
use crate::approvals::testing::identity;

/// Held at `a`, approved for ten minutes or for its session, and used there once.
async fn opened(a: &Node, window: Window) -> Draft {
    let mut draft = command(60);
    draft.hold.windows = vec![window];
    let (_, waiter) = open(a, &draft).await;
    let mut vote = vote(&draft, "rita", Verdict::Approve);
    vote.window = Some(window);
    a.approvals.cast(vote, a.clock.now()).await.unwrap();
    claim(a, &draft.id, &draft).await.unwrap();
    drop(waiter);
    draft
}

const TEN_MINUTES: Window = Window::For(Duration::from_secs(600));

/// Until `node` sees that others may use it.
async fn seen(node: &Node, draft: &Draft) {
    until("the window to be seen", || {
        window_until(node, draft).is_some()
    })
    .await;
}

fn window_until(node: &Node, draft: &Draft) -> Option<String> {
    let view = node.cluster.0.mirror.get(draft.id.as_str());
    view.and_then(|view| view.window_until.clone())
}

async fn passes(node: &Node, draft: &Draft) -> bool {
    match open(node, draft).await.0 {
        Opened::Granted(id) => claim(node, &id, draft).await.is_ok(),
        Opened::Waiting { .. } => {
            // Out of the way: the next one must not join it.
            let session = &draft.session;
            node.approvals.leave(&draft.id, session, false).await;
            false
        }
        Opened::Refused(denial) => panic!("{denial:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_used_at_any_node_and_ends_at_all_when_it_ends() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = opened(&a, TEN_MINUTES).await;
    seen(&b, &draft).await;
    // Each use is counted where it was opened, here and there in turn.
    for (number, node) in [&b, &a, &b].into_iter().enumerate() {
        let number = 0x2000 + u128::try_from(number).unwrap();
        assert!(passes(node, &again(&draft, number)).await, "{number}");
    }
    assert_eq!((gives(&a), takes(&b)), (2, 2));
    let windows = a.approvals.windows().await;
    assert_eq!((windows.len(), windows[0].uses), (1, 3));
    // Two at the same time, each for its own command.
    let (one, other) = (again(&draft, 0x2010), again(&draft, 0x2011));
    for draft in [&one, &other] {
        assert!(matches!(open(&b, draft).await.0, Opened::Granted(_)));
    }
    let stranger = again(&draft, 0x2012);
    assert!(claim(&b, &draft.id, &stranger).await.is_err());
    assert!(claim(&b, &draft.id, &one).await.is_ok());
    assert!(claim(&b, &draft.id, &one).await.is_err());
    // Who does not use what was taken leaves it, and nobody has it.
    b.approvals.leave(&draft.id, &other.session, false).await;
    assert!(claim(&b, &draft.id, &other).await.is_err());

    // Another rule, another principal, other rules: asked anew.
    let mut wrong = vec![
        again(&draft, 0x2020),
        again(&draft, 0x2021),
        again(&draft, 0x2022),
    ];
    wrong[0].rule = "prod:other".to_owned();
    wrong[1].policy = "p2".to_owned();
    Arc::make_mut(&mut wrong[2].principal).owners.clear();
    for wrong in &wrong {
        assert!(!passes(&b, wrong).await);
    }

    // At somebody's word it is over, there and here, before anything was seen of that.
    a.approvals
        .revoke_window(&draft.id, identity("olga"))
        .await
        .unwrap();
    assert!(!passes(&b, &again(&draft, 0x2030)).await);
    until("its end to be seen", || window_until(&b, &draft).is_none()).await;
    assert_eq!((gives(&a), takes(&b)), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_a_node_that_is_not_heard_or_is_not_for_others_lets_nothing_pass() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    // One of a session is its own.
    let own = opened(&a, Window::Session).await;
    until("its approval to be seen", || {
        b.cluster
            .0
            .mirror
            .get(own.id.as_str())
            .is_some_and(|view| view.state == "used")
    })
    .await;
    assert_eq!(window_until(&b, &own), None);
    assert!(!passes(&b, &again(&own, 0x2100)).await);

    let draft = opened(&a, TEN_MINUTES).await;
    seen(&b, &draft).await;
    // Its owner is silent; what it gives late is for nobody.
    a.network.set(Network::Silent);
    let late = again(&draft, 0x2110);
    assert!(!passes(&b, &late).await);
    a.network.set(Network::Well);
    until("a to have given it in vain", || gives(&a) == 1).await;
    assert!(claim(&b, &draft.id, &late).await.is_err());
    assert_eq!(takes(&b), 0);
    // Neither journal takes it: nobody uses it. Of ours no more is lost than that use.
    b.ledger.fails.store(true, Ordering::SeqCst);
    assert!(matches!(
        open(&b, &again(&draft, 0x2111)).await.0,
        Opened::Refused(_)
    ));
    b.ledger.fails.store(false, Ordering::SeqCst);
    assert!(passes(&b, &again(&draft, 0x2112)).await);
    // What is not signed by the owner's journal is not used.
    let signer = a.signer.lock().unwrap().clone();
    *a.signer.lock().unwrap() = Arc::new(NodeKey::new("a", &[8; 32]).unwrap());
    assert!(!passes(&b, &again(&draft, 0x2113)).await);
    *a.signer.lock().unwrap() = signer;
    assert!(passes(&b, &again(&draft, 0x2114)).await);
    // Its time is over.
    let short = opened(&a, Window::For(Duration::from_millis(1_500))).await;
    seen(&b, &short).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!passes(&b, &again(&short, 0x2115)).await);
    until("its end to be seen", || window_until(&b, &short).is_none()).await;

    // A node that came later finds it, however much was settled since; and no store, no window.
    let draft = opened(&a, TEN_MINUTES).await;
    seen(&b, &draft).await;
    let stays = server.ask(&["ZSCORE", "hp:{a}:due", draft.id.as_str()]);
    assert!(!stays.is_null(), "{stays}");
    b.network.set(Network::Silent);
    assert!(!passes(&b, &again(&draft, 0x2120)).await);
    b.network.set(Network::Well);
    let taken = takes(&b);
    // Who may act no more has none anywhere.
    a.approvals
        .revoke_principal(&draft.principal.identity)
        .await;
    let other = again(&draft, 0x2121);
    assert!(!passes(&b, &other).await);
    assert_eq!(takes(&b), taken);
}
