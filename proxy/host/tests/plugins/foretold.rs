//! A plugin that says beforehand what it will say, and keeps its word or does not.

use bytes::Bytes;
use holdpoint_core::framing::Side;
use holdpoint_core::plugin::{Action, PluginError, Verdict};
use holdpoint_host::Session;

use super::{denial, frame, hostile, start};

/// A session that has foretold that `go` is answered with `done`.
fn foretold(deed: &str) -> (Session, u64) {
    let mut session = start(&hostile(), deed).unwrap();
    session.on_frames(Side::Client, &frame(1, b"go")).unwrap();
    let actions = session
        .on_frames(Side::Upstream, &frame(2, b"done"))
        .unwrap();
    // What only the host hears is not among them.
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert_eq!(status(&actions), "1 asked");
    (session, 2)
}

/// How the plugin says that a command ended: where it was told of it, with a count of its own.
fn status(actions: &[Action]) -> &str {
    match actions {
        [Action::Completed(done), Action::Pass(_)] => &done.status,
        _ => panic!("{actions:?}"),
    }
}

fn submitted(actions: &[Action]) -> (&Bytes, u64) {
    match actions {
        [Action::Submit(submission)] => (&submission.command.text, submission.first),
        _ => panic!("{actions:?}"),
    }
}

#[test]
fn what_was_foretold_is_carried_out_without_the_plugin_and_it_hears_of_what_was_not() {
    let (mut session, mut seq) = foretold("foretell");
    let mut told = |session: &mut Session, side, body| {
        seq += 1;
        (session.on_frames(side, &frame(seq, body)).unwrap(), seq)
    };
    for _ in 0..3 {
        let (asked, seq) = told(&mut session, Side::Client, b"go");
        assert_eq!(submitted(&asked), (&Bytes::from_static(b"go"), seq));
        let (answered, _) = told(&mut session, Side::Upstream, b"done");
        assert_eq!(status(&answered), "done");
    }
    // Another answer, another question, and one that comes before the answer.
    told(&mut session, Side::Client, b"go");
    assert_eq!(
        status(&told(&mut session, Side::Upstream, b"oops").0),
        "2 asked"
    );
    told(&mut session, Side::Client, b"gone");
    assert_eq!(
        status(&told(&mut session, Side::Upstream, b"done").0),
        "3 asked"
    );
    told(&mut session, Side::Client, b"go");
    told(&mut session, Side::Client, b"go");
    assert_eq!(
        status(&told(&mut session, Side::Upstream, b"done").0),
        "5 asked"
    );
    // A refusal.
    told(&mut session, Side::Client, b"go");
    session.on_verdict(&Verdict::Refused(denial())).unwrap();
    told(&mut session, Side::Client, b"go");
    assert_eq!(
        status(&told(&mut session, Side::Upstream, b"done").0),
        "7 asked"
    );
}

#[test]
fn whatever_a_plugin_is_told_ends_what_it_expected() {
    let (mut session, _) = foretold("foretell");
    session.notice("still waiting").unwrap();
    session.on_frames(Side::Client, &frame(3, b"go")).unwrap();
    let answered = session.on_frames(Side::Upstream, &frame(4, b"done"));
    assert_eq!(status(&answered.unwrap()), "2 asked");
}

#[test]
fn who_rests_in_the_midst_of_what_was_foretold_need_not_wake_for_its_end() {
    let (mut session, _) = foretold("foretell");
    session.on_frames(Side::Client, &frame(3, b"go")).unwrap();
    session.rest(None);
    let answered = session.on_frames(Side::Upstream, &frame(4, b"done"));
    assert_eq!(status(&answered.unwrap()), "done");
    assert!(!session.is_awake());
    // Nothing is foretold any more until it wakes.
    session.on_frames(Side::Client, &frame(5, b"go")).unwrap();
    assert!(session.is_awake());
    let answered = session.on_frames(Side::Upstream, &frame(6, b"done"));
    assert_eq!(status(&answered.unwrap()), "2 asked");

    session.on_frames(Side::Client, &frame(7, b"go")).unwrap();
    session.rest(None);
    let answered = session.on_frames(Side::Upstream, &frame(8, b"oops"));
    assert_eq!(status(&answered.unwrap()), "3 asked");
}

#[test]
fn who_foretells_what_it_would_not_say_is_found_out() {
    let (mut session, _) = foretold("foretell falsely");
    session.on_frames(Side::Client, &frame(3, b"go")).unwrap();
    let error = session
        .on_frames(Side::Upstream, &frame(4, b"oops"))
        .unwrap_err();
    assert!(error.to_string().contains("foretold"), "{error}");
    assert!(matches!(error, PluginError::Misbehaved { .. }));
    assert_eq!(session.terminate(&denial()), b"HP-PLUGIN");
}

#[test]
fn who_traps_while_it_hears_of_what_it_foretold_is_over() {
    let (mut session, _) = foretold("foretell and trap");
    session.on_frames(Side::Client, &frame(3, b"go")).unwrap();
    let error = session
        .on_frames(Side::Upstream, &frame(4, b"oops"))
        .unwrap_err();
    assert!(matches!(error, PluginError::Trap { .. }), "{error}");
    assert_eq!(session.terminate(&denial()), b"HP-PLUGIN");
    // Nothing that it foretold is carried out any more.
    assert!(session.on_frames(Side::Client, &frame(5, b"go")).is_err());
}
