//! The journal's writer and reader.
//!
//! A record is encoded and handed to the kernel by whoever has it, under one lock
//! ([`writer`]); a thread of its own syncs and signs ([`keeper`]). What came in while
//! the last sync ran is synced together, so durability costs one sync for many
//! sessions. The format and everything that is pure about it is in
//! `holdpoint_core::record`.
//!
//! Any failure refuses: no space, a failed sync, a lock that another process
//! holds. Nothing is ever overwritten, and a failed sync is never repeated,
//! because the kernel may have dropped the pages that it could not write.

mod check;
mod checkpoints;
mod dir;
mod error;
mod keeper;
mod read;
mod recover;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use holdpoint_core::config::{JournalConfig, Sync};
use holdpoint_core::decision::Outcome;
use holdpoint_core::id::Digest;
use holdpoint_core::record::checkpoint::{NodeKey, Verifier};
use holdpoint_core::record::tracker::OpenReview;
use holdpoint_core::record::{ACCEPTED, Durability, Entry, NewRecord, Start};
use serde::Serialize;
use tokio::sync::oneshot;

use dir::{Dir, Key};
use keeper::{Keeper, Last, Waiting};
use segment::Segment;
use writer::{Writer, meta_of};

pub use crate::clock::now;
pub use check::{Progress, check_journal};
pub use checkpoints::{CheckpointFile, read_checkpoints};
pub use dir::{is_live, read_verifier, writer_pid};
pub use error::JournalError;
pub use read::{Raw, ReadError, Reader};
pub use recover::Loss;

/// A handle on the journal; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    sync: Sync,
    _alive: Arc<Alive>,
}

/// Tells the keeper when the last handle is gone.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Ok(mut desk) = self.0.desk() {
            desk.last.get_or_insert(Last::Leave);
            self.0.wake.notify_one();
        }
    }
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

/// What all handles and the keeper's thread share.
struct Shared {
    desk: Mutex<Desk>,
    wake: Condvar,
    public: Mutex<(Head, Health)>,
    /// The last checkpoint that was signed.
    note: Mutex<Option<String>>,
    key: Arc<NodeKey>,
    reviews: Vec<OpenReview>,
}

struct Desk {
    /// Gone once the journal is closed, and with it the lock on the directory.
    writer: Option<Writer>,
    /// Those whose records are to be synced.
    waiting: Vec<Waiting>,
    /// The keeper sleeps, so whoever has work for it wakes it.
    asleep: bool,
    last: Option<Last>,
}

impl Desk {
    fn writer(&mut self) -> Result<&mut Writer, JournalError> {
        self.writer.as_mut().ok_or(JournalError::Stopped)
    }
}

impl Shared {
    fn desk(&self) -> Result<MutexGuard<'_, Desk>, JournalError> {
        // Half a record may be in the buffer then.
        let poisoned = |_| JournalError::Failed("a thread panicked while it wrote".to_owned());
        self.desk.lock().map_err(poisoned)
    }

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

/// Whether this node's key is there and signed the journal's last checkpoint, as far as a start
/// asks for it. Makes, locks and changes nothing, and reads no record.
///
/// # Errors
/// [`Recorder::open`] would fail.
pub fn examine(config: &JournalConfig, node: &str, loss: Loss) -> Result<(), JournalError> {
    let key = Key::read(&config.key, node, &config.dir)?;
    match (checkpoints::last_note(&config.dir)?, loss) {
        (None, _) | (_, Loss::Accept) => Ok(()),
        (Some(note), Loss::Refuse) => match key.key.verifier().open(&note) {
            Ok(_) => Ok(()),
            Err(error) => Err(recover::not_ours(&config.dir, key.key.verifier(), error)?),
        },
    }
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
        let dir = Arc::new(Dir::lock(&config.dir)?);
        let key = Key::read(&config.key, node, dir.path())?;
        let recovered = recover::recover(dir.path(), key.key.verifier(), loss)?;
        // Not before: what cannot be continued stays as it is, and so does the key that verifies it.
        dir.keep(&config.key, &key)?;
        let key = Arc::new(key.key);
        let recover::Recovered {
            tracker,
            mut checkpoints,
            segment,
            gaps,
        } = recovered;
        let segment_len = config.segment.max(64 * 1024);
        let segment = match segment {
            Some(segment) => segment,
            None => {
                // Signed before the first record, so that a journal without a
                // checkpoint is always one that lost it.
                let note = key.sign(0, tracker.tree().root(), now().unix());
                checkpoints.append(&note)?;
                if segment::spare_len(dir.path()).is_none_or(|len| len < segment_len) {
                    segment::make_spare(dir.path(), segment_len)
                        .map_err(|e| JournalError::Full(e.to_string()))?;
                }
                Segment::take_spare(&dir, 1)?
            }
        };
        let reviews = tracker.open_reviews().cloned().collect();
        let writer = Writer::new(dir, segment_len, tracker, segment);
        let head = writer.head();
        let health = Health {
            state: State::Ok,
            records: head.size,
            syncs: 0,
            segment: writer.segment(),
        };
        let desk = Desk {
            writer: Some(writer),
            waiting: Vec::new(),
            asleep: false,
            last: None,
        };
        let shared = Arc::new(Shared {
            desk: Mutex::new(desk),
            wake: Condvar::new(),
            public: Mutex::new((head, health)),
            note: Mutex::default(),
            key: Arc::clone(&key),
            reviews,
        });
        let mut keeper = Keeper::new(Arc::clone(&shared), key, checkpoints, head);
        let accepted: Vec<_> = gaps
            .iter()
            .filter_map(|(_, reason)| reason.strip_prefix(ACCEPTED).map(str::to_owned))
            .collect();
        keeper.begin(start, gaps)?;
        for loss in accepted {
            tracing::warn!("the journal goes on after a loss that was accepted: {loss}");
        }
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || keeper.run())
            .map_err(|error| JournalError::io("start the journal's thread", &config.dir, &error))?;
        Ok(Self {
            _alive: Arc::new(Alive(Arc::clone(&shared))),
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
        self.submit(record, durability).await
    }

    /// Gives one record its place in the order, and hands it to the kernel.
    ///
    /// Blocks for a write of the record's length, and for some milliseconds where
    /// a segment ends. What is given is ready at once for [`Durability::Written`];
    /// dropping it changes nothing.
    pub fn submit(&self, record: NewRecord, durability: Durability) -> Pending {
        let mut answer = None;
        self.submit_all(&mut vec![(record, durability)], |one| answer = Some(one));
        answer.unwrap_or(Pending(Answer::Done(Err(JournalError::Stopped))))
    }

    /// As [`Recorder::submit`] for each in turn, with one write for all; `each` gets
    /// their answers in the same order.
    pub fn submit_all(
        &self,
        records: &mut Vec<(NewRecord, Durability)>,
        mut each: impl FnMut(Pending),
    ) {
        // Outside of the lock: what each record says does not depend on its place.
        let metas: Vec<_> = records
            .iter()
            .map(|(record, _)| meta_of(&record.entry))
            .collect();
        let mut answers = Vec::with_capacity(records.len());
        let placed = self.place_all(records.drain(..).zip(metas), &mut answers);
        for answer in answers {
            each(Pending(match (&placed, answer) {
                // Nothing is known of what the kernel has of it.
                (Err(error), Answer::Done(Ok(_))) => Answer::Done(Err(error.clone())),
                (_, answer) => answer,
            }));
        }
    }

    /// An error is that of the write itself: what was only to be written is not.
    fn place_all(
        &self,
        records: impl Iterator<Item = ((NewRecord, Durability), Result<Vec<u8>, JournalError>)>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), JournalError> {
        let mut desk = match self.shared.desk() {
            Ok(desk) => desk,
            Err(error) => {
                answers.extend(records.map(|_| Answer::Done(Err(error.clone()))));
                return Err(error);
            }
        };
        let clean = desk.writer.as_ref().is_some_and(Writer::is_clean);
        let (mut wait, mut write) = (false, false);
        for ((record, durability), meta) in records {
            let durability = self.durability(&record.entry, durability);
            let placed = meta.and_then(|meta| desk.writer()?.put(record, meta));
            answers.push(match (placed, durability) {
                (Err(error), _) => Answer::Done(Err(error)),
                (Ok(seq), Durability::Written) => {
                    write = true;
                    Answer::Done(Ok(Written { seq }))
                }
                (Ok(seq), Durability::Synced) => {
                    wait = true;
                    let (ack, done) = oneshot::channel();
                    desk.waiting.push(Waiting { ack, seq });
                    Answer::Waits(done)
                }
            });
        }
        let written = if write {
            desk.writer().and_then(Writer::flush)
        } else {
            Ok(())
        };
        // The keeper has to know of the first one that is not synced, and of too many.
        let owes_much = desk.writer.as_ref().is_some_and(Writer::owes_much);
        let wake = desk.asleep && (wait || (write && clean) || owes_much);
        // Once is enough.
        desk.asleep &= !wake;
        drop(desk);
        if wake {
            self.shared.wake.notify_one();
        }
        written
    }

    /// What was to be looked into when this journal was opened.
    pub fn open_reviews(&self) -> &[OpenReview] {
        &self.shared.reviews
    }

    /// The head of what is on stable storage.
    pub fn head(&self) -> Head {
        self.shared.read().0
    }

    pub fn health(&self) -> Health {
        let mut health = self.shared.read().1;
        // What the keeper does not know yet.
        match self.shared.desk() {
            Ok(desk) => match desk.writer.as_ref().map(Writer::state) {
                Some(State::Ok) => {}
                Some(state) => health.state = state,
                None => health.state = State::Stopped,
            },
            Err(error) => health.state = State::Failed(error.to_string()),
        }
        health
    }

    /// The last signed checkpoint of this process, as a note.
    pub fn checkpoint(&self) -> Option<String> {
        let note = self.shared.note.lock();
        note.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The public key under which this journal's checkpoints are signed.
    pub fn verifier(&self) -> &Verifier {
        self.shared.key.verifier()
    }

    /// This node's word, signed as its checkpoints are: see [`NodeKey::attest`].
    pub fn attest(&self, kind: &str, said: &str) -> String {
        self.shared.key.attest(kind, said)
    }

    /// Ends in order: what was handed over is written, open sessions are closed
    /// with reason `shutdown`, the last checkpoint covers everything. Records
    /// that come later are refused.
    ///
    /// Without it, dropping the last handle leaves the journal as a crash would.
    pub async fn close(&self) -> Result<(), JournalError> {
        let (ack, done) = oneshot::channel();
        {
            let mut desk = self.shared.desk()?;
            if desk.writer.is_none() || desk.last.is_some() {
                return Err(JournalError::Stopped);
            }
            desk.last = Some(Last::Close(ack));
            self.shared.wake.notify_one();
        }
        done.await.unwrap_or(Err(JournalError::Stopped))
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
pub struct Pending(Answer);

enum Answer {
    Done(Result<Written, JournalError>),
    Waits(oneshot::Receiver<Result<Written, JournalError>>),
}

impl Pending {
    /// The answer, if it is there already.
    ///
    /// # Errors
    /// It is not: await this.
    pub fn now(self) -> Result<Result<Written, JournalError>, Self> {
        match self.0 {
            Answer::Done(done) => Ok(done),
            waits @ Answer::Waits(_) => Err(Self(waits)),
        }
    }
}

impl Future for Pending {
    type Output = Result<Written, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Done(done) => Poll::Ready(done.clone()),
            Answer::Waits(done) => Pin::new(done)
                .poll(cx)
                .map(|done| done.unwrap_or(Err(JournalError::Stopped))),
        }
    }
}
