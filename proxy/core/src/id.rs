//! Small types that keep one kind of name apart from another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Letters of ids: no vowels and no look-alikes, so that ids spell nothing and
/// survive being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789BCDFGHJKLMNPQRSTVWXYZE";

/// `prefix` and as many letters as there is room for.
fn letters<const N: usize>(prefix: &str, mut bits: u128) -> [u8; N] {
    let mut out = [b'0'; N];
    let (head, rest) = out.split_at_mut(prefix.len());
    head.copy_from_slice(prefix.as_bytes());
    for slot in rest.iter_mut().rev() {
        *slot = ALPHABET[(bits & 31) as usize];
        bits >>= 5;
    }
    out
}

/// The same in either case.
fn retyped<const N: usize>(prefix: &'static str, text: &str) -> Result<[u8; N], BadId> {
    let mut out: [u8; N] = text.as_bytes().try_into().map_err(|_| BadId(prefix))?;
    let (head, rest) = out.split_at_mut(prefix.len());
    head.make_ascii_lowercase();
    rest.make_ascii_uppercase();
    let known = head == prefix.as_bytes() && rest.iter().all(|byte| ALPHABET.contains(byte));
    if known { Ok(out) } else { Err(BadId(prefix)) }
}

/// Ids lie in place: each session's is in dozens of spots, and each record has one.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $letters:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $prefix.len() + $letters]);

        impl $name {
            /// Makes an id from random bits that the caller drew.
            pub fn from_random(bits: u128) -> Self {
                Self(letters($prefix, bits))
            }

            pub fn as_str(&self) -> &str {
                // All of it is ASCII.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            /// Accepts the id in either case.
            fn from_str(text: &str) -> Result<Self, BadId> {
                retyped($prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The text is not an id of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id that begins with `{0}`")]
pub struct BadId(&'static str);

text_id! {
    /// One connection of one principal to one target. Never used again.
    SessionId, "s-", 20
}

text_id! {
    /// One approval, short enough to read out.
    ApprovalId, "hp-", 12
}

/// A command within its session, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256 value; in text, 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out)?;
        Ok(Self(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 64];
        hex::encode_to_slice(self.0, &mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes fields so that no two different lists of fields give the same input:
/// each field is preceded by its length.
#[derive(Debug, Clone)]
pub struct FieldHasher(Sha256);

impl FieldHasher {
    /// `domain` names what is hashed, so that values of one kind never equal another's.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Null is not the same as empty.
    pub fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            None => self.field(&[0]),
            Some(bytes) => self.field(&[1]).field(bytes),
        }
    }

    pub fn count(&mut self, count: usize) -> &mut Self {
        self.field(&(count as u64).to_be_bytes())
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_being_retyped_in_lower_case() {
        let id = ApprovalId::from_random(0x1234_5678_9abc_def0);
        assert_eq!(id.as_str().to_lowercase().parse(), Ok(id));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in [
            "",
            "hp-",
            "hp-short",
            "s-00000000000000000000x",
            "é",
            "hp-AAAAAAAAAAAA",
        ] {
            assert!(text.parse::<ApprovalId>().is_err(), "{text}");
        }
    }

    #[test]
    fn moving_a_byte_between_fields_changes_the_hash() {
        let mut one = FieldHasher::new("t");
        one.field(b"ab").field(b"c");
        let mut two = FieldHasher::new("t");
        two.field(b"a").field(b"bc");
        assert_ne!(one.finish(), two.finish());
    }
}
