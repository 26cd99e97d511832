//! What was sent, what came back, and what is left when a session ends.

use super::world::{World, describe};
use crate::gate::{GateError, Withdrawal};
use crate::record::{Durability, Entry};

fn closed(world: &mut World) -> Vec<String> {
    let now = world.now;
    world
        .gate
        .close(now)
        .iter()
        .map(|record| describe(record, Durability::Synced))
        .collect()
}

#[test]
fn the_targets_answers_end_commands_oldest_first() {
    let mut world = World::new();
    world.submit("SELECT 1").submit("SELECT 2").log();
    assert_eq!((world.gate.outstanding(), world.gate.unsent()), (2, 0));
    world.gate.responded(40);
    world.gate.responded(2);
    world.complete(1).unwrap();
    world.saw(&["write completed 1"]);
    let Some(Entry::Completed {
        commands, bytes, ..
    }) = world.records.last().map(|record| &record.entry)
    else {
        panic!("the completion is recorded");
    };
    assert_eq!((commands[0].0, *bytes), (1, 42));
    assert_eq!(world.gate.outstanding(), 1);
}

#[test]
fn a_target_that_completes_more_than_was_sent_ends_the_session() {
    let mut world = World::new();
    world.submit("SELECT 1").log();
    assert_eq!(
        world.complete(2),
        Err(GateError::Completion {
            got: 2,
            outstanding: 1
        })
    );
    assert_eq!(closed(&mut world), ["record unknown 1"]);
}

#[test]
fn commands_whose_end_was_never_seen_are_recorded_as_unknown() {
    let mut world = World::new();
    world.submit("SELECT 1").submit("SELECT 2").log();
    world.complete(1).unwrap();
    assert_eq!(closed(&mut world), ["record unknown 2"]);
    assert_eq!(closed(&mut world), [""; 0]);
}

#[test]
fn closing_refuses_what_is_undecided() {
    let mut world = World::new();
    world.submit("DELETE x").log();
    assert_eq!(closed(&mut world), ["record refused 1 HP-WITHDRAWN"]);
    world.drain();
    world.saw(&[]);
}

#[test]
fn after_the_client_left_nothing_more_is_taken() {
    let mut world = World::new();
    world.withdraw(Withdrawal::ClientGone);
    let late = crate::gate::Input::Submitted {
        command: Box::new(super::world::command("SELECT 1")),
        random: 1,
    };
    assert_eq!(world.try_input(late), Err(GateError::Ended));
    world.saw(&[]);
}

#[test]
fn after_a_cancel_the_session_goes_on() {
    let mut world = World::new();
    world.submit("DELETE x").log();
    world.withdraw(Withdrawal::Cancelled).log();
    world
        .submit("SELECT 1")
        .saw(&["record command 2 allow", "forward 2 QSELECT 1"]);
}
