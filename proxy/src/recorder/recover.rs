//! Opens what a former process left, and decides whether it may be continued.
//!
//! Only bytes that no checkpoint covers, at the very end, may be cut: a crash
//! leaves them. Anything else that is wrong stops the start, because it
//! is either damage or somebody's work, and going on would bury it.

use std::path::Path;

use holdpoint_core::record::checkpoint::{Checkpoint, Verifier};
use holdpoint_core::record::frame;
use holdpoint_core::record::tracker::Tracker;

use super::JournalError;
use super::checkpoints::Log;
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
        (Some(Err(error)), Loss::Refuse) => return Err(error.into()),
        (Some(Err(error)), Loss::Accept) => {
            gaps.push((
                0,
                format!("accepted: the last checkpoint was not good: {error}"),
            ));
            None
        }
    };
    let mut walk = walk(dir, last.as_ref())?;
    if let Some(damage) = walk.damage.take() {
        let JournalError::Damaged { why, offset, .. } = &damage else {
            return Err(damage);
        };
        if loss == Loss::Refuse {
            return Err(damage);
        }
        gaps.push((
            0,
            format!("accepted: damaged records at byte {offset}: {why}"),
        ));
        set_aside(dir, walk.segment)?;
    }
    let have = walk.tracker.next_seq();
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
        Some(complaint) => gaps.push((0, format!("accepted: {complaint}"))),
        None => {}
    }
    let segment = match segment::list(dir)?.into_iter().nth(walk.index()) {
        None => None,
        Some((number, path)) => {
            let mut segment = Segment::open(number, path)?;
            segment.at = walk.offset;
            let cut = segment.cut()?;
            if cut > 0 {
                gaps.push((cut, walk.torn.unwrap_or_else(|| "a torn write".into())));
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
    /// What stood at the end, if not zeros.
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
                    Err(error) if reader.in_last_segment() => walk.torn = Some(error.to_string()),
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
                if last {
                    walk.torn = Some(why);
                } else {
                    walk.damage = Some(JournalError::Damaged {
                        file,
                        offset,
                        seq: walk.tracker.next_seq(),
                        why,
                    });
                }
                return Ok(walk);
            }
        }
    }
}

/// Keeps a copy of the damaged segment, and renames those after it, so that they are kept but not read.
fn set_aside(dir: &Path, last: u64) -> Result<(), JournalError> {
    for (number, path) in segment::list(dir)? {
        if number == last {
            let copy = path.with_extension("damaged");
            std::fs::copy(&path, &copy).map_err(|e| JournalError::io("copy", &path, &e))?;
        }
        if number > last {
            let mut aside = path.with_extension("lost");
            let mut count = 0;
            while aside.exists() {
                count += 1;
                aside = path.with_extension(format!("lost{count}"));
            }
            std::fs::rename(&path, &aside).map_err(|e| JournalError::io("set aside", &path, &e))?;
        }
    }
    Ok(())
}
