//! Forecasts as a plugin makes them, and bursts that fit or do not.

use super::*;
use crate::bindings::protocol::{Piece as P, Recall};
use crate::bindings::types;

fn pattern(kind: u8, body: Vec<P>) -> protocol::Pattern {
    let kind = Some(kind);
    protocol::Pattern { kind, body }
}

fn exactly(bytes: &[u8]) -> P {
    P::Exactly(bytes.to_vec())
}

fn frame(seq: u64, kind: u8, body: &[u8]) -> Frame {
    Frame {
        seq,
        kind: Some(kind),
        body: Bytes::copy_from_slice(body),
    }
}

fn operations() -> Operations {
    let mut operations = Operations::default();
    operations.of(Recall::Keep(1), Vec::new()).unwrap();
    operations
}

/// A text with one number in it, and an answer that counts.
fn query() -> protocol::Forecast {
    protocol::Forecast {
        number: 0,
        asked: vec![pattern(
            b'Q',
            vec![exactly(b"get "), P::Digits, exactly(b";\0")],
        )],
        command: types::Command {
            operations: Vec::new(),
            text: Vec::new(),
            parameters: Vec::new(),
            secrets: Vec::new(),
            context: vec![("database".to_owned(), "shop".to_owned())],
            in_transaction: false,
            canonical: Some(b"Q".to_vec()),
            reject: None,
        },
        kept: 1,
        text_is_body: true,
        answered: vec![
            pattern(b'C', vec![exactly(b"GOT "), P::Digits, exactly(b"\0")]),
            pattern(b'Z', vec![exactly(b"I")]),
        ],
        status: 0,
    }
}

/// A statement by name and its value.
fn bound() -> protocol::Forecast {
    let mut forecast = query();
    forecast.asked = vec![
        pattern(b'B', vec![exactly(b"\0s\0"), P::Value, exactly(b"\0\0")]),
        pattern(b'E', vec![exactly(b"\0")]),
    ];
    forecast.text_is_body = false;
    forecast.command.text = b"get $1".to_vec();
    forecast.command.parameters = vec![types::Parameter {
        type_name: "int4".to_owned(),
        binary: false,
        value: None,
    }];
    forecast
}

fn expecting(forecast: protocol::Forecast) -> Forecasts {
    let mut forecasts = Forecasts::default();
    let number = forecast.number;
    forecasts.keep(forecast, &operations()).unwrap();
    forecasts.expect(vec![number]).unwrap();
    forecasts
}

fn submitted(deferred: &Deferred) -> Submission {
    match deferred.submission().as_slice() {
        [Action::Submit(submission)] => (**submission).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_text_that_is_shown_is_the_frames_own() {
    let forecasts = expecting(query());
    for number in ["7", "123456789"] {
        let body = format!("get {number};\0");
        let deferred = forecasts.asked(&[frame(5, b'Q', body.as_bytes())]).unwrap();
        let Submission {
            first,
            last,
            command,
            ..
        } = submitted(&deferred);
        assert_eq!((first, last), (5, 5));
        assert_eq!(command.text, format!("get {number};"));
        assert_eq!(command.context[0].1, "shop");
    }
    for body in [
        &b"get ;\0"[..],
        b"get 1234567890;\0",
        b"get 1x;\0",
        b"get -1;\0",
        b"get 1;",
        b"get 1;\0\0",
        b"got 1;\0",
        b"",
    ] {
        assert!(
            forecasts.asked(&[frame(5, b'Q', body)]).is_none(),
            "{body:?}"
        );
    }
    let fits = frame(5, b'Q', b"get 1;\0");
    assert!(forecasts.asked(&[fits.clone(), fits]).is_none());
    assert!(forecasts.asked(&[frame(5, b'P', b"get 1;\0")]).is_none());
    assert!(forecasts.asked(&[]).is_none());
}

#[test]
fn values_are_those_that_were_bound() {
    let forecasts = expecting(bound());
    let asked = |value: &[u8]| {
        let body = [b"\0s\0", value, b"\0\0"].concat();
        forecasts.asked(&[frame(1, b'B', &body), frame(2, b'E', b"\0")])
    };
    for (value, expected) in [
        (&b"\0\0\0\x0212"[..], Some(&b"12"[..])),
        (b"\0\0\0\0", Some(b"")),
        (b"\xff\xff\xff\xff", None),
    ] {
        let Submission {
            first,
            last,
            command,
            ..
        } = submitted(&asked(value).unwrap());
        assert_eq!((first, last), (1, 2));
        assert_eq!(command.text, "get $1");
        assert_eq!(command.parameters[0].value.as_deref(), expected);
        assert_eq!(command.parameters[0].type_name, "int4");
    }
    for value in [
        &b"\0\0\0\x031"[..],
        b"\0\0\0\x7f12",
        b"\xff\xff\xff\xfe",
        b"\x7f\xff\xff\xff1",
        b"\0\0",
        b"",
    ] {
        assert!(asked(value).is_none(), "{value:?}");
    }
}

#[test]
fn a_read_buffer_is_not_kept_alive() {
    for (forecast, asked) in [
        (query(), [&b"get 1;\0"[..]].as_slice()),
        (bound(), &[b"\0s\0\0\0\0\x011\0\0", b"\0"]),
    ] {
        let forecasts = expecting(forecast.clone());
        let buffer = Bytes::from(asked.concat());
        let mut at = 0;
        let frames: Vec<Frame> = asked
            .iter()
            .zip(&forecast.asked)
            .map(|(body, pattern)| {
                at += body.len();
                Frame {
                    seq: at as u64,
                    kind: pattern.kind,
                    body: buffer.slice(at - body.len()..at),
                }
            })
            .collect();
        let mut deferred = forecasts.asked(&frames).unwrap();
        let answer = Bytes::from_static(b"GOT 1\0").to_vec();
        let answer = Bytes::from(answer);
        let count = Frame {
            seq: 99,
            kind: Some(b'C'),
            body: answer.slice(..),
        };
        deferred.answered(std::slice::from_ref(&count)).unwrap();
        drop((frames, count));
        assert!(buffer.is_unique() && answer.is_unique());
        assert_eq!(deferred.untold().len(), 2);
    }
}

#[test]
fn an_answer_completes_the_command_with_its_last_frame() {
    let forecasts = expecting(query());
    let (count, end) = (frame(2, b'C', b"GOT 12\0"), frame(3, b'Z', b"I"));
    let done = Action::Completed(Completion {
        commands: 1,
        status: "GOT 12".to_owned(),
        failed: false,
        rows: Some(12),
    });
    let begin = || forecasts.asked(&[frame(1, b'Q', b"get 1;\0")]).unwrap();

    let mut deferred = begin();
    let actions = deferred.answered(&[count.clone(), end.clone()]).unwrap();
    assert_eq!(actions, [done.clone(), Action::Pass(3)]);
    assert!(deferred.is_over());

    let mut deferred = begin();
    assert_eq!(
        deferred.answered(std::slice::from_ref(&count)).unwrap(),
        [Action::Pass(2)]
    );
    // Not in the same place again, and nothing behind the end.
    assert!(deferred.answered(std::slice::from_ref(&count)).is_none());
    assert!(deferred.answered(&[end.clone(), end.clone()]).is_none());
    assert!(deferred.answered(&[frame(3, b'Z', b"E")]).is_none());
    assert!(deferred.answered(&[]).is_none());
    assert_eq!(deferred.answered(&[end]).unwrap(), [done, Action::Pass(3)]);
    assert!(deferred.is_over());
}

#[test]
fn only_what_is_expected_now_is_carried_out() {
    let mut forecasts = expecting(query());
    let asked = [frame(1, b'Q', b"get 1;\0")];
    forecasts.forget_expected();
    assert!(forecasts.asked(&asked).is_none());
    forecasts.expect(vec![0]).unwrap();
    assert!(forecasts.asked(&asked).is_some());
    for never in [vec![1], vec![0, 255], vec![0; 17]] {
        assert!(forecasts.expect(never.clone()).is_err(), "{never:?}");
    }
}

#[test]
fn a_forecast_that_hides_something_is_refused() {
    type Change = fn(&mut protocol::Forecast);
    let wrong: [(&str, Change); 17] = [
        ("number", |f| f.number = 16),
        ("operations that nobody kept", |f| f.kept = 2),
        ("nothing asked", |f| f.asked.clear()),
        ("nothing answered", |f| f.answered.clear()),
        ("many frames", |f| {
            f.answered = vec![pattern(b'C', Vec::new()); 9]
        }),
        ("a status that is not there", |f| f.status = 2),
        ("numbers that the text does not show", |f| {
            f.text_is_body = false;
            f.command.text = b"get 1".to_vec();
        }),
        ("two texts", |f| f.command.text = b"get 1".to_vec()),
        ("a text of two frames", |f| {
            f.asked.push(pattern(b'S', Vec::new()))
        }),
        ("a value that is no parameter", |f| {
            f.asked[0].body.push(P::Value)
        }),
        ("a parameter without a value", |f| {
            f.command.parameters = bound().command.parameters;
        }),
        ("a value in an answer", |f| {
            f.answered[1].body.push(P::Value)
        }),
        ("digits beside digits", |f| {
            f.asked[0].body.insert(1, P::Digits)
        }),
        ("digits before digits", |f| {
            f.asked[0].body[2] = exactly(b"1\0")
        }),
        ("digits before nothing", |f| {
            f.asked[0].body[2] = exactly(b"")
        }),
        ("too much", |f| f.command.canonical = Some(vec![0; MOST])),
        ("secrets of any text", |f| {
            f.command.secrets = vec![types::Span { start: 0, end: 0 }];
        }),
    ];
    for (what, change) in wrong {
        let mut forecast = query();
        change(&mut forecast);
        let kept = Forecasts::default().keep(forecast, &operations());
        assert!(kept.is_err(), "{what}");
    }
    let mut forecast = bound();
    forecast.command.parameters[0].value = Some(b"1".to_vec());
    assert!(Forecasts::default().keep(forecast, &operations()).is_err());
}
