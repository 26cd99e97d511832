//! What nodes write to each other.

use holdpoint_core::approval::{BreakGlass, Draft, Reviewer, Vote};
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::principal::Identity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::approvals::{Counted, Errand, Explained, View};

/// A vote on its way to the node that owns the approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ballot {
    /// Drawn for this ballot alone; its answer lies under this name.
    pub(super) nonce: String,
    /// The node that it is for, and the process of that node.
    pub(super) owner: String,
    pub(super) epoch: String,
    /// The life of the store in which the reviewer saw the approval.
    pub(super) incarnation: String,
    /// The node that checked who votes.
    pub(super) from: String,
    pub(super) vote: Vote,
}

/// What this version can be asked to do. A node says it of itself (`versions`), and one that
/// says nothing is of the first.
pub(super) const SPEAKS: u32 = 3;

/// What one process of a node is asked to do beside judging votes.
///
/// The envelope is read before what is in it: whoever does not know that kind says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// As a ballot's.
    pub(super) nonce: String,
    pub(super) owner: String,
    pub(super) epoch: String,
    pub(super) from: String,
    /// As a ballot's, where it may open something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<String>,
    /// A [`Work`].
    pub(super) errand: Value,
}

/// What can be in the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Errand(Errand),
    Motion(Box<Motion>),
}

/// What the owner of an approval decides beside votes, and by the same rules: checked by
/// the node that was reached, judged, written and applied by the owner, then told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Motion {
    /// The requester's words.
    Justify {
        approval: ApprovalId,
        by: Identity,
        text: String,
    },
    BreakGlass(BreakGlass),
    /// Somebody looked into a broken glass.
    Review {
        approval: ApprovalId,
        by: Reviewer,
        note: Option<String>,
    },
    /// The identical command, as it asks at the other node, is to use an approval.
    HandOver {
        approval: ApprovalId,
        draft: Box<Draft>,
        /// Whoever asks knows what a use of its window is, and takes one too.
        #[serde(default)]
        windows: bool,
        /// It knows how to wait for another node's approval, and waits for this one.
        #[serde(default)]
        join: bool,
    },
    /// A session of the other node does not wait for an approval any more.
    Leave {
        approval: ApprovalId,
        session: SessionId,
        grant: bool,
    },
}

impl Work {
    /// `None` where this version does not know it.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let errand = Errand::deserialize(value).map(Self::Errand);
        let work = errand
            .or_else(|_| Motion::deserialize(value).map(|motion| Self::Motion(Box::new(motion))));
        work.ok()
    }

    pub(super) fn write(&self) -> serde_json::Result<Value> {
        match self {
            Self::Errand(errand) => serde_json::to_value(errand),
            Self::Motion(motion) => serde_json::to_value(motion),
        }
    }

    /// The first version that knows it.
    pub(super) fn since(&self) -> u32 {
        match self {
            Self::Errand(
                Errand::Sessions
                | Errand::Windows
                | Errand::Kill { .. }
                | Errand::EndWindow { .. }
                | Errand::Prove { .. }
                | Errand::Revoke { .. },
            ) => 1,
            Self::Motion(motion) if matches!(**motion, Motion::Leave { .. }) => 3,
            Self::Errand(Errand::Reviews) | Self::Motion(_) => 2,
        }
    }
}

/// The owner's answer. What it says is in the owner's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) nonce: String,
    pub(super) said: Said,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Counted(Counted),
    Refused(Explained),
    /// To an errand or a motion.
    Told(Value),
}

/// An approval as its owner shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Posted {
    pub(super) node: String,
    pub(super) epoch: String,
    pub(super) view: View,
}
