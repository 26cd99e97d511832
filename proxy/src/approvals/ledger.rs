//! The seam between approvals and the journal.

use std::pin::Pin;

use holdpoint_core::record::{Durability, NewRecord};

use crate::recorder::{Head, Recorder};

/// A future that a trait object gives.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where approvals write what happens to them, before anyone is told.
pub trait Ledger: Send + Sync {
    /// Ok once the record, and each one written before it, lies as safely as
    /// asked. On an error it may or may not lie there; the caller acts as if
    /// the thing recorded had not happened.
    fn write(&self, record: NewRecord, durability: Durability)
    -> Later<'_, Result<(), NotWritten>>;

    /// The journal's durable head, for messages to reviewers.
    fn head(&self) -> Head;
}

/// The journal did not take a record. The text is for the log and for reviewers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub struct NotWritten(pub String);

impl Ledger for Recorder {
    fn write(
        &self,
        record: NewRecord,
        durability: Durability,
    ) -> Later<'_, Result<(), NotWritten>> {
        Box::pin(async move {
            Recorder::write(self, record, durability)
                .await
                .map(|_| ())
                .map_err(|error| NotWritten(error.to_string()))
        })
    }

    fn head(&self) -> Head {
        Recorder::head(self)
    }
}
