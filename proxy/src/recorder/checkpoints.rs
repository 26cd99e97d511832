//! The file of signed heads, one note after the other, oldest first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use holdpoint_core::record::checkpoint::{Checkpoint, CheckpointError, Verifier, split_notes};

use super::JournalError;

pub(super) const NAME: &str = "checkpoints";
/// More than the longest note, cosigned by many.
const TAIL: u64 = 64 * 1024;

/// What a file of checkpoints holds.
#[derive(Debug, Default)]
pub struct CheckpointFile {
    /// Signature and origin are good; each with a name for messages.
    pub good: Vec<(Checkpoint, String)>,
    /// What was wrong with the others.
    pub bad: Vec<String>,
    /// How many of `bad` are no checkpoints at all, whoever should have signed them.
    malformed: usize,
    /// The last note is cut off, as a crash leaves it.
    pub torn: bool,
}

/// Reads a file in which somebody kept checkpoints.
///
/// # Errors
/// It cannot be read, or nothing in it is a checkpoint: that says nothing about any journal.
pub(super) fn read_kept(path: &Path, key: &Verifier) -> Result<CheckpointFile, JournalError> {
    let file = read_checkpoints(path, key)?;
    if !file.good.is_empty() || file.bad.len() > file.malformed {
        return Ok(file);
    }
    let bytes = fs::read(path).map_err(|e| JournalError::io("read", path, &e))?;
    let text = String::from_utf8_lossy(&bytes);
    let instead = if text.trim().is_empty() {
        "it is empty"
    } else if text.parse::<Verifier>().is_ok() {
        "it is a journal's public key: give it with --key"
    } else if file.torn && text.starts_with("holdpoint/") {
        "what begins there is cut off before the end of its signature"
    } else {
        "one begins with `holdpoint/` and the node's name, and ends with a signature"
    };
    Err(JournalError::NoneKept {
        path: path.to_owned(),
        instead,
    })
}

/// Reads all notes of a file and checks their signatures.
pub fn read_checkpoints(path: &Path, key: &Verifier) -> Result<CheckpointFile, JournalError> {
    let bytes = fs::read(path).map_err(|e| JournalError::io("read", path, &e))?;
    let text = String::from_utf8_lossy(&bytes);
    let (notes, rest) = split_notes(&text);
    let mut file = CheckpointFile {
        torn: !rest.trim_end_matches('\n').is_empty(),
        ..CheckpointFile::default()
    };
    let name = path.file_name().unwrap_or(path.as_os_str());
    for (index, note) in (1..).zip(notes) {
        let label = format!("{index} of `{}`", name.to_string_lossy());
        match key.open(note) {
            Ok(checkpoint) => file.good.push((checkpoint, label)),
            Err(error) => {
                file.malformed += usize::from(matches!(error, CheckpointError::Form(_)));
                file.bad.push(format!("checkpoint {label}: {error}"));
            }
        }
    }
    Ok(file)
}

/// The last whole note, whoever signed it. Changes nothing.
pub(super) fn last_note(dir: &Path) -> Result<Option<String>, JournalError> {
    let path = dir.join(NAME);
    let io = |e: io::Error| JournalError::io("read", &path, &e);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let (tail, _) = read_tail(&mut file).map_err(io)?;
    let text = String::from_utf8_lossy(&tail);
    Ok(split_notes(&text).0.pop().map(str::to_owned))
}

/// The file's end, and the length of all of it.
///
/// It may begin in mid-note, even in mid-character: only its last note counts.
fn read_tail(file: &mut File) -> io::Result<(Vec<u8>, u64)> {
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok((tail, len))
}

/// Appends to the file.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Log {
    /// Opens the file, cuts off a torn note, and gives the last whole one.
    pub(super) fn open(
        dir: &Path,
        key: &Verifier,
    ) -> Result<(Self, Option<Result<Checkpoint, CheckpointError>>), JournalError> {
        let path = dir.join(NAME);
        let io = |e: io::Error| JournalError::io("open", &path, &e);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let (tail, len) = read_tail(&mut file).map_err(io)?;
        let text = String::from_utf8_lossy(&tail);
        let (notes, rest) = split_notes(&text);
        let last = notes.last().map(|note| key.open(note));
        let torn = !rest.trim_end_matches('\n').is_empty();
        let cut = if torn { rest.len() as u64 } else { 0 };
        let mut log = Self { path, file, len };
        if cut > 0 {
            log.len = len.saturating_sub(cut);
            log.truncate()?;
        }
        Ok((log, last))
    }

    /// Adds a note and makes it durable. On `Full` the file is as before.
    pub(super) fn append(&mut self, note: &str) -> Result<(), JournalError> {
        let bytes = format!("{note}\n");
        let written = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(bytes.as_bytes()));
        if let Err(error) = written {
            self.truncate()?;
            return Err(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    JournalError::Full(error.to_string())
                }
                _ => JournalError::io("write", &self.path, &error),
            });
        }
        self.file
            .sync_data()
            .map_err(|e| JournalError::io("sync", &self.path, &e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn truncate(&mut self) -> Result<(), JournalError> {
        self.file
            .set_len(self.len)
            .map_err(|e| JournalError::io("cut", &self.path, &e))
    }
}
