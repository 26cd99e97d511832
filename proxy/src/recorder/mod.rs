//! The journal's writer and reader.
//!
//! One OS thread owns the files; sessions hand it records over a bounded queue
//! and wait for an answer. What came in while the last sync ran is written and
//! synced together, so durability costs one sync for many sessions. The format
//! and everything that is pure about it is in `holdpoint_core::record`.
//!
//! Any failure refuses: no space, a failed sync, a lock that another process
//! holds. Nothing is ever overwritten, and a failed sync is never repeated,
//! because the kernel may have dropped the pages that it could not write.

mod check;
mod checkpoints;
mod dir;
mod error;
mod read;
mod recover;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use holdpoint_core::Now;
use holdpoint_core::config::{JournalConfig, Sync};
use holdpoint_core::decision::Outcome;
use holdpoint_core::id::{Digest, SessionId};
use holdpoint_core::record::checkpoint::Verifier;
use holdpoint_core::record::{Durability, Entry, NewRecord, Start};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use crate::clock::now;
pub use check::{Progress, check_journal};
pub use checkpoints::{CheckpointFile, read_checkpoints};
pub use dir::{is_live, read_verifier, writer_pid};
pub use error::JournalError;
pub use read::{Raw, ReadError, Reader};
pub use recover::Loss;

/// Memory that queued records may take, in units of [`UNIT`] bytes.
const QUEUE_UNITS: usize = 32 * 1024;
const UNIT: usize = 1024;

/// A handle on the writer; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    jobs: std::sync::mpsc::SyncSender<Job>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    sync: Sync,
}

/// A record that is at its durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub seq: u64,
}

/// The journal's durable head: what a message to reviewers carries, so that
/// their history vouches for ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Head {
    pub size: u64,
    pub root: Digest,
}

impl std::fmt::Display for Head {
    /// `4711/89abcdef`: the number of records and the first digits of the root.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let root = self.root.to_string();
        write!(f, "{}/{}", self.size, root.get(..8).unwrap_or(&root))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// Writing, but somebody should look.
    Degraded(String),
    /// No space: only denials and ends are written. Recovers by itself.
    Full(String),
    /// Nothing can be written until a restart.
    Failed(String),
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    pub state: State,
    pub records: u64,
    pub syncs: u64,
    pub segment: u64,
}

/// What the writer's thread tells everybody.
struct Shared {
    public: Mutex<(Head, Health)>,
    verifier: Verifier,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Head, &mut Health)) {
        let mut public = self.public.lock().unwrap_or_else(PoisonError::into_inner);
        let (head, health) = &mut *public;
        change(head, health);
    }

    fn read(&self) -> (Head, Health) {
        self.public
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

enum Job {
    Record(Box<RecordJob>),
    Stop(oneshot::Sender<Result<(), JournalError>>),
}

struct RecordJob {
    session: Option<SessionId>,
    at: Now,
    entry: Entry,
    /// The entry's JSON, made by the caller to keep the writer's thread free;
    /// empty for a close, which the writer completes.
    meta: Vec<u8>,
    blob: Bytes,
    durability: Durability,
    ack: oneshot::Sender<Result<Written, JournalError>>,
    /// Given back when the record was written.
    _room: OwnedSemaphorePermit,
}

impl Recorder {
    /// Opens the journal, repairs what a crash left, and starts the writer's
    /// thread. Blocks while it reads the journal back.
    ///
    /// On return `start` and, after a crash, the ends of everything that was
    /// open are on stable storage.
    pub fn open(
        config: &JournalConfig,
        node: &str,
        start: Start,
        loss: Loss,
    ) -> Result<Self, JournalError> {
        let (mut writer, shared) = writer::Writer::open(config, node, loss)?;
        writer.begin(start)?;
        let (jobs, queue) = std::sync::mpsc::sync_channel(QUEUE_UNITS + 64);
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&queue))
            .map_err(|error| JournalError::io("start the writer's thread", &config.dir, &error))?;
        Ok(Self {
            jobs,
            room: Arc::new(Semaphore::new(QUEUE_UNITS)),
            shared,
            sync: config.sync,
        })
    }

    /// Writes one record; done when it is at its durability.
    pub async fn write(
        &self,
        record: NewRecord,
        durability: Durability,
    ) -> Result<Written, JournalError> {
        self.submit(record, durability).await?.await
    }

    /// Hands one record over and returns once it has its place in the order,
    /// which is before it is durable: await the [`Pending`] for that.
    ///
    /// Waits while the queue is full. If this call is dropped before it is
    /// done, the record is not written; a dropped `Pending` changes nothing.
    pub async fn submit(
        &self,
        record: NewRecord,
        durability: Durability,
    ) -> Result<Pending, JournalError> {
        let meta = match &record.entry {
            Entry::Close(_) => Vec::new(),
            entry => serde_json::to_vec(entry).map_err(|e| JournalError::Entry(e.to_string()))?,
        };
        let units = (1 + (meta.len() + record.blob.len()) / UNIT).min(QUEUE_UNITS);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX))
            .await
            .map_err(|_| JournalError::Stopped)?;
        let (ack, done) = oneshot::channel();
        let job = RecordJob {
            session: record.session,
            at: record.at,
            durability: self.durability(&record.entry, durability),
            entry: record.entry,
            meta,
            blob: record.blob,
            ack,
            _room: room,
        };
        self.send(Job::Record(Box::new(job)))?;
        Ok(Pending(done))
    }

    /// The head of what is on stable storage.
    pub fn head(&self) -> Head {
        self.shared.read().0
    }

    pub fn health(&self) -> Health {
        self.shared.read().1
    }

    /// The public key under which this journal's checkpoints are signed.
    pub fn verifier(&self) -> &Verifier {
        &self.shared.verifier
    }

    /// Ends in order: what was handed over is written, open sessions are closed
    /// with reason `shutdown`, the last checkpoint covers everything. Records
    /// that come later are refused.
    ///
    /// Without it, dropping the last handle leaves the journal as a crash would.
    pub async fn close(&self) -> Result<(), JournalError> {
        let (ack, done) = oneshot::channel();
        self.send(Job::Stop(ack))?;
        done.await.unwrap_or(Err(JournalError::Stopped))
    }

    fn send(&self, job: Job) -> Result<(), JournalError> {
        // The semaphore bounds records below the channel's size, so this does not fill.
        self.jobs.try_send(job).map_err(|_| self.why_stopped())
    }

    fn why_stopped(&self) -> JournalError {
        match self.health().state {
            State::Failed(why) => JournalError::Failed(why),
            _ => JournalError::Stopped,
        }
    }

    /// `journal.sync` over what the caller asked for.
    fn durability(&self, entry: &Entry, asked: Durability) -> Durability {
        match (self.sync, entry) {
            (Sync::All, _) => Durability::Synced,
            (Sync::Relaxed, Entry::Command(command))
                if command.decision.outcome == Outcome::Allow =>
            {
                Durability::Written
            }
            _ => asked,
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Recorder").field(&self.head()).finish()
    }
}

/// A record on its way; ready when it is at its durability.
#[must_use = "until this is ready the record may not be durable"]
pub struct Pending(oneshot::Receiver<Result<Written, JournalError>>);

impl Future for Pending {
    type Output = Result<Written, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|done| done.unwrap_or(Err(JournalError::Stopped)))
    }
}
