//! Signed heads of the journal, in the form of C2SP `tlog-checkpoint` over `signed-note`.
//!
//! ```text
//! holdpoint/NODE
//! 4711
//! <base64 of the tree's root>
//! time 1767225600
//!
//! — holdpoint/NODE <base64 of key hash and Ed25519 signature>
//! ```
//!
//! The `time` line is an extension that the format allows: without it a
//! heartbeat (the same size again) would not tell *quiet* from *cut*.
//! Signatures by keys that we do not know, such as witnesses', are ignored.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// What a signed-note signature line begins with: em dash and space.
const MARK: &str = "\u{2014} ";
/// Signed-note's number for plain Ed25519.
const ED25519: u8 = 1;

/// The head of a journal at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `holdpoint/NODE`.
    pub origin: String,
    /// Number of records.
    pub size: u64,
    pub root: Digest,
    /// Unix seconds, where the signer wrote them.
    pub time: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("`{0}` cannot be a key's name: it must not be empty or hold spaces or `+`")]
    Name(String),
    #[error("not a verifier key; one reads `NAME+HASH+KEY` and lies in `journal.pub`")]
    Key,
    #[error("not a checkpoint: {0}")]
    Form(&'static str),
    #[error("the checkpoint is not signed by `{0}`")]
    Unsigned(String),
    #[error(
        "the checkpoint's signature by `{0}` is wrong: it was changed, or made with another key"
    )]
    Signature(String),
    #[error("the checkpoint is of journal `{found}`, not of `{expected}`")]
    Origin { found: String, expected: String },
}

/// The node's private key under its name.
pub struct NodeKey {
    key: SigningKey,
    public: Verifier,
}

/// A public key under its name: signed-note's *vkey*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

impl NodeKey {
    pub fn new(node: &str, seed: &[u8; 32]) -> Result<Self, CheckpointError> {
        let name = format!("holdpoint/{node}");
        let bad = |c: char| c.is_whitespace() || c == '+' || c.is_control();
        if node.is_empty() || name.contains(bad) {
            return Err(CheckpointError::Name(node.to_owned()));
        }
        let key = SigningKey::from_bytes(seed);
        let public = Verifier {
            name,
            key: key.verifying_key(),
        };
        Ok(Self { key, public })
    }

    pub fn verifier(&self) -> &Verifier {
        &self.public
    }

    /// The signed note.
    pub fn sign(&self, size: u64, root: Digest, time: u64) -> String {
        let name = &self.public.name;
        let text = format!("{name}\n{size}\n{}\ntime {time}\n", BASE64.encode(root.0));
        self.note(&text)
    }

    /// The node's word on something else than its journal, as a signed note. `kind` is no
    /// number, so that it is never taken for a checkpoint; `said` is one line.
    pub fn attest(&self, kind: &str, said: &str) -> String {
        let name = &self.public.name;
        self.note(&format!("{name}\n{kind}\n{said}\n"))
    }

    fn note(&self, text: &str) -> String {
        let name = &self.public.name;
        let mut signed = self.public.hash().to_vec();
        signed.extend(self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n{MARK}{name} {}\n", BASE64.encode(signed))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.public.name).finish()
    }
}

impl Verifier {
    /// The checkpoint's `origin`, too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name and hash, as in [`signers`]: what tells two keys apart.
    pub fn id(&self) -> String {
        format!("{}+{}", self.name, hex::encode(self.hash()))
    }

    fn hash(&self) -> [u8; 4] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([b'\n', ED25519]);
        hasher.update(self.key.as_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Takes a note whose signature is good and whose origin is this journal.
    pub fn open(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = self.open_note(note).and_then(parse)?;
        if checkpoint.origin != self.name {
            return Err(CheckpointError::Origin {
                found: checkpoint.origin,
                expected: self.name.clone(),
            });
        }
        Ok(checkpoint)
    }

    /// What [`NodeKey::attest`] said, where its signature is good and it is of that kind.
    pub fn attested<'a>(&self, kind: &str, note: &'a str) -> Result<&'a str, CheckpointError> {
        let text = self.open_note(note)?;
        let said = text
            .strip_prefix(&self.name)
            .and_then(|rest| rest.strip_prefix('\n'))
            .and_then(|rest| rest.strip_prefix(kind))
            .and_then(|rest| rest.strip_prefix('\n'))
            .and_then(|rest| rest.strip_suffix('\n'));
        said.filter(|said| !said.contains('\n'))
            .ok_or(CheckpointError::Form("it says something else"))
    }

    /// The note's text, once our signature under it is found to be good.
    fn open_note<'a>(&self, note: &'a str) -> Result<&'a str, CheckpointError> {
        let gap = note
            .rfind("\n\n")
            .ok_or(CheckpointError::Form("no empty line before the signatures"))?;
        let (text, signatures) = (&note[..=gap], &note[gap + 2..]);
        if !signatures.ends_with('\n') {
            return Err(CheckpointError::Form("the last line is cut off"));
        }
        let mut ours = false;
        for line in signatures.lines() {
            let (name, signature) = line
                .strip_prefix(MARK)
                .and_then(|line| line.split_once(' '))
                .ok_or(CheckpointError::Form("a signature line is malformed"))?;
            let signature = BASE64
                .decode(signature)
                .map_err(|_| CheckpointError::Form("a signature is not base64"))?;
            let Some((hash, signature)) = signature.split_first_chunk::<4>() else {
                return Err(CheckpointError::Form("a signature is too short"));
            };
            if name != self.name || *hash != self.hash() {
                continue;
            }
            Signature::from_slice(signature)
                .and_then(|signature| self.key.verify_strict(text.as_bytes(), &signature))
                .map_err(|_| CheckpointError::Signature(self.name.clone()))?;
            ours = true;
        }
        if !ours {
            return Err(CheckpointError::Unsigned(self.name.clone()));
        }
        Ok(text)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend(self.key.as_bytes());
        let hash = hex::encode(self.hash());
        write!(f, "{}+{hash}+{}", self.name, BASE64.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(CheckpointError::Key);
        };
        let key = BASE64.decode(key).map_err(|_| CheckpointError::Key)?;
        let Some((&ED25519, key)) = key.split_first() else {
            return Err(CheckpointError::Key);
        };
        let key: [u8; 32] = key.try_into().map_err(|_| CheckpointError::Key)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| CheckpointError::Key)?;
        let verifier = Self {
            name: name.to_owned(),
            key,
        };
        if name.is_empty() || key.is_weak() || hex::encode(verifier.hash()) != hash {
            return Err(CheckpointError::Key);
        }
        Ok(verifier)
    }
}

fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.lines();
    let origin = lines
        .next()
        .filter(|line| !line.is_empty())
        .ok_or(CheckpointError::Form("no origin"))?;
    let size = lines
        .next()
        .and_then(decimal)
        .ok_or(CheckpointError::Form("the size is not a number"))?;
    let root = lines
        .next()
        .and_then(|line| BASE64.decode(line).ok())
        .and_then(|root| root.try_into().ok())
        .ok_or(CheckpointError::Form("the root is not 32 bytes in base64"))?;
    let time = lines.find_map(|line| line.strip_prefix("time ").and_then(decimal));
    Ok(Checkpoint {
        origin: origin.to_owned(),
        size,
        root: Digest(root),
        time,
    })
}

/// Digits only, without leading zeros: a number has one spelling.
fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (digits && canonical).then(|| text.parse().ok()).flatten()
}

/// Who signed a note, each as `NAME+HASH`. No signature is checked.
pub fn signers(note: &str) -> Vec<String> {
    let signer = |line: &str| {
        let (name, signature) = line.strip_prefix(MARK)?.split_once(' ')?;
        let signature = BASE64.decode(signature).ok()?;
        let hash = signature.first_chunk::<4>()?;
        Some(format!("{name}+{}", hex::encode(hash)))
    };
    note.lines().filter_map(signer).collect()
}

/// Cuts a file of notes, each after the other with an empty line between, into notes.
///
/// The second value is what follows the last whole note: empty, or the note
/// that a crash cut off.
pub fn split_notes(text: &str) -> (Vec<&str>, &str) {
    let mut notes = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut in_signatures = false;
    for line in text.split_inclusive('\n') {
        let signature = line.starts_with(MARK);
        if in_signatures && !signature {
            notes.push(&text[start..at]);
            // The empty line between notes belongs to neither.
            start = if line == "\n" { at + 1 } else { at };
        }
        at += line.len();
        in_signatures = signature && line.ends_with('\n');
    }
    if in_signatures {
        notes.push(&text[start..at]);
        start = at;
    }
    (notes, &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> NodeKey {
        NodeKey::new("gw-1", &[7; 32]).unwrap()
    }

    #[test]
    fn a_checkpoint_is_read_back_with_the_public_key_alone() {
        let note = key().sign(4711, Digest([5; 32]), 1_767_225_600);
        let verifier: Verifier = key().verifier().to_string().parse().unwrap();
        let checkpoint = verifier.open(&note).unwrap();
        assert_eq!(checkpoint.origin, "holdpoint/gw-1");
        assert_eq!(checkpoint.size, 4711);
        assert_eq!(checkpoint.root, Digest([5; 32]));
        assert_eq!(checkpoint.time, Some(1_767_225_600));
    }

    /// The example in the specification of signed notes.
    #[test]
    fn a_note_that_others_signed_is_accepted() {
        let verifier: Verifier =
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
                .parse()
                .unwrap();
        let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        assert_eq!(
            verifier.open_note(note),
            Ok("This is an example message.\n")
        );
    }

    #[test]
    fn a_nodes_word_is_of_its_kind_its_own_and_no_checkpoint() {
        let verifier = key().verifier().clone();
        let note = key().attest("handover 1", "{\"to\":\"b\"}");
        assert_eq!(verifier.attested("handover 1", &note), Ok("{\"to\":\"b\"}"));
        assert!(verifier.open(&note).is_err());
        assert!(verifier.attested("handover", &note).is_err());
        assert!(verifier.attested("handover 2", &note).is_err());
        let checkpoint = key().sign(12, Digest([5; 32]), 99);
        assert!(verifier.attested("12", &checkpoint).is_err());
        let changed = note.replace("\"b\"", "\"c\"");
        assert!(verifier.attested("handover 1", &changed).is_err());
        let other = NodeKey::new("gw-1", &[8; 32]).unwrap();
        assert!(
            verifier
                .attested("handover 1", &other.attest("handover 1", "{}"))
                .is_err()
        );
    }

    #[test]
    fn a_changed_byte_anywhere_is_refused() {
        let note = key().sign(12, Digest([5; 32]), 99);
        let verifier = key().verifier().clone();
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(verifier.open(&text).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn another_nodes_checkpoint_is_refused() {
        let other = NodeKey::new("gw-2", &[7; 32]).unwrap();
        let note = other.sign(1, Digest([0; 32]), 1);
        assert_eq!(
            key().verifier().open(&note),
            Err(CheckpointError::Unsigned("holdpoint/gw-1".into()))
        );
    }

    #[test]
    fn a_note_tells_who_signed_it() {
        let note = key().sign(1, Digest([0; 32]), 1);
        assert_eq!(signers(&note), [key().verifier().id()]);
        let public = key().verifier().to_string();
        assert!(public.starts_with(&key().verifier().id()), "{public}");
        let other = NodeKey::new("gw-1", &[8; 32]).unwrap();
        assert_ne!(signers(&note), [other.verifier().id()]);
        assert_eq!(signers(&public), [""; 0]);
    }

    #[test]
    fn witnesses_may_sign_beside_us() {
        let mut note = key().sign(1, Digest([0; 32]), 1);
        note.push_str("\u{2014} witness.example/w AAAAAAAA\n");
        assert!(key().verifier().open(&note).is_ok());
    }

    #[test]
    fn names_that_would_frame_another_note_are_refused() {
        for name in ["", "a b", "a\n9", "a+b"] {
            assert!(NodeKey::new(name, &[7; 32]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_file_of_notes_falls_apart_into_them_and_a_torn_rest() {
        let (one, two) = (
            key().sign(1, Digest([1; 32]), 1),
            key().sign(2, Digest([2; 32]), 2),
        );
        let file = format!("{one}\n{two}\n");
        assert_eq!(split_notes(&file), (vec![one.as_str(), two.as_str()], ""));
        let second = one.len() + 1;
        for cut in second..second + two.len() {
            let (notes, rest) = split_notes(&file[..file.floor_char_boundary(cut)]);
            assert_eq!(notes, [one.as_str()]);
            assert_eq!(rest, &two[..two.floor_char_boundary(cut - second)]);
        }
    }
}
