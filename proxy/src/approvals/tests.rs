//! The service, with a journal that can be slow or fail and a clock set by hand.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdpoint_core::approval::{ClaimError, State, Verdict, VoteError, VoteOutcome};
use holdpoint_core::gate::{Opened, Settlement};
use holdpoint_core::id::{CommandId, SessionId};
use holdpoint_core::record::Entry;

use super::testing::{Desk, MemoryLedger, config, draft, identity, vote};
use super::*;

mod rules;

fn refused(opened: &Opened) -> &str {
    match opened {
        Opened::Refused(denial) => &denial.code,
        Opened::Waiting { .. } => "waiting",
        Opened::Granted(_) => "granted",
    }
}

async fn waiting(desk: &Desk, draft: &Draft) -> Waiter {
    let (opened, waiter) = desk.approvals.open(draft.clone(), desk.hands.now()).await;
    assert!(
        matches!(opened, Opened::Waiting { .. }),
        "{}",
        refused(&opened)
    );
    waiter.unwrap()
}

/// Lets tasks that were spawned run.
async fn settle_down() {
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Another node that says no more that its session waits.
#[tokio::test]
async fn a_guest_that_is_not_heard_of_has_left_as_one_that_may_come_back() {
    let desk = Desk::new();
    let mut draft = draft("agent", "DROP TABLE t", 1);
    draft.hold.expires_in = Duration::from_secs(600);
    let first = waiting(&desk, &draft).await;
    let guest = SessionId::from_random(2);
    let asks = Draft {
        session: guest.clone(),
        ..draft.clone()
    };
    let left = desk.approvals.host(&draft.id, &asks).await;
    assert!(left.is_some_and(|left| left > Duration::ZERO), "{left:?}");
    drop(first);
    settle_down().await;
    let view = || desk.approvals.get(&draft.id).unwrap();
    assert_eq!((view().state.as_str(), view().waiting), ("pending", 1));
    desk.hands.pass(Duration::from_secs(50));
    assert!(desk.approvals.host(&draft.id, &asks).await.is_some());
    desk.hands.pass(Duration::from_secs(50));
    desk.approvals.sweep().await;
    assert_eq!((view().state.as_str(), view().waiting), ("pending", 1));
    desk.hands.pass(Duration::from_secs(20));
    desk.approvals.sweep().await;
    assert_eq!((view().state.as_str(), view().waiting), ("pending", 0));
    // Another command is no guest, and nobody is once it is decided.
    let other = Draft {
        rule: "prod:other".to_owned(),
        ..asks.clone()
    };
    assert_eq!(desk.approvals.host(&draft.id, &other).await, None);
    let no = vote(&draft, "rita", Verdict::Deny);
    desk.approvals.vote(no, desk.hands.now()).await.unwrap();
    assert_eq!(desk.approvals.host(&draft.id, &asks).await, None);
}

#[tokio::test]
async fn an_approved_command_is_cleared_once() {
    let desk = Desk::new();
    let draft = draft("agent", "DROP TABLE t", 1);
    let mut waiter = waiting(&desk, &draft).await;
    let now = desk.hands.now();
    let outcome = desk
        .approvals
        .vote(vote(&draft, "rita", Verdict::Approve), now)
        .await;
    assert!(
        matches!(outcome, Ok(VoteOutcome::Settled(State::Approved { .. }))),
        "{outcome:?}"
    );
    assert_eq!(waiter.settled().await, Settlement::Approved);
    let claim = || {
        desk.approvals
            .claim(&draft.id, &draft.digest, &draft.session, draft.command, now)
    };
    assert!(
        claim()
            .await
            .is_ok_and(|c| c.covers(&draft.digest, &draft.session, draft.command))
    );
    assert_eq!(claim().await, Err(ClaimError::Used));
    assert_eq!(desk.ledger.settled(&draft.id), ["approved"]);
    assert_eq!(desk.approvals.get(&draft.id).unwrap().state, "used");
}

#[tokio::test]
async fn a_denial_reaches_the_client_and_stands_for_a_while() {
    let desk = Desk::new();
    let first = draft("agent", "DROP TABLE t", 1);
    let mut waiter = waiting(&desk, &first).await;
    desk.approvals
        .vote(vote(&first, "rita", Verdict::Deny), desk.hands.now())
        .await
        .unwrap();
    assert!(matches!(waiter.settled().await, Settlement::Denied { reason, .. } if reason == "no"));

    let again = draft("agent", "DROP TABLE t", 2);
    let (opened, waiter) = desk.approvals.open(again.clone(), desk.hands.now()).await;
    assert!(waiter.is_none());
    let Opened::Refused(denial) = opened else {
        panic!("asked again")
    };
    assert_eq!(denial.code, "HP-DENIED");
    assert!(
        denial.message.contains("rita") && denial.message.contains("no"),
        "{denial:?}"
    );

    desk.hands.pass(config().deny_cooldown);
    waiting(&desk, &again).await;
}

#[tokio::test]
async fn who_answers_for_the_agent_cannot_approve_and_that_is_recorded() {
    let desk = Desk::new();
    let draft = draft("agent", "DROP TABLE t", 1);
    let _waiter = waiting(&desk, &draft).await;
    for own in ["olivia", "agent"] {
        let refused = desk
            .approvals
            .vote(vote(&draft, own, Verdict::Approve), desk.hands.now())
            .await
            .unwrap_err();
        assert!(
            matches!(
                refused,
                VoteRefused::Refused {
                    why: VoteError::Own,
                    ..
                }
            ),
            "{refused}"
        );
    }
    let refusals = desk.ledger.all().into_iter().filter(|entry| {
        matches!(
            entry,
            Entry::Vote {
                refused: Some(_),
                ..
            }
        )
    });
    assert_eq!(refusals.count(), 2);
    assert_eq!(desk.approvals.get(&draft.id).unwrap().state, "pending");
}

#[tokio::test]
async fn the_same_command_joins_and_only_one_of_those_who_wait_runs() {
    let desk = Desk::new();
    let (one, two) = (
        draft("agent", "DROP TABLE t", 1),
        draft("agent", "DROP TABLE t", 2),
    );
    let mut first = waiting(&desk, &one).await;
    let (opened, second) = desk.approvals.open(two.clone(), desk.hands.now()).await;
    assert!(
        matches!(opened, Opened::Waiting { joined: true, ref approval, .. } if *approval == one.id)
    );
    let mut second = second.unwrap();
    assert_eq!(desk.approvals.get(&one.id).unwrap().waiting, 2);
    desk.approvals
        .vote(vote(&one, "rita", Verdict::Approve), desk.hands.now())
        .await
        .unwrap();
    assert_eq!(first.settled().await, Settlement::Approved);
    assert_eq!(second.settled().await, Settlement::Approved);
    let mut cleared = 0;
    for draft in [&two, &one] {
        let now = desk.hands.now();
        let claim = desk
            .approvals
            .claim(&one.id, &draft.digest, &draft.session, draft.command, now)
            .await;
        cleared += usize::from(claim.is_ok());
    }
    assert_eq!(cleared, 1);
}

#[tokio::test]
async fn the_same_text_by_another_agent_asks_for_itself() {
    let desk = Desk::new();
    let _one = waiting(&desk, &draft("agent", "DROP TABLE t", 1)).await;
    let _two = waiting(&desk, &draft("other", "DROP TABLE t", 2)).await;
    assert_eq!(desk.approvals.pending(), 2);
}

#[tokio::test]
async fn many_identical_commands_at_once_are_one_approval() {
    let desk = Desk::new();
    desk.ledger.slow.store(true, Ordering::SeqCst);
    let open = |at| {
        let approvals = desk.approvals.clone();
        let now = desk.hands.now();
        tokio::spawn(async move {
            approvals
                .open(draft("agent", "DROP TABLE t", at), now)
                .await
        })
    };
    let tasks: Vec<_> = (1..=20).map(open).collect();
    let mut waiters = Vec::new();
    for task in tasks {
        waiters.push(task.await.unwrap().1.unwrap());
    }
    assert_eq!(desk.approvals.pending(), 1);
    assert!(
        waiters
            .iter()
            .all(|waiter| waiter.approval() == waiters[0].approval())
    );
    let holds = desk
        .ledger
        .all()
        .into_iter()
        .filter(|e| matches!(e, Entry::Hold(_)))
        .count();
    assert_eq!(holds, 1);
}

/// Whoever asks and gives up, over and over, keeps reviewers busy with nothing.
#[tokio::test]
async fn what_is_given_up_over_and_over_is_not_asked_again() {
    let desk = Desk::new();
    for n in 1..=6 {
        drop(waiting(&desk, &draft("agent", "DROP TABLE t", n)).await);
        settle_down().await;
    }
    let ask = async |who: &str, n: u128| {
        let one = draft(who, "DROP TABLE t", n);
        let (opened, waiter) = desk.approvals.open(one, desk.hands.now()).await;
        drop(waiter);
        settle_down().await;
        refused(&opened).to_owned()
    };
    assert_eq!(ask("agent", 7).await, "HP-LIMIT");
    assert_eq!(ask("other", 8).await, "waiting");
    desk.hands.pass(Duration::from_secs(60));
    assert_eq!(ask("agent", 9).await, "waiting");
}

#[tokio::test]
async fn a_client_that_leaves_withdraws_unless_it_may_come_back() {
    let desk = Desk::new();
    let gone = draft("agent", "DROP TABLE t", 1);
    drop(waiting(&desk, &gone).await);
    settle_down().await;
    assert_eq!(desk.ledger.settled(&gone.id), ["withdrawn"]);

    let back = draft("agent", "DROP TABLE u", 2);
    waiting(&desk, &back).await.leave(true).await;
    assert_eq!(desk.approvals.get(&back.id).unwrap().state, "pending");
    desk.approvals
        .vote(vote(&back, "rita", Verdict::Approve), desk.hands.now())
        .await
        .unwrap();
    let again = draft("agent", "DROP TABLE u", 3);
    let (opened, _) = desk.approvals.open(again.clone(), desk.hands.now()).await;
    assert!(
        matches!(opened, Opened::Granted(ref id) if *id == back.id),
        "{}",
        refused(&opened)
    );
    let now = desk.hands.now();
    let claim = desk
        .approvals
        .claim(&back.id, &again.digest, &again.session, again.command, now)
        .await;
    assert!(claim.is_ok());
    let (opened, _waiter) = desk
        .approvals
        .open(draft("agent", "DROP TABLE u", 4), desk.hands.now())
        .await;
    assert_eq!(refused(&opened), "waiting", "a grant is good once");
}

#[tokio::test]
async fn a_grant_ends_after_its_time() {
    let desk = Desk::new();
    let draft = draft("agent", "DROP TABLE t", 1);
    waiting(&desk, &draft).await.leave(true).await;
    desk.approvals
        .vote(vote(&draft, "rita", Verdict::Approve), desk.hands.now())
        .await
        .unwrap();
    desk.hands.pass(config().grant_ttl);
    let now = desk.hands.now();
    let claim = desk
        .approvals
        .claim(&draft.id, &draft.digest, &draft.session, draft.command, now)
        .await;
    assert_eq!(claim, Err(ClaimError::Expired));
    desk.approvals.sweep().await;
    assert_eq!(desk.ledger.settled(&draft.id), ["approved", "expired"]);
}

#[tokio::test]
async fn silence_is_denial_by_the_deadline() {
    let desk = Desk::new();
    let draft = draft("agent", "DROP TABLE t", 1);
    let mut waiter = waiting(&desk, &draft).await;
    desk.hands.pass(Duration::from_secs(60));
    let late = desk
        .approvals
        .vote(vote(&draft, "rita", Verdict::Approve), desk.hands.now())
        .await;
    assert!(late.is_err());
    // The sweeper comes by itself.
    let ended = tokio::time::timeout(Duration::from_secs(2), waiter.settled()).await;
    assert_eq!(ended.unwrap(), Settlement::Expired);
    assert_eq!(desk.ledger.settled(&draft.id), ["expired"]);
    assert_eq!(desk.approvals.pending(), 0);
}

#[tokio::test]
async fn limits_hold_for_each_and_for_all() {
    let desk = Desk::new();
    let mut waiters = Vec::new();
    for at in 1..=3 {
        waiters.push(waiting(&desk, &draft("agent", &format!("DROP TABLE t{at}"), at)).await);
    }
    let open = async |agent: &str, at: u128| {
        let (opened, waiter) = desk
            .approvals
            .open(draft(agent, &format!("DROP {at}"), at), desk.hands.now())
            .await;
        (refused(&opened).to_owned(), waiter)
    };
    assert_eq!(open("agent", 4).await.0, "HP-LIMIT");
    let kept = [open("other", 5).await.1, open("other", 6).await.1];
    assert_eq!(open("third", 7).await.0, "HP-LIMIT");
    waiters.pop().unwrap().leave(false).await;
    assert_eq!(open("third", 8).await.0, "waiting");
    drop(kept);
}

#[tokio::test]
async fn without_a_journal_nothing_is_held_and_no_vote_counts() {
    let desk = Desk::new();
    let fails = |on| desk.ledger.fails.store(on, Ordering::SeqCst);
    fails(true);
    let draft = draft("agent", "DROP TABLE t", 1);
    let (opened, _) = desk.approvals.open(draft.clone(), desk.hands.now()).await;
    assert_eq!(refused(&opened), "HP-JOURNAL");
    assert_eq!(
        (desk.approvals.pending(), desk.approvals.list().len()),
        (0, 0)
    );

    fails(false);
    let _waiter = waiting(&desk, &draft).await;
    fails(true);
    let cast = || {
        desk.approvals
            .vote(vote(&draft, "rita", Verdict::Approve), desk.hands.now())
    };
    assert!(matches!(cast().await, Err(VoteRefused::NotWritten(_))));
    assert_eq!(desk.approvals.get(&draft.id).unwrap().state, "pending");
    fails(false);
    assert!(matches!(cast().await, Ok(VoteOutcome::Settled(_))));
}

#[tokio::test]
async fn a_vote_that_came_twice_has_one_effect() {
    let desk = Desk::new();
    let mut draft = draft("agent", "DROP TABLE t", 1);
    draft.hold.steps[0].quorum = 2;
    let _waiter = waiting(&desk, &draft).await;
    let cast = |who| {
        desk.approvals
            .vote(vote(&draft, who, Verdict::Approve), desk.hands.now())
    };
    assert_eq!(
        cast("rita").await,
        Ok(VoteOutcome::Counted { have: 1, need: 2 })
    );
    assert_eq!(cast("rita").await, Ok(VoteOutcome::Repeated));
    assert!(matches!(cast("rob").await, Ok(VoteOutcome::Settled(_))));
    assert_eq!(
        cast("rob").await,
        Ok(VoteOutcome::Repeated),
        "also once it is settled"
    );
    assert!(cast("ron").await.is_err());
    assert_eq!(desk.ledger.settled(&draft.id), ["approved"]);
}

#[tokio::test]
async fn revocation_ends_what_the_identity_stands_behind() {
    let desk = Desk::new();
    let mut mine = waiting(&desk, &draft("agent", "DROP TABLE t", 1)).await;
    // Both agents are olivia's.
    let _other = waiting(&desk, &draft("other", "DROP TABLE t", 2)).await;
    assert_eq!(desk.approvals.revoke_principal(&identity("agent")).await, 1);
    assert_eq!(mine.settled().await, Settlement::Revoked);
    assert_eq!(
        desk.approvals.revoke_principal(&identity("olivia")).await,
        1
    );
}

#[tokio::test]
async fn what_a_revoked_reviewer_has_approved_is_asked_again() {
    let desk = Desk::new();
    let mut two = draft("agent", "DROP TABLE t", 1);
    two.hold.steps[0].quorum = 2;
    let mut mine = waiting(&desk, &two).await;
    desk.approvals
        .vote(vote(&two, "rob", Verdict::Approve), desk.hands.now())
        .await
        .unwrap();
    assert_eq!(desk.approvals.revoke_principal(&identity("ron")).await, 0);
    assert_eq!(desk.approvals.revoke_principal(&identity("rob")).await, 1);
    assert_eq!(mine.settled().await, Settlement::Revoked);
}

#[tokio::test]
async fn at_the_end_everything_is_orphaned_and_nothing_opens() {
    let desk = Desk::new();
    let one = draft("agent", "DROP TABLE t", 1);
    let mut waiter = waiting(&desk, &one).await;
    desk.approvals.orphan_all().await;
    assert_eq!(waiter.settled().await, Settlement::Orphaned);
    assert_eq!(desk.ledger.settled(&one.id), ["orphaned"]);
    let (opened, _) = desk
        .approvals
        .open(draft("agent", "x", 2), desk.hands.now())
        .await;
    assert_eq!(refused(&opened), "HP-SHUTDOWN");
}

/// Approve, deny, expire, leave and claim race; whoever wins, one end is recorded
/// and a denied or withdrawn command is never cleared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_have_one_winner() {
    for round in 0..150_u128 {
        let desk = Desk::new();
        desk.ledger.slow.store(round % 2 == 0, Ordering::SeqCst);
        let draft = draft("agent", "DROP TABLE t", round + 1);
        let waiter = waiting(&desk, &draft).await;
        let now = desk.hands.now();
        let cast = |who: &'static str, verdict| {
            let (approvals, vote) = (desk.approvals.clone(), vote(&draft, who, verdict));
            tokio::spawn(async move { approvals.vote(vote, now).await })
        };
        let approve = cast("rita", Verdict::Approve);
        let deny = cast("rob", Verdict::Deny);
        if round % 3 == 0 {
            desk.hands.pass(Duration::from_secs(60));
        }
        let sweeper = desk.approvals.clone();
        let sweep = tokio::spawn(async move { sweeper.sweep().await });
        let claims: Vec<_> = (0..2)
            .map(|at| {
                let (approvals, draft) = (desk.approvals.clone(), draft.clone());
                let session = SessionId::from_random(at);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let claim = approvals
                            .claim(&draft.id, &draft.digest, &session, CommandId(1), now)
                            .await;
                        if claim.is_ok() {
                            return true;
                        }
                        tokio::task::yield_now().await;
                    }
                    false
                })
            })
            .collect();
        if round % 5 == 0 {
            drop(waiter);
        } else {
            waiter.leave(round % 2 == 0).await;
        }
        let approved = approve.await.unwrap();
        let denied = deny.await.unwrap();
        sweep.await.unwrap();
        let mut cleared = 0;
        for claim in claims {
            cleared += usize::from(claim.await.unwrap());
        }
        let settled = |outcome: &Result<VoteOutcome, VoteRefused>| {
            matches!(outcome, Ok(VoteOutcome::Settled(_)))
        };
        assert!(!(settled(&approved) && settled(&denied)), "both told final");
        assert!(cleared <= 1);
        let ends = desk.ledger.settled(&draft.id);
        if settled(&approved) {
            assert_eq!(ends[0], "approved");
        } else {
            assert_eq!(cleared, 0, "cleared without approval: {ends:?}");
        }
        if settled(&denied) {
            assert_eq!(ends, ["denied"]);
        }
        // An approval that was not used may end once more, never otherwise.
        let more = if ends.first().is_some_and(|end| end == "approved") {
            2
        } else {
            1
        };
        assert!(ends.len() <= more, "{ends:?}");
    }
}

/// Whoever hears that it is final finds it in the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_before_it_is_recorded() {
    for round in 0..50_u128 {
        let desk = Desk::new();
        desk.ledger.slow.store(true, Ordering::SeqCst);
        let draft = draft("agent", "DROP TABLE t", round + 1);
        let mut waiter = waiting(&desk, &draft).await;
        let mut changes = desk.approvals.subscribe();
        let recorded = |ledger: &MemoryLedger| ledger.settled(&draft.id) == ["approved"];
        let (approvals, vote) = (
            desk.approvals.clone(),
            vote(&draft, "rita", Verdict::Approve),
        );
        let now = desk.hands.now();
        let cast = tokio::spawn(async move { approvals.vote(vote, now).await });
        assert_eq!(waiter.settled().await, Settlement::Approved);
        assert!(recorded(&desk.ledger));
        while changes.recv().await.unwrap().view().state == "pending" {}
        cast.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_reviewer_who_hangs_up_leaves_no_half_vote() {
    let desk = Desk::new();
    desk.ledger.slow.store(true, Ordering::SeqCst);
    let draft = draft("agent", "DROP TABLE t", 1);
    let mut waiter = waiting(&desk, &draft).await;
    let cast = desk
        .approvals
        .vote(vote(&draft, "rita", Verdict::Approve), desk.hands.now());
    // Dropped while the journal is written.
    assert!(
        tokio::time::timeout(Duration::from_micros(1), cast)
            .await
            .is_err()
    );
    assert_eq!(waiter.settled().await, Settlement::Approved);
    assert_eq!(desk.ledger.settled(&draft.id), ["approved"]);
}
