//! What the owner of an approval decides beside votes, and nodes of several versions.

use holdpoint_core::approval::BreakGlass;
use holdpoint_core::decision::Reviewers;
use holdpoint_tests::{Network, need};

use super::*;
use crate::approvals::testing::reviewer;
use crate::cluster::letter::{Asked, SPEAKS};
use crate::cluster::motions::{To, Unsaid};
use crate::cluster::seal::Kind;

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

use crate::approvals::Others as _;

fn with_glass() -> Draft {
    let mut draft = command(60);
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

async fn break_it(node: &Node, glass: BreakGlass) -> Result<Cast<String>, Problem> {
    let broken = node.cluster.break_glass(glass, node.clock.now()).await;
    broken.map_err(Problem::from)
}

/// What lies in the box of `a`: body and mark.
fn letter(server: &RedisServer) -> (String, String) {
    let lies = server.ask(&["XREVRANGE", "hp:{a}:votes", "+", "-", "COUNT", "1"]);
    let field = |at: usize| lies[0][1][at].as_str().unwrap().to_owned();
    (field(1), field(3))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_glass_is_broken_once_by_its_owner_and_not_before_it_says_so() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let draft = with_glass();
    let session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    // Who is revoked at the owner breaks nothing.
    let revoked = break_it(&b, glass(&draft, "revoked")).await.unwrap_err();
    assert_eq!(revoked.code, "HP-REVOKED");
    // The owner cannot hear: nothing is final.
    a.network.set(Network::Silent);
    let sent = break_it(&b, glass(&draft, "rita")).await.unwrap();
    assert_eq!(sent, Cast::Submitted { node: "a".into() });
    assert_eq!(a.approvals.get(&draft.id).unwrap().state, "pending");
    let (body, mark) = letter(&server);
    a.network.set(Network::Well);
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    assert_eq!(a.forwards.lock().unwrap()[&draft.id], 1);

    // The letter again; with another name in it; and from another life of the store.
    let other = body.replace("rita", "ruth");
    assert_ne!(other, body);
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
    let broken = |entry: &Entry| matches!(entry, Entry::BreakGlass { refused: None, .. });
    let entries = a.ledger.all();
    assert_eq!(entries.iter().filter(|entry| broken(entry)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_motion_from_a_former_life_of_the_store_counts_nothing() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let draft = with_glass();
    let _session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    // As it lay in a copy of the store that was promoted: another life is named.
    let asked = |nonce: &str, life: Option<&str>| {
        let asked = Asked {
            nonce: nonce.to_owned(),
            owner: "a".to_owned(),
            epoch: a.cluster.0.epoch.clone(),
            from: "b".to_owned(),
            incarnation: life.map(str::to_owned),
            errand: serde_json::json!({ "break_glass": glass(&draft, "rita") }),
        };
        let body = serde_json::to_string(&asked).unwrap();
        let mark = b.cluster.0.seal.mark(Kind::Errand, &["a"], body.as_bytes());
        server.ask(&["XADD", "hp:{a}:votes", "*", "body", &body, "mark", &mark]);
    };
    let life = a.cluster.0.life.borrow().clone();
    for (nonce, life, says) in [
        ("n1", Some("another:life"), "failed over"),
        ("n2", None, "too old"),
    ] {
        asked(nonce, life);
        let said = b
            .cluster
            .answer_to("a", nonce, Duration::from_secs(5))
            .await;
        let said = format!("{said:?}");
        assert!(said.contains("Refused") && said.contains(says), "{said}");
        assert_eq!(a.approvals.get(&draft.id).unwrap().state, "pending");
    }
    // The same with the right one does it: that alone was what was wrong.
    asked("n3", Some(&life));
    let said = b.cluster.answer_to("a", "n3", Duration::from_secs(5)).await;
    assert!(format!("{said:?}").contains("Told"), "{said:?}");
    assert_eq!(a.ledger.settled(&draft.id), ["approved"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_too_old_is_not_asked_and_one_that_is_asked_too_much_says_so() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let draft = with_glass();
    let _session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    // A kind that only a later version knows: answered, and no alarm.
    let asked = Asked {
        nonce: "later".to_owned(),
        owner: "a".to_owned(),
        epoch: a.cluster.0.epoch.clone(),
        from: "b".to_owned(),
        incarnation: None,
        errand: serde_json::json!({ "open_the_pod_bay_doors": { "by": "hal" } }),
    };
    let body = serde_json::to_string(&asked).unwrap();
    let mark = b.cluster.0.seal.mark(Kind::Errand, &["a"], body.as_bytes());
    server.ask(&["XADD", "hp:{a}:votes", "*", "body", &body, "mark", &mark]);
    let said = b
        .cluster
        .answer_to("a", "later", Duration::from_secs(5))
        .await;
    let said = format!("{said:?}");
    assert!(said.contains("`a` is too old for this"), "{said}");
    assert!(
        a.ledger
            .all()
            .iter()
            .all(|entry| !matches!(entry, Entry::Alarm { .. }))
    );

    // One that does not say what it can be asked is of the first version, whatever a newer
    // process of that name left there: it gets no letter that it would take for forged.
    let key = "hp:{a}:checkpoint";
    let speaks = server.ask(&["HMGET", key, "speaks", "speaks_mark"]);
    assert_eq!(speaks[0], SPEAKS.to_string());
    let mark = speaks[1].as_str().unwrap().to_owned();
    for spoils in [
        vec!["HDEL", key, "speaks"],
        vec!["HSET", key, "speaks", "9", "speaks_mark", &mark],
    ] {
        // Said again every two seconds: until then it is as it would be with an older one.
        let said = SPEAKS.to_string();
        until("it to be said again", || {
            server.ask(&["HGET", key, "speaks"]).as_str() == Some(said.as_str())
        })
        .await;
        server.ask(&spoils);
        let before = server.ask(&["XLEN", "hp:{a}:votes"]);
        let refused = break_it(&b, glass(&draft, "rita")).await.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (501, "HP-TOO-OLD"));
        assert!(refused.detail.contains("`a` is too old"), "{refused:?}");
        assert_eq!(server.ask(&["XLEN", "hp:{a}:votes"]), before);
        // What the first version knows goes on.
        assert!(b.cluster.ask("a", Errand::Sessions).await.is_ok());
    }
    // Nor is a former process's word taken for this one's.
    let to = To {
        node: "a",
        epoch: "a former process".to_owned(),
        life: None,
    };
    let work = crate::cluster::letter::Work::Errand(Errand::Reviews);
    let refused = b.cluster.send(&to, &work, Duration::from_millis(10)).await;
    assert!(matches!(refused, Err(Unsaid::Refused(_))), "{refused:?}");
}
