//! One record as bytes.
//!
//! ```text
//! length   u32   of everything after it, checksum included; 0 ends a segment
//! version  u8    1
//! flags    u8    bit 0: a session id follows `seq`
//! seq      u64   counted from 0 over the whole journal
//! session  22    ASCII, only with flag bit 0
//! wall_ns  u64
//! mono_ns  u64
//! prev     32    leaf hash of the previous record of the same session (or of the node)
//! meta_len u32
//! meta           JSON of an `Entry`
//! blob           bytes of the wire, to the end
//! crc      u32   CRC-32C of everything before it
//! ```
//!
//! Integers are little-endian. Nothing here trusts a length before it was
//! bounded; any input gives a value or an error. The checksum finds accidents;
//! the hashes ([`super::tree`]) find people.

use sha2::{Digest as _, Sha256};

use super::Entry;
use crate::Now;
use crate::id::{Digest, SessionId};

/// Longest record. A command is bounded far below it by `limits.max_command`.
pub const MAX_RECORD: usize = 256 << 20;

const VERSION: u8 = 1;
const WITH_SESSION: u8 = 1;
const SESSION_LEN: usize = 22;
/// Without session, meta and blob: version, flags, seq, clocks, prev, meta_len, crc.
const FIXED: usize = 1 + 1 + 8 + 16 + 32 + 4 + 4;

/// A record's parts, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    pub seq: u64,
    pub session: Option<SessionId>,
    pub at: Now,
    pub prev: Digest,
    /// JSON of an [`Entry`].
    pub meta: &'a [u8],
    pub blob: &'a [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the record is cut off: {have} of {need} bytes are there")]
    Short { have: usize, need: usize },
    #[error("a record cannot be {0} bytes long")]
    Length(u64),
    #[error("checksum mismatch: the record's bytes are not those that were written")]
    Checksum,
    #[error("record version {0} is unknown; a newer holdpoint wrote it")]
    Version(u8),
    #[error("record flags {0:#04x} are unknown")]
    Flags(u8),
    #[error("the session id is not well-formed")]
    Session,
    #[error("the length of the record's JSON goes past its end")]
    Meta,
}

impl FrameError {
    /// As a write that was not finished leaves it. Where the checksum is good, no crash explains it.
    pub fn is_torn(&self) -> bool {
        matches!(self, Self::Short { .. } | Self::Length(_) | Self::Checksum)
    }
}

impl Frame<'_> {
    /// Appends the record to `out` and returns its leaf hash. On an error `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<Digest, FrameError> {
        let start = out.len();
        let size = self.encoded_len() - 4;
        let length = u32::try_from(size)
            .ok()
            .filter(|_| size <= MAX_RECORD)
            .ok_or(FrameError::Length(size as u64))?;
        let meta_len = u32::try_from(self.meta.len()).map_err(|_| FrameError::Meta)?;
        out.reserve(size + 4);
        out.extend_from_slice(&length.to_le_bytes());
        out.push(VERSION);
        out.push(u8::from(self.session.is_some()) * WITH_SESSION);
        out.extend_from_slice(&self.seq.to_le_bytes());
        if let Some(session) = &self.session {
            if session.as_str().len() != SESSION_LEN {
                out.truncate(start);
                return Err(FrameError::Session);
            }
            out.extend_from_slice(session.as_str().as_bytes());
        }
        out.extend_from_slice(&self.at.wall_ns.to_le_bytes());
        out.extend_from_slice(&self.at.mono_ns.to_le_bytes());
        out.extend_from_slice(&self.prev.0);
        out.extend_from_slice(&meta_len.to_le_bytes());
        out.extend_from_slice(self.meta);
        out.extend_from_slice(self.blob);
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(leaf_hash(&out[start..]))
    }

    /// Bytes that [`Frame::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let session = self.session.as_ref().map_or(0, |_| SESSION_LEN);
        4 + FIXED + session + self.meta.len() + self.blob.len()
    }

    pub fn entry(&self) -> Result<Entry, serde_json::Error> {
        serde_json::from_slice(self.meta)
    }
}

/// Length of the record that starts here, its length field included.
///
/// `Ok(None)`: no record starts here, the segment ends. `Short` where even the
/// length is cut off.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let short = FrameError::Short {
        have: bytes.len(),
        need: 4,
    };
    let length: [u8; 4] = *bytes.first_chunk().ok_or(short)?;
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 {
        return Ok(None);
    }
    if !(FIXED..=MAX_RECORD).contains(&length) {
        return Err(FrameError::Length(length as u64));
    }
    Ok(Some(length + 4))
}

/// Reads one record that is exactly `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let need = record_len(bytes)?.ok_or(FrameError::Length(0))?;
    if bytes.len() < need {
        return Err(FrameError::Short {
            have: bytes.len(),
            need,
        });
    }
    if bytes.len() > need {
        return Err(FrameError::Length(bytes.len() as u64 - 4));
    }
    let (body, crc) = bytes
        .split_last_chunk::<4>()
        .ok_or(FrameError::Length(need as u64))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(FrameError::Checksum);
    }
    let mut rest = &body[4..];
    let [version] = take(&mut rest)?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let [flags] = take(&mut rest)?;
    if flags & !WITH_SESSION != 0 {
        return Err(FrameError::Flags(flags));
    }
    let seq = u64::from_le_bytes(take(&mut rest)?);
    let session = if flags & WITH_SESSION != 0 {
        let text: [u8; SESSION_LEN] = take(&mut rest)?;
        let text = std::str::from_utf8(&text).map_err(|_| FrameError::Session)?;
        let id: SessionId = text.parse().map_err(|_| FrameError::Session)?;
        // One spelling only: parsing forgives lower case, a record does not.
        if id.as_str() != text {
            return Err(FrameError::Session);
        }
        Some(id)
    } else {
        None
    };
    let at = Now {
        wall_ns: u64::from_le_bytes(take(&mut rest)?),
        mono_ns: u64::from_le_bytes(take(&mut rest)?),
    };
    let prev = Digest(take(&mut rest)?);
    let meta_len = u32::from_le_bytes(take(&mut rest)?) as usize;
    let (meta, blob) = rest.split_at_checked(meta_len).ok_or(FrameError::Meta)?;
    Ok(Frame {
        seq,
        session,
        at,
        prev,
        meta,
        blob,
    })
}

/// Whether a whole record with this number, or one that may follow it, begins anywhere in `bytes`.
pub fn is_followed(bytes: &[u8], seq: u64) -> bool {
    // No more records than that fit behind it.
    let seqs = seq..=seq.saturating_add((bytes.len() / FIXED) as u64 + 1);
    let at_seq = 4 + 2;
    (0..bytes.len()).any(|at| {
        let rest = &bytes[at..];
        // The number first: of random bytes hardly any pass, so few are summed up.
        let here = rest
            .get(at_seq..)
            .and_then(|rest| rest.first_chunk::<8>())
            .is_some_and(|bytes| seqs.contains(&u64::from_le_bytes(*bytes)));
        here && matches!(record_len(rest), Ok(Some(len)) if len <= rest.len() && decode(&rest[..len]).is_ok())
    })
}

/// RFC 6962 leaf hash of a record's bytes; also what the session's next record carries as `prev`.
pub fn leaf_hash(record: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(record);
    Digest(hasher.finalize().into())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(FrameError::Short {
        have: rest.len(),
        need: N,
    })?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(session: bool) -> Vec<u8> {
        let frame = Frame {
            seq: 7,
            session: session.then(|| SessionId::from_random(99)),
            at: Now {
                wall_ns: 1,
                mono_ns: 2,
            },
            prev: Digest([3; 32]),
            meta: b"\"passed\"",
            blob: b"\0bytes",
        };
        let mut out = Vec::new();
        frame.encode(&mut out).unwrap();
        assert_eq!(out.len(), frame.encoded_len());
        assert_eq!(decode(&out), Ok(frame));
        out
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        sample(true);
        sample(false);
    }

    #[test]
    fn any_flipped_bit_is_an_error() {
        for session in [true, false] {
            let good = sample(session);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_cut_anywhere_is_short() {
        let good = sample(true);
        for cut in 0..good.len() {
            assert!(matches!(
                decode(&good[..cut]),
                Err(FrameError::Short { .. })
            ));
        }
    }

    #[test]
    fn a_whole_record_is_found_among_other_bytes() {
        for session in [true, false] {
            let good = sample(session);
            let among = [&[9; 13], good.as_slice(), &[0; 40]].concat();
            assert!(is_followed(&among, 7));
            assert!(is_followed(&among, 6));
            // An older one is what was there before, or part of another record.
            assert!(!is_followed(&among, 8));
            let mut bad = among.clone();
            bad[13 + 30] ^= 1;
            assert!(!is_followed(&bad, 7));
            assert!(!is_followed(&among[..13 + good.len() - 1], 7));
        }
        assert!(!is_followed(&[], 0));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
        }

        /// Past the checksum, where random bytes never get.
        #[test]
        fn any_bytes_under_a_good_checksum_give_a_value_or_an_error(
            body in proptest::collection::vec(any::<u8>(), 0..256),
            flags in 0u8..3,
        ) {
            let mut bytes = ((body.len() + 6) as u32).to_le_bytes().to_vec();
            bytes.extend([VERSION, flags]);
            bytes.extend(&body);
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
            if let Ok(frame) = decode(&bytes) {
                let mut again = Vec::new();
                frame.encode(&mut again).unwrap();
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
