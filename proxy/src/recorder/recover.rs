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
        (Some(Err(error)), Loss::Refuse) => return Err(not_ours(dir, key, error)?),
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
        Some(damage) => {
            let cut = matches!(damage, JournalError::Damaged { .. });
            let copy = set_aside(dir, walk.segment, cut)?;
            Some(accepted_damage(&damage, copy.as_deref()))
        }
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
    let (segment, cut) = match segment::list(dir)?.whole.into_iter().nth(walk.index()) {
        None => (None, 0),
        Some((number, path)) => {
            let mut segment = Segment::open(number, path)?;
            segment.at = walk.offset;
            let cut = segment.cut()?;
            (Some(segment), cut)
        }
    };
    match damage {
        Some(damage) => gaps.push((cut, damage)),
        None if cut > 0 => gaps.push((cut, walk.torn.unwrap_or_else(|| "a torn write".into()))),
        None => {}
    }
    Ok(Recovered {
        tracker: walk.tracker,
        checkpoints,
        segment,
        gaps,
    })
}

/// Why the last checkpoint is not good, with whose it is.
pub(super) fn not_ours(
    dir: &Path,
    key: &Verifier,
    error: CheckpointError,
) -> Result<JournalError, JournalError> {
    let CheckpointError::Unsigned(_) = error else {
        return Ok(error.into());
    };
    Ok(JournalError::OtherKey {
        ours: key.id(),
        journal: dir.to_owned(),
        signed: last_note(dir)?.map_or_else(Vec::new, |note| signers(&note)),
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
            Err(ReadError::Missing { file }) => {
                (walk.segment, walk.offset) = reader.position();
                walk.damage = Some(JournalError::Missing {
                    file,
                    seq: walk.tracker.next_seq(),
                });
                return Ok(walk);
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

fn accepted_damage(damage: &JournalError, copy: Option<&Path>) -> String {
    let kept = copy.and_then(Path::file_name).map_or_else(
        || "what stood behind it is kept in files that end in `.lost`".to_owned(),
        |name| {
            let name = name.to_string_lossy();
            format!("it and what stood behind it is kept in `{name}`")
        },
    );
    match damage {
        JournalError::Damaged {
            file,
            offset,
            seq,
            why,
        } => format!(
            "{ACCEPTED}record {seq} in `{file}` at byte {offset} was damaged ({why}); {kept}"
        ),
        JournalError::Missing { file, seq } => {
            format!("{ACCEPTED}`{file}` was not there, from record {seq} on; {kept}")
        }
        other => format!("{ACCEPTED}{other}; {kept}"),
    }
}

/// Renames the segments behind the last one that counts, so that they are kept but not read. Of
/// that one it keeps a copy if it is to be `cut`; the copy is durable on return.
fn set_aside(dir: &Path, last: u64, cut: bool) -> Result<Option<PathBuf>, JournalError> {
    let mut kept = None;
    let listed = segment::list(dir)?;
    for (number, path) in listed.whole.into_iter().chain(listed.behind) {
        if number == last && cut {
            let copy = unused(&path, "damaged");
            let copied = fs::copy(&path, &copy).and_then(|_| File::open(&copy)?.sync_all());
            copied.map_err(|e| JournalError::io("copy", &path, &e))?;
            kept = Some(copy);
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
