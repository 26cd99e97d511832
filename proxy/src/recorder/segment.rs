//! Segment files: allocated whole before they are used.
//!
//! Then a full disk shows when a segment is made and not as half a record, and where
//! the records end there are zeros. Blocks that were never written cost a sync their
//! metadata, so zeros go ahead of the records ([`Segment::write_ahead`]), but only a
//! little: a whole segment of them would double what a long answer costs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::JournalError;
use super::dir::Dir;

const SPARE: &str = "spare";
const UNFINISHED: &str = "spare.tmp";
const ZEROS: &[u8] = &[0; 1 << 20];
/// Zeros are written this far ahead of the records, once fewer than [`LOW`] are there.
const AHEAD: u64 = 256 << 10;
const LOW: u64 = 64 << 10;
/// Zeros go ahead block by block: the cache keeps what is written at once as one piece, and a
/// write into a large one is dear (see [`forget`]).
const BLOCK: u64 = 4 << 10;

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// Shared with whoever syncs it.
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    /// Where the next record goes.
    pub(super) at: u64,
    /// Blocks up to here were written since the segment is open; what lies behind
    /// reads as zeros too.
    written: u64,
}

/// The segments of a journal.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// From the first one on, without a hole.
    pub(super) whole: Vec<(u64, PathBuf)>,
    /// Those behind the first hole.
    pub(super) behind: Vec<(u64, PathBuf)>,
}

impl Listed {
    /// The segment that is not there although others behind it are.
    pub(super) fn missing(&self) -> Option<String> {
        let next = self.whole.last().map_or(1, |(number, _)| number + 1);
        (!self.behind.is_empty()).then(|| name_of(next))
    }
}

/// All segments of a journal in order.
pub(super) fn list(dir: &Path) -> Result<Listed, JournalError> {
    let io = |e: io::Error| JournalError::io("list", dir, &e);
    let mut found = Vec::new();
    for item in fs::read_dir(dir).map_err(io)? {
        let item = item.map_err(io)?;
        let name = item.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|digits| digits.parse().ok());
        if let Some(number) = number {
            found.push((number, item.path()));
        }
    }
    found.sort();
    let hole = (1..)
        .zip(&found)
        .position(|(expected, (number, _))| *number != expected);
    let behind = hole.map_or_else(Vec::new, |at| found.split_off(at));
    Ok(Listed {
        whole: found,
        behind,
    })
}

pub(super) fn name_of(number: u64) -> String {
    format!("{number:08}.seg")
}

/// Makes the spare segment. Waits for the disk. Leaves nothing behind on an error.
pub(super) fn make_spare(dir: &Path, len: u64) -> io::Result<()> {
    let unfinished = dir.join(UNFINISHED);
    let made = fill(&unfinished, len)
        .and_then(|()| fs::rename(&unfinished, dir.join(SPARE)))
        .and_then(|()| File::open(dir)?.sync_all());
    if made.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    made
}

fn fill(path: &Path, len: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, len) {
        Ok(()) => return file.sync_all(),
        // Some file systems cannot; zeros allocate as well.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut left = len;
    while left > 0 {
        let piece = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..piece as usize])?;
        left -= piece;
    }
    file.sync_all()
}

/// The size of the spare that is there, if one is.
pub(super) fn spare_len(dir: &Path) -> Option<u64> {
    fs::metadata(dir.join(SPARE)).ok().map(|meta| meta.len())
}

impl Segment {
    /// Turns the spare into segment `number`.
    pub(super) fn take_spare(dir: &Dir, number: u64) -> Result<Self, JournalError> {
        let path = dir.path().join(name_of(number));
        let io = |e: io::Error| JournalError::io("begin segment", &path, &e);
        if path.exists() {
            return Err(io(io::ErrorKind::AlreadyExists.into()));
        }
        fs::rename(dir.path().join(SPARE), &path).map_err(io)?;
        let segment = Self::open(number, path)?;
        dir.sync()?;
        Ok(segment)
    }

    pub(super) fn open(number: u64, path: PathBuf) -> Result<Self, JournalError> {
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|e| JournalError::io("open", &path, &e))?;
        let meta = file.metadata();
        let len = meta
            .map_err(|e| JournalError::io("look at", &path, &e))?
            .len();
        Ok(Self {
            number,
            path,
            file: Arc::new(file),
            len,
            at: 0,
            written: 0,
        })
    }

    /// Writes zeros behind the records, so that the next syncs find their blocks written.
    pub(super) fn write_ahead(&mut self) -> io::Result<()> {
        let from = self.written.max(self.at);
        if from - self.at >= LOW {
            return Ok(());
        }
        let to = (self.at + AHEAD).min(self.len);
        forget(&self.file, from);
        let mut at = from;
        while at < to {
            let piece = (BLOCK - at % BLOCK).min(to - at);
            self.file.write_all_at(&ZEROS[..piece as usize], at)?;
            at += piece;
        }
        self.written = to;
        Ok(())
    }

    /// Zeroes everything from `self.at` on; returns how many bytes were not zero up to the last such.
    pub(super) fn cut(&mut self) -> Result<u64, JournalError> {
        let io = |e: io::Error| JournalError::io("cut the torn end of", &self.path, &e);
        let (mut at, mut end) = (self.at, self.at);
        let mut buffer = vec![0; ZEROS.len()];
        while at < self.len {
            let want = (self.len - at).min(buffer.len() as u64) as usize;
            self.file
                .read_exact_at(&mut buffer[..want], at)
                .map_err(io)?;
            if let Some(last) = buffer[..want].iter().rposition(|byte| *byte != 0) {
                end = at + last as u64 + 1;
            }
            at += want as u64;
        }
        let bytes = end - self.at;
        let mut at = self.at;
        while at < end {
            let piece = (end - at).min(ZEROS.len() as u64);
            self.file
                .write_all_at(&ZEROS[..piece as usize], at)
                .map_err(io)?;
            at += piece;
        }
        if bytes > 0 {
            self.file.sync_data().map_err(io)?;
        }
        forget(&self.file, 0);
        Ok(bytes)
    }
}

/// Drops what the kernel has read ahead of the file from `from` on.
///
/// Such memory is in pieces of up to megabytes, and each write into one looks at all of its
/// blocks: with ext4 a record's write cost three times what it costs otherwise.
#[cfg(target_os = "linux")]
fn forget(file: &File, from: u64) {
    // Without it, writes are only slower.
    let _ = rustix::fs::fadvise(file, from, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &File, _from: u64) {}
