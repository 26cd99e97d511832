//! Cutting a byte stream into frames, as a plugin declared it.
//!
//! Framing is native so that the edges which decide what is held, recorded and
//! released never rest on a plugin's arithmetic, and so that frames nobody
//! asked to see cost nanoseconds. A length on the wire reserves no memory: only
//! bytes that have arrived are kept.

use std::fmt;

/// The downstream side is the client's (the agent's), the upstream side the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Upstream,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    LengthPrefixed(LengthPrefixed),
    /// Frames end with these bytes, which belong to the frame.
    Delimited(Vec<u8>),
    /// Whatever one read brings is one frame.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthPrefixed {
    /// Bytes before the body, 1 to 16.
    pub header: u8,
    pub kind_offset: Option<u8>,
    pub length_offset: u8,
    /// 1 to 4 bytes.
    pub length_width: u8,
    pub little_endian: bool,
    /// Added to the length field to give the size of the whole frame.
    pub adjust: i32,
}

/// What becomes of a frame of some kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Held and shown to the plugin.
    Whole,
    /// Goes on without the plugin.
    Pass,
    /// Ends the session.
    Reject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub delivery: Delivery,
    /// Leaves only inside a submitted command.
    pub judged: bool,
    /// Bytes, header included.
    pub max_frame: u32,
}

/// What to do with each kind of frame of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which of the rules is for which kind.
    by_kind: [u8; 256],
    /// The first is for all others, and for frames that have no kind.
    rules: Box<[Rule]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub kinds: Vec<u8>,
    pub delivery: Delivery,
    pub judged: bool,
    /// 0 for the host's limit.
    pub max_frame: u32,
}

impl Subscription {
    /// `limit` is the largest frame that the host accepts, in bytes; no filter
    /// can raise it.
    pub fn new(filters: &[Filter], otherwise: Delivery, limit: u32) -> Self {
        let rest = Rule {
            delivery: otherwise,
            judged: false,
            max_frame: limit,
        };
        let mut by_kind = [0; 256];
        let refused = Rule {
            delivery: Delivery::Reject,
            ..rest
        };
        let mut rules = vec![rest, refused];
        for filter in filters {
            let max_frame = if filter.max_frame == 0 {
                limit
            } else {
                filter.max_frame.min(limit)
            };
            let rule = Rule {
                delivery: filter.delivery,
                judged: filter.judged,
                max_frame,
            };
            let at = rules.iter().position(|one| *one == rule);
            let at = at.unwrap_or_else(|| {
                rules.push(rule);
                rules.len() - 1
            });
            // As many rules as there are kinds: none of these is let through.
            let at = u8::try_from(at).unwrap_or(1);
            for kind in &filter.kinds {
                by_kind[usize::from(*kind)] = at;
            }
        }
        Self {
            by_kind,
            rules: rules.into(),
        }
    }

    pub fn rule(&self, kind: Option<u8>) -> Rule {
        let at = kind.map_or(0, |kind| self.by_kind[usize::from(kind)]);
        self.rules[usize::from(at)]
    }
}

/// Where a frame begins and ends in the bytes that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub kind: Option<u8>,
    /// Bytes before the body.
    pub header: usize,
    /// Bytes of the whole frame.
    pub size: usize,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// More bytes are needed to tell even the size.
    Unknown,
    /// The size is known; the bytes may not all be there yet.
    Frame(Frame),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("frame announces {size} bytes, fewer than its own header")]
    Short { size: i64 },
    #[error("frame of kind {} announces {size} bytes; the limit is {limit}", show(*kind))]
    Large {
        kind: Option<u8>,
        size: u64,
        limit: u32,
    },
    #[error("no end of frame within {limit} bytes")]
    Endless { limit: u32 },
    #[error("the layout is impossible: {0}")]
    Layout(&'static str),
}

fn show(kind: Option<u8>) -> String {
    match kind {
        None => "none".to_owned(),
        Some(byte) => format!("`{}`", byte.escape_ascii()),
    }
}

impl Layout {
    /// Refuses a layout that could not be followed.
    pub fn check(&self) -> Result<(), FramingError> {
        match self {
            Self::Raw => Ok(()),
            Self::Delimited(end) if end.is_empty() => Err(FramingError::Layout("empty delimiter")),
            Self::Delimited(_) => Ok(()),
            Self::LengthPrefixed(l) => {
                if l.header == 0 || l.header > 16 {
                    Err(FramingError::Layout("header is not 1 to 16 bytes"))
                } else if l.length_width == 0 || l.length_width > 4 {
                    Err(FramingError::Layout("length is not 1 to 4 bytes wide"))
                } else if u16::from(l.length_offset) + u16::from(l.length_width)
                    > u16::from(l.header)
                {
                    Err(FramingError::Layout("length lies outside the header"))
                } else if l.kind_offset.is_some_and(|at| at >= l.header) {
                    Err(FramingError::Layout("kind lies outside the header"))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Cuts the first frame off `bytes`, which begin at a frame's first byte.
    ///
    /// `limit` bounds frames whose size the wire does not announce.
    pub fn cut(&self, bytes: &[u8], limit: u32) -> Result<Cut, FramingError> {
        match self {
            Self::LengthPrefixed(layout) => layout.cut(bytes),
            Self::Delimited(end) => {
                let found = bytes.windows(end.len()).position(|window| window == end);
                match found {
                    Some(at) if at + end.len() <= limit as usize => Ok(Cut::Frame(Frame {
                        kind: None,
                        header: 0,
                        size: at + end.len(),
                    })),
                    None if bytes.len() < limit as usize => Ok(Cut::Unknown),
                    _ => Err(FramingError::Endless { limit }),
                }
            }
            Self::Raw if bytes.is_empty() => Ok(Cut::Unknown),
            Self::Raw => Ok(Cut::Frame(Frame {
                kind: None,
                header: 0,
                size: bytes.len(),
            })),
        }
    }
}

impl LengthPrefixed {
    #[inline]
    fn cut(&self, bytes: &[u8]) -> Result<Cut, FramingError> {
        let header = usize::from(self.header);
        let Some(head) = bytes.get(..header) else {
            return Ok(Cut::Unknown);
        };
        let from = usize::from(self.length_offset);
        let field = &head[from..from + usize::from(self.length_width)];
        let length = if self.little_endian {
            field
                .iter()
                .rev()
                .fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte))
        } else {
            field
                .iter()
                .fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte))
        };
        let size = i64::from(length) + i64::from(self.adjust);
        if size < header as i64 {
            return Err(FramingError::Short { size });
        }
        let kind = self.kind_offset.map(|at| head[usize::from(at)]);
        Ok(Cut::Frame(Frame {
            kind,
            header,
            size: usize::try_from(size).unwrap_or(usize::MAX),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPED: Layout = Layout::LengthPrefixed(LengthPrefixed {
        header: 5,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 4,
        little_endian: false,
        adjust: 1,
    });

    #[test]
    fn a_frame_is_known_by_its_header_alone() {
        assert_eq!(TYPED.cut(b"Q\0\0\0", 100), Ok(Cut::Unknown));
        let frame = Frame {
            kind: Some(b'Q'),
            header: 5,
            size: 19,
        };
        assert_eq!(TYPED.cut(b"Q\0\0\0\x12", 100), Ok(Cut::Frame(frame)));
    }

    #[test]
    fn a_length_shorter_than_the_header_is_refused() {
        for length in [0u8, 1, 3] {
            assert!(matches!(
                TYPED.cut(&[b'Q', 0, 0, 0, length], 100),
                Err(FramingError::Short { .. })
            ));
        }
    }

    #[test]
    fn the_largest_length_does_not_wrap() {
        let frame = Frame {
            kind: Some(b'Q'),
            header: 5,
            size: 0x1_0000_0000,
        };
        assert_eq!(TYPED.cut(b"Q\xff\xff\xff\xff", 100), Ok(Cut::Frame(frame)));
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_the_limit() {
        let line = Layout::Delimited(b"\n".to_vec());
        assert_eq!(line.cut(b"abc", 4), Ok(Cut::Unknown));
        assert_eq!(
            line.cut(b"abcd", 4),
            Err(FramingError::Endless { limit: 4 })
        );
        assert_eq!(
            line.cut(b"abcd\n", 4),
            Err(FramingError::Endless { limit: 4 })
        );
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let Layout::LengthPrefixed(good) = TYPED else {
            unreachable!()
        };
        for bad in [
            LengthPrefixed { header: 0, ..good },
            LengthPrefixed {
                length_width: 5,
                ..good
            },
            LengthPrefixed {
                length_offset: 2,
                ..good
            },
            LengthPrefixed {
                kind_offset: Some(5),
                ..good
            },
        ] {
            assert!(Layout::LengthPrefixed(bad).check().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..32),
            header in 1u8..=16, offset in 0u8..16, width in 1u8..=4, little in any::<bool>(), adjust in any::<i32>(),
        ) {
            let layout = Layout::LengthPrefixed(LengthPrefixed {
                header, kind_offset: Some(0), length_offset: offset, length_width: width,
                little_endian: little, adjust,
            });
            if layout.check().is_ok()
                && let Ok(Cut::Frame(frame)) = layout.cut(&bytes, 64)
            {
                prop_assert!(frame.size >= frame.header);
            }
        }
    }
}
