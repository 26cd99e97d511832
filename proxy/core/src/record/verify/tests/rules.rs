//! Steps, justification, windows and broken glass, as the record has them and as
//! somebody might have written them in.

use super::*;
use crate::approval::{BreakGlass, HandOver, Reach};
use crate::decision::{Escalation, Step, Window};

fn group(name: &str) -> Reviewers {
    Reviewers::Group(name.into())
}

/// The dba (and the leads, at once), then the sre; with all that a rule can ask.
fn full() -> Hold {
    let first = Step {
        escalate: Some(Escalation {
            after: Duration::from_millis(1),
            reviewers: vec![group("leads")],
        }),
        ..Step::of(vec![group("dba")], 1)
    };
    Hold {
        steps: vec![first, Step::of(vec![group("sre")], 1)],
        windows: vec![Window::Session, Window::For(Duration::from_secs(60))],
        break_glass: vec![group("chiefs")],
        ..hold(1)
    }
}

fn draft_of(id: u64, hold: Hold) -> Entry {
    match draft(id, 1) {
        Entry::Hold(mut draft) => {
            Arc::make_mut(&mut draft).hold = hold;
            Entry::Hold(draft)
        }
        other => other,
    }
}

fn of(who: &str, group: &str) -> Vote {
    let mut vote = vote(who, Verdict::Approve);
    vote.reviewer.groups = vec![group.into()];
    vote
}

fn held_by(hold: &Hold, rest: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut entries = vec![
        command(1, Outcome::Hold(hold.clone())),
        draft_of(1, hold.clone()),
    ];
    entries.extend(rest);
    entries
}

fn approved(window: Option<Reach>) -> Entry {
    Entry::Settled {
        approval: approval(),
        state: "approved".into(),
        by: vec![],
        reason: None,
        window,
    }
}

fn escalated(step: u32) -> Entry {
    Entry::Escalated {
        approval: approval(),
        step,
    }
}

#[test]
fn steps_in_order_are_fine_and_any_other_way_is_told() {
    let hold = full();
    let (one, two) = (|| counted(of("rita", "dba")), || counted(of("sam", "sre")));
    let good = [one(), two(), approved(None), forward(1), completed(1)];
    assert_eq!(told(held_by(&hold, good)), Vec::<String>::new());
    says(held_by(&hold, [two()]), "at step 1");
    says(held_by(&hold, [one(), approved(None)]), "0 of 1 people");
    says(held_by(&hold, [approved(None)]), "approved at step 1 of 2");
    let again = counted(of("rita", "sre"));
    says(held_by(&hold, [one(), again]), "an earlier step as well");
    let mut alias = of("rita.admin", "sre");
    alias.reviewer.also = vec![person("rita")];
    says(
        held_by(&hold, [one(), counted(alias)]),
        "an earlier step as well",
    );
    let lead = || counted(of("lea", "leads"));
    says(held_by(&hold, [lead()]), "not among the reviewers");
    let widened = [escalated(1), lead(), two(), approved(None)];
    assert_eq!(told(held_by(&hold, widened)), Vec::<String>::new());
    says(
        held_by(&hold, [escalated(2)]),
        "which its rule does not say",
    );
    says(
        held_by(&hold, [escalated(1), escalated(1)]),
        "which its rule does not say",
    );
    let mut late = full();
    late.steps[0].escalate.as_mut().unwrap().after = Duration::from_secs(5);
    says(held_by(&late, [escalated(1)]), "before its time");
}

#[test]
fn an_approval_before_its_justification_is_told() {
    let hold = Hold {
        justify: true,
        ..hold(1)
    };
    let why = |who: &str| Entry::Justified {
        approval: approval(),
        by: person(who),
        text: "because".into(),
    };
    says(
        held_by(&hold, [approves("rita")]),
        "before the requester said why",
    );
    says(held_by(&hold, [why("olga")]), "who did not ask");
    says(
        held_by(&hold, [why("agent"), why("agent")]),
        "justified twice",
    );
    let good = [
        why("agent"),
        approves("rita"),
        approved(None),
        forward(1),
        completed(1),
    ];
    assert_eq!(told(held_by(&hold, good)), Vec::<String>::new());
}

fn lasting(ms: u64) -> Option<Reach> {
    Some(Reach {
        session: None,
        for_ms: Some(ms),
    })
}

fn windowed(window: &str) -> Entry {
    let mut vote = of("rita", "dba");
    vote.window = Some(window.parse().unwrap());
    counted(vote)
}

fn simple() -> Hold {
    Hold {
        steps: hold(1).steps,
        ..full()
    }
}

fn claimed(id: u64, number: u64) -> Entry {
    Entry::Claimed {
        approval: approval(),
        command: CommandId(id),
        digest: digest(1),
        number,
    }
}

/// The identical command once more.
fn again(id: u64) -> Entry {
    match command(id, Outcome::Hold(simple())) {
        Entry::Command(mut command) => {
            command.digest = digest(1);
            Entry::Command(command)
        }
        other => other,
    }
}

fn goes(id: u64) -> Entry {
    Entry::Forward {
        command: CommandId(id),
        approval: approval(),
        digest: digest(1),
    }
}

fn ended() -> Entry {
    Entry::WindowEnded {
        approval: approval(),
        why: "revoked".into(),
        by: None,
    }
}

fn after_window(rest: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut entries = held_by(
        &simple(),
        [
            windowed("1m"),
            approved(lasting(60_000)),
            forward(1),
            completed(1),
        ],
    );
    entries.extend(rest);
    entries
}

#[test]
fn a_window_is_used_claim_by_claim_and_no_other_way() {
    let good = [
        again(2),
        claimed(2, 1),
        goes(2),
        completed(2),
        again(3),
        claimed(3, 2),
        ended(),
        goes(3),
        completed(3),
    ];
    assert_eq!(told(after_window(good)), Vec::<String>::new());
    says(after_window([again(2), goes(2)]), "a second time");
    says(
        after_window([again(2), claimed(2, 1), goes(2), goes(2)]),
        "twice",
    );
    says(after_window([again(2), claimed(2, 2)]), "where 1 should");
    says(
        after_window([again(2), claimed(2, 1), claimed(2, 2)]),
        "claimed twice",
    );
    says(
        after_window([ended(), again(2), claimed(2, 1)]),
        "which is not open",
    );
    says(after_window([ended(), ended()]), "was not open");
    let other = command(2, Outcome::Hold(simple()));
    says(after_window([other, claimed(2, 1)]), "does not cover");
    says(after_window([claimed(9, 1)]), "never recorded");
    let mut stricter = simple();
    stricter.steps[0].quorum = 2;
    let stricter = match command(2, Outcome::Hold(stricter)) {
        Entry::Command(mut command) => {
            command.digest = digest(1);
            Entry::Command(command)
        }
        other => other,
    };
    says(after_window([stricter, claimed(2, 1)]), "does not cover");
}

#[test]
fn uses_that_another_node_has_of_a_window_are_counted_with_our_own() {
    let given = |number: u64, change: fn(&mut HandOver)| {
        let mut word = HandOver {
            approval: approval(),
            to: "gw-2".into(),
            session: session(7),
            command: CommandId(9),
            digest: digest(1),
            rule: "rules.toml:r".into(),
            by: vec![person("rita")],
            window: Some(number),
        };
        change(&mut word);
        Entry::Given { word }
    };
    let as_is = |number| given(number, |_| {});
    let good = [
        as_is(1),
        again(2),
        claimed(2, 2),
        goes(2),
        as_is(3),
        ended(),
    ];
    assert_eq!(told(after_window(good)), Vec::<String>::new());
    says(after_window([as_is(1), as_is(1)]), "where 2 should");
    says(
        after_window([as_is(1), again(2), claimed(2, 1)]),
        "where 2 should",
    );
    says(after_window([ended(), as_is(1)]), "not open");
    says(
        after_window([given(1, |word| word.digest = digest(2))]),
        "for another command",
    );
    says(
        after_window([given(1, |word| word.rule = "rules.toml:s".into())]),
        "for another command",
    );
    // One that is for a session here is given to nobody.
    let reach = Reach {
        session: Some(session(1)),
        for_ms: None,
    };
    let own = [
        windowed("session"),
        approved(Some(reach)),
        forward(1),
        as_is(1),
    ];
    says(held_by(&simple(), own), "for a session here");
}

#[test]
fn a_window_is_as_wide_as_the_votes_say() {
    let settles = |vote: Entry, window| held_by(&simple(), [vote, approved(window)]);
    let wrong = "more often or seldom";
    says(settles(windowed("1m"), None), wrong);
    says(settles(windowed("1m"), lasting(90_000)), wrong);
    says(settles(counted(of("rita", "dba")), lasting(60_000)), wrong);
    says(held_by(&hold(1), [windowed("1m")]), "does not offer");
}

#[test]
fn a_window_does_not_outlive_its_time_its_session_or_its_process() {
    let mut journal = Journal::default();
    let mut play = |entries: Vec<(Option<u128>, Entry)>| {
        journal = Journal::default();
        journal.add(None, start(), b"").add(Some(1), open(), b"");
        for (session, entry) in entries {
            if session == Some(99) {
                journal.clock += 62_000_000_000;
                continue;
            }
            journal.add(session, entry, b"");
        }
        let report = verify(&journal.stream(), &[journal.checkpoint()]);
        let errors = report.errors.into_iter();
        errors
            .map(|error| error.message)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let one = |entries: Vec<Entry>| {
        let entries = entries.into_iter();
        entries.map(|entry| (Some(1), entry)).collect::<Vec<_>>()
    };
    let mut late = one(after_window([]));
    late.push((Some(99), start()));
    late.extend(one(vec![again(2), claimed(2, 1)]));
    assert!(play(late).contains("after its end"));

    let reach = Reach {
        session: Some(session(1)),
        for_ms: None,
    };
    let mut elsewhere = one(held_by(
        &simple(),
        [windowed("session"), approved(Some(reach))],
    ));
    elsewhere.extend([(Some(2), open())]);
    let first = again(1);
    elsewhere.extend([(Some(2), first), (Some(2), claimed(1, 1))]);
    assert!(play(elsewhere).contains("in another session"));

    let mut crashed = one(after_window([]));
    crashed.extend([(None, start())]);
    crashed.extend([(Some(1), again(2)), (Some(1), claimed(2, 1))]);
    assert!(play(crashed).contains("after its end"));
}

fn breaks(who: &str, group: &str) -> BreakGlass {
    BreakGlass {
        approval: approval(),
        digest: digest(1),
        by: of(who, group).reviewer,
        reason: "the shop is down".into(),
        channel: "cli".into(),
        at: 0,
    }
}

fn broken(glass: BreakGlass) -> Entry {
    Entry::BreakGlass {
        glass: Box::new(glass),
        refused: None,
    }
}

fn approved_by(who: &str) -> Entry {
    Entry::Settled {
        approval: approval(),
        state: "approved".into(),
        by: vec![person(who)],
        reason: None,
        window: None,
    }
}

fn reviewed(who: &str, group: &str) -> Entry {
    Entry::Reviewed {
        approval: approval(),
        by: of(who, group).reviewer,
        note: None,
    }
}

#[test]
fn a_broken_glass_is_for_named_people_and_is_reviewed_by_others() {
    let good = [
        broken(breaks("cleo", "chiefs")),
        approved_by("cleo"),
        forward(1),
        completed(1),
        reviewed("rita", "dba"),
    ];
    assert_eq!(told(held_by(&full(), good.clone())), Vec::<String>::new());
    // Until somebody has, it is open, and no error.
    let open = |entries: &[Entry]| {
        let report = report_of(held_by(&full(), entries.to_vec()));
        assert!(report.ok, "{:?}", report.errors);
        let open = report.unreviewed.into_iter();
        open.map(|one| (one.by, one.reason)).collect::<Vec<_>>()
    };
    assert_eq!(open(&good), []);
    assert_eq!(
        open(&good[..4]),
        [("cleo".to_owned(), "the shop is down".to_owned())]
    );
    let says_of = |entries: Vec<Entry>, what| says(held_by(&full(), entries), what);
    says_of(
        vec![broken(breaks("rita", "dba"))],
        "may not break the glass",
    );
    let mut agent = breaks("bot", "chiefs");
    agent.by.agent = true;
    says_of(vec![broken(agent)], "may not break the glass");
    let mut silent = breaks("cleo", "chiefs");
    silent.reason = " ".into();
    says_of(vec![broken(silent)], "without a reason");
    let mut other = breaks("cleo", "chiefs");
    other.digest = digest(2);
    says_of(vec![broken(other)], "another command");
    let glass = || broken(breaks("cleo", "chiefs"));
    says_of(
        vec![glass(), approved_by("rita")],
        "does not name who broke",
    );
    says_of(
        vec![glass(), approved_by("cleo"), glass()],
        "was not pending",
    );
    says_of(
        vec![glass(), approved_by("cleo"), forward(1), goes(1)],
        "twice",
    );
    for (who, group) in [
        ("cleo", "dba"),
        ("olga", "dba"),
        ("agent", "dba"),
        ("zoe", "chiefs"),
    ] {
        says_of(
            vec![glass(), approved_by("cleo"), reviewed(who, group)],
            "may not under rule",
        );
    }
    says_of(vec![reviewed("rita", "dba")], "nothing to review");
    says(held_by(&hold(1), [glass()]), "may not break the glass");
}

#[test]
fn what_is_not_reviewed_survives_a_restart_and_what_is_does_not() {
    for closed in [false, true] {
        let mut journal = Journal::default();
        let s = Some(1);
        journal.add(None, start(), b"").add(s, open(), b"");
        for entry in held_by(
            &full(),
            [broken(breaks("cleo", "chiefs")), approved_by("cleo")],
        ) {
            journal.add(s, entry, b"");
        }
        if closed {
            journal.add(s, reviewed("rita", "dba"), b"");
        }
        let mut read = Tracker::default();
        for bytes in &journal.records {
            let frame = frame::decode(bytes).unwrap();
            read.accept(&frame, frame::leaf_hash(bytes)).unwrap();
        }
        let open: Vec<_> = read.open_reviews().map(|one| &one.draft.id).collect();
        assert_eq!(open.len(), usize::from(!closed), "{open:?}");
    }
}
