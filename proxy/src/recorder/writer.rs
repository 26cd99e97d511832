//! The thread that writes.
//!
//! A batch is everything that waited while the last one was synced: encoded
//! into one buffer, one write, one sync if any record asks for it, then the
//! answers. A record that asked only to be written is answered before the sync
//! and synced within [`SYNC_AFTER`].

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use holdpoint_core::Now;
use holdpoint_core::config::JournalConfig;
use holdpoint_core::id::SessionId;
use holdpoint_core::record::checkpoint::NodeKey;
use holdpoint_core::record::frame::Frame;
use holdpoint_core::record::tracker::Tracker;
use holdpoint_core::record::{Durability, Entry, Start};
use tokio::sync::oneshot;

use super::checkpoints::Log;
use super::dir::Dir;
use super::recover::{Loss, recover};
use super::segment::{self, Segment};
use super::{Head, Health, Job, JournalError, RecordJob, Shared, State, Written, now};

/// What was only written is synced within this.
const SYNC_AFTER: Duration = Duration::from_millis(100);
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(60);
const RETRY_SPACE: Duration = Duration::from_secs(1);
/// A batch's limits: past them the next one begins.
const BATCH_JOBS: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;
/// The last part of a segment is kept for ends and denials while there is no spare.
const RESERVE_PART: u64 = 16;

pub(super) struct Writer {
    dir: Arc<Dir>,
    segment_len: u64,
    key: NodeKey,
    tracker: Tracker,
    segment: Segment,
    spare: Spare,
    checkpoints: Log,
    /// Encoded and not yet written; belongs at `segment.at`.
    buffer: Vec<u8>,
    /// Since when something is written and not synced.
    unsynced: Option<Instant>,
    /// Size and time of the last checkpoint.
    signed: (u64, Instant),
    /// Why the disk is full, and how many records were refused since.
    full: Option<(String, u64)>,
    failed: Option<String>,
    sessions: u64,
    /// To be written down by [`Writer::begin`].
    gaps: Vec<(u64, String)>,
    shared: Arc<Shared>,
}

enum Spare {
    Ready(u64),
    /// A thread of its own makes it: it takes long.
    Making(Receiver<std::io::Result<()>>),
    Missing {
        why: String,
        retry: Instant,
    },
}

/// Whom to answer when the batch is at its durability.
struct Waiting {
    ack: oneshot::Sender<Result<Written, JournalError>>,
    seq: u64,
    durability: Durability,
    _room: tokio::sync::OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn open(
        config: &JournalConfig,
        node: &str,
        loss: Loss,
    ) -> Result<(Self, Arc<Shared>), JournalError> {
        let dir = Arc::new(Dir::lock(&config.dir)?);
        let key = dir.key(&config.key, node)?;
        let mut recovered = recover(dir.path(), key.verifier(), loss)?;
        let segment_len = config.segment.max(64 * 1024);
        let segment = match recovered.segment.take() {
            Some(segment) => segment,
            None => {
                // Signed before the first record, so that a journal without a
                // checkpoint is always one that lost it.
                let root = recovered.tracker.tree().root();
                let note = key.sign(0, root, now().unix());
                recovered.checkpoints.append(&note)?;
                if segment::spare_len(dir.path()).is_none_or(|len| len < segment_len) {
                    segment::make_spare(dir.path(), segment_len)
                        .map_err(|e| JournalError::Full(e.to_string()))?;
                }
                Segment::take_spare(&dir, 1)?
            }
        };
        let spare = match segment::spare_len(dir.path()) {
            Some(len) if len >= segment_len => Spare::Ready(len),
            _ => Spare::make(&dir, segment_len),
        };
        let tree = recovered.tracker.tree();
        let (head, health) = (
            Head {
                size: tree.size(),
                root: tree.root(),
            },
            Health {
                state: State::Ok,
                records: tree.size(),
                syncs: 0,
                segment: segment.number,
            },
        );
        let shared = Arc::new(Shared {
            public: std::sync::Mutex::new((head, health)),
            verifier: key.verifier().clone(),
        });
        let writer = Self {
            dir,
            segment_len,
            key,
            tracker: recovered.tracker,
            segment,
            spare,
            checkpoints: recovered.checkpoints,
            buffer: Vec::new(),
            unsynced: None,
            signed: (u64::MAX, Instant::now()),
            full: None,
            failed: None,
            sessions: 0,
            gaps: recovered.gaps,
            shared: Arc::clone(&shared),
        };
        Ok((writer, shared))
    }

    /// Writes the process's first records: its start, and the ends of what its predecessor left open.
    pub(super) fn begin(&mut self, start: Start) -> Result<(), JournalError> {
        let at = now();
        self.append(None, at, &Entry::Start(start))?;
        for (bytes, reason) in std::mem::take(&mut self.gaps) {
            self.append(None, at, &Entry::Gap { bytes, reason })?;
        }
        self.end_all("crash", at)?;
        self.flush()?;
        self.sync()?;
        self.sign()
    }

    /// Runs until it is told to stop, or until nobody is left who could.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let stop = match queue.recv_timeout(self.next_due()) {
                Ok(job) => self.batch(job, queue),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    // Nobody closed it: leave what is open to the next start.
                    let _ = self.guard(|writer| writer.flush_and_sign());
                    return;
                }
            };
            if let Some(done) = stop {
                let result = self.stop();
                self.shared
                    .update(|_, health| health.state = State::Stopped);
                // The lock is free before the caller goes on.
                drop(self);
                let _ = done.send(result);
                return;
            }
            self.housekeeping();
        }
    }

    /// Takes `first` and what else waits. Gives who asked to stop, if someone did.
    fn batch(
        &mut self,
        first: Job,
        queue: &Receiver<Job>,
    ) -> Option<oneshot::Sender<Result<(), JournalError>>> {
        let mut waiting = Vec::new();
        let mut stop = None;
        let mut next = Some(first);
        let mut jobs = 0;
        while let Some(job) = next.take() {
            match job {
                Job::Record(job) => self.stage(*job, &mut waiting),
                Job::Stop(done) => {
                    stop = Some(done);
                    break;
                }
            }
            jobs += 1;
            if jobs < BATCH_JOBS && self.buffer.len() < BATCH_BYTES {
                next = queue.try_recv().ok();
            }
        }
        let written = self.guard(Self::flush);
        let synced = waiting
            .iter()
            .any(|waiting| waiting.durability == Durability::Synced);
        let mut later = Vec::with_capacity(waiting.len());
        for one in waiting {
            match &written {
                Ok(()) if one.durability == Durability::Synced => later.push(one),
                Ok(()) => one.answer(Ok(())),
                Err(error) => one.answer(Err(error.clone())),
            }
        }
        if synced {
            let result = self.guard(Self::sync);
            later.into_iter().for_each(|one| one.answer(result.clone()));
        }
        stop
    }

    /// Encodes one record, or answers why not.
    fn stage(&mut self, job: RecordJob, waiting: &mut Vec<Waiting>) {
        let RecordJob {
            session,
            at,
            entry,
            meta,
            blob,
            durability,
            ack,
            _room,
        } = job;
        let result = self.guard(|writer| {
            writer.note_recovered_space(at)?;
            writer.encode(session, at, entry, meta, &blob)
        });
        match result {
            Ok(seq) => waiting.push(Waiting {
                ack,
                seq,
                durability,
                _room,
            }),
            Err(error) => {
                let _ = ack.send(Err(error));
            }
        }
    }

    fn append(
        &mut self,
        session: Option<SessionId>,
        at: Now,
        entry: &Entry,
    ) -> Result<u64, JournalError> {
        let meta = match entry {
            Entry::Close(_) => Vec::new(),
            entry => serde_json::to_vec(entry).map_err(|e| JournalError::Entry(e.to_string()))?,
        };
        self.encode(session, at, entry.clone(), meta, &[])
    }

    fn encode(
        &mut self,
        session: Option<SessionId>,
        at: Now,
        mut entry: Entry,
        mut meta: Vec<u8>,
        blob: &[u8],
    ) -> Result<u64, JournalError> {
        let (session, prev) = self.tracker.place(session.as_ref(), &entry)?;
        if let (Entry::Close(close), Some(id)) = (&mut entry, &session) {
            self.tracker.complete_close(id, close);
            meta = serde_json::to_vec(&entry).map_err(|e| JournalError::Entry(e.to_string()))?;
        }
        let seq = self.tracker.next_seq();
        let frame = Frame {
            seq,
            session,
            at,
            prev,
            meta: &meta,
            blob,
        };
        self.make_room(frame.encoded_len() as u64, ends_something(&entry))?;
        let leaf = frame.encode(&mut self.buffer)?;
        self.tracker.push(frame.session.as_ref(), &entry, leaf);
        self.sessions += u64::from(matches!(entry, Entry::Open(_)));
        Ok(seq)
    }

    /// Goes to the next segment if the record does not fit into this one.
    fn make_room(&mut self, need: u64, ends_something: bool) -> Result<(), JournalError> {
        // The last part of a segment is for ends alone until its successor is there.
        let fits = |writer: &Self| {
            let keep = match writer.spare {
                Spare::Ready(_) => 0,
                _ if ends_something => 0,
                _ => writer.segment.len / RESERVE_PART,
            };
            let used = writer.segment.at + writer.buffer.len() as u64;
            used + need <= writer.segment.len.saturating_sub(keep)
        };
        self.poll_spare(false);
        if fits(self) {
            return Ok(());
        }
        self.poll_spare(true);
        if fits(self) {
            return Ok(());
        }
        match &self.spare {
            Spare::Ready(len) if need <= *len => {}
            Spare::Missing { why, .. } => {
                let why = why.clone();
                self.full.get_or_insert((why.clone(), 0)).1 += 1;
                return Err(JournalError::Full(why));
            }
            // Longer than a segment: it gets one of its own size.
            _ => segment::make_spare(self.dir.path(), need)
                .map_err(|e| JournalError::Full(e.to_string()))?,
        }
        self.roll()
    }

    fn roll(&mut self) -> Result<(), JournalError> {
        self.flush_and_sign()?;
        let number = self.segment.number + 1;
        self.segment = Segment::take_spare(&self.dir, number).map_err(Self::fatal)?;
        self.spare = Spare::make(&self.dir, self.segment_len);
        self.shared.update(|_, health| health.segment = number);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.segment
            .file
            .write_all_at(&self.buffer, self.segment.at)
            .map_err(|e| Self::fatal(JournalError::io("write", &self.segment.path, &e)))?;
        self.segment.at += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BATCH_BYTES);
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced.is_none() {
            return Ok(());
        }
        self.segment
            .file
            .sync_data()
            .map_err(|e| Self::fatal(JournalError::io("sync", &self.segment.path, &e)))?;
        self.unsynced = None;
        let tree = self.tracker.tree();
        let (size, root) = (tree.size(), tree.root());
        self.shared.update(|head, health| {
            *head = Head { size, root };
            health.records = size;
            health.syncs += 1;
        });
        Ok(())
    }

    /// Signs the head. Everything must be synced: a checkpoint speaks of what is there.
    fn sign(&mut self) -> Result<(), JournalError> {
        let tree = self.tracker.tree();
        let note = self.key.sign(tree.size(), tree.root(), now().unix());
        let size = tree.size();
        match self.checkpoints.append(&note) {
            Ok(()) => {
                self.signed = (size, Instant::now());
                Ok(())
            }
            Err(JournalError::Full(why)) => {
                // Tried again in a second; the records themselves have their space.
                self.signed.1 = Instant::now();
                self.degraded(format!("no space for a checkpoint: {why}"));
                Ok(())
            }
            Err(error) => Err(Self::fatal(error)),
        }
    }

    fn flush_and_sign(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.sync()?;
        if self.signed.0 == self.tracker.next_seq() {
            return Ok(());
        }
        self.sign()
    }

    /// Ends everything that is open, as far as the record knows.
    fn end_all(&mut self, reason: &str, at: Now) -> Result<(), JournalError> {
        for (session, entry) in self.tracker.unfinished(reason) {
            self.append(session, at, &entry)?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), JournalError> {
        let sessions = self.sessions;
        self.guard(|writer| {
            let at = now();
            writer.end_all("shutdown", at)?;
            writer.append(None, at, &Entry::Stop { sessions })?;
            writer.flush_and_sign()
        })
    }

    /// What is due by time: the late sync, the checkpoint, the spare, the state of health.
    fn housekeeping(&mut self) {
        let _ = self.guard(|writer| {
            writer.note_recovered_space(now())?;
            writer.flush()?;
            if writer
                .unsynced
                .is_some_and(|since| since.elapsed() >= SYNC_AFTER)
            {
                writer.sync()?;
            }
            let age = writer.signed.1.elapsed();
            let dirty = writer.signed.0 != writer.tracker.next_seq();
            if (dirty && age >= CHECKPOINT_AFTER) || age >= HEARTBEAT {
                writer.sync()?;
                writer.sign()?;
            }
            Ok(())
        });
        let state = match (&self.failed, &self.full, &self.spare) {
            (Some(why), ..) => State::Failed(why.clone()),
            (None, Some((why, _)), _) => State::Full(why.clone()),
            (None, None, Spare::Missing { why, .. }) => {
                State::Degraded(format!("no space for the next segment: {why}"))
            }
            _ if self.signed.0 != self.tracker.next_seq()
                && self.signed.1.elapsed() > 5 * CHECKPOINT_AFTER =>
            {
                State::Degraded("checkpoints are late".into())
            }
            _ => State::Ok,
        };
        self.shared.update(|_, health| {
            if health.state != state {
                health.state = state;
            }
        });
    }

    fn next_due(&self) -> Duration {
        let sync = self.unsynced.map(|since| since + SYNC_AFTER);
        let dirty = self.signed.0 != self.tracker.next_seq();
        let sign = self.signed.1 + if dirty { CHECKPOINT_AFTER } else { HEARTBEAT };
        let space = match &self.spare {
            Spare::Ready(_) => None,
            Spare::Making(_) => Some(Instant::now() + SYNC_AFTER),
            Spare::Missing { retry, .. } => Some(*retry),
        };
        let due = [sync, Some(sign), space].into_iter().flatten().min();
        let wait = due.map_or(HEARTBEAT, |due| {
            due.saturating_duration_since(Instant::now())
        });
        if self.failed.is_some() {
            HEARTBEAT
        } else {
            wait
        }
    }

    fn poll_spare(&mut self, wait: bool) {
        loop {
            match &self.spare {
                Spare::Ready(_) => return,
                Spare::Making(made) => {
                    let result = if wait {
                        made.recv().map_err(|_| ())
                    } else {
                        match made.try_recv() {
                            Err(std::sync::mpsc::TryRecvError::Empty) => return,
                            other => other.map_err(|_| ()),
                        }
                    };
                    let why = match result {
                        Ok(Ok(())) => {
                            self.spare = Spare::Ready(self.segment_len);
                            return;
                        }
                        Ok(Err(error)) => error.to_string(),
                        Err(()) => "the thread that makes segments ended".to_owned(),
                    };
                    let retry = Instant::now() + RETRY_SPACE;
                    self.spare = Spare::Missing { why, retry };
                    return;
                }
                Spare::Missing { retry, .. } if *retry <= Instant::now() => {
                    self.spare = Spare::make(&self.dir, self.segment_len);
                }
                Spare::Missing { .. } => return,
            }
        }
    }

    /// The first record after a time without space says so.
    fn note_recovered_space(&mut self, at: Now) -> Result<(), JournalError> {
        self.poll_spare(false);
        if self.full.is_none() || !matches!(self.spare, Spare::Ready(_)) {
            return Ok(());
        }
        if let Some((why, refused)) = self.full.take() {
            let reason = format!("{refused} record(s) were refused while the disk was full: {why}");
            self.append(None, at, &Entry::Gap { bytes: 0, reason })?;
        }
        Ok(())
    }

    fn degraded(&self, why: String) {
        self.shared
            .update(|_, health| health.state = State::Degraded(why));
    }

    /// Marks an error after which the files may not be what we think they are.
    fn fatal(error: JournalError) -> JournalError {
        JournalError::Failed(error.to_string())
    }

    /// Runs a step unless the journal failed, and remembers if it does now.
    fn guard<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if let Some(why) = &self.failed {
            return Err(JournalError::Failed(why.clone()));
        }
        let result = step(self);
        if let Err(JournalError::Failed(why)) = &result {
            self.failed = Some(why.clone());
            self.shared
                .update(|_, health| health.state = State::Failed(why.clone()));
        }
        result
    }
}

impl Spare {
    fn make(dir: &Arc<Dir>, len: u64) -> Self {
        let (done, made) = sync_channel(1);
        let keep = Arc::clone(dir);
        let spawned = std::thread::Builder::new()
            .name("journal-spare".into())
            .spawn(move || {
                let _ = done.send(segment::make_spare(keep.path(), len));
            });
        match spawned {
            Ok(_) => Self::Making(made),
            Err(error) => Self::Missing {
                why: error.to_string(),
                retry: Instant::now() + RETRY_SPACE,
            },
        }
    }
}

impl Waiting {
    fn answer(self, result: Result<(), JournalError>) {
        let _ = self.ack.send(result.map(|()| Written { seq: self.seq }));
    }
}

/// Records that make something stop: they may use the space that is kept for them.
fn ends_something(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Close(_)
            | Entry::Completed { .. }
            | Entry::Refused { .. }
            | Entry::Killed { .. }
            | Entry::Revoked { .. }
            | Entry::Settled { .. }
            | Entry::Stop { .. }
            | Entry::Unknown { .. }
            | Entry::Vote { .. }
            | Entry::Gap { .. }
            | Entry::Start(_)
    )
}
