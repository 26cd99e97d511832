//! Exchanges that a plugin has foretold, which are carried out without asking it.
//!
//! A program sends few statements, again and again, and all that its plugin says of the
//! next one is known: the same operations, the same words, other values. To ask costs many
//! times what it costs to see that nothing else is there ([`Forecast::asked`]). What is
//! told to reviewers and records is made of the frames themselves: values are theirs, and
//! where digits differ the text is the frame's own.
//!
//! Nothing here decides anything: a forecast gives the submission that the plugin would
//! have given. A plugin that foretells what it would not say is found out at the first
//! exchange that takes another turn, since it is then told all of it ([`Deferred`]).

use std::sync::Arc;

use bytes::Bytes;
use holdpoint_core::command::Command;
use holdpoint_core::framing::Side;
use holdpoint_core::plugin::{Action, Completion, Frame, Submission};

use crate::bindings::protocol;
use crate::convert::{self, Wrong};
use crate::kept::Operations;

/// Numbers that a plugin may use.
const NUMBERS: usize = 16;
/// Frames of a burst or of an answer.
const FRAMES: usize = 8;
/// Bytes of one forecast; a piece or a word counts as 64 more.
const MOST: usize = 16 << 10;
const PIECE: usize = 64;
/// Digits that one piece may have.
const DIGITS: usize = 9;
/// What is shorter is taken out of its read buffer: a command may be held, or run, for
/// long, and nobody else keeps the buffer for it.
const COPIED: usize = 4 << 10;

#[derive(Debug, Default)]
pub(crate) struct Forecasts {
    /// The place of a forecast is its number.
    known: Vec<Option<Arc<Forecast>>>,
    /// Those that hold now.
    expected: Vec<u8>,
}

#[derive(Debug)]
struct Forecast {
    asked: Vec<Pattern>,
    /// Without text where `text_is_body`, and without values.
    command: Command,
    text_is_body: bool,
    answered: Vec<Pattern>,
    status: usize,
}

#[derive(Debug)]
struct Pattern {
    kind: Option<u8>,
    body: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Exactly(Bytes),
    Digits,
    Value,
}

/// An exchange that the plugin was not told of, up to now.
#[derive(Debug)]
pub(crate) struct Deferred {
    forecast: Arc<Forecast>,
    /// What it would have been told, and what was done in its name.
    untold: Vec<(Side, Vec<Frame>, Vec<Action>)>,
    /// Frames of the answer that have come.
    come: usize,
    completion: Completion,
}

impl Forecasts {
    /// Keeps what is foretold. `operations` are those that are kept by number.
    pub(crate) fn keep(
        &mut self,
        from: protocol::Forecast,
        operations: &Operations,
    ) -> Result<(), Wrong> {
        let at = usize::from(from.number);
        if at >= NUMBERS {
            return Err(format!(
                "a forecast of the number {at}; there are {NUMBERS}"
            ));
        }
        let forecast = Arc::new(Forecast::new(from, operations)?);
        if self.known.len() <= at {
            self.known.resize(at + 1, None);
        }
        self.known[at] = Some(forecast);
        Ok(())
    }

    /// From now on these hold, and no others.
    pub(crate) fn expect(&mut self, numbers: Vec<u8>) -> Result<(), Wrong> {
        if numbers.len() > NUMBERS {
            return Err(format!("it expects {} forecasts", numbers.len()));
        }
        match numbers.iter().find(|number| self.known(**number).is_none()) {
            Some(number) => Err(format!("it expects a forecast {number} that it never made")),
            None => {
                self.expected = numbers;
                Ok(())
            }
        }
    }

    /// The plugin is told something: what held before need not hold any more.
    pub(crate) fn forget_expected(&mut self) {
        self.expected.clear();
    }

    /// The exchange that these frames of the client begin, if it was foretold.
    pub(crate) fn asked(&self, frames: &[Frame]) -> Option<Deferred> {
        let expected = self.expected.iter();
        let mut expected = expected.filter_map(|number| self.known(*number));
        expected.find_map(|forecast| Forecast::asked(forecast, frames))
    }

    fn known(&self, number: u8) -> Option<&Arc<Forecast>> {
        self.known.get(usize::from(number))?.as_ref()
    }
}

impl Forecast {
    fn new(from: protocol::Forecast, operations: &Operations) -> Result<Self, Wrong> {
        let weight = weight(&from);
        let frames = 1..=FRAMES;
        if weight > MOST
            || !frames.contains(&from.asked.len())
            || !frames.contains(&from.answered.len())
        {
            return Err(format!(
                "a forecast of {weight} bytes, {} and {} frames; {MOST} and 1 to {FRAMES} are allowed",
                from.asked.len(),
                from.answered.len()
            ));
        }
        let status = usize::from(from.status);
        if status >= from.answered.len() {
            return Err(format!(
                "a forecast without the frame {status} of its answer"
            ));
        }
        let (asked, digits, values) = patterns(from.asked)?;
        let (answered, _, told) = patterns(from.answered)?;
        if from.text_is_body != (from.command.text.is_empty() && asked.len() == 1)
            || (digits > 0 && !from.text_is_body)
            || (from.text_is_body && !from.command.secrets.is_empty())
        {
            return Err("a forecast whose text is not what is asked".to_owned());
        }
        let given = from.command.parameters.iter();
        if told > 0
            || values != from.command.parameters.len()
            || given.clone().any(|parameter| parameter.value.is_some())
        {
            return Err("a forecast whose values are not what is asked".to_owned());
        }
        if !from.command.operations.is_empty() {
            return Err("operations in a forecast, which names them by number".to_owned());
        }
        Ok(Self {
            asked,
            command: Command {
                operations: operations.kept(from.kept)?,
                ..convert::command(from.command)?
            },
            text_is_body: from.text_is_body,
            answered,
            status,
        })
    }

    fn asked(forecast: &Arc<Self>, frames: &[Frame]) -> Option<Deferred> {
        if frames.len() != forecast.asked.len() {
            return None;
        }
        let mut values = Vec::with_capacity(forecast.command.parameters.len());
        let patterns = forecast.asked.iter();
        if !patterns.zip(frames).all(|(pattern, frame)| {
            pattern.fits(frame, |found| {
                if let Found::Value(value) = found {
                    values.push(value);
                }
            })
        }) {
            return None;
        }
        let (first, last) = (frames.first()?, frames.last()?);
        let mut command = forecast.command.clone();
        for (parameter, value) in command.parameters.iter_mut().zip(values) {
            parameter.value = value.map(kept);
        }
        if forecast.text_is_body {
            command.text = kept(without_nul(&first.body));
        }
        let submission = Submission {
            first: first.seq,
            last: last.seq,
            command,
            notify: false,
            undo: false,
        };
        Some(Deferred {
            forecast: Arc::clone(forecast),
            untold: vec![(
                Side::Client,
                frames.iter().map(kept_frame).collect(),
                vec![Action::Submit(Box::new(submission))],
            )],
            come: 0,
            completion: Completion {
                commands: 1,
                status: String::new(),
                failed: false,
                rows: None,
            },
        })
    }
}

impl Deferred {
    /// What the plugin would say to the client's burst.
    pub(crate) fn submission(&self) -> Vec<Action> {
        self.untold
            .first()
            .map(|(_, _, actions)| actions.clone())
            .unwrap_or_default()
    }

    /// What it would say to these frames of the target, where they were foretold.
    pub(crate) fn answered(&mut self, frames: &[Frame]) -> Option<Vec<Action>> {
        let last = frames.last()?;
        let to_come = self.forecast.answered.get(self.come..)?;
        if frames.len() > to_come.len() {
            return None;
        }
        let mut completion = self.completion.clone();
        for (index, (pattern, frame)) in to_come.iter().zip(frames).enumerate() {
            let mut rows = None;
            let fits = pattern.fits(frame, |found| {
                if let Found::Digits(number) = found {
                    rows = Some(number);
                }
            });
            if !fits {
                return None;
            }
            if self.come + index == self.forecast.status {
                completion.status = String::from_utf8_lossy(&without_nul(&frame.body)).into_owned();
                completion.rows = rows;
            }
        }
        self.come += frames.len();
        self.completion = completion;
        let mut actions = Vec::with_capacity(2);
        if self.is_over() {
            actions.push(Action::Completed(self.completion.clone()));
        }
        actions.push(Action::Pass(last.seq));
        if !self.is_over() {
            let frames = frames.iter().map(kept_frame).collect();
            self.untold.push((Side::Upstream, frames, actions.clone()));
        }
        Some(actions)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.come == self.forecast.answered.len()
    }

    /// What the plugin was not told, and what was done in its name.
    pub(crate) fn untold(self) -> Vec<(Side, Vec<Frame>, Vec<Action>)> {
        self.untold
    }
}

/// What stands in the place of a piece.
enum Found {
    Value(Option<Bytes>),
    Digits(u64),
}

impl Pattern {
    /// Whether a frame is what was foretold, all of it.
    fn fits(&self, frame: &Frame, mut found: impl FnMut(Found)) -> bool {
        if frame.kind != self.kind {
            return false;
        }
        let body = &frame.body;
        let mut at = 0;
        for piece in &self.body {
            let rest = &body[at..];
            match piece {
                Piece::Exactly(bytes) => {
                    if !rest.starts_with(bytes) {
                        return false;
                    }
                    at += bytes.len();
                }
                Piece::Digits => {
                    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    if !(1..=DIGITS).contains(&digits) {
                        return false;
                    }
                    let number = rest[..digits]
                        .iter()
                        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
                    found(Found::Digits(number));
                    at += digits;
                }
                Piece::Value => {
                    let Some(length) = rest.first_chunk::<4>() else {
                        return false;
                    };
                    at += 4;
                    match i32::from_be_bytes(*length) {
                        -1 => found(Found::Value(None)),
                        length => {
                            let Some(end) = usize::try_from(length)
                                .ok()
                                .and_then(|length| at.checked_add(length))
                                .filter(|end| *end <= body.len())
                            else {
                                return false;
                            };
                            found(Found::Value(Some(body.slice(at..end))));
                            at = end;
                        }
                    }
                }
            }
        }
        at == body.len()
    }
}

/// The patterns, and how many digits and values are in them.
fn patterns(from: Vec<protocol::Pattern>) -> Result<(Vec<Pattern>, usize, usize), Wrong> {
    let (mut digits, mut values) = (0, 0);
    let mut patterns = Vec::with_capacity(from.len());
    for pattern in from {
        let mut body: Vec<Piece> = Vec::with_capacity(pattern.body.len());
        for piece in pattern.body {
            let piece = match piece {
                protocol::Piece::Exactly(bytes) => Piece::Exactly(bytes.into()),
                protocol::Piece::Digits => Piece::Digits,
                protocol::Piece::Value => Piece::Value,
            };
            let ends_digits = match &piece {
                Piece::Exactly(bytes) => bytes.first().is_some_and(|byte| !byte.is_ascii_digit()),
                Piece::Digits | Piece::Value => false,
            };
            if matches!(body.last(), Some(Piece::Digits)) && !ends_digits {
                return Err("digits in a forecast that end nowhere".to_owned());
            }
            digits += usize::from(matches!(piece, Piece::Digits));
            values += usize::from(matches!(piece, Piece::Value));
            body.push(piece);
        }
        patterns.push(Pattern {
            kind: pattern.kind,
            body,
        });
    }
    Ok((patterns, digits, values))
}

fn weight(from: &protocol::Forecast) -> usize {
    let piece = |piece: &protocol::Piece| match piece {
        protocol::Piece::Exactly(bytes) => PIECE + bytes.len(),
        protocol::Piece::Digits | protocol::Piece::Value => PIECE,
    };
    let patterns = from.asked.iter().chain(&from.answered);
    let pieces = patterns.map(|pattern| PIECE + pattern.body.iter().map(piece).sum::<usize>());
    let command = &from.command;
    let context = command.context.iter();
    let context = context.map(|(name, value)| PIECE + name.len() + value.len());
    let parameters = command.parameters.iter();
    let parameters = parameters.map(|parameter| PIECE + parameter.type_name.len());
    let rest = [
        command.text.len(),
        command.secrets.len() * PIECE,
        command.canonical.as_ref().map_or(0, Vec::len),
        command.reject.as_ref().map_or(0, String::len),
    ];
    pieces.sum::<usize>()
        + context.sum::<usize>()
        + parameters.sum::<usize>()
        + rest.iter().sum::<usize>()
}

/// The same bytes, which keep nothing else alive.
fn kept(bytes: Bytes) -> Bytes {
    if bytes.len() < COPIED {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

fn kept_frame(frame: &Frame) -> Frame {
    Frame {
        body: kept(frame.body.clone()),
        ..*frame
    }
}

fn without_nul(body: &Bytes) -> Bytes {
    match body.last() {
        Some(0) => body.slice(..body.len() - 1),
        _ => body.clone(),
    }
}

#[cfg(test)]
mod tests {
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
}
