//! The store down, slow, cut off, failed over, split, emptied; and what somebody with the
//! store alone can do.

use holdpoint_tests::{Network, need};

use super::*;

async fn two() -> Option<(RedisServer, Node, Node)> {
    let server = need!(RedisServer::start(), "redis-server")?;
    let (a, b) = (
        Node::start("a", &server).await,
        Node::start("b", &server).await,
    );
    Some((server, a, b))
}

fn counter(node: &Node, name: &str) -> u64 {
    let counters = node.cluster.counters();
    counters.into_iter().find(|(one, _)| one == name).unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_the_owner_decides_alone_and_time_runs_on() {
    let Some((mut server, a, b)) = two().await else {
        return;
    };
    let (decided, left) = (command(60), command(2));
    let session = a.hold(decided.clone()).await;
    let forgotten = a.hold(left.clone()).await;
    shown(&b, &decided).await;
    let start = Instant::now();
    server.kill();
    let refused = cast(&b, &decided, "rita", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(refused.code, "HP-STORE");
    assert_eq!(
        settled(&cast(&a, &decided, "rita", Verdict::Approve).await),
        Some("approved")
    );
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    assert_eq!(forgotten.await.unwrap(), Settlement::Expired);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    until("health to say so", || a.cluster.health().is_err()).await;
    assert!(
        b.cluster
            .health()
            .unwrap_err()
            .contains("cannot be reached")
    );
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_slows_votes_from_elsewhere_only() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let (near, far) = (command(60), command(60));
    let sessions = [a.hold(near.clone()).await, a.hold(far.clone()).await];
    shown(&b, &far).await;
    for node in [&a, &b] {
        node.network.set(Network::Slow(Duration::from_millis(150)));
    }
    let start = Instant::now();
    assert_eq!(
        settled(&cast(&a, &near, "rita", Verdict::Approve).await),
        Some("approved")
    );
    assert!(
        start.elapsed() < Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
    let voted = cast(&b, &far, "rita", Verdict::Approve).await;
    assert!(voted.is_ok(), "{voted:?}");
    for session in sessions {
        assert_eq!(session.await.unwrap(), Settlement::Approved);
    }
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reviewer_who_hears_nothing_is_not_told_that_it_is_final() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = command(60);
    let session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    // The vote gets there; no answer comes back.
    b.network.set(Network::ServerUnheard);
    let unheard = cast(&b, &draft, "rita", Verdict::Approve).await;
    assert_eq!(settled(&unheard), None, "{unheard:?}");
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    b.network.set(Network::Well);
    let heard = || {
        b.cluster
            .get(&draft.id)
            .is_some_and(|view| view.state == "used")
    };
    until("the other node to see what came of it", heard).await;
    let again = cast(&b, &draft, "rita", Verdict::Approve).await;
    assert!(
        again.is_err() || settled(&again) == Some("used"),
        "{again:?}"
    );
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_cut_off_hears_no_vote_and_expires() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = command(3);
    let session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    let start = Instant::now();
    a.network.set(Network::Silent);
    let voted = cast(&b, &draft, "rita", Verdict::Approve).await;
    assert_eq!(
        voted,
        Ok(Cast::Submitted {
            node: "a".to_owned()
        })
    );
    assert_eq!(session.await.unwrap(), Settlement::Expired);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    a.network.set(Network::Well);
    let told = || {
        b.cluster
            .get(&draft.id)
            .is_some_and(|view| view.state == "expired")
    };
    until("the other node to see that it expired", told).await;
    assert!(a.forwards.lock().unwrap().is_empty());
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgot_everything_is_told_again() {
    let Some((mut server, a, b)) = two().await else {
        return;
    };
    for emptied in 0..2 {
        let draft = command(60);
        let session = a.hold(draft.clone()).await;
        shown(&b, &draft).await;
        if emptied == 0 {
            server.ask(&["FLUSHALL"]);
        } else {
            server.restart_empty();
        }
        let key = format!("hp:{{a}}:req:{}", draft.id);
        until("the owner to show it again", || {
            server.ask(&["HGET", &key, "state"]) == "pending"
        })
        .await;
        let mut voted = cast(&b, &draft, "rita", Verdict::Approve).await;
        // The other node may still know it from before; it says so, and is asked again.
        for _ in 0..100 {
            if settled(&voted).is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            voted = cast(&b, &draft, "rita", Verdict::Approve).await;
        }
        assert!(settled(&voted).is_some(), "{voted:?}");
        assert_eq!(session.await.unwrap(), Settlement::Approved);
    }
    a.reconcile();
}

/// A server and its copy.
fn pair() -> Option<(RedisServer, RedisServer)> {
    let old = need!(RedisServer::start(), "redis-server")?;
    let new = RedisServer::start()?;
    new.ask(&["REPLICAOF", "127.0.0.1", &old.address.port().to_string()]);
    holdpoint_tests::eventually("the copy to be in step", 20, || {
        let info = new.ask(&["INFO", "replication"]).to_string();
        info.contains("master_link_status:up").then_some(())
    });
    Some((old, new))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_split_brain_a_denial_that_was_told_stays_the_last_word() {
    let Some((old, new)) = pair() else {
        return;
    };
    let (a, b) = (Node::start("a", &old).await, Node::start("b", &old).await);
    let draft = command(20);
    let session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    let copied = || new.ask(&["EXISTS", &format!("hp:{{a}}:req:{}", draft.id)]) == 1;
    until("the copy to have it", copied).await;
    // The copy is promoted while the old one goes on, and does not hear of the denial.
    new.ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(
        settled(&cast(&b, &draft, "rita", Verdict::Deny).await),
        Some("denied")
    );
    let c = Node::start("c", &new).await;
    let key = format!("hp:{{a}}:req:{}", draft.id);
    assert_eq!(new.ask(&["HGET", &key, "state"]), "pending");
    for _ in 0..20 {
        let late = cast(&c, &draft, "ruth", Verdict::Approve).await;
        assert_eq!(settled(&late), None, "{late:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(session.await.unwrap(), Settlement::Denied { .. }));
    // The owner comes over, too; its word is what the new one shows.
    a.network.lead_to(new.address);
    until("the new store to show the denial", || {
        new.ask(&["HGET", &key, "state"]) == "denied"
    })
    .await;
    assert!(a.forwards.lock().unwrap().is_empty());
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_lost_writes_votes_are_cast_again_and_count_once() {
    let Some((old, new)) = pair() else {
        return;
    };
    let (a, b) = (Node::start("a", &old).await, Node::start("b", &old).await);
    let (early, lost) = (command(60), command(60));
    let first = a.hold(early.clone()).await;
    shown(&b, &early).await;
    let copied = || new.ask(&["EXISTS", &format!("hp:{{a}}:req:{}", early.id)]) == 1;
    until("the copy to have it", copied).await;
    new.signal("STOP");
    // Neither this hold nor this vote reaches the copy.
    let second = a.hold(lost.clone()).await;
    shown(&b, &lost).await;
    assert_eq!(
        settled(&cast(&b, &early, "rita", Verdict::Approve).await),
        Some("approved")
    );
    assert_eq!(first.await.unwrap(), Settlement::Approved);
    drop(old);
    new.signal("CONT");
    new.ask(&["REPLICAOF", "NO", "ONE"]);
    for node in [&a, &b] {
        node.network.lead_to(new.address);
    }
    // On the copy the first one looks pending, until its owner says what it is.
    let again = cast(&b, &early, "ruth", Verdict::Approve).await;
    assert!(
        settled(&again).is_none_or(|state| state == "used"),
        "{again:?}"
    );
    let mut voted = cast(&b, &lost, "rita", Verdict::Approve).await;
    for _ in 0..100 {
        if settled(&voted).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        voted = cast(&b, &lost, "rita", Verdict::Approve).await;
    }
    assert_eq!(second.await.unwrap(), Settlement::Approved);
    assert_eq!(counter(&a, "cluster_store_lives_total"), 1);
    assert_eq!(a.forwards.lock().unwrap().len(), 2);
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_is_taken_up_without_a_restart() {
    let Some(server) = need!(
        RedisServer::with(&["--requirepass", "first"]),
        "redis-server"
    ) else {
        return;
    };
    let node = async |name| {
        let opened = Node::with(name, &server, |dir, config| {
            config.password = Some(SecretRef::File(dir.write("password", "first")));
        });
        opened.await.unwrap()
    };
    let (a, b) = (node("a").await, node("b").await);
    server.ask_as(Some("first"), &["CONFIG", "SET", "requirepass", "second"]);
    server.ask_as(Some("second"), &["CLIENT", "KILL", "TYPE", "normal"]);
    let refused = || {
        a.cluster
            .health()
            .is_err_and(|why| why.contains("credentials"))
    };
    until("health to speak of credentials", refused).await;
    let alone = command(60);
    let session = a.hold(alone.clone()).await;
    assert_eq!(
        settled(&cast(&a, &alone, "rita", Verdict::Approve).await),
        Some("approved")
    );
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    for node in [&a, &b] {
        node.dir.write("password", "second");
    }
    let draft = command(60);
    let session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    assert_eq!(
        settled(&cast(&b, &draft, "rita", Verdict::Approve).await),
        Some("approved")
    );
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    a.reconcile();
}

/// The one ballot that lies in the store for node `a`.
fn ballot(server: &RedisServer) -> (String, String) {
    let entries = server.ask(&["XRANGE", "hp:{a}:votes", "-", "+"]);
    let fields = &entries[0][1];
    let text = |at: usize| fields[at].as_str().unwrap().to_owned();
    (text(1), text(3))
}

fn put(server: &RedisServer, (body, mark): &(String, String)) {
    server.ask(&["XADD", "hp:{a}:votes", "*", "body", body, "mark", mark]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_store_alone_can_make_no_vote() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let mut draft = command(60);
    draft.hold.steps[0].quorum = 2;
    let _session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    a.network.set(Network::Silent);
    let voted = cast(&b, &draft, "rita", Verdict::Approve).await;
    assert_eq!(
        voted,
        Ok(Cast::Submitted {
            node: "a".to_owned()
        })
    );
    let real = ballot(&server);
    a.network.set(Network::Well);
    let counted = || {
        a.approvals
            .get(&draft.id)
            .is_some_and(|view| view.approvals == 1)
    };
    until("the vote to count", counted).await;

    // The same ballot, another reviewer in it, an empty mark, another's mark.
    put(&server, &real);
    put(&server, &(real.0.replace("rita", "ruth"), real.1.clone()));
    put(&server, &(real.0.clone(), String::new()));
    put(&server, &("{}".to_owned(), real.1.clone()));
    until("all to be looked at", || {
        counter(&a, "cluster_votes_forged_total") == 3
            && counter(&a, "cluster_votes_stale_total") >= 1
    })
    .await;
    let view = a.approvals.get(&draft.id).unwrap();
    assert_eq!(
        (view.state.as_str(), view.approvals, view.votes.len()),
        ("pending", 1, 1)
    );
    let alarms = a
        .ledger
        .all()
        .into_iter()
        .filter(|entry| matches!(entry, Entry::Alarm { .. }));
    assert_eq!(alarms.count(), 1);

    // A former process's ballot decides nothing in the next one.
    a.cluster.close().await;
    let next = Node::start("a", &server).await;
    let _session = next.hold(draft.clone()).await;
    put(&server, &real);
    until("it to be refused", || {
        counter(&next, "cluster_votes_stale_total") >= 1
    })
    .await;
    assert_eq!(next.approvals.get(&draft.id).unwrap().approvals, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_store_alone_can_show_no_other_command() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let draft = command(60);
    let _session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    let key = format!("hp:{{a}}:req:{}", draft.id);
    let body = server.ask(&["HGET", &key, "body"]);
    let harmless = body.as_str().unwrap().replace("DROP TABLE", "SELECT");
    server.ask(&["HSET", &key, "body", &harmless]);
    server.ask(&["XADD", "hp:{a}:changes", "*", "id", draft.id.as_str()]);
    until("it to be shown no more", || {
        b.cluster.get(&draft.id).is_none()
    })
    .await;
    assert!(counter(&b, "cluster_votes_forged_total") >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_at_the_owner_votes_nowhere() {
    let Some((_server, a, b)) = two().await else {
        return;
    };
    let draft = command(60);
    let _session = a.hold(draft.clone()).await;
    shown(&b, &draft).await;
    let refused = cast(&b, &draft, "revoked", Verdict::Approve)
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (403, "HP-REVOKED"));
    assert_eq!(a.approvals.get(&draft.id).unwrap().state, "pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_signs_two_histories_is_an_alarm_at_the_other() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let head = || b.dir.path().join("peers/a.json");
    until("the head to be kept", || head().exists()).await;
    let key = holdpoint_core::record::checkpoint::NodeKey::new("a", &[7; 32]).unwrap();
    let other = key.sign(0, holdpoint_core::id::Digest([9; 32]), 2);
    // Its own node would write over it.
    a.network.set(Network::Down);
    server.ask(&["HSET", "hp:{a}:checkpoint", "note", &other]);
    until("the alarm", || {
        counter(&b, "cluster_checkpoint_alarms_total") == 1
    })
    .await;
    let said = b.cluster.health().unwrap_err();
    assert!(said.contains("two histories"), "{said}");
    let entries = b.ledger.all();
    let alarm = entries.iter().find_map(|entry| match entry {
        Entry::Alarm { what, about, .. } => Some((what.as_str(), about.as_str())),
        _ => None,
    });
    assert_eq!(alarm, Some(("checkpoint", "a")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_shows_in_health_and_takes_what_it_missed_once_there_is_room() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let draft = command(60);
    let session = a.hold(draft.clone()).await;
    until("health to say so", || {
        a.cluster
            .health()
            .is_err_and(|why| why.contains("maxmemory"))
    })
    .await;
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    shown(&b, &draft).await;
    let voted = cast(&b, &draft, "rita", Verdict::Approve).await;
    assert_eq!(settled(&voted), Some("approved"), "{voted:?}");
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    until("health to be well", || a.cluster.health() == Ok(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_rewrote_its_journal_is_refused_until_somebody_says_that_it_is_well() {
    let Some((server, a, b)) = two().await else {
        return;
    };
    let kept = |size: &str| {
        let file = std::fs::read_to_string(b.dir.path().join("peers/a.json"));
        file.is_ok_and(|text| text.contains(&format!("\"size\": {size},")))
    };
    // It grows, and proves it.
    a.neighbour.write(leaves(1, 10));
    until("the first head", || kept("10")).await;
    a.neighbour.write(leaves(1, 25));
    until("the proof", || kept("25")).await;
    assert_eq!(b.cluster.health(), Ok(()));
    let votes = async |text: &str, owner: &Node, voter: &Node| {
        let draft = command(60);
        let session = owner.hold(draft.clone()).await;
        shown(voter, &draft).await;
        let voted = cast(voter, &draft, "rita", Verdict::Approve).await;
        session.abort();
        match voted {
            Ok(Cast::Final(counted)) => assert_eq!(counted.state, text),
            Ok(other) => panic!("{other:?}"),
            Err(problem) => assert!(problem.detail.contains(text), "{problem:?}"),
        }
    };
    votes("approved", &a, &b).await;

    // Another past, longer than what was seen: its next process cannot prove it.
    a.cluster.close().await;
    let mut forked = leaves(1, 20);
    forked.extend(leaves(2, 20));
    let a = Node::start("a", &server).await;
    a.neighbour.write(leaves(1, 25));
    a.neighbour.write(forked);
    until("the alarm", || {
        counter(&b, "cluster_checkpoint_alarms_total") == 1
    })
    .await;
    let said = b.cluster.health().unwrap_err();
    assert!(said.contains("its past was rewritten"), "{said}");
    assert!(kept("25"), "what it cannot prove is not kept");
    votes("its past was rewritten", &a, &b).await;
    votes("its past was rewritten", &b, &a).await;

    std::fs::remove_file(b.dir.path().join("peers/a.json")).unwrap();
    until("it to be believed again", || b.cluster.health() == Ok(())).await;
    votes("approved", &a, &b).await;
}
