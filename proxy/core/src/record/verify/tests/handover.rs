//! Approvals that went from one node to another.

use super::*;
use crate::approval::HandOver;
use crate::record::{HANDOVER, Taken};

fn key() -> NodeKey {
    NodeKey::new("gw-2", &[9; 32]).unwrap()
}

/// That `gw-2` lets command 1 of this journal's session use its approval.
fn word() -> HandOver {
    HandOver {
        approval: approval(),
        to: "gw-1".into(),
        session: session(1),
        command: CommandId(1),
        digest: digest(1),
        rule: "rules.toml:r".into(),
        by: vec![person("rita")],
        window: None,
    }
}

fn signed(word: &HandOver, key: &NodeKey) -> Taken {
    Taken {
        from: "gw-2".into(),
        word: word.clone(),
        key: key.verifier().to_string(),
        note: key.attest(HANDOVER, &serde_json::to_string(word).unwrap()),
    }
}

fn taken(word: &HandOver) -> Entry {
    Entry::Taken(Box::new(signed(word, &key())))
}

fn held(id: u64) -> Entry {
    command(id, Outcome::Hold(hold(1)))
}

fn by_word(change: impl FnOnce(&mut HandOver)) -> Vec<Entry> {
    let mut word = word();
    change(&mut word);
    vec![held(1), taken(&word)]
}

#[test]
fn what_another_node_gave_is_used_once_and_said_in_the_report() {
    let good = [held(1), taken(&word()), forward(1), completed(1)];
    let report = report_of(good.clone());
    assert!(report.ok, "{:?}", report.errors);
    assert_eq!(
        (report.taken_count, report.taken[0].from.as_str()),
        (1, "gw-2")
    );
    assert_eq!(report.taken[0].key, key().verifier().to_string());
    // Not used after all, which somebody writes down.
    let back = [held(1), taken(&word()), settled("withdrawn")];
    assert_eq!(told(back), Vec::<String>::new());

    let twice = |more: Entry| good.clone().into_iter().chain([more]);
    says(twice(forward(1)), "a second time");
    says(twice(taken(&word())), "taken over a second time");
    says([held(1), forward(1)], "which is not open");
    says([taken(&word())], "which is not open");
    says(
        [command(1, Outcome::Allow), taken(&word())],
        "which is not held",
    );
    // One of our own is not taken from anybody.
    says([held(1), draft(1, 1), taken(&word())], "is our own");
}

#[test]
fn uses_of_another_nodes_window_are_each_taken_once() {
    let turn = |number: u64, command: u64| HandOver {
        window: Some(number),
        command: CommandId(command),
        ..word()
    };
    let goes = |id: u64| Entry::Forward {
        command: CommandId(id),
        approval: approval(),
        digest: digest(1),
    };
    let again = |id: u64| {
        let Entry::Command(mut command) = held(id) else {
            unreachable!()
        };
        command.digest = digest(1);
        Entry::Command(command)
    };
    let good = || vec![held(1), taken(&turn(4, 1)), forward(1), completed(1)];
    let more = |rest: Vec<Entry>| good().into_iter().chain(rest).collect::<Vec<_>>();
    let second = vec![again(2), taken(&turn(2, 2)), goes(2), completed(2)];
    let report = report_of(more(second));
    assert!(report.ok, "{:?}", report.errors);
    assert_eq!((report.taken_count, report.taken[0].window), (2, Some(4)));
    // Beside the approval's own single use.
    let own = vec![
        again(2),
        taken(&HandOver {
            command: CommandId(2),
            ..word()
        }),
        goes(2),
    ];
    assert_eq!(told(more(own)), Vec::<String>::new());

    says(more(vec![again(2), taken(&turn(4, 2))]), "a second time");
    says(more(vec![again(2), goes(2)]), "which is not open");
    says(
        vec![held(1), taken(&turn(1, 1)), taken(&turn(2, 1))],
        "claimed twice",
    );
    says(
        vec![held(1), taken(&turn(1, 1)), forward(1), goes(1)],
        "forwarded twice",
    );
    says(vec![taken(&turn(1, 1))], "which is not open");
    says(
        by_word(|word| {
            word.window = Some(1);
            word.to = "gw-3".into();
        }),
        "another node",
    );
    let mut renumbered = signed(&turn(1, 1), &key());
    renumbered.word.window = Some(2);
    says(
        [held(1), Entry::Taken(Box::new(renumbered))],
        "otherwise than is written",
    );
}

#[test]
fn a_word_that_was_given_to_something_else_is_told() {
    says(by_word(|word| word.to = "gw-3".into()), "another node");
    says(
        by_word(|word| word.session = session(2)),
        "another node or session",
    );
    says(by_word(|word| word.digest = digest(2)), "another command");
    says(
        by_word(|word| word.rule = "rules.toml:s".into()),
        "another command",
    );
    says(by_word(|word| word.by.clear()), "by nobody");
    says(
        by_word(|word| word.by = vec![person("olga")]),
        "by who asked",
    );
    says(by_word(|word| word.command = CommandId(2)), "not open");
}

#[test]
fn a_word_that_its_owner_did_not_give_is_told() {
    let as_is = |taken: Taken| [held(1), Entry::Taken(Box::new(taken))];
    // Signed by somebody else, under their own key or under the node's.
    let mallory = NodeKey::new("gw-3", &[8; 32]).unwrap();
    says(as_is(signed(&word(), &mallory)), "is not that of node");
    let impostor = NodeKey::new("gw-2", &[8; 32]).unwrap();
    let mut forged = signed(&word(), &impostor);
    forged.key = key().verifier().to_string();
    says(as_is(forged), "did not give");
    // Good, but another word than the one that is written.
    let mut other = word();
    other.by = vec![person("sam")];
    let mut swapped = signed(&other, &key());
    swapped.word = word();
    says(as_is(swapped), "otherwise than is written");
    // A checkpoint is no word.
    let mut checkpoint = signed(&word(), &key());
    checkpoint.note = key().sign(1, Digest::of(b""), 1);
    says(as_is(checkpoint), "says something else");
}

#[test]
fn what_is_given_away_is_approved_unused_and_used_no_more() {
    let given = |id: u64| Entry::Given {
        word: HandOver {
            to: "gw-2".into(),
            session: session(7),
            digest: digest(id),
            ..word()
        },
    };
    let approved = || [held(1), draft(1, 1), approves("rita"), settled("approved")];
    let after = |rest: Vec<Entry>| approved().into_iter().chain(rest).collect::<Vec<_>>();
    assert_eq!(told(after(vec![given(1)])), Vec::<String>::new());
    says(after(vec![given(1), forward(1)]), "a second time");
    says(after(vec![given(1), given(1)]), "after it was used");
    says(
        after(vec![forward(1), completed(1), given(1)]),
        "after it was used",
    );
    says(after(vec![given(2)]), "for another command");
    says([held(1), draft(1, 1), given(1)], "before it was approved");
    says([given(1)], "is not open");
    says(after(vec![settled("expired"), given(1)]), "is not open");
}
