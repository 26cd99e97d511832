//! What is written down.
//!
//! An entry's words go into the record as JSON; bytes of the wire go beside
//! them, unencoded, as the record's *blob*. Variants may be added; a reader
//! shows what it does not know and still verifies it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::approval::{BreakGlass, Draft, HandOver, Reach, Reviewer, Vote};
use crate::command::{Confidence, Operation};
use crate::decision::Decision;
use crate::denial::Denial;
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::{Identity, Principal};
use crate::webauthn::{Counter, Credential};

use super::checkpoint::{CheckpointError, Verifier};

/// How safely a record must lie before the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Handed to the kernel: survives the process, not the machine.
    Written,
    /// On stable storage.
    Synced,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A gateway process began to write here.
    Start(Start),
    /// It ended in order.
    Stop {
        sessions: u64,
    },
    /// Configuration, rules, plugins or certificates in force from now on.
    Reload {
        what: String,
        policy: String,
        plugins: Vec<PluginUsed>,
        accepted: bool,
        message: Option<String>,
    },
    Open(Open),
    /// A command and what policy said. Blob: the command's bytes, secrets in
    /// its text overwritten with `*`. Forwarded at once if the decision allows.
    Command(Box<CommandEntry>),
    /// A held command was put before reviewers.
    Hold(Arc<Draft>),
    /// A command joined an approval that was already pending.
    Joined {
        command: CommandId,
        approval: ApprovalId,
        /// The node that has it, where that is another one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        node: Option<String>,
    },
    /// A channel accepted (or not) what was sent to it.
    Notified {
        approval: ApprovalId,
        channel: String,
        shown: Digest,
        accepted: bool,
    },
    Vote {
        vote: Vote,
        refused: Option<String>,
    },
    /// The approval reached a state: `approved`, `denied`, `expired`, `withdrawn`, `orphaned`, `revoked`.
    Settled {
        approval: ApprovalId,
        state: String,
        by: Vec<Identity>,
        reason: Option<String>,
        /// How much more often than once the command may run.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        window: Option<Reach>,
    },
    /// More people may decide the approval's step (from 1) from now on.
    Escalated {
        approval: ApprovalId,
        step: u32,
    },
    /// Why the command is to run, in the words of who asked for it.
    Justified {
        approval: ApprovalId,
        by: Identity,
        text: String,
    },
    /// One person let a held command go in place of its reviewers. `approved` follows.
    BreakGlass {
        glass: Box<BreakGlass>,
        refused: Option<String>,
    },
    /// Somebody else looked into it afterwards.
    Reviewed {
        approval: ApprovalId,
        by: Reviewer,
        note: Option<String>,
    },
    /// A command uses an approval's window: one more may go forward. Before its `forward`.
    Claimed {
        approval: ApprovalId,
        command: CommandId,
        digest: Digest,
        /// Of this window, from 1.
        number: u64,
    },
    /// Nothing is claimed from the window any more: `expired`, `revoked`, `session`,
    /// `principal`, `rules`, `shutdown`.
    WindowEnded {
        approval: ApprovalId,
        why: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<Identity>,
    },
    /// Another node may use this approval, once, and this one no more; or one use of its
    /// window. Before it is told.
    Given {
        word: HandOver,
    },
    /// This session may use an approval of another node, once. Before its `forward`.
    Taken(Box<Taken>),
    /// The intent to forward a held command under its approval. No byte was sent before.
    Forward {
        command: CommandId,
        approval: ApprovalId,
        digest: Digest,
    },
    /// The command was not forwarded.
    Refused {
        command: CommandId,
        denial: Denial,
    },
    /// Blob: bytes of the target's answer, as they went to the client.
    Response,
    /// The target's own words on the oldest unfinished commands.
    Completed {
        commands: Vec<CommandId>,
        status: String,
        failed: bool,
        rows: Option<u64>,
        bytes: u64,
    },
    /// Blob: bytes that the plugin authored. `to` is `client` or `upstream`.
    Authored {
        to: String,
    },
    /// Blob: client bytes passed outside of commands (login, COPY data, Sync).
    Passed,
    Plugin {
        message: String,
        digest: String,
    },
    /// A forwarded command whose end was never seen.
    Unknown {
        command: CommandId,
        approval: Option<ApprovalId>,
    },
    Close(Close),
    /// Something is not here: the journal's tail was torn and cut back to the last whole record,
    /// the disk was full, or with [`ACCEPTED`] before the reason an operator accepted a loss.
    Gap {
        bytes: u64,
        reason: String,
    },
    /// Somebody asked for the end of one session. Of no session itself: it may have ended.
    Killed {
        session: SessionId,
        by: Identity,
        /// The node at which it was asked for, where that was another one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        node: Option<String>,
    },
    Revoked {
        identity: Identity,
        /// Absent where the node that we have it from no longer knows.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<Identity>,
        sessions: u64,
        /// The node that we have it from, where that is another one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        node: Option<String>,
    },
    /// Something that somebody must look at, such as a node that signs two histories.
    Alarm {
        /// `checkpoint`, `vote`, `node`.
        what: String,
        /// The node that it is about.
        about: String,
        message: String,
    },
    /// From now on an account of a chat system stands for a reviewer, with these groups.
    Linked {
        /// Such as `slack:NAME`.
        channel: String,
        account: String,
        by: Identity,
        groups: Vec<String>,
        until_unix: u64,
    },
    /// From now on this security key signs votes of its owner.
    KeyAdded {
        by: Identity,
        /// The owner's own name for it.
        name: String,
        credential: Box<Credential>,
        counter: Counter,
    },
    /// No more.
    KeyRemoved {
        by: Identity,
        id: String,
    },
}

impl Entry {
    /// The approval that an entry speaks of, where it does not say what a session does:
    /// such a record may outlive the session that asked.
    pub fn approval(&self) -> Option<&ApprovalId> {
        match self {
            Self::Vote { vote, .. } => Some(&vote.approval),
            Self::BreakGlass { glass, .. } => Some(&glass.approval),
            Self::Given { word } => Some(&word.approval),
            Self::Notified { approval, .. }
            | Self::Settled { approval, .. }
            | Self::Escalated { approval, .. }
            | Self::Justified { approval, .. }
            | Self::Reviewed { approval, .. }
            | Self::WindowEnded { approval, .. } => Some(approval),
            _ => None,
        }
    }
}

/// What another node's approval was taken over by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub from: String,
    pub word: HandOver,
    /// The public key of that node's journal, as in `journal.pub`, and the note that it
    /// signed: see [`super::checkpoint::NodeKey::attest`].
    pub key: String,
    pub note: String,
}

/// Before the reason of a gap that an operator went on with although a checkpoint, or the lack
/// of one, spoke against it.
pub const ACCEPTED: &str = "accepted: ";

/// The kind of note that says what a [`HandOver`] says.
pub const HANDOVER: &str = "handover 1";

impl Taken {
    /// Takes an owner's word, if its signature is good.
    ///
    /// # Errors
    /// It is not signed by that node's key, or says something else.
    pub fn read(from: &str, key: &str, note: &str) -> Result<Self, String> {
        let verifier: Verifier = key.parse().map_err(|e: CheckpointError| e.to_string())?;
        if verifier.name() != format!("holdpoint/{from}") {
            return Err(format!(
                "the key of `{}` is not that of node `{from}`",
                verifier.name()
            ));
        }
        let said = verifier
            .attested(HANDOVER, note)
            .map_err(|e| e.to_string())?;
        Ok(Self {
            from: from.to_owned(),
            word: serde_json::from_str(said).map_err(|e| e.to_string())?,
            key: key.to_owned(),
            note: note.to_owned(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub node: String,
    pub version: String,
    /// Rules, see [`Decision::policy`].
    pub policy: String,
    pub plugins: Vec<PluginUsed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUsed {
    pub name: String,
    pub version: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub principal: Principal,
    pub target: String,
    /// The target's, as rules saw them; absent in records of older versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tags: Option<Vec<String>>,
    pub listener: String,
    /// The client's address and port.
    pub source: String,
    pub tls: bool,
    /// The account at the target; never its password.
    pub account: String,
    pub plugin: PluginUsed,
    /// Hex of the 32 bytes that the plugin was given.
    pub entropy: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandEntry {
    pub id: CommandId,
    pub digest: Digest,
    /// SHA-256 of the bytes that go upstream.
    pub wire: Digest,
    /// Set where the blob is not what `wire` is the digest of: `starred` where secrets
    /// are overwritten in it, `withheld` where they could not be located and it is empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blob: Option<String>,
    /// What reviewers are shown: lossless escaping of the text, secrets starred.
    pub text: String,
    pub operations: Arc<[Operation]>,
    pub class: String,
    pub confidence: Confidence,
    pub parameters: Vec<String>,
    pub context: Vec<(String, String)>,
    pub in_transaction: bool,
    pub decision: Decision,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// `client`, `upstream`, `refused`, `revoked`, `expired`, `plugin`, `journal`, `shutdown`, `crash`.
    pub reason: String,
    pub commands: u64,
    /// Records of this session before this one, and the last one's hash (hex).
    pub records: u64,
    pub head: String,
}

/// A record to be written. The writer adds sequence number, chain and checksum.
#[derive(Debug, Clone)]
pub struct NewRecord {
    pub session: Option<SessionId>,
    pub at: crate::Now,
    pub entry: Entry,
    pub blob: bytes::Bytes,
}
