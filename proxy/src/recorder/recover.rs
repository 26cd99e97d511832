//! Opens what a former process left, and decides whether it may be continued.
//!
//! Only bytes that no checkpoint covers, at the very end, may be cut: a crash
//! leaves them. Anything else that is wrong stops the start, because it
//! is either damage or somebody's work, and going on would bury it. Where the
//! loss is accepted, what is cut was copied before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use holdpoint_core::record::checkpoint::{Checkpoint, CheckpointError, Verifier, signers};
use holdpoint_core::record::tracker::Tracker;
use holdpoint_core::record::{ACCEPTED, frame};

use super::JournalError;
use super::checkpoints::{Log, last_note};
use super::read::{ReadError, Reader};
use super::segment::{self, Segment};

/// What to do about records that are missing or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    #[default]
    Refuse,
    /// `--accept-loss`: write down what is lost, and go on.
    Accept,
}

pub(super) struct Recovered {
    pub(super) tracker: Tracker,
    pub(super) checkpoints: Log,
    /// `None` in an empty journal.
    pub(super) segment: Option<Segment>,
    /// Each becomes a gap record: bytes that were cut, and why.
    pub(super) gaps: Vec<(u64, String)>,
}

pub(super) fn recover(dir: &Path, key: &Verifier, loss: Loss) -> Result<Recovered, JournalError> {
    let (checkpoints, last) = Log::open(dir, key)?;
    let mut gaps = Vec::new();
    let last = match (last, loss) {
        (None, _) => None,
        (Some(Ok(checkpoint)), _) => Some(checkpoint),
        (Some(Err(CheckpointError::Unsigned(_))), Loss::Refuse) => {
            return Err(JournalError::OtherKey {
                ours: key.id(),
                journal: dir.to_owned(),
                signed: last_note(dir)?.map_or_else(Vec::new, |note| signers(&note)),
            });
        }
        (Some(Err(error)), Loss::Refuse) => return Err(error.into()),
        (Some(Err(error)), Loss::Accept) => {
            gaps.push((
                0,
                format!("{ACCEPTED}the last checkpoint was not good: {error}"),
            ));
            None
        }
    };
    let mut walk = walk(dir, last.as_ref())?;
    let have = walk.tracker.next_seq();
    if last.is_none() && loss == Loss::Refuse && (have > 0 || walk.damage.is_some()) {
        // Put back, it tells what of the damage is a torn write.
        return Err(JournalError::NoCheckpoint(dir.to_owned()));
    }
    let damage = match walk.damage.take() {
        None => None,
        Some(damage) if loss == Loss::Refuse => return Err(damage),
        Some(damage) => Some((damage, set_aside(dir, walk.segment)?)),
    };
    let complaint = match &last {
        Some(checkpoint) if checkpoint.size > have => Some(JournalError::Lost {
            have,
            need: checkpoint.size,
        }),
        Some(checkpoint) if !walk.matches => Some(JournalError::Changed {
            size: checkpoint.size,
        }),
        None if have > 0 => Some(JournalError::NoCheckpoint(dir.to_owned())),
        _ => None,
    };
    match complaint {
        Some(complaint) if loss == Loss::Refuse => return Err(complaint),
        Some(complaint) => gaps.push((0, accepted(&complaint))),
        None => {}
    }
    let segment = match segment::list(dir)?.into_iter().nth(walk.index()) {
        None => None,
        Some((number, path)) => {
            let mut segment = Segment::open(number, path)?;
            segment.at = walk.offset;
            let cut = segment.cut()?;
            match damage {
                Some((damage, copy)) => gaps.push((cut, accepted_damage(&damage, &copy))),
                None if cut > 0 => {
                    gaps.push((cut, walk.torn.unwrap_or_else(|| "a torn write".into())));
                }
                None => {}
            }
            Some(segment)
        }
    };
    Ok(Recovered {
        tracker: walk.tracker,
        checkpoints,
        segment,
        gaps,
    })
}

/// The journal's good beginning.
struct Walk {
    tracker: Tracker,
    /// Number of the segment that holds the end, and where in it that is.
    segment: u64,
    offset: u64,
    /// What stood at the end, if not zeros: a write that was not finished.
    torn: Option<String>,
    damage: Option<JournalError>,
    /// The records are those that the last checkpoint was signed over.
    matches: bool,
}

impl Walk {
    fn index(&self) -> usize {
        usize::try_from(self.segment.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    fn check(&mut self, checkpoint: Option<&Checkpoint>) {
        let tree = self.tracker.tree();
        if let Some(checkpoint) = checkpoint
            && checkpoint.size == tree.size()
        {
            self.matches = checkpoint.root == tree.root();
        }
    }
}

fn walk(dir: &Path, checkpoint: Option<&Checkpoint>) -> Result<Walk, JournalError> {
    let mut reader = Reader::open_exclusive(dir)?;
    let mut walk = Walk {
        tracker: Tracker::default(),
        segment: 1,
        offset: 0,
        torn: None,
        damage: None,
        matches: false,
    };
    walk.check(checkpoint);
    loop {
        match reader.next_record() {
            Ok(None) => {
                (walk.segment, walk.offset) = reader.position();
                return Ok(walk);
            }
            Ok(Some(raw)) => {
                let (file, offset) = (raw.file.to_owned(), raw.offset);
                let damaged = |why: String, seq| JournalError::Damaged {
                    file: file.clone(),
                    offset,
                    seq,
                    why,
                };
                let seq = walk.tracker.next_seq();
                let leaf = frame::leaf_hash(raw.bytes);
                let taken = frame::decode(raw.bytes).map(|frame| walk.tracker.accept(&frame, leaf));
                match taken {
                    Ok(Ok(())) => walk.check(checkpoint),
                    // Whole and in the wrong place: no crash does that.
                    Ok(Err(error)) => walk.damage = Some(damaged(error.to_string(), seq)),
                    Err(error)
                        if error.is_torn()
                            && reader.in_last_segment()
                            && !is_covered(seq, checkpoint) =>
                    {
                        walk.torn = Some(error.to_string());
                    }
                    Err(error) => walk.damage = Some(damaged(error.to_string(), seq)),
                }
                if walk.torn.is_some() || walk.damage.is_some() {
                    (walk.segment, _) = reader.position();
                    walk.offset = offset;
                    return Ok(walk);
                }
            }
            Err(ReadError::Io(error)) => return Err(error),
            Err(ReadError::Bad {
                file,
                offset,
                why,
                last,
            }) => {
                (walk.segment, walk.offset) = reader.position();
                let seq = walk.tracker.next_seq();
                if last && !is_covered(seq, checkpoint) {
                    walk.torn = Some(why);
                } else {
                    walk.damage = Some(JournalError::Damaged {
                        file,
                        offset,
                        seq,
                        why,
                    });
                }
                return Ok(walk);
            }
        }
    }
}

/// Whether record `seq` was durable once: a checkpoint covers it. Without one it may have been.
fn is_covered(seq: u64, checkpoint: Option<&Checkpoint>) -> bool {
    checkpoint.is_none_or(|checkpoint| checkpoint.size > seq)
}

/// What was wrong, without the advice that came with it.
fn accepted(complaint: &JournalError) -> String {
    match complaint {
        JournalError::Lost { have, need } => format!(
            "{ACCEPTED}{} record(s) were missing: the last checkpoint was signed over {need}, and {have} were there",
            need - have
        ),
        JournalError::Changed { size } => format!(
            "{ACCEPTED}the first {size} records were not those that the last checkpoint was signed over"
        ),
        JournalError::NoCheckpoint(_) => {
            format!("{ACCEPTED}there was no good checkpoint to compare the records with")
        }
        other => format!("{ACCEPTED}{other}"),
    }
}

fn accepted_damage(damage: &JournalError, copy: &Path) -> String {
    let copy = copy.file_name().unwrap_or(copy.as_os_str());
    let copy = copy.to_string_lossy();
    match damage {
        JournalError::Damaged {
            file,
            offset,
            seq,
            why,
        } => format!(
            "{ACCEPTED}record {seq} in `{file}` at byte {offset} was damaged ({why}); it and what stood behind it is kept in `{copy}`"
        ),
        other => format!("{ACCEPTED}{other}; what stood there is kept in `{copy}`"),
    }
}

/// Keeps a copy of the damaged segment, and renames those after it, so that they are kept but
/// not read. The copy is durable on return: the segment is cut next.
fn set_aside(dir: &Path, last: u64) -> Result<PathBuf, JournalError> {
    let mut kept = dir.to_owned();
    for (number, path) in segment::list(dir)? {
        if number == last {
            kept = unused(&path, "damaged");
            let copied = fs::copy(&path, &kept).and_then(|_| File::open(&kept)?.sync_all());
            copied.map_err(|e| JournalError::io("copy", &path, &e))?;
        }
        if number > last {
            let aside = unused(&path, "lost");
            fs::rename(&path, &aside).map_err(|e| JournalError::io("set aside", &path, &e))?;
        }
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| JournalError::io("sync", dir, &e))?;
    Ok(kept)
}

/// The path with an extension that no file has yet: what was set aside before stays.
fn unused(path: &Path, extension: &str) -> PathBuf {
    let mut free = path.with_extension(extension);
    let mut count = 0;
    while free.exists() {
        count += 1;
        free = path.with_extension(format!("{extension}{count}"));
    }
    free
}
