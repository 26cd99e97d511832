//! The messages of PostgreSQL's protocol 3.0 as a client sends them: where
//! frames begin, and what their bodies hold.
//!
//! The host cuts frames; this file reads the body of one. Nothing here allocates
//! by a length the wire announces.

use std::ops::Range;

use holdpoint_plugin::{Delivery, Filter, Layout, LengthPrefixed, Otherwise, Side, Subscription};

/// The server keeps names in tables whose keys are cut to this many bytes
/// (`NAMEDATALEN - 1`), so two longer names that agree this far are one name.
/// Telling them apart here would let a client swap a statement under our eyes.
const NAME_BYTES: usize = 63;

/// A password is a token; bigger than any that an issuer gives out.
const PASSWORD_FRAME: u32 = 64 * 1024;

/// A body that does not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Before login the client's packets have no kind byte.
pub(crate) fn startup_layout() -> Layout {
    Layout::LengthPrefixed(LengthPrefixed {
        header: 4,
        kind_offset: None,
        length_offset: 0,
        length_width: 4,
        little_endian: false,
        adjust: 0,
    })
}

/// A kind byte, then a length that counts itself and the body.
pub(crate) fn typed_layout() -> Layout {
    Layout::LengthPrefixed(LengthPrefixed {
        header: 5,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 4,
        little_endian: false,
        adjust: 1,
    })
}

fn filter(kinds: &[u8], delivery: Delivery, judged: bool) -> Filter {
    Filter {
        kinds: kinds.to_vec(),
        delivery,
        judged,
        max_frame: 0,
    }
}

/// Everything is shown: login, where every message counts.
pub(crate) fn show_all(origin: Side) -> Subscription {
    Subscription {
        origin,
        filters: Vec::new(),
        otherwise: Otherwise::Whole,
    }
}

/// A client that was asked for its password.
pub(crate) fn client_password() -> Subscription {
    let mut password = filter(b"pX", Delivery::Whole, false);
    password.max_frame = PASSWORD_FRAME;
    Subscription {
        origin: Side::Client,
        filters: vec![password],
        otherwise: Otherwise::Reject,
    }
}

/// A client after login. Whatever runs something leaves only inside a judged
/// command; a kind that is not named here ends the session.
pub(crate) fn client_commands(copying: bool) -> Subscription {
    let data = if copying {
        Delivery::Pass
    } else {
        Delivery::Whole
    };
    Subscription {
        origin: Side::Client,
        filters: vec![
            filter(b"QEF", Delivery::Whole, true),
            filter(b"PBDCHSXcfp", Delivery::Whole, false),
            filter(b"d", data, false),
        ],
        otherwise: Otherwise::Reject,
    }
}

/// A target after login: only what moves our state. Rows and their descriptions
/// go by natively. `R`, `K`, `v` and `W` have no business here and are taken to
/// end the session, lest a hostile target ask the client for its password.
///
/// With `every_reply` each message of the extended protocol has its answer
/// shown, which places a denial exactly after a Flush; see [`crate::session`].
pub(crate) fn upstream_replies(every_reply: bool) -> Subscription {
    let kinds: &[u8] = if every_reply {
        b"ZE1CIsGSRKvW23Tn"
    } else {
        b"ZE1CIsGSRKvW"
    };
    Subscription {
        origin: Side::Upstream,
        filters: vec![filter(kinds, Delivery::Whole, false)],
        otherwise: Otherwise::Pass,
    }
}

/// Reads a body from front to back.
pub(crate) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self
            .at
            .checked_add(count)
            .ok_or(Malformed("length overflows"))?;
        let bytes = self
            .body
            .get(self.at..end)
            .ok_or(Malformed("message ends early"))?;
        self.at = end;
        Ok(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.bytes(1).map(|b| b[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes(4)
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Bytes up to a NUL, which is consumed.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|b| *b == 0)
            .ok_or(Malformed("string without an end"))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.body.get(self.at..).unwrap_or_default();
        self.at = self.body.len();
        rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.body.len()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed("bytes after the end of the message"))
        }
    }
}

/// A statement's or portal's name as the server keys it.
fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let name = reader.string()?;
    Ok(&name[..name.len().min(NAME_BYTES)])
}

/// Statements and portals have separate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Statement,
    Portal,
}

/// Parse: give a statement a name.
#[derive(Debug)]
pub(crate) struct Parse<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) text: &'a [u8],
    /// Type numbers; 0 where the client leaves it to the server.
    pub(crate) types: Vec<u32>,
}

impl<'a> Parse<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = name(&mut reader)?;
        let text = reader.string()?;
        let count = reader.u16()?;
        let mut types = Vec::new();
        for _ in 0..count {
            types.push(reader.u32()?);
        }
        reader.end()?;
        Ok(Self { name, text, types })
    }
}

/// Bind: a statement and its values become a portal.
#[derive(Debug)]
pub(crate) struct Bind<'a> {
    pub(crate) portal: &'a [u8],
    pub(crate) statement: &'a [u8],
    formats: Vec<u16>,
    /// Where each value lies in the body; `None` is null.
    pub(crate) values: Vec<Option<Range<usize>>>,
    /// The formats of the result's columns, as on the wire.
    pub(crate) results: &'a [u8],
}

impl<'a> Bind<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = name(&mut reader)?;
        let statement = name(&mut reader)?;
        let count = reader.u16()?;
        let mut formats = Vec::new();
        for _ in 0..count {
            let format = reader.u16()?;
            if format > 1 {
                return Err(Malformed("a parameter's format is neither text nor binary"));
            }
            formats.push(format);
        }
        let count = reader.u16()?;
        if formats.len() > 1 && formats.len() != usize::from(count) {
            return Err(Malformed(
                "as many parameter formats as parameters are needed",
            ));
        }
        let mut values = Vec::new();
        for _ in 0..count {
            let length = reader.u32()?;
            if length == u32::MAX {
                values.push(None);
                continue;
            }
            let length = i32::try_from(length).map_err(|_| Malformed("a negative length"))?;
            let from = reader.at;
            reader.bytes(length as usize)?;
            values.push(Some(from..reader.at));
        }
        let from = reader.at;
        let count = reader.u16()?;
        reader.bytes(usize::from(count) * 2)?;
        reader.end()?;
        Ok(Self {
            portal,
            statement,
            formats,
            values,
            results: &body[from..],
        })
    }

    /// One format stands for all values, none for text.
    pub(crate) fn binary(&self, index: usize) -> bool {
        let format = match self.formats.as_slice() {
            [] => 0,
            [only] => *only,
            many => many.get(index).copied().unwrap_or(0),
        };
        format == 1
    }
}

/// Execute: run a portal, for at most `rows` rows (0: all).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Execute<'a> {
    pub(crate) portal: &'a [u8],
    pub(crate) rows: u32,
}

impl<'a> Execute<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = name(&mut reader)?;
        let rows = reader.u32()?;
        reader.end()?;
        Ok(Self { portal, rows })
    }
}

/// What Describe and Close name.
pub(crate) fn named(body: &[u8]) -> Result<(Space, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let space = match reader.byte()? {
        b'S' => Space::Statement,
        b'P' => Space::Portal,
        _ => return Err(Malformed("names neither a statement nor a portal")),
    };
    let name = name(&mut reader)?;
    reader.end()?;
    Ok((space, name))
}

/// The text of a simple Query; the buffer of the message becomes the text.
pub(crate) fn query(mut body: Vec<u8>) -> Result<Vec<u8>, Malformed> {
    match body.pop() {
        Some(0) if !body.contains(&0) => Ok(body),
        _ => Err(Malformed(
            "the query is not one string that ends with a NUL",
        )),
    }
}

/// Any bytes must be read or refused, never panic.
pub fn fuzz_client(data: &[u8]) {
    let _ = Parse::read(data);
    let _ = Bind::read(data).map(|bind| {
        for (index, value) in bind.values.iter().enumerate() {
            let _ = (bind.binary(index), value.clone().map(|range| &data[range]));
        }
    });
    let _ = Execute::read(data);
    let _ = named(data);
    let _ = query(data.to_vec());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bind_gives_formats_and_values() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01";
        let bind = Bind::read(body).unwrap();
        assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        assert!(
            bind.binary(0) && bind.binary(1),
            "one format stands for all"
        );
        assert_eq!(
            bind.values[0].clone().map(|range| &body[range]),
            Some(&b"x"[..])
        );
        assert_eq!(bind.values[1], None);
        assert_eq!(bind.results, b"\0\x01\0\x01");
    }

    #[test]
    fn names_are_cut_where_the_server_cuts_them() {
        let mut body = vec![b'S'];
        body.extend_from_slice(&[b'a'; 63]);
        body.extend_from_slice(b"one\0");
        assert_eq!(named(&body).unwrap(), (Space::Statement, &[b'a'; 63][..]));
    }

    #[test]
    fn bodies_that_lie_about_themselves_are_refused() {
        for (body, why) in [
            (&b"p\0"[..], "message ends early"),
            (b"p", "string without an end"),
            (b"p\0\0\0\0\0x", "bytes after the end of the message"),
        ] {
            assert_eq!(Execute::read(body), Err(Malformed(why)), "{body:?}");
        }
        assert!(
            Bind::read(b"\0\0\0\0\0\x01\x80\0\0\0\0\0").is_err(),
            "a length of -2 GiB"
        );
        assert!(
            Bind::read(b"\0\0\0\0\xff\xff").is_err(),
            "65535 values announced, none there"
        );
        assert!(
            Parse::read(b"\0\0\xff\xff").is_err(),
            "65535 types announced, none there"
        );
        assert!(
            query(b"SELECT 1\0; DROP TABLE t\0".to_vec()).is_err(),
            "a NUL within"
        );
        assert!(query(b"SELECT 1".to_vec()).is_err(), "no NUL at the end");
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            fuzz_client(&data);
        }
    }
}
