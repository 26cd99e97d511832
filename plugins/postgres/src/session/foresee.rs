//! Exchanges that come again, which the host is told to carry out by itself.
//!
//! One is foretold once it was seen from end to end, and not for the first time: one
//! statement that changes nothing of what is known of the session, alone in its burst, and
//! an answer that was no more than passed. What is bound is foretold outside of
//! transactions only. What may differ the next time is only what makes no difference here:
//! the values that are bound, and whole numbers in a query, whose kind of statement is the
//! same for all of them ([`crate::classify::shape`]).
//!
//! Strings stay as they are: a secret may be in one, and is known by what it looks like.
//!
//! A forecast leans on what was known when it was made: the context, and what the name
//! stands for that it binds. The host is told anew after each answer which ones still hold,
//! and carries none out before it has heard so ([`Typed::foresee`]).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use holdpoint_plugin::{Action, Command, Forecast, Frame, Pattern, Piece, Recall, Side};

use super::names::{Definition, Names, Prepared};
use super::typed::{Copying, Group, Typed, Wait};
use crate::adapter;
use crate::classify::{Act, Statement};
use crate::frame::{Bind, Space};
use crate::reply;

/// Forecasts at a time: all that the host keeps.
const MOST: u8 = 16;
/// Bytes of a burst that is worth foretelling.
const MOST_BYTES: usize = 4 << 10;
/// Frames of an answer: those of a statement that is parsed, run and over.
const MOST_ANSWERED: usize = 3;
/// Digits that a number may have to be left open.
const DIGITS: usize = 9;
/// Bursts that are remembered to see whether they come again. No more than there are
/// forecasts: a program that goes round in a longer circle would have none come true.
const SEEN: usize = MOST as usize;

#[derive(Debug, Default)]
pub(super) struct Foreseen {
    /// The place of an entry is its number.
    entries: Vec<Entry>,
    /// The number that is given next.
    next: u8,
    /// The exchange that goes on now.
    watched: Option<Watched>,
    /// Hashes of the newest bursts, of what is exact in them.
    seen: VecDeque<u64>,
}

#[derive(Debug)]
struct Entry {
    asked: Vec<Pattern>,
    uses: Uses,
    /// Of the transaction, before and after it.
    status: u8,
    /// See [`super::context::Context::version`].
    context: u64,
}

/// What a forecast leans on, beside the context.
#[derive(Debug)]
enum Uses {
    /// A simple Query takes the unnamed statement away, so there must be none.
    NoName,
    /// The name still stands for this very statement.
    Named(Vec<u8>, Rc<Prepared>),
    /// It prepares the unnamed statement, which must be one like this already.
    Unnamed(Rc<Prepared>),
}

#[derive(Debug)]
struct Watched {
    asked: Vec<Frame>,
    /// What was submitted, and the number of its operations; once that is known.
    proposed: Option<(Command, u8)>,
    answered: Vec<Frame>,
}

impl Typed {
    /// Before frames are looked at.
    pub(super) fn watch(&mut self, origin: Side, frames: &[Frame]) {
        match origin {
            Side::Client => {
                let watched = self.rests() && may_come_again(frames, self.status);
                self.foreseen.watched = watched.then(|| Watched {
                    asked: frames.to_vec(),
                    proposed: None,
                    answered: Vec::new(),
                });
            }
            Side::Upstream => {
                if let Some(watched) = &mut self.foreseen.watched {
                    watched.answered.extend_from_slice(frames);
                    if watched.answered.len() > MOST_ANSWERED {
                        self.foreseen.watched = None;
                    }
                }
            }
        }
    }

    /// After frames were looked at, with what was said of them.
    pub(super) fn foresee(&mut self, origin: Side, out: &mut Vec<Action>) {
        match origin {
            Side::Client => {
                let watched = self.foreseen.watched.take();
                let inside = self.status == b'T';
                self.foreseen.watched = watched.and_then(|watched| watched.proposed(out, inside));
            }
            Side::Upstream => {
                let only_passed = out
                    .iter()
                    .all(|action| matches!(action, Action::Pass(_) | Action::Completed(_)));
                if !only_passed {
                    self.foreseen.watched = None;
                }
                if self.rests() {
                    if let Some(watched) = self.foreseen.watched.take() {
                        out.extend(self.foretell(watched).map(Action::Forecast));
                    }
                    let (status, context) = (self.status, self.context.version());
                    let expected = self.foreseen.expected(&self.names, status, context);
                    if !expected.is_empty() {
                        out.push(Action::Expect(expected));
                    }
                }
            }
        }
    }

    /// Nothing goes on, and nothing that went on before has any bearing on what comes.
    fn rests(&self) -> bool {
        // The host waits for a verdict only while it shows nothing, so this one went forward.
        let judged = match &self.wait {
            Wait::Nothing => true,
            Wait::Verdict(proposed) => !proposed.notify,
            Wait::Settle | Wait::Drain | Wait::Deny(..) => false,
        };
        judged
            && self.pending.is_empty()
            && self.queue.is_empty()
            && self.unit.is_empty()
            && self.ending.is_none()
            && matches!(self.status, b'I' | b'T')
            && !self.failed_here
            && self.group == Group::default()
            && self.untold.is_none()
            && self.copy == Copying::No
            && !self.every_reply
            && !self.classifier.protects()
            && self.rows.is_none()
            && self.skip.is_none()
            && self.outcome.is_clear()
            && !self.closed
    }

    fn foretell(&mut self, watched: Watched) -> Option<Forecast> {
        let Watched {
            asked,
            proposed,
            answered,
        } = watched;
        let (command, kept) = proposed?;
        let (answered, status) = answer(&answered, self.status)?;
        let (asked, uses) = match asked.as_slice() {
            [query] => self.foretell_query(query)?,
            _ => self.foretell_bound(&asked)?,
        };
        let text_is_body = matches!(uses, Uses::NoName);
        let number = self.foreseen.number(Entry {
            asked: asked.clone(),
            uses,
            status: self.status,
            context: self.context.version(),
        });
        Some(Forecast {
            number,
            asked,
            command: Command {
                text: if text_is_body {
                    Vec::new()
                } else {
                    command.text
                },
                parameters: command
                    .parameters
                    .into_iter()
                    .map(|parameter| holdpoint_plugin::Parameter {
                        value: None,
                        ..parameter
                    })
                    .collect(),
                ..command
            },
            kept,
            text_is_body,
            answered,
            status,
        })
    }

    /// A simple Query, its whole numbers left open.
    fn foretell_query(&mut self, query: &Frame) -> Option<(Vec<Pattern>, Uses)> {
        let text = std::str::from_utf8(query.body.strip_suffix(b"\0")?).ok()?;
        let open = crate::classify::open_numbers(text, DIGITS)?;
        let mut body = Vec::with_capacity(2 * open.len() + 1);
        let mut at = 0;
        for range in open {
            let before = text.get(at..range.start)?;
            body.extend([Piece::Exactly(before.as_bytes().to_vec()), Piece::Digits]);
            at = range.end;
        }
        let rest = text.get(at..)?;
        body.push(Piece::Exactly([rest.as_bytes(), b"\0"].concat()));
        let pattern = Pattern {
            kind: query.kind,
            body,
        };
        if !self.foreseen.again(std::slice::from_ref(&pattern)) {
            return None;
        }
        let analysis = self.classifier.classify(text.as_bytes());
        let only = plain(&analysis.statements)?;
        for digits in ["0", "987654321"] {
            let other = with_digits(&pattern, digits);
            let other = self.classifier.classify(other.strip_suffix(b"\0")?);
            let same = Rc::ptr_eq(plain(&other.statements)?, only);
            if !same || other.reject.is_some() || !other.secrets.is_empty() {
                return None;
            }
        }
        Some((vec![pattern], Uses::NoName))
    }

    /// A statement that is bound and run, and perhaps prepared before that. All of it goes
    /// by the unnamed portal, which is gone behind it.
    fn foretell_bound(&mut self, frames: &[Frame]) -> Option<(Vec<Pattern>, Uses)> {
        let mut patterns = Vec::with_capacity(frames.len());
        let mut uses = None;
        let mut parsed = false;
        for Frame { kind, body, .. } in frames {
            let exact = match kind {
                Some(b'P') => {
                    parsed = true;
                    body.first() == Some(&0)
                }
                Some(b'B') => {
                    let bind = Bind::read(body).ok()?;
                    let Definition::Statement(prepared) =
                        self.names.get(Space::Statement, bind.statement)?
                    else {
                        return None;
                    };
                    plain(prepared.statements())?;
                    if !bind.portal.is_empty() || (parsed && !bind.statement.is_empty()) {
                        return None;
                    }
                    uses = Some(if parsed {
                        Uses::Unnamed(prepared)
                    } else {
                        Uses::Named(bind.statement.to_vec(), prepared)
                    });
                    patterns.push(Pattern {
                        kind: *kind,
                        body: values_open(body, &bind)?,
                    });
                    continue;
                }
                Some(b'D') => body == b"P\0",
                Some(b'E') => body.first() == Some(&0),
                _ => body.is_empty(),
            };
            if !exact {
                return None;
            }
            patterns.push(Pattern {
                kind: *kind,
                body: vec![Piece::Exactly(body.clone())],
            });
        }
        let uses = uses?;
        self.foreseen.again(&patterns).then_some((patterns, uses))
    }
}

impl Watched {
    /// Goes on watching where the burst became one command that the host knows by number.
    fn proposed(mut self, out: &[Action], inside: bool) -> Option<Self> {
        let [Action::Submit(submission)] = out else {
            return None;
        };
        let Recall::Kept(number) = submission.recall else {
            return None;
        };
        let whole = self.asked.first().map(|frame| frame.seq) == Some(submission.first)
            && self.asked.last().map(|frame| frame.seq) == Some(submission.last);
        let command = &submission.command;
        let plain = !submission.notify
            && !submission.undo
            && command.in_transaction == inside
            && command.reject.is_none()
            && command.secrets.is_empty();
        if !whole || !plain {
            return None;
        }
        self.proposed = Some((command.clone(), number));
        Some(self)
    }
}

impl Foreseen {
    /// The numbers of those that hold.
    fn expected(&self, names: &Names, status: u8, context: u64) -> Vec<u8> {
        let entries = (0..).zip(&self.entries);
        let holds = |(_, entry): &(u8, &Entry)| {
            entry.status == status && entry.context == context && entry.uses.hold(names)
        };
        entries.filter(holds).map(|(number, _)| number).collect()
    }

    /// Whether the same was seen not long ago: to foretell costs more than to be asked.
    fn again(&mut self, asked: &[Pattern]) -> bool {
        // Always the same keys: what is answered may depend on nothing but what was told.
        let mut hasher = DefaultHasher::new();
        for pattern in asked {
            for piece in &pattern.body {
                if let Piece::Exactly(bytes) = piece {
                    bytes.hash(&mut hasher);
                }
            }
        }
        let hash = hasher.finish();
        if self.seen.contains(&hash) {
            return true;
        }
        if self.seen.len() == SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(hash);
        false
    }

    /// Gives an entry its number: that of the one which asks the same, if there is one.
    fn number(&mut self, entry: Entry) -> u8 {
        let entries = &mut self.entries;
        let same = entries
            .iter()
            .position(|old| (old.status, &old.asked) == (entry.status, &entry.asked));
        let number = match same.and_then(|at| u8::try_from(at).ok()) {
            Some(same) => same,
            None => {
                let next = self.next;
                self.next = (next + 1) % MOST;
                next
            }
        };
        match entries.get_mut(usize::from(number)) {
            Some(place) => *place = entry,
            None => entries.push(entry),
        }
        number
    }
}

impl Uses {
    fn hold(&self, names: &Names) -> bool {
        let now = |name: &[u8]| match names.get(Space::Statement, name) {
            Some(Definition::Statement(now)) => Some(now),
            _ => None,
        };
        match self {
            Self::NoName => !names.has_unnamed(),
            Self::Named(name, then) => now(name).is_some_and(|now| Rc::ptr_eq(&now, then)),
            Self::Unnamed(then) => now(b"").is_some_and(|now| {
                now.text == then.text && now.types == then.types && now.part == then.part
            }),
        }
    }
}

/// A body with these digits in each of the places that are left open.
fn with_digits(pattern: &Pattern, digits: &str) -> Vec<u8> {
    let bytes = pattern.body.iter().map(|piece| match piece {
        Piece::Exactly(bytes) => bytes.as_slice(),
        Piece::Digits | Piece::Value => digits.as_bytes(),
    });
    bytes.collect::<Vec<_>>().concat()
}

/// Whether a burst is of a kind that can be foretold. In a transaction a portal outlives
/// its burst, and would be another one after each.
fn may_come_again(frames: &[Frame], status: u8) -> bool {
    let kinds = frames.iter().map(|frame| frame.kind.unwrap_or(0));
    let whole: &[&[u8]] = match status {
        b'I' => &[b"Q", b"BES", b"BDES", b"PBES", b"PBDES"],
        _ => &[b"Q"],
    };
    whole
        .iter()
        .any(|whole| kinds.clone().eq(whole.iter().copied()))
        && frames.iter().map(|frame| frame.body.len()).sum::<usize>() <= MOST_BYTES
}

/// The only statement, where it changes nothing of what is known of the session.
fn plain(statements: &[Rc<Statement>]) -> Option<&Rc<Statement>> {
    match statements {
        [only] if only.act == Act::Other && !adapter::may_change_session(only) => Some(only),
        _ => None,
    }
}

/// A Bind, each of its values left open.
fn values_open(body: &[u8], bind: &Bind<'_>) -> Option<Vec<Piece>> {
    let width = |value: &Option<std::ops::Range<usize>>| 4 + value.as_ref().map_or(0, |v| v.len());
    let values: usize = bind.values.iter().map(width).sum();
    let end = body.len().checked_sub(bind.results.len())?;
    let start = end.checked_sub(values)?;
    let mut pieces = vec![Piece::Exactly(body.get(..start)?.to_vec())];
    pieces.extend(bind.values.iter().map(|_| Piece::Value));
    pieces.push(Piece::Exactly(bind.results.to_vec()));
    Some(pieces)
}

/// The answer, its count of rows left open, and which frame is the tag. Only one that says
/// nothing but that the statement was parsed, that it ran and that the status is as before.
fn answer(frames: &[Frame], status_before: u8) -> Option<(Vec<Pattern>, u8)> {
    let mut status = None;
    let mut patterns = Vec::with_capacity(frames.len());
    for (at, Frame { kind, body, .. }) in (0..).zip(frames) {
        let body = match kind {
            Some(b'1') if body.is_empty() => Vec::new(),
            Some(b'C') => {
                status = Some(at);
                tag(body)?
            }
            Some(b'Z') if *body == [status_before] => vec![Piece::Exactly(body.clone())],
            _ => return None,
        };
        patterns.push(Pattern { kind: *kind, body });
    }
    let ends = frames.last().is_some_and(|last| last.kind == Some(b'Z'));
    status.filter(|_| ends).map(|status| (patterns, status))
}

fn tag(body: &[u8]) -> Option<Vec<Piece>> {
    let text = std::str::from_utf8(body.strip_suffix(b"\0")?).ok()?;
    let word = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = text.get(word.len()..)?;
    let counts = reply::rows(text).is_some();
    // What is recorded of it must be what would be said of it.
    match (counts, digits.len()) {
        (true, 1..=DIGITS) if word.ends_with(' ') => Some(vec![
            Piece::Exactly(word.as_bytes().to_vec()),
            Piece::Digits,
            Piece::Exactly(b"\0".to_vec()),
        ]),
        (false, 0) => Some(vec![Piece::Exactly(body.to_vec())]),
        _ => None,
    }
}
