//! Puts records into the journal's files, under the recorder's lock.
//!
//! Whoever has a record writes it: encoded and handed to the kernel by the caller's
//! own thread, since waking another one costs more than the write. Syncs and
//! signatures are the [`Keeper`](super::keeper::Keeper)'s, so that nobody holds the
//! lock while the disk works, but for the end of a segment.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint_core::Now;
use holdpoint_core::id::SessionId;
use holdpoint_core::record::frame::Frame;
use holdpoint_core::record::tracker::Tracker;
use holdpoint_core::record::{Entry, NewRecord};

use super::dir::Dir;
use super::keeper::fatal;
use super::segment::{self, Segment};
use super::{Head, JournalError, State};

/// What was only written is synced within this.
const SYNC_AFTER: Duration = Duration::from_millis(100);
/// Or once it is so many bytes: whoever comes to the end of a segment waits for what is left.
const SYNC_BYTES: u64 = 4 << 20;
const RETRY_SPACE: Duration = Duration::from_secs(1);
/// Records that wait for a sync may fill so much before they are written early.
const BATCH_BYTES: usize = 1 << 20;
/// What the words of most records fit into.
const META: usize = 1 << 10;
/// The last part of a segment is kept for ends and denials while there is no spare.
const RESERVE_PART: u64 = 16;

pub(super) struct Writer {
    dir: Arc<Dir>,
    segment_len: u64,
    tracker: Tracker,
    segment: Segment,
    spare: Spare,
    /// Encoded and not yet written; belongs at `segment.at`.
    buffer: Vec<u8>,
    unsynced: Option<Debt>,
    /// Why the disk is full, and how many records were refused since.
    full: Option<(String, u64)>,
    failed: Option<String>,
    sessions: u64,
}

/// What is with the kernel and not synced.
struct Debt {
    since: Instant,
    bytes: u64,
}

impl Debt {
    fn is_large(&self) -> bool {
        self.bytes >= SYNC_BYTES
    }
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

/// A stretch of the journal that is with the kernel, to be made durable.
pub(super) struct Unsynced {
    file: Arc<File>,
    path: PathBuf,
    pub(super) head: Head,
}

impl Unsynced {
    /// Waits for the disk.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.file
            .sync_data()
            .map_err(|e| JournalError::io("sync", &self.path, &e))
    }
}

impl Writer {
    pub(super) fn new(dir: Arc<Dir>, segment_len: u64, tracker: Tracker, segment: Segment) -> Self {
        let spare = match segment::spare_len(dir.path()) {
            Some(len) if len >= segment_len => Spare::Ready(len),
            _ => Spare::make(&dir, segment_len),
        };
        Self {
            dir,
            segment_len,
            tracker,
            segment,
            spare,
            buffer: Vec::new(),
            unsynced: None,
            full: None,
            failed: None,
            sessions: 0,
        }
    }

    /// Gives a record its place. It is with the kernel after the next [`Writer::flush`].
    ///
    /// `meta` is the entry's JSON, made by the caller outside of the lock; empty for a
    /// close, which is completed here.
    pub(super) fn put(&mut self, record: NewRecord, meta: Vec<u8>) -> Result<u64, JournalError> {
        let NewRecord {
            session,
            at,
            entry,
            blob,
        } = record;
        self.guard(|writer| {
            writer.note_recovered_space(at)?;
            let seq = writer.encode(session, at, entry, meta, &blob)?;
            if writer.buffer.len() > BATCH_BYTES {
                writer.write_out()?;
            }
            Ok(seq)
        })
    }

    /// Appends an entry of our own.
    pub(super) fn append(
        &mut self,
        session: Option<SessionId>,
        at: Now,
        entry: Entry,
    ) -> Result<u64, JournalError> {
        let meta = meta_of(&entry)?;
        self.put(
            NewRecord {
                session,
                at,
                entry,
                blob: Bytes::new(),
            },
            meta,
        )
    }

    /// Hands everything to the kernel.
    pub(super) fn flush(&mut self) -> Result<(), JournalError> {
        self.guard(Self::write_out)
    }

    /// Flushes, and gives what is to be synced so that all of it is durable; nothing
    /// where all of it is.
    pub(super) fn take_unsynced(&mut self) -> Result<Option<Unsynced>, JournalError> {
        self.flush()?;
        let Some(debt) = self.unsynced.take() else {
            return Ok(None);
        };
        // Long answers follow each other, and zeros would only be written over.
        if !debt.is_large() {
            self.guard(|writer| {
                let written = writer.segment.write_ahead();
                written.map_err(|e| fatal(JournalError::io("write", &writer.segment.path, &e)))
            })?;
        }
        Ok(Some(Unsynced {
            file: Arc::clone(&self.segment.file),
            path: self.segment.path.clone(),
            head: self.head(),
        }))
    }

    /// Nothing is written any more. A failed sync is never repeated: the kernel may
    /// have dropped what it could not write.
    pub(super) fn fail(&mut self, error: &JournalError) {
        if let JournalError::Failed(why) = error {
            self.failed.get_or_insert_with(|| why.clone());
        }
    }

    /// Ends everything that is open, as far as the record knows.
    pub(super) fn end_all(&mut self, reason: &str, at: Now) -> Result<(), JournalError> {
        for (session, entry) in self.tracker.unfinished(reason) {
            self.append(session, at, entry)?;
        }
        Ok(())
    }

    /// What is due by time, but for syncs and signatures.
    pub(super) fn housekeeping(&mut self, at: Now) {
        let _ = self.guard(|writer| writer.note_recovered_space(at));
    }

    /// When housekeeping has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.spare {
            _ if self.failed.is_some() => None,
            Spare::Ready(_) => None,
            Spare::Making(_) => Some(Instant::now() + Duration::from_millis(100)),
            Spare::Missing { retry, .. } => Some(*retry),
        }
    }

    /// Everything that has its place, durable or not.
    pub(super) fn head(&self) -> Head {
        let tree = self.tracker.tree();
        Head {
            size: tree.size(),
            root: tree.root(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.tracker.next_seq()
    }

    /// When what was only written is to be synced.
    pub(super) fn sync_due(&self) -> Option<Instant> {
        let debt = self.unsynced.as_ref()?;
        let patience = if debt.is_large() {
            Duration::ZERO
        } else {
            SYNC_AFTER
        };
        Some(debt.since + patience)
    }

    /// So much is not synced that the keeper should not sleep.
    pub(super) fn owes_much(&self) -> bool {
        self.unsynced.as_ref().is_some_and(Debt::is_large)
    }

    /// All that is with the kernel is durable.
    pub(super) fn is_clean(&self) -> bool {
        self.unsynced.is_none()
    }

    /// Sessions that were opened since the start.
    pub(super) fn sessions(&self) -> u64 {
        self.sessions
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment.number
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    pub(super) fn state(&self) -> State {
        match (&self.failed, &self.full, &self.spare) {
            (Some(why), ..) => State::Failed(why.clone()),
            (None, Some((why, _)), _) => State::Full(why.clone()),
            (None, None, Spare::Missing { why, .. }) => {
                State::Degraded(format!("no space for the next segment: {why}"))
            }
            _ => State::Ok,
        }
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

    /// Begins the next segment. The old one is durable first, or a crash could leave a
    /// hole before records that are whole.
    fn roll(&mut self) -> Result<(), JournalError> {
        if let Some(rest) = self.take_unsynced()? {
            rest.sync().map_err(fatal)?;
        }
        let number = self.segment.number + 1;
        self.segment = Segment::take_spare(&self.dir, number).map_err(fatal)?;
        self.spare = Spare::make(&self.dir, self.segment_len);
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), JournalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.segment
            .file
            .write_all_at(&self.buffer, self.segment.at)
            .map_err(|e| fatal(JournalError::io("write", &self.segment.path, &e)))?;
        let bytes = self.buffer.len() as u64;
        self.segment.at += bytes;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BATCH_BYTES);
        let nothing = || Debt {
            since: Instant::now(),
            bytes: 0,
        };
        self.unsynced.get_or_insert_with(nothing).bytes += bytes;
        Ok(())
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
                            Err(TryRecvError::Empty) => return,
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
            let gap = Entry::Gap { bytes: 0, reason };
            let meta = meta_of(&gap)?;
            self.encode(None, at, gap, meta, &[])?;
        }
        Ok(())
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

/// An entry's JSON. A close has none yet: its counts come from the writer.
pub(super) fn meta_of(entry: &Entry) -> Result<Vec<u8>, JournalError> {
    match entry {
        Entry::Close(_) => Ok(Vec::new()),
        entry => {
            let mut meta = Vec::with_capacity(META);
            serde_json::to_writer(&mut meta, entry)
                .map_err(|e| JournalError::Entry(e.to_string()))?;
            Ok(meta)
        }
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
            | Entry::WindowEnded { .. }
            | Entry::Gap { .. }
            | Entry::Start(_)
    )
}
