//! Frames that wait in line until the plugin decides about them.
//!
//! Nothing overtakes: native frames stand behind the shown ones before them. Bytes
//! that lie side by side in memory leave as one, so that a burst of frames costs one
//! record and one write.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use holdpoint_core::framing::Rule;
use holdpoint_core::plugin::Frame;

use super::wire::Burst;

/// A command shorter than this is taken out of its read buffer.
const COPIED: usize = 4 * 1024;

/// Bytes of a burst.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    burst: Bytes,
    range: Range<usize>,
}

impl Chunk {
    pub(super) fn bytes(&self) -> Bytes {
        self.burst.slice(self.range.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// Grows by what lies directly behind in the same memory.
    pub(super) fn join(&mut self, next: &Self) -> bool {
        let beside =
            self.burst.as_ptr() == next.burst.as_ptr() && self.range.end == next.range.start;
        if beside {
            self.range.end = next.range.end;
        }
        beside
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Passed,
    Dropped,
}

#[derive(Debug)]
struct Item {
    /// Absent for native frames.
    seq: Option<u64>,
    rule: Rule,
    chunk: Chunk,
    state: State,
}

/// What leaves the line.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) rule: Rule,
    pub(super) chunk: Chunk,
}

/// The plugin spoke of frames in a way that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error("frame {0} is not there to be decided about")]
    Unknown(u64),
    #[error("frame {0} was passed, but its kind leaves only inside a submitted command")]
    Judged(u64),
    #[error("frame {0} would overtake one that came before it")]
    Overtakes(u64),
    #[error("the submitted frames are not one stretch")]
    Gap,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    items: VecDeque<Item>,
    bytes: usize,
    /// So many at the front wait for no decision.
    decided: usize,
}

impl Line {
    /// Bytes in line.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Nothing is expected for a while.
    pub(super) fn rest(&mut self) {
        self.items.shrink_to_fit();
    }

    /// Appends a burst. `seq` counts the frames that are shown, which are given.
    pub(super) fn push(&mut self, burst: Burst, seq: &mut u64) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(burst.pieces.len());
        for piece in burst.pieces {
            let chunk = Chunk {
                burst: burst.bytes.clone(),
                range: piece.range,
            };
            self.bytes += chunk.len();
            let mut number = None;
            if let Some(shown) = piece.shown {
                *seq += 1;
                number = Some(*seq);
                let body = burst
                    .bytes
                    .slice(chunk.range.start + shown.header..chunk.range.end);
                frames.push(Frame {
                    seq: *seq,
                    kind: shown.kind,
                    body,
                });
            }
            let state = if number.is_some() {
                State::Waiting
            } else {
                State::Passed
            };
            self.items.push_back(Item {
                seq: number,
                rule: piece.rule,
                chunk,
                state,
            });
        }
        frames
    }

    /// The client's frame `seq` may go on, if no rule judges its kind.
    pub(super) fn pass_one(&mut self, seq: u64) -> Result<(), LineError> {
        let at = self.find(seq)?;
        let overtakes = at != self.decided;
        let item = &mut self.items[at];
        if item.rule.judged {
            return Err(LineError::Judged(seq));
        }
        if overtakes {
            return Err(LineError::Overtakes(seq));
        }
        item.state = State::Passed;
        Ok(())
    }

    /// The target's frames up to `seq` may go on.
    pub(super) fn pass_through(&mut self, seq: u64) -> Result<(), LineError> {
        let at = self.find(seq)?;
        for item in self.items.iter_mut().take(at + 1) {
            if item.state == State::Waiting {
                item.state = State::Passed;
            }
        }
        Ok(())
    }

    pub(super) fn drop_one(&mut self, seq: u64) -> Result<(), LineError> {
        let at = self.find(seq)?;
        self.items[at].state = State::Dropped;
        Ok(())
    }

    /// Takes the frames `first` to `last` that are undecided out of the line:
    /// their bytes, as the client sent them.
    pub(super) fn take(&mut self, first: u64, last: u64) -> Result<Bytes, LineError> {
        let from = self.find(first)?;
        let to = self.find(last)?;
        if self
            .items
            .iter()
            .take(from)
            .any(|item| item.state == State::Waiting)
        {
            return Err(LineError::Overtakes(first));
        }
        if from > to || self.items.range(from..=to).any(|item| item.seq.is_none()) {
            return Err(LineError::Gap);
        }
        // What was passed and still stands in line must not be left behind.
        if self
            .items
            .range(from..=to)
            .any(|item| item.state == State::Passed)
        {
            return Err(LineError::Gap);
        }
        let mut whole: Option<Chunk> = None;
        let mut copied: Option<BytesMut> = None;
        self.decided = self.decided.min(from);
        for item in self.items.drain(from..=to) {
            self.bytes -= item.chunk.len();
            if item.state == State::Dropped {
                continue;
            }
            match (&mut whole, &mut copied) {
                (_, Some(bytes)) => bytes.extend_from_slice(&item.chunk.bytes()),
                (None, None) => whole = Some(item.chunk),
                (Some(chunk), None) => {
                    if !chunk.join(&item.chunk) {
                        let mut bytes = BytesMut::from(chunk.bytes().as_ref());
                        bytes.extend_from_slice(&item.chunk.bytes());
                        copied = Some(bytes);
                    }
                }
            }
        }
        match (copied, whole) {
            (Some(bytes), _) => Ok(bytes.freeze()),
            // A command may be held for long, and its read buffer with it.
            (None, Some(chunk)) if chunk.len() < COPIED => {
                Ok(Bytes::copy_from_slice(&chunk.bytes()))
            }
            (None, Some(chunk)) => Ok(chunk.bytes()),
            (None, None) => Err(LineError::Unknown(first)),
        }
    }

    /// The next bytes that nothing undecided stands before.
    pub(super) fn release(&mut self) -> Option<Released> {
        let mut out: Option<Released> = None;
        while let Some(item) = self.items.front() {
            match item.state {
                State::Waiting => break,
                State::Dropped => {}
                State::Passed => match &mut out {
                    None => {
                        out = Some(Released {
                            rule: item.rule,
                            chunk: item.chunk.clone(),
                        })
                    }
                    Some(released) => {
                        if !released.chunk.join(&item.chunk) {
                            break;
                        }
                    }
                },
            }
            self.bytes -= item.chunk.len();
            self.items.pop_front();
            self.decided = self.decided.saturating_sub(1);
        }
        out
    }

    /// Where an undecided frame stands. A client may send a hundred thousand at once, so
    /// what is decided at the front is not looked at again for each.
    fn find(&mut self, seq: u64) -> Result<usize, LineError> {
        let front = self.items.range(self.decided..);
        self.decided += front
            .take_while(|item| item.state != State::Waiting)
            .count();
        self.items
            .range(self.decided..)
            .position(|item| item.seq == Some(seq) && item.state == State::Waiting)
            .map(|at| self.decided + at)
            .ok_or(LineError::Unknown(seq))
    }
}
