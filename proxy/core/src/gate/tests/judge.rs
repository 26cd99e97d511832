//! What policy, the token and the plugin decide at once.

use std::sync::Arc;

use super::world::{Rules, SECOND, World, command, hold, setup};
use crate::command::Confidence;
use crate::decision::Outcome;
use crate::gate::{Action, Gate, GateError, Input};
use crate::record::Entry;

#[test]
fn what_a_rule_allows_is_recorded_and_then_sent_as_it_came() {
    World::new()
        .submit("SELECT 1")
        .saw(&["record command 1 allow", "forward 1 QSELECT 1"]);
}

#[test]
fn nothing_is_sent_before_the_record_is_durable() {
    let world = World::new();
    let (mut gate, now) = (world.gate, world.now);
    let submitted = Input::Submitted {
        command: Box::new(command("SELECT 1")),
        random: 1,
    };
    gate.input(submitted, now).unwrap();
    // An answer that was under way for an earlier record.
    gate.input(Input::Recorded, now).unwrap();
    assert!(matches!(gate.poll(), Some(Action::Record(..))));
    assert!(gate.poll().is_none());
    gate.input(Input::Recorded, now).unwrap();
    assert!(matches!(gate.poll(), Some(Action::Forward(_))));
}

#[test]
fn relaxed_sync_spares_only_what_is_allowed_at_once() {
    let mut world = World::with(crate::gate::GateSetup {
        relaxed: true,
        ..setup()
    });
    world
        .submit("SELECT 1")
        .saw(&["write command 1 allow", "forward 1 QSELECT 1"]);
    world.submit("DROP x").saw(&[
        "record command 2 deny",
        "record refused 2 HP-DENIED",
        "refuse 2 HP-DENIED",
    ]);
    assert_eq!(world.submit("DELETE x").log()[0], "record command 3 hold");
}

#[test]
fn a_denial_names_the_rule_and_carries_its_authors_words() {
    let mut world = World::new();
    world.submit("DROP x").saw(&[
        "record command 1 deny",
        "record refused 1 HP-DENIED",
        "refuse 1 HP-DENIED",
    ]);
    let denial = &world.denials[0];
    assert_eq!(
        denial.message,
        "rule `base:no-drop` denied this command on target `billing`"
    );
    assert_eq!(
        denial.detail.as_deref(),
        Some("Not executed. Ask for a migration.")
    );
}

#[test]
fn no_rule_is_a_denial_of_its_own_kind() {
    let log = World::new().submit("VACUUM").log();
    assert_eq!(log.last().unwrap(), "refuse 1 HP-NO-RULE");
}

#[test]
fn what_the_plugin_rejects_is_recorded_and_refused_whatever_the_rules_say() {
    let mut world = World::new();
    world
        .submit_command(crate::command::Command {
            reject: Some("COPY\u{1b} in a pipeline".to_owned()),
            ..command("SELECT 1")
        })
        .saw(&[
            "record command 1 deny",
            "record refused 1 HP-REJECTED",
            "refuse 1 HP-REJECTED",
        ]);
    assert!(
        world.denials[0]
            .message
            .ends_with("COPY\\u{1b} in a pipeline")
    );
}

#[test]
fn after_the_token_expired_commands_are_refused() {
    let mut world = World::new();
    world.now.wall_ns = 10_029 * SECOND;
    world
        .submit("SELECT 1")
        .saw(&["record command 1 allow", "forward 1 QSELECT 1"]);
    world.now.wall_ns = 10_030 * SECOND;
    world.submit("SELECT 1").saw(&[
        "record command 2 deny",
        "record refused 2 HP-TOKEN-EXPIRED",
        "refuse 2 HP-TOKEN-EXPIRED",
    ]);
}

#[test]
fn rules_that_get_stricter_stop_a_command_that_is_about_to_go() {
    for (select, code) in [
        (Outcome::Deny { message: None }, "HP-DENIED"),
        (Outcome::Hold(hold(1)), "HP-EXPIRED"),
    ] {
        let world = World::new();
        let (mut gate, now) = (world.gate, world.now);
        let submitted = Input::Submitted {
            command: Box::new(command("SELECT 1")),
            random: 1,
        };
        gate.input(submitted, now).unwrap();
        assert!(matches!(gate.poll(), Some(Action::Record(..))));
        gate.input(Input::Recorded, now).unwrap();
        let rules = Rules {
            select,
            ..Rules::usual()
        };
        gate.input(Input::Rules(Arc::new(rules)), now).unwrap();
        assert!(matches!(gate.poll(), Some(Action::Record(..))));
        gate.input(Input::Recorded, now).unwrap();
        let refused = gate.poll();
        assert!(matches!(refused, Some(Action::Refuse(_, denial)) if denial.code == code));
        assert!(gate.poll().is_none());
    }
}

#[test]
fn a_second_command_while_one_is_undecided_ends_the_session() {
    let mut world = World::new();
    world.submit("DELETE x").log();
    let second = Input::Submitted {
        command: Box::new(command("SELECT 1")),
        random: 2,
    };
    assert_eq!(world.try_input(second), Err(GateError::Busy));
    world.saw(&["leave", "record refused 1 HP-POLICY", "refuse 1 HP-POLICY"]);
    let third = Input::Submitted {
        command: Box::new(command("SELECT 1")),
        random: 3,
    };
    assert_eq!(world.try_input(third), Err(GateError::Ended));
}

#[test]
fn answers_to_nothing_are_errors() {
    let now = World::new().now;
    let claimed = Input::Claimed(Err(crate::approval::ClaimError::Used));
    let mut gate = Gate::new(setup());
    assert_eq!(gate.input(claimed, now), Err(GateError::Unasked("Claimed")));
    let mut gate = Gate::new(setup());
    assert_eq!(
        gate.input(Input::Sent, now),
        Err(GateError::Unasked("Sent"))
    );
}

#[test]
fn the_record_of_a_command_holds_what_was_decided_but_no_secret() {
    let mut world = World::new();
    let mut secret = command("DELETE PASSWORD 'hunter2'");
    secret.secrets = vec![(17, 24)];
    let operations = Arc::get_mut(&mut secret.operations).unwrap();
    operations[0].confidence = Confidence::Unknown;
    world.submit_command(secret);
    let record = &world.records[0];
    let Entry::Command(entry) = &record.entry else {
        panic!("a command is recorded first");
    };
    assert_eq!(entry.text, "DELETE PASSWORD '*******'");
    assert_eq!(&record.blob[..], b"QDELETE PASSWORD '*******'");
    assert_eq!(entry.blob.as_deref(), Some("starred"));
    assert_eq!(entry.confidence, Confidence::Unknown);
    assert_eq!(entry.class, "write");
    let everything = format!("{:?} {:?}", world.records, world.approval);
    assert!(!everything.contains("hunter2"));
}
