//! Why a record was not written, or a journal not opened.

use std::path::{Path, PathBuf};

use holdpoint_core::record::checkpoint::CheckpointError;
use holdpoint_core::record::frame::FrameError;
use holdpoint_core::record::tracker::TrackError;

/// Every one of these means: the record is not there, so nothing may go forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("cannot {doing} `{}`: {error}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        error: String,
    },
    #[error("`{}` {problem}; {hint}", path.display())]
    Unsafe {
        path: PathBuf,
        problem: String,
        hint: &'static str,
    },
    #[error(
        "journal `{}` is in use by another process; two gateways cannot share one", .0.display()
    )]
    InUse(PathBuf),
    /// The text has the cause in it, so this names no source.
    #[error("the journal's key or checkpoints: {0}")]
    Key(CheckpointError),
    #[error(
        "the journal's key `{}` is not there, and the journal was signed by {}; put the file back. If the key is lost, move `{}` elsewhere: it still verifies with its `journal.pub`, and a new journal begins", path.display(), names(signed), journal.display()
    )]
    NoKey {
        path: PathBuf,
        journal: PathBuf,
        signed: Vec<String>,
    },
    #[error(
        "the journal's last checkpoint was signed by {}, and our key is `{ours}`; set `node` as it was and put the key's file back. If that key is lost, move `{}` elsewhere: it still verifies with its `journal.pub`, and a new journal begins", names(signed), journal.display()
    )]
    OtherKey {
        ours: String,
        journal: PathBuf,
        signed: Vec<String>,
    },
    #[error(
        "journal `{}` holds records but no checkpoint; put its `checkpoints` file back, or start with --accept-loss to go on without knowing whether records are missing", .0.display()
    )]
    NoCheckpoint(PathBuf),
    #[error(
        "the journal has {have} records, but its last checkpoint was signed over {need}: {} are missing. Put them back, or start with --accept-loss to record the loss and go on", need - have
    )]
    Lost { have: u64, need: u64 },
    #[error(
        "the journal's first {size} records are not those that its last checkpoint was signed over: somebody changed them. Run `holdpoint verify`; --accept-loss records this and goes on"
    )]
    Changed { size: u64 },
    #[error(
        "record {seq} in `{file}` at byte {offset} is damaged ({why}), and not by a torn write at the journal's end. Put the file back, or start with --accept-loss to keep a copy of it, record the loss and go on without everything from there on"
    )]
    Damaged {
        file: String,
        offset: u64,
        seq: u64,
        why: String,
    },
    #[error(
        "`{file}` is not there, and should begin with record {seq}; segments behind it are. Put it back, or start with --accept-loss to set those aside, record the loss and go on"
    )]
    Missing { file: String, seq: u64 },
    #[error("`{}` holds no checkpoint: {instead}", path.display())]
    NoneKept {
        path: PathBuf,
        instead: &'static str,
    },
    #[error("the journal's disk is full: {0}")]
    Full(String),
    #[error("the journal failed and takes nothing until a restart: {0}")]
    Failed(String),
    #[error("the journal was closed")]
    Stopped,
    #[error("the record does not belong here: {0}")]
    Order(#[from] TrackError),
    #[error("the record cannot be encoded: {0}")]
    Frame(#[from] FrameError),
    #[error("the entry cannot be encoded: {0}")]
    Entry(String),
}

impl From<CheckpointError> for JournalError {
    fn from(error: CheckpointError) -> Self {
        Self::Key(error)
    }
}

fn names(signers: &[String]) -> String {
    if signers.is_empty() {
        return "nobody that can be read".to_owned();
    }
    let names: Vec<_> = signers.iter().map(|name| format!("`{name}`")).collect();
    names.join(" and ")
}

impl JournalError {
    pub(super) fn io(doing: &'static str, path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            error: error.to_string(),
        }
    }
}
