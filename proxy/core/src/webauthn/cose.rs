//! Public keys as authenticators give them: COSE keys (RFC 9052), in CBOR as far as those need it.
//!
//! Only what CTAP2 calls canonical is read: definite lengths, in their shortest form. Whatever
//! else a key could say makes it one that is not supported.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{PublicKey, WebauthnError};

/// More than any key of ours has.
const MAX_MEMBERS: u64 = 16;

/// Labels and values of RFC 9053 and RFC 8812.
const KTY: i64 = 1;
const ALG: i64 = 3;
const CURVE: i64 = -1;
const X: i64 = -2;
const Y: i64 = -3;
/// Of an RSA key, the same labels.
const N: i64 = -1;
const E: i64 = -2;

const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

/// Reads one key. Gives what stands after it.
pub(super) fn key(data: &[u8]) -> Result<(PublicKey, &[u8]), WebauthnError> {
    let mut rest = data;
    let (kind, members) = head(&mut rest)?;
    if kind != 5 || members > MAX_MEMBERS {
        return Err(malformed());
    }
    let mut found: Vec<(i64, Item<'_>)> = Vec::new();
    for _ in 0..members {
        let Item::Number(label) = item(&mut rest)? else {
            return Err(malformed());
        };
        let value = item(&mut rest)?;
        if found.iter().any(|(have, _)| *have == label) {
            return Err(malformed());
        }
        found.push((label, value));
    }
    let get = |label: i64| found.iter().find(|(have, _)| *have == label);
    let number = |label: i64| match get(label) {
        Some((_, Item::Number(number))) => Some(*number),
        _ => None,
    };
    let bytes = |label: i64| match get(label) {
        Some((_, Item::Bytes(bytes))) => Ok(*bytes),
        _ => Err(malformed()),
    };
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let key = match (number(KTY), number(ALG), number(CURVE)) {
        (Some(2), Some(ES256), Some(1)) => {
            let (x, y) = (bytes(X)?, bytes(Y)?);
            if x.len() != 32 || y.len() != 32 {
                return Err(malformed());
            }
            PublicKey::Es256(text(&[&[4], x, y].concat()))
        }
        (Some(1), Some(EDDSA), Some(6)) => {
            let x = bytes(X)?;
            if x.len() != 32 {
                return Err(malformed());
            }
            PublicKey::EdDsa(text(x))
        }
        (Some(3), Some(RS256), _) => PublicKey::Rs256 {
            n: text(bytes(N)?),
            e: text(bytes(E)?),
        },
        _ => return Err(WebauthnError::Algorithm),
    };
    Ok((key, rest))
}

fn item<'a>(data: &mut &'a [u8]) -> Result<Item<'a>, WebauthnError> {
    let (kind, value) = head(data)?;
    let number = || i64::try_from(value).map_err(|_| malformed());
    match kind {
        0 => Ok(Item::Number(number()?)),
        1 => Ok(Item::Number(-1 - number()?)),
        2 => {
            let length = usize::try_from(value).map_err(|_| malformed())?;
            let (bytes, rest) = data.split_at_checked(length).ok_or_else(malformed)?;
            *data = rest;
            Ok(Item::Bytes(bytes))
        }
        _ => Err(malformed()),
    }
}

/// Major type and argument, in the shortest form that has room for it.
fn head(data: &mut &[u8]) -> Result<(u8, u64), WebauthnError> {
    let (first, rest) = data.split_first().ok_or_else(malformed)?;
    *data = rest;
    let (kind, small) = (first >> 5, first & 0x1f);
    let (length, least) = match small {
        0..=23 => return Ok((kind, u64::from(small))),
        24 => (1, 24),
        25 => (2, 1 << 8),
        26 => (4, 1 << 16),
        27 => (8, 1 << 32),
        _ => return Err(malformed()),
    };
    let (bytes, rest) = data.split_at_checked(length).ok_or_else(malformed)?;
    *data = rest;
    let value = bytes
        .iter()
        .fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    if value < least {
        return Err(malformed());
    }
    Ok((kind, value))
}

fn malformed() -> WebauthnError {
    WebauthnError::Malformed("its key is not a COSE key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hex: &str) -> Result<PublicKey, WebauthnError> {
        key(&hex::decode(hex).unwrap()).map(|(key, _)| key)
    }

    #[test]
    fn keys_of_three_kinds_are_read_and_what_follows_is_left() {
        let (x, y) = ("11".repeat(32), "22".repeat(32));
        let point = hex::decode(format!("04{x}{y}")).unwrap();
        let es256 = format!("a5010203262001215820{x}225820{y}");
        assert_eq!(
            read(&es256),
            Ok(PublicKey::Es256(URL_SAFE_NO_PAD.encode(point)))
        );
        let bytes = hex::decode(format!("{es256}a0")).unwrap();
        assert_eq!(key(&bytes).unwrap().1, [0xa0]);
        let eddsa = format!("a401010327200621{}{x}", "5820");
        assert!(matches!(read(&eddsa), Ok(PublicKey::EdDsa(_))));
        let rs256 = format!("a401030339010020{}{}2143010001", "590100", "11".repeat(256));
        assert!(matches!(read(&rs256), Ok(PublicKey::Rs256 { .. })));
    }

    #[test]
    fn what_is_no_key_of_these_is_refused() {
        let (x, y) = ("11".repeat(32), "22".repeat(32));
        for bad in [
            String::new(),
            "a0".to_owned(),
            // Cut off anywhere, of endless length, or with a member twice.
            format!("a5010203262001215820{x}2258"),
            format!("bf010203262001215820{x}225820{y}ff"),
            format!("a60102010203262001215820{x}225820{y}"),
            // A number longer than it has to be.
            format!("a518010203262001215820{x}225820{y}"),
            // ES256 over another curve, with a short coordinate, without one.
            format!("a5010203262002215820{x}225820{y}"),
            format!("a501020326200121411122{}{y}", "5820"),
            format!("a4010203262001215820{x}"),
            // ES384.
            format!("a501020338222001215820{x}225820{y}"),
            // A key of text.
            "a1616101".to_owned(),
            // More members than there are bytes.
            "bbffffffffffffffff".to_owned(),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
