//! Verifies a journal's directory: reads everything and hands it to the pure verifier.

use std::path::{Path, PathBuf};

use holdpoint_core::record::checkpoint::Verifier as Key;
use holdpoint_core::record::frame::{self, FrameError};
use holdpoint_core::record::verify::{Kind, Place, Report, Verifier};

use super::checkpoints::{self, CheckpointFile, read_checkpoints, read_kept};
use super::{JournalError, ReadError, Reader, is_live};

/// How far a check is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub records: u64,
    pub bytes: u64,
    /// Bytes of all segments, used or not.
    pub total: u64,
}

/// Checks a journal against its own checkpoints and those in further files.
///
/// The second value is whether a gateway was writing meanwhile; then what it
/// had not finished is left out.
///
/// # Errors
/// Something cannot be read, or a further file holds no checkpoint.
pub fn check_journal(
    journal: &Path,
    key: &Key,
    kept: &[PathBuf],
    mut progress: impl FnMut(Progress),
) -> Result<(Report, bool), JournalError> {
    let live = is_live(journal);
    // Before the records: what is signed later is not looked for.
    let own = journal.join(checkpoints::NAME);
    let mut signed = Vec::new();
    let mut complaints = Vec::new();
    let file = if own.exists() {
        read_checkpoints(&own, key)?
    } else {
        CheckpointFile::default()
    };
    if file.good.is_empty() && file.bad.is_empty() {
        complaints.push("the journal has no checkpoints".to_owned());
    }
    if file.torn && !live {
        complaints.push(
            "the last checkpoint is cut off; starting the gateway repairs what a crash left"
                .to_owned(),
        );
    }
    signed.extend(file.good);
    complaints.extend(file.bad);
    let mut remarks = Vec::new();
    for path in kept {
        let file = read_kept(path, key)?;
        if file.torn {
            remarks.push(format!(
                "the last checkpoint in `{}` is cut off, and was not looked at",
                path.display()
            ));
        }
        signed.extend(file.good);
        complaints.extend(file.bad);
    }
    let mut verifier = Verifier::new(signed);
    for complaint in complaints {
        verifier.other(Kind::Checkpoint, complaint);
    }
    for remark in remarks {
        verifier.remark(Kind::Checkpoint, remark);
    }
    let mut reader = Reader::open(journal)?;
    let total = reader.total_bytes();
    let mut bytes = 0;
    while !verifier.is_broken() {
        let (place, why) = match reader.next_record() {
            Ok(None) => break,
            Ok(Some(raw)) => match torn(&verifier, raw.bytes) {
                None => {
                    bytes += raw.bytes.len() as u64;
                    verifier.record(raw.file, raw.offset, raw.bytes);
                    let records = verifier.size();
                    progress(Progress {
                        records,
                        bytes,
                        total,
                    });
                    continue;
                }
                Some(error) => {
                    let (file, offset) = (raw.file.to_owned(), raw.offset);
                    (Place { file, offset }, error.to_string())
                }
            },
            Err(ReadError::Bad {
                file, offset, why, ..
            }) => (Place { file, offset }, why),
            Err(ReadError::Missing { file }) => {
                let why = "the segment is not there, and others behind it are".to_owned();
                (Place { file, offset: 0 }, why)
            }
            Err(ReadError::Io(error)) => return Err(error),
        };
        // A crash does not write behind what it did not write, as far as anybody can rely on.
        let at_end = verifier.may_be_unfinished() && reader.in_last_segment();
        if at_end && !reader.is_followed(place.offset, verifier.size())? {
            verifier.unfinished(place, &why);
            break;
        }
        verifier.unreadable(place, why);
    }
    Ok((verifier.finish(), live))
}

/// What is wrong with the record, if it may be one that a crash left unfinished.
fn torn(verifier: &Verifier, record: &[u8]) -> Option<FrameError> {
    // Only behind the last checkpoint is it read twice.
    let error = verifier
        .may_be_unfinished()
        .then(|| frame::decode(record).err());
    error.flatten().filter(FrameError::is_torn)
}
