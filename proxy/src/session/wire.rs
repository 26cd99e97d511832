//! One side's bytes, from the socket to whole frames.
//!
//! The buffer holds what has arrived and is not cut yet. It grows with what
//! arrives, never with what a length announces, and shrinks while the connection is
//! idle. A frame that goes on natively need not be whole: a big one passes in parts.

use std::future::Future as _;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use holdpoint_core::framing::{
    Cut, Delivery, Filter, Frame, FramingError, Layout, Rule, Side, Subscription,
};
use holdpoint_core::mask::{MaskError, RowRule, Rows};
use tokio::io::AsyncReadExt as _;

use crate::transport::Duplex;

/// What a connection that was idle reads at once.
const SMALL: usize = 8 * 1024;
/// What a busy one reads at once; see the measurements in `benches/`.
const LARGE: usize = 256 * 1024;
/// Frames of more bytes go on natively before all of them is there.
const STREAMED: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("frame of kind {} has no place here", kind.map_or(0, u32::from))]
    Rejected { kind: Option<u8> },
    #[error("a row that cannot be masked: {0}")]
    Unmasked(#[from] MaskError),
}

/// A stretch of a [`Burst`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) shown: Option<Shown>,
    pub(super) rule: Rule,
}

/// A whole frame that the plugin is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) kind: Option<u8>,
    /// Bytes before the body.
    pub(super) header: usize,
}

/// What was cut off the front of the buffer, in one piece of memory.
#[derive(Debug)]
pub(super) struct Burst {
    pub(super) bytes: Bytes,
    /// In order; native frames that follow each other are one piece.
    pub(super) pieces: Vec<Piece>,
}

pub(super) struct Wire {
    layout: Layout,
    rules: Arc<Subscription>,
    /// What becomes of rows. Absent where no column is protected.
    rows: Option<RowRule>,
    /// Largest frame that is kept whole, and that a client may send at all.
    limit: u32,
    side: Side,
    buffer: BytesMut,
    /// Bytes to come of a native frame that has begun to pass.
    streaming: usize,
    /// The rule by which it passes, whatever rules came since.
    streamed: Rule,
    /// Bytes of the buffer in which no delimiter begins.
    scanned: usize,
    read_size: usize,
}

impl Wire {
    pub(super) fn new(side: Side, layout: Layout, limit: u32) -> Self {
        // Until the plugin says otherwise it sees everything.
        let rules = shared(Subscription::new(&[], Delivery::Whole, limit));
        Self {
            layout,
            streamed: rules.rule(None),
            rules,
            rows: None,
            limit,
            side,
            buffer: BytesMut::new(),
            streaming: 0,
            scanned: 0,
            read_size: SMALL,
        }
    }

    /// Rules for frames that are not cut yet.
    pub(super) fn subscribe(&mut self, filters: &[Filter], otherwise: Delivery) {
        self.rules = shared(Subscription::new(filters, otherwise, self.limit));
    }

    /// For rows that are not cut yet. Which frames are rows never changes: false
    /// where it would.
    #[must_use]
    pub(super) fn rows(&mut self, rule: RowRule) -> bool {
        let same = self.rows.as_ref().is_none_or(|rows| rows.kind == rule.kind);
        if same {
            self.rows = Some(rule);
        }
        same
    }

    /// Somebody says what becomes of rows, so nothing may be cut ahead of that.
    pub(super) fn guards_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// For bytes that are not cut yet.
    pub(super) fn reframe(&mut self, layout: Layout) -> Result<(), FramingError> {
        layout.check()?;
        self.layout = layout;
        self.scanned = 0;
        Ok(())
    }

    /// Bytes that wait to be cut.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// What has arrived and is not cut yet.
    pub(super) fn peek(&self) -> &[u8] {
        &self.buffer
    }

    /// Gives up what has arrived, for whoever speaks TLS with it.
    pub(super) fn take_all(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// Whether the other side has part of a frame, so that nothing may be put in now.
    pub(super) fn mid_frame(&self) -> bool {
        self.streaming > 0
    }

    /// Reads what there is, less than twice [`LARGE`]. Gives 0 at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Duplex,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        loop {
            if self.buffer.capacity() - self.buffer.len() < self.read_size / 4 {
                self.buffer.reserve(self.read_size);
            }
            let room = (self.buffer.capacity() - self.buffer.len()).min(self.read_size);
            match pin!(io.read_buf(&mut (&mut self.buffer).limit(room))).poll(cx) {
                Poll::Ready(Ok(count)) => {
                    total += count;
                    if count == room {
                        self.read_size = LARGE;
                    }
                    // TLS gives a record at a time; a burst of them is one burst.
                    if count < SMALL || total >= LARGE {
                        return Poll::Ready(Ok(total));
                    }
                }
                Poll::Ready(Err(error)) if total == 0 => return Poll::Ready(Err(error)),
                _ if total > 0 => return Poll::Ready(Ok(total)),
                _ => {
                    self.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Gives memory back while nothing arrives: thousands of sessions only wait, and
    /// the allocator hands the same memory out again in no time.
    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        if self.buffer.len() < SMALL {
            self.read_size = SMALL;
        }
    }

    /// Cuts whole frames off the front, at most `most` that are shown. `None`
    /// where there is nothing to cut.
    pub(super) fn cut(&mut self, most: usize) -> Result<Option<Burst>, WireError> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = 0;
        let mut shown = 0;
        if self.streaming > 0 {
            let count = self.streaming.min(self.buffer.len());
            self.streaming -= count;
            native(&mut pieces, 0..count, self.streamed);
            at = count;
        }
        while self.streaming == 0 && shown < most {
            let Some(frame) = self.first(at)? else { break };
            let rule = self.rules.rule(frame.kind);
            let have = self.buffer.len() - at;
            match self
                .rows
                .as_ref()
                .filter(|rows| frame.kind == Some(rows.kind))
            {
                None => {}
                Some(rows) => match rows.rows {
                    Rows::Pass => {}
                    Rows::Refuse => return Err(MaskError::Unexpected.into()),
                    Rows::Edit(_) if at == 0 => return self.edit_rows(),
                    // What stands before it leaves first.
                    Rows::Edit(_) => break,
                },
            }
            match rule.delivery {
                Delivery::Reject => return Err(WireError::Rejected { kind: frame.kind }),
                Delivery::Whole | Delivery::Pass => self.check_size(&frame, rule)?,
            }
            if frame.size <= have {
                let range = at..at + frame.size;
                at = range.end;
                if rule.delivery == Delivery::Pass {
                    native(&mut pieces, range, rule);
                } else {
                    shown += 1;
                    let Frame { kind, header, .. } = frame;
                    pieces.push(Piece {
                        range,
                        shown: Some(Shown { kind, header }),
                        rule,
                    });
                }
            } else if rule.delivery == Delivery::Pass && frame.size > STREAMED {
                self.streaming = frame.size - have;
                self.streamed = rule;
                native(&mut pieces, at..at + have, rule);
                at += have;
            } else {
                break;
            }
        }
        self.scanned = self.scanned.saturating_sub(at);
        if at == 0 {
            return Ok(None);
        }
        let bytes = self.buffer.split_to(at).freeze();
        Ok(Some(Burst { bytes, pieces }))
    }

    /// Cuts the rows that stand in front, edited, into memory of their own. `None`
    /// while the first is not whole.
    fn edit_rows(&mut self) -> Result<Option<Burst>, WireError> {
        let (
            Some(RowRule {
                kind,
                rows: Rows::Edit(edit),
            }),
            Layout::LengthPrefixed(layout),
        ) = (&self.rows, &self.layout)
        else {
            return Err(MaskError::Layout.into());
        };
        // The rule of a row that was shown or refused in other sessions is not asked:
        // rows are nobody's business here.
        let rule = Rule {
            delivery: Delivery::Pass,
            ..self.rules.rule(Some(*kind))
        };
        let mut edited = BytesMut::new();
        let mut at = 0;
        while edited.len() < LARGE {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let Cut::Frame(frame) = self.layout.cut(rest, self.limit)? else {
                break;
            };
            if frame.kind != Some(*kind) {
                break;
            }
            if frame.size > self.limit as usize {
                let (kind, size) = (frame.kind, frame.size as u64);
                let limit = self.limit;
                return Err(FramingError::Large { kind, size, limit }.into());
            }
            let Some(row) = rest.get(..frame.size) else {
                break;
            };
            edit.apply(row, layout, &mut edited)?;
            at += frame.size;
        }
        if at == 0 {
            return Ok(None);
        }
        self.scanned = 0;
        // Not frozen: what was masked is not kept by whoever keeps the rest.
        let _ = self.buffer.split_to(at);
        let mut pieces = Vec::new();
        native(&mut pieces, 0..edited.len(), rule);
        let bytes = edited.freeze();
        Ok(Some(Burst { bytes, pieces }))
    }

    /// Takes one frame out without showing it to anybody, its memory still ours
    /// to wipe. `None` while it is not whole.
    pub(super) fn take_frame(&mut self) -> Result<Option<(Frame, BytesMut)>, WireError> {
        let Some(frame) = self.first(0)? else {
            return Ok(None);
        };
        self.check_size(&frame, self.rules.rule(frame.kind))?;
        if frame.size > self.buffer.len() {
            return Ok(None);
        }
        self.scanned = 0;
        Ok(Some((frame, self.buffer.split_to(frame.size))))
    }

    fn first(&mut self, at: usize) -> Result<Option<Frame>, WireError> {
        let rest = &self.buffer[at..];
        if let Layout::Delimited(end) = &self.layout {
            // So that bytes which trickle in are not searched over and over.
            let from = self
                .scanned
                .saturating_sub(at)
                .saturating_sub(end.len())
                .min(rest.len());
            let found = end.last().is_none_or(|last| rest[from..].contains(last));
            if !found && rest.len() < self.limit as usize {
                self.scanned = self.buffer.len();
                return Ok(None);
            }
        }
        Ok(match self.layout.cut(rest, self.limit)? {
            Cut::Unknown => None,
            Cut::Frame(frame) => Some(frame),
        })
    }

    /// What passes natively from the target is never kept, so it may have any size.
    fn check_size(&self, frame: &Frame, rule: Rule) -> Result<(), FramingError> {
        let unkept = self.side == Side::Upstream && rule.delivery == Delivery::Pass;
        if !unkept && frame.size > rule.max_frame as usize {
            let (kind, size) = (frame.kind, frame.size as u64);
            return Err(FramingError::Large {
                kind,
                size,
                limit: rule.max_frame,
            });
        }
        Ok(())
    }
}

/// Rules that are looked for among those of other sessions. A plugin has one or two for each
/// side; one that has more of them gets them all the same.
const SHARED: usize = 32;

/// The same rules in the same memory: all sessions of a plugin have them.
fn shared(rules: Subscription) -> Arc<Subscription> {
    static KNOWN: Mutex<Vec<Weak<Subscription>>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut same = None;
    known.retain(|one| {
        let one = one.upgrade();
        let there = one.is_some();
        same = same.take().or(one.filter(|one| **one == rules));
        there
    });
    same.unwrap_or_else(|| {
        let rules = Arc::new(rules);
        if known.len() < SHARED {
            known.push(Arc::downgrade(&rules));
        }
        rules
    })
}

fn native(pieces: &mut Vec<Piece>, range: Range<usize>, rule: Rule) {
    match pieces.last_mut() {
        Some(last) if last.shown.is_none() => last.range.end = range.end,
        _ if range.is_empty() => {}
        _ => pieces.push(Piece {
            range,
            shown: None,
            rule,
        }),
    }
}
