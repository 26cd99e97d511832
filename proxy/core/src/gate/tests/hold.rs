//! Held commands: reviewers, the clock, the client, and rules that change.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Rules, World, command, hold, setup};
use crate::approval::Verdict::{Approve, Deny};
use crate::decision::Outcome;
use crate::denial::Kind;
use crate::gate::{GateSetup, Input, Opened, Settlement, Withdrawal};

const HELD: [&str; 3] = ["record command 1 hold", "open", "notice"];

fn held() -> World {
    let mut world = World::new();
    world.submit("DELETE x").saw(&HELD);
    world
}

fn rules(delete: Outcome) -> Input {
    Input::Rules(Arc::new(Rules {
        version: "v2",
        delete,
        ..Rules::usual()
    }))
}

#[test]
fn an_approved_command_goes_after_its_intent_is_recorded() {
    let mut world = held();
    assert!(world.notices[0].contains("hp-000000000001"));
    assert!(world.notices[0].contains("base:delete"));
    world
        .reviewer("rita", Approve)
        .saw(&["claim", "record intent 1", "forward 1 QDELETE x"]);
}

#[test]
fn two_people_must_agree_where_the_rule_says_two() {
    let mut world = World::with(GateSetup {
        rules: Arc::new(Rules {
            delete: Outcome::Hold(hold(2)),
            ..Rules::usual()
        }),
        ..setup()
    });
    world.submit("DELETE x").saw(&HELD);
    world.reviewer("rita", Approve).saw(&[]);
    world.reviewer("rita", Approve).saw(&[]);
    world
        .reviewer("sam", Approve)
        .saw(&["claim", "record intent 1", "forward 1 QDELETE x"]);
}

#[test]
fn a_denial_reaches_the_agent_with_its_reason() {
    let mut world = held();
    world
        .reviewer("rita", Deny)
        .saw(&["record refused 1 HP-DENIED", "refuse 1 HP-DENIED"]);
    assert!(world.denials[0].message.contains("rita"));
    assert!(world.denials[0].message.contains("wrong table"));
}

#[test]
fn a_waiting_client_gets_a_notice_at_each_heartbeat() {
    let mut world = held();
    for _ in 0..4 {
        world.after(10).saw(&["notice"]);
    }
    // The same each time: see `text::still_holding`.
    for notice in &world.notices[1..] {
        assert_eq!(
            notice,
            "holdpoint: still waiting for approval hp-000000000001, open until 00:26:40Z; \
             not executed yet."
        );
    }
}

#[test]
fn an_agent_that_cannot_wait_longer_is_told_how_to_come_back() {
    let mut world = held();
    world.after(45).saw(&[
        "leave, grant",
        "record refused 1 HP-PENDING",
        "refuse 1 HP-PENDING",
    ]);
    let denial = &world.denials[0];
    assert_eq!(denial.kind, Kind::Pending);
    let detail = denial.detail.as_deref().unwrap();
    assert!(detail.starts_with("Not executed."));
    assert!(detail.contains("Do not rephrase it"));
    assert!(detail.contains("00:26:40Z (in 9 min)"));
    let hint = denial.hint.as_deref().unwrap();
    assert!(hint.contains("`holdpoint wait hp-000000000001`"));
    assert_eq!(
        hint.lines().last().unwrap(),
        r#"holdpoint: {"id":"hp-000000000001","status":"pending","retry":"same-command"}"#
    );
}

#[test]
fn approved_later_the_identical_command_passes_once() {
    let mut world = held();
    world.after(45).log();
    world.reviewer("rita", Approve).saw(&[]);
    world.submit("DELETE x").saw(&[
        "record command 2 hold",
        "open",
        "claim",
        "record intent 2",
        "forward 2 QDELETE x",
    ]);
    world
        .submit("DELETE x")
        .saw(&["record command 3 hold", "open", "notice"]);
}

#[test]
fn a_changed_command_is_held_anew() {
    let mut world = held();
    world.after(45).log();
    world.reviewer("rita", Approve);
    world
        .submit("DELETE y")
        .saw(&["record command 2 hold", "open", "notice"]);
}

#[test]
fn the_same_command_joins_the_open_approval() {
    let mut world = held();
    world.after(45).log();
    world.submit("DELETE x").log();
    assert!(world.notices.last().unwrap().contains("joins that request"));
    world
        .reviewer("rita", Approve)
        .saw(&["claim", "record intent 2", "forward 2 QDELETE x"]);
}

#[test]
fn inside_a_transaction_the_wait_is_short_and_the_refusal_says_it_is_over() {
    let mut world = World::new();
    world.submit_command(crate::command::Command {
        in_transaction: true,
        ..command("DELETE x")
    });
    world.log();
    world.after(29).saw(&["notice"]);
    world.after(1).saw(&[
        "leave, grant",
        "record refused 1 HP-PENDING",
        "refuse 1 HP-PENDING",
    ]);
    let detail = world.denials[0].detail.as_deref().unwrap();
    assert!(detail.contains("The transaction is over"));
}

#[test]
fn a_hold_that_nobody_decides_expires() {
    let mut setup = setup();
    setup.limits.inline_wait_agent = Duration::from_secs(1_000);
    setup.limits.max_hold = Duration::from_secs(100);
    setup.limits.heartbeat = Duration::ZERO;
    let mut world = World::with(setup);
    world.submit("DELETE x").saw(&HELD);
    world.after(99).saw(&[]);
    world.after(1).saw(&[
        "leave",
        "record refused 1 HP-EXPIRED",
        "refuse 1 HP-EXPIRED",
    ]);
}

#[test]
fn an_approval_heard_of_after_the_deadline_releases_nothing() {
    let mut setup = setup();
    setup.limits.inline_wait_agent = Duration::from_secs(1_000);
    let mut world = World::with(setup);
    world.submit("DELETE x").log();
    world.now.mono_ns += 600 * super::world::SECOND;
    world.input(Input::Settled(Settlement::Approved));
    world.saw(&[
        "leave",
        "record refused 1 HP-EXPIRED",
        "refuse 1 HP-EXPIRED",
    ]);
}

#[test]
fn a_token_may_expire_while_its_command_is_held_and_is_good_for_nothing_else() {
    let mut world = held();
    world.now.wall_ns += 9_100 * super::world::SECOND;
    world
        .reviewer("rita", Approve)
        .saw(&["claim", "record intent 1", "forward 1 QDELETE x"]);
    world.submit("DELETE y").saw(&[
        "record command 2 deny",
        "record refused 2 HP-TOKEN-EXPIRED",
        "refuse 2 HP-TOKEN-EXPIRED",
    ]);
}

#[test]
fn settlements_without_a_vote_refuse_with_their_own_codes() {
    for (settlement, code) in [
        (Settlement::Expired, "HP-EXPIRED"),
        (Settlement::Orphaned, "HP-SHUTDOWN"),
        (Settlement::Revoked, "HP-REVOKED"),
    ] {
        let mut world = held();
        world.input(Input::Settled(settlement)).saw(&[
            &format!("record refused 1 {code}"),
            &format!("refuse 1 {code}"),
        ]);
    }
}

#[test]
fn a_client_that_leaves_keeps_a_grant_and_one_that_cancels_does_not() {
    for (reason, left, code) in [
        (Withdrawal::ClientGone, "leave, grant", "HP-WITHDRAWN"),
        (Withdrawal::Cancelled, "leave", "HP-WITHDRAWN"),
        (Withdrawal::Revoked, "leave", "HP-REVOKED"),
        (Withdrawal::Shutdown, "leave", "HP-SHUTDOWN"),
    ] {
        let mut world = held();
        world.withdraw(reason).saw(&[
            left,
            &format!("record refused 1 {code}"),
            &format!("refuse 1 {code}"),
        ]);
        world.input(Input::Settled(Settlement::Approved)).saw(&[]);
    }
}

#[test]
fn rules_that_now_deny_end_the_hold_at_once() {
    let mut world = held();
    world.input(rules(Outcome::Deny { message: None })).saw(&[
        "leave",
        "record refused 1 HP-DENIED",
        "refuse 1 HP-DENIED",
    ]);
}

#[test]
fn rules_that_now_allow_release_nothing_until_the_approval_is_given() {
    let mut world = held();
    world.input(rules(Outcome::Allow)).saw(&[]);
    world
        .reviewer("rita", Approve)
        .saw(&["claim", "record intent 1", "forward 1 QDELETE x"]);
}

#[test]
fn rules_that_ask_for_more_make_the_approval_insufficient() {
    let mut fewer = hold(1);
    fewer.steps[0].reviewers = vec![crate::decision::Reviewers::Group("chiefs".to_owned())];
    for stricter in [hold(2), fewer] {
        let mut world = held();
        world.input(rules(Outcome::Hold(stricter))).saw(&[]);
        world.reviewer("rita", Approve).saw(&[
            "leave",
            "record refused 1 HP-EXPIRED",
            "refuse 1 HP-EXPIRED",
        ]);
    }
}

#[test]
fn rules_that_ask_for_no_more_accept_the_approval() {
    let mut world = held();
    world.input(rules(Outcome::Hold(hold(1)))).saw(&[]);
    world
        .reviewer("rita", Approve)
        .saw(&["claim", "record intent 1", "forward 1 QDELETE x"]);
}

#[test]
fn what_the_approvals_refuse_is_refused() {
    let mut world = World::new();
    world.answers = false;
    world.submit("DELETE x").log();
    let denial = crate::denial::Denial::new(Kind::Unavailable, "HP-LIMIT", "too many holds");
    world
        .input(Input::Opened(Opened::Refused(denial)))
        .saw(&["record refused 1 HP-LIMIT", "refuse 1 HP-LIMIT"]);
}

#[test]
fn an_approval_that_opens_after_the_client_left_is_left_too() {
    let mut world = World::new();
    world.answers = false;
    world.submit("DELETE x").log();
    world
        .withdraw(Withdrawal::Cancelled)
        .saw(&["record refused 1 HP-WITHDRAWN", "refuse 1 HP-WITHDRAWN"]);
    let late = Opened::Waiting {
        approval: crate::id::ApprovalId::from_random(1),
        joined: false,
        expires_mono_ns: u64::MAX,
    };
    world.input(Input::Opened(late)).saw(&["leave"]);
    world
        .submit("SELECT 1")
        .saw(&["record command 2 allow", "forward 2 QSELECT 1"]);
}

#[test]
fn a_claim_that_comes_after_the_client_cancelled_sends_nothing() {
    let mut world = held();
    world.answers = false;
    world.reviewer("rita", Approve).saw(&["claim"]);
    world
        .withdraw(Withdrawal::Cancelled)
        .saw(&["record refused 1 HP-WITHDRAWN", "refuse 1 HP-WITHDRAWN"]);
    let mut approval = world.approval.take().unwrap();
    let digest = approval.draft().digest;
    let session = approval.draft().session.clone();
    let claimed = approval.claim(&digest, &session, crate::id::CommandId(1), world.now);
    assert!(claimed.is_ok());
    world.input(Input::Claimed(claimed)).saw(&[]);
    assert!(world.gate.idle());
}

#[test]
fn a_clearance_for_another_command_releases_nothing() {
    let mut world = held();
    world.answers = false;
    world.reviewer("rita", Approve).saw(&["claim"]);
    let mut approval = world.approval.take().unwrap();
    let digest = approval.draft().digest;
    let session = approval.draft().session.clone();
    let claimed = approval.claim(&digest, &session, crate::id::CommandId(9), world.now);
    world
        .input(Input::Claimed(claimed))
        .saw(&["record refused 1 HP-POLICY", "refuse 1 HP-POLICY"]);
}
