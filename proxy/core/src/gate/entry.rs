//! The records that the gate asks for.

use std::sync::Arc;

use bytes::Bytes;

use crate::Now;
use crate::approval::Shown;
use crate::command::{Command, Confidence, Starred};
use crate::decision::Decision;
use crate::id::{CommandId, Digest, SessionId};
use crate::record::{CommandEntry, Entry, NewRecord};

/// The record of a command and its decision. Holds no secret of the command.
pub(super) fn command(
    id: CommandId,
    digest: Digest,
    command: &Command,
    classes: &[String],
    decision: &Decision,
) -> (Entry, Bytes) {
    let unknown = command
        .operations
        .iter()
        .any(|op| op.confidence == Confidence::Unknown);
    let (blob, differs) = match command.starred_wire() {
        Starred::Whole(bytes) => (bytes, None),
        Starred::Starred(bytes) => (bytes, Some("starred")),
        Starred::Withheld => (Bytes::new(), Some("withheld")),
    };
    let entry = CommandEntry {
        id,
        digest,
        wire: Digest::of(&command.wire),
        blob: differs.map(str::to_owned),
        text: Shown::text_of(command),
        operations: Arc::clone(&command.operations),
        class: Shown::class_of(command, classes),
        confidence: if unknown {
            Confidence::Unknown
        } else {
            Confidence::Proven
        },
        parameters: Shown::parameters_of(command),
        context: Shown::context_of(command),
        in_transaction: command.in_transaction,
        decision: decision.clone(),
    };
    (Entry::Command(Box::new(entry)), blob)
}

pub(super) fn record(session: &SessionId, now: Now, entry: Entry, blob: Bytes) -> NewRecord {
    NewRecord {
        session: Some(session.clone()),
        at: now,
        entry,
        blob,
    }
}
