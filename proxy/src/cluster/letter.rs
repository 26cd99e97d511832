//! What nodes write to each other.

use holdpoint_core::approval::Vote;
use serde::{Deserialize, Serialize};

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

/// What one process of a node is asked to do beside judging votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// As a ballot's.
    pub(super) nonce: String,
    pub(super) owner: String,
    pub(super) epoch: String,
    pub(super) from: String,
    pub(super) errand: Errand,
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
    /// To an errand.
    Told(serde_json::Value),
}

/// An approval as its owner shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Posted {
    pub(super) node: String,
    pub(super) epoch: String,
    pub(super) view: View,
}
