//! The thread that makes the journal durable, and signs it.
//!
//! One sync serves everybody who waited while the last one ran. What nobody waits
//! for is synced soon ([`Writer::sync_due`]); the head is signed each second while
//! records come, and each minute while none do.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use holdpoint_core::record::checkpoint::NodeKey;
use holdpoint_core::record::{Entry, Start};
use tokio::sync::oneshot;

use super::checkpoints::Log;
use super::writer::Unsynced;
use super::{Desk, Head, JournalError, Shared, State, Written, now};

const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(60);

pub(super) struct Keeper {
    shared: Arc<Shared>,
    key: Arc<NodeKey>,
    checkpoints: Log,
    /// What is on stable storage.
    synced: Head,
    /// Size and time of the last checkpoint.
    signed: (u64, Instant),
    /// Why the last checkpoint could not be written.
    unsigned: Option<String>,
}

/// Whom to answer when a record is durable.
pub(super) struct Waiting {
    pub(super) ack: oneshot::Sender<Result<Written, JournalError>>,
    pub(super) seq: u64,
}

/// What the thread is told to do last.
pub(super) enum Last {
    /// End in order, and say how it went.
    Close(oneshot::Sender<Result<(), JournalError>>),
    /// Nobody is left who could write.
    Leave,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        key: Arc<NodeKey>,
        checkpoints: Log,
        synced: Head,
    ) -> Self {
        Self {
            shared,
            key,
            checkpoints,
            synced,
            signed: (u64::MAX, Instant::now()),
            unsigned: None,
        }
    }

    /// Writes the process's first records: its start, and the ends of what its
    /// predecessor left open. They are durable on return.
    pub(super) fn begin(
        &mut self,
        start: Start,
        gaps: Vec<(u64, String)>,
    ) -> Result<(), JournalError> {
        let at = now();
        {
            let mut desk = self.shared.desk()?;
            let writer = desk.writer()?;
            writer.append(None, at, Entry::Start(start))?;
            for (bytes, reason) in gaps {
                writer.append(None, at, Entry::Gap { bytes, reason })?;
            }
            writer.end_all("crash", at)?;
            let rest = writer.take_unsynced()?;
            drop(desk);
            self.sync(rest)?;
        }
        self.sign()
    }

    /// Runs until it is told to stop, or until nobody is left who could.
    pub(super) fn run(mut self) {
        // Ends too where another thread panicked while it wrote: nothing can be
        // said of the files then, and everybody who writes hears of it.
        while let Ok(last) = self.rest() {
            let Some(last) = last else {
                let _ = self.turn();
                self.publish();
                continue;
            };
            let result = self.end(&last);
            self.shared
                .update(|_, health| health.state = State::Stopped);
            if let Last::Close(done) = last {
                let _ = done.send(result);
            }
            return;
        }
    }

    /// Sleeps until something is to be done; gives the last thing, when it has come.
    fn rest(&mut self) -> Result<Option<Last>, JournalError> {
        let mut desk = self.shared.desk()?;
        loop {
            if let Some(last) = desk.last.take() {
                return Ok(Some(last));
            }
            let patience = self.patience(&desk);
            if !desk.waiting.is_empty() || patience.is_zero() {
                return Ok(None);
            }
            desk.asleep = true;
            let woken = self.shared.wake.wait_timeout(desk, patience);
            let (again, time) = woken.unwrap_or_else(PoisonError::into_inner);
            desk = again;
            desk.asleep = false;
            if time.timed_out() && desk.last.is_none() {
                return Ok(None);
            }
        }
    }

    /// How long until something is due by time.
    fn patience(&self, desk: &Desk) -> Duration {
        let Some(writer) = desk.writer.as_ref().filter(|writer| !writer.has_failed()) else {
            return HEARTBEAT;
        };
        let dirty = self.signed.0 != writer.size();
        let sign = self.signed.1 + if dirty { CHECKPOINT_AFTER } else { HEARTBEAT };
        let due = [Some(sign), writer.sync_due(), writer.due()];
        let due = due.into_iter().flatten().min().unwrap_or(sign);
        due.saturating_duration_since(Instant::now())
    }

    /// One sync for all who wait, and whatever else is due.
    fn turn(&mut self) -> Result<(), JournalError> {
        let (waiting, rest) = {
            let mut desk = self.shared.desk()?;
            let waiting = std::mem::take(&mut desk.waiting);
            let rest = desk.writer().and_then(|writer| {
                writer.housekeeping(now());
                writer.take_unsynced()
            });
            (waiting, rest)
        };
        // The lock is free while the disk works.
        let result = rest.and_then(|rest| self.sync(rest));
        answer(waiting, &result);
        let age = self.signed.1.elapsed();
        let dirty = self.signed.0 != self.synced.size;
        let due = (dirty && age >= CHECKPOINT_AFTER) || age >= HEARTBEAT;
        let result = result.and_then(|()| if due { self.sign() } else { Ok(()) });
        if let Err(error) = &result {
            self.shared.desk()?.writer()?.fail(error);
        }
        result
    }

    /// The last records, made durable and signed.
    fn end(&mut self, last: &Last) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let mut desk = shared.desk()?;
        let waiting = std::mem::take(&mut desk.waiting);
        let rest = desk.writer().and_then(|writer| {
            if matches!(last, Last::Close(_)) {
                let (at, sessions) = (now(), writer.sessions());
                writer.end_all("shutdown", at)?;
                writer.append(None, at, Entry::Stop { sessions })?;
            }
            writer.take_unsynced()
        });
        let result = rest.and_then(|rest| self.sync(rest));
        answer(waiting, &result);
        let result = match result {
            Ok(()) if self.signed.0 != self.synced.size => self.sign(),
            other => other,
        };
        // Nobody writes behind the stop, and another process may from here on.
        desk.writer = None;
        result
    }

    fn sync(&mut self, rest: Option<Unsynced>) -> Result<(), JournalError> {
        let Some(rest) = rest else {
            return Ok(());
        };
        rest.sync().map_err(fatal)?;
        self.synced = rest.head;
        self.shared.update(|head, health| {
            *head = rest.head;
            health.records = rest.head.size;
            health.syncs += 1;
        });
        Ok(())
    }

    /// Signs what is on stable storage.
    fn sign(&mut self) -> Result<(), JournalError> {
        let Head { size, root } = self.synced;
        let note = self.key.sign(size, root, now().unix());
        match self.checkpoints.append(&note) {
            Ok(()) => {
                self.signed = (size, Instant::now());
                self.unsigned = None;
                let published = self.shared.note.lock();
                *published.unwrap_or_else(PoisonError::into_inner) = Some(note);
                Ok(())
            }
            Err(JournalError::Full(why)) => {
                // Tried again in a second; the records themselves have their space.
                self.signed.1 = Instant::now();
                self.unsigned = Some(format!("no space for a checkpoint: {why}"));
                Ok(())
            }
            Err(error) => Err(fatal(error)),
        }
    }

    /// Tells everybody how the journal is.
    fn publish(&self) {
        let Ok(desk) = self.shared.desk() else {
            return;
        };
        let Some(writer) = &desk.writer else {
            return;
        };
        let late = self.signed.0 != writer.size() && self.signed.1.elapsed() > 5 * CHECKPOINT_AFTER;
        let state = match (writer.state(), &self.unsigned) {
            (State::Ok, Some(why)) => State::Degraded(why.clone()),
            (State::Ok, None) if late => State::Degraded("checkpoints are late".into()),
            (state, _) => state,
        };
        let segment = writer.segment();
        drop(desk);
        self.shared.update(|_, health| {
            health.state = state;
            health.segment = segment;
        });
    }
}

/// However the thread ends, nobody waits for it any more: a panic, here or under the
/// lock, would otherwise leave sessions waiting for a sync that never comes.
impl Drop for Keeper {
    fn drop(&mut self) {
        let mut desk = self
            .shared
            .desk
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        desk.writer = None;
        desk.waiting.clear();
    }
}

fn answer(waiting: Vec<Waiting>, result: &Result<(), JournalError>) {
    for Waiting { ack, seq } in waiting {
        let _ = ack.send(result.clone().map(|()| Written { seq }));
    }
}

/// Marks an error after which the files may not be what we think they are.
pub(super) fn fatal(error: JournalError) -> JournalError {
    match error {
        JournalError::Failed(_) | JournalError::Stopped => error,
        error => JournalError::Failed(error.to_string()),
    }
}
