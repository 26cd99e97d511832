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

#[cfg(test)]
mod tests;

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
