//! What nodes do for each other beside votes.

use holdpoint_core::id::SessionId;
use holdpoint_tests::{Network, need};

use super::*;
use crate::approvals::Others as _;
use crate::approvals::testing::identity;

async fn two() -> Option<(RedisServer, Node, Node)> {
    let server = need!(RedisServer::start(), "redis-server")?;
    let (a, b) = (
        Node::start("a", &server).await,
        Node::start("b", &server).await,
    );
    until("each to see the other", || {
        a.cluster.names() == ["b"] && b.cluster.names() == ["a"]
    })
    .await;
    Some((server, a, b))
}

fn kill(number: u128) -> Errand {
    Errand::Kill {
        session: SessionId::from_random(number),
        by: identity("rita"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errand_is_done_once_by_the_node_that_is_asked_and_by_nobody_else() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    // Its own answer: the first thing that it was asked.
    assert_eq!(b.cluster.ask("a", kill(1)).await, Ok(1.into()));
    let done = || a.neighbour.done.lock().unwrap().clone();
    assert_eq!(done(), [("b".to_owned(), kill(1))]);
    assert!(b.neighbour.done.lock().unwrap().is_empty());
    let nobody = b.cluster.ask("c", kill(1)).await.unwrap_err().to_string();
    assert!(nobody.contains("`c` is not there"), "{nobody}");

    // The letter again, as it lay there, and with another session in it.
    a.network.set(Network::Silent);
    let silent = b.cluster.ask("a", kill(2)).await.unwrap_err().to_string();
    assert!(silent.contains("no answer"), "{silent}");
    let lies = server.ask(&["XREVRANGE", "hp:{a}:votes", "+", "-", "COUNT", "1"]);
    let field = |at: usize| lies[0][1][at].as_str().unwrap().to_owned();
    let (body, mark) = (field(1), field(3));
    a.network.set(Network::Well);
    until("it to be done late", || done().len() == 2).await;
    let other = body.replace(
        SessionId::from_random(2).as_str(),
        SessionId::from_random(3).as_str(),
    );
    assert_ne!(body, other);
    for body in [&body, &other] {
        server.ask(&["XADD", "hp:{a}:votes", "*", "body", body, "mark", &mark]);
    }
    let count = |name: &str| {
        let counters = a.cluster.counters();
        counters.into_iter().find(|(one, _)| one == name).unwrap().1
    };
    until("both to be looked at", || {
        count("cluster_votes_stale_total") == 1 && count("cluster_votes_forged_total") == 1
    })
    .await;
    assert_eq!(done().len(), 2);

    // A letter to a former process is for nobody.
    a.cluster.close().await;
    let next = Node::start("a", &server).await;
    server.ask(&["XADD", "hp:{a}:votes", "*", "body", &body, "mark", &mark]);
    until("the next process to be seen", || {
        b.cluster.0.mirror.epoch("a").as_ref() == Some(&next.cluster.0.epoch)
    })
    .await;
    assert_eq!(b.cluster.ask("a", kill(4)).await, Ok(1.into()));
    assert_eq!(
        *next.neighbour.done.lock().unwrap(),
        [("b".to_owned(), kill(4))]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_at_one_node_is_so_at_all_also_at_those_that_were_away() {
    let Some((mut server, a, b)) = two().await else {
        return;
    };
    let start = Instant::now();
    a.neighbour.revoke("ada");
    until("b to have it", || b.neighbour.has("ada")).await;
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    // One that comes later, after the node that said it has gone.
    a.cluster.close().await;
    drop(a);
    let c = Node::start("c", &server).await;
    until("c to have it", || c.neighbour.has("ada")).await;

    // One that cannot hear, and a store that forgot all meanwhile.
    c.network.set(Network::Down);
    b.neighbour.revoke("bob");
    server.restart_empty();
    c.network.set(Network::Well);
    until("c to have both", || c.neighbour.has("bob")).await;
    assert!(b.neighbour.has("ada"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_store_alone_can_revoke_nobody_and_take_nothing_back() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    a.neighbour.revoke("ada");
    until("b to have it", || b.neighbour.has("ada")).await;
    a.network.set(Network::Down);
    server.ask(&["HSET", "hp:{a}:revoked", "list", "ada,bob", "mark", "00"]);
    until("it to be an alarm", || {
        let alarm = |entry: &Entry| matches!(entry, Entry::Alarm { what, .. } if what == "vote");
        b.ledger.all().iter().any(alarm)
    })
    .await;
    server.ask(&["DEL", "hp:{a}:revoked"]);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(b.neighbour.has("ada") && !b.neighbour.has("bob"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_shares_is_taken_up_on_its_signed_word_and_on_no_other() {
    let Some((mut server, a, b)) = two().await else {
        return;
    };
    let has = |node: &Node, number: u64, said: &str| {
        let taken = node.neighbour.taken_up.lock().unwrap();
        let number = number << 16;
        taken.last() == Some(&("a".to_owned(), number, said.to_owned()))
    };
    let say = |number, said: &str| {
        *a.neighbour.shares.lock().unwrap() = Some((number, said.to_owned()));
    };
    say(3, "{\"keys\":[1]}");
    until("b to have it", || has(&b, 3, "{\"keys\":[1]}")).await;
    let genuine = server.ask(&["HGET", "hp:{a}:shared", "note"]);
    say(4, "{\"keys\":[]}");
    until("b to have the next", || has(&b, 4, "{\"keys\":[]}")).await;

    // Another list while the journal is as long as before: another number.
    say(4, "{\"keys\":[9]}");
    until("b to have the other", || {
        let taken = b.neighbour.taken_up.lock().unwrap();
        let last = taken
            .last()
            .map(|(_, number, said)| (*number, said.clone()));
        last == Some(((4 << 16) + 1, "{\"keys\":[9]}".to_owned()))
    })
    .await;

    // Whoever has the store, and even all that the nodes share, has no node's key.
    let mallory = holdpoint_core::record::checkpoint::NodeKey::new("a", &[8; 32]).unwrap();
    let genuine = genuine.as_str().unwrap();
    let count = || b.neighbour.taken_up.lock().unwrap().len();
    let before = count();
    let own = Arc::clone(&a.signer.lock().unwrap());
    for forged in [
        mallory.attest("people 1", "9 {\"keys\":[6]}"),
        genuine.replace("[1]", "[6]"),
        // The node's own word on something else, and its checkpoint.
        own.attest("people 2", "9 {\"keys\":[6]}"),
        own.sign(9, Digest::of(b""), 1),
    ] {
        let alarms = b.cluster.0.counts.forged.load(Ordering::Relaxed);
        server.ask(&["HSET", "hp:{a}:shared", "note", &forged]);
        until("it to be refused", || {
            b.cluster.0.counts.forged.load(Ordering::Relaxed) > alarms
        })
        .await;
        assert_eq!(count(), before, "{forged}");
    }
    // A store that forgot all is given it again.
    server.restart_empty();
    say(5, "{\"keys\":[2]}");
    until("b to have it again", || has(&b, 5, "{\"keys\":[2]}")).await;
}
