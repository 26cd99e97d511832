//! Reads a journal's records in order, also while a gateway writes to it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use holdpoint_core::record::frame::{self, FrameError};

use super::{JournalError, is_live, segment};

const CHUNK: usize = 1 << 20;

/// Goes through a journal from its first record.
pub struct Reader {
    dir: PathBuf,
    segments: Vec<(u64, PathBuf)>,
    /// What should come behind them and is not there.
    missing: Option<String>,
    /// Index of the segment being read.
    at: usize,
    file: Option<File>,
    name: String,
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and not yet given out.
    start: usize,
    end: usize,
    /// Of `buffer[start]` in the file.
    offset: u64,
    live: bool,
}

/// One record's bytes and where they lie.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    pub file: &'a str,
    pub offset: u64,
    pub bytes: &'a [u8],
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] JournalError),
    /// What stands there is no record, and not the end either.
    #[error("`{file}` at byte {offset}: {why}")]
    Bad {
        file: String,
        offset: u64,
        why: String,
        /// In the journal's last segment.
        last: bool,
    },
    /// All before it was read; others lie behind it.
    #[error("`{file}`: the segment is not there")]
    Missing { file: String },
}

impl Reader {
    /// Segments that are begun later are not read.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        // Asked first: a gateway that ends in between leaves nothing unfinished.
        let live = is_live(dir);
        Self::new(dir, live)
    }

    /// Begins at the segment from which on there are about `bytes`; at least the last one.
    ///
    /// # Errors
    /// As for [`Reader::open`].
    pub fn open_last(dir: &Path, bytes: u64) -> Result<Self, JournalError> {
        let mut reader = Self::open(dir)?;
        let mut sum = 0;
        let mut first = reader.segments.len();
        for (at, (_, path)) in reader.segments.iter().enumerate().rev() {
            sum += path.metadata().map_or(0, |meta| meta.len());
            if sum > bytes && first < reader.segments.len() {
                break;
            }
            first = at;
        }
        reader.at = first.min(reader.segments.len().saturating_sub(1));
        Ok(reader)
    }

    /// Whether this began at the journal's first record.
    pub fn is_whole(&self) -> bool {
        self.at == 0
    }

    /// For the one who holds the lock: nobody else is writing.
    pub(super) fn open_exclusive(dir: &Path) -> Result<Self, JournalError> {
        Self::new(dir, false)
    }

    fn new(dir: &Path, live: bool) -> Result<Self, JournalError> {
        let listed = segment::list(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            missing: listed.missing(),
            segments: listed.whole,
            at: 0,
            file: None,
            name: String::new(),
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            live,
        })
    }

    /// Whether a gateway was writing to the journal when it was opened.
    pub fn live(&self) -> bool {
        self.live
    }

    /// Bytes of all segments, used or not.
    pub fn total_bytes(&self) -> u64 {
        let len = |path: &PathBuf| path.metadata().map_or(0, |meta| meta.len());
        self.segments.iter().map(|(_, path)| len(path)).sum()
    }

    /// The number of the segment being read, and the offset in it of the next record.
    pub(super) fn position(&self) -> (u64, u64) {
        let number = self.segments.get(self.at).map_or(0, |(number, _)| *number);
        (number, self.offset)
    }

    pub(super) fn in_last_segment(&self) -> bool {
        self.missing.is_none() && self.is_at_end()
    }

    /// Whether a whole record that may come after number `seq` stands in this segment from
    /// `offset` on. Reads all of the rest at once: for what is no record, once.
    pub(super) fn is_followed(&self, offset: u64, seq: u64) -> Result<bool, JournalError> {
        let Some((_, path)) = self.segments.get(self.at) else {
            return Ok(false);
        };
        let read = || -> io::Result<Vec<u8>> {
            let mut rest = Vec::new();
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_end(&mut rest)?;
            Ok(rest)
        };
        let rest = read().map_err(|e| JournalError::io("read", path, &e))?;
        Ok(frame::is_followed(&rest, seq))
    }

    fn is_at_end(&self) -> bool {
        self.at + 1 >= self.segments.len()
    }

    /// Goes on where it ended, with what was written since. For after `Ok(None)`.
    ///
    /// # Errors
    /// The journal's directory cannot be read any more, or the segment is gone.
    pub fn again(&mut self) -> Result<(), ReadError> {
        let current = self.segments.get(self.at).map(|(number, _)| *number);
        self.live = is_live(&self.dir);
        let listed = segment::list(&self.dir)?;
        self.missing = listed.missing();
        self.segments = listed.whole;
        let Some(current) = current else {
            return Ok(());
        };
        let found = self
            .segments
            .iter()
            .position(|(number, _)| *number == current);
        let Some(at) = found else {
            return Err(self.bad("the segment was removed while it was read".into()));
        };
        self.at = at;
        if let Some(file) = &mut self.file {
            // What was read ahead was nothing then, and may be records now.
            let path = &self.segments[self.at].1;
            file.seek(SeekFrom::Start(self.offset))
                .map_err(|e| JournalError::io("read", path, &e))?;
            (self.start, self.end) = (0, 0);
        }
        Ok(())
    }

    /// The next record, `None` at the end. After an error nothing more can be read.
    ///
    /// In a live journal's last segment an unfinished record is the end.
    pub fn next_record(&mut self) -> Result<Option<Raw<'_>>, ReadError> {
        match self.advance() {
            Ok(None) => match &self.missing {
                None => Ok(None),
                Some(file) => Err(ReadError::Missing { file: file.clone() }),
            },
            Ok(Some(len)) => {
                let bytes = self.start..self.start + len;
                let offset = self.offset;
                self.start += len;
                self.offset += len as u64;
                Ok(Some(Raw {
                    file: &self.name,
                    offset,
                    bytes: &self.buffer[bytes],
                }))
            }
            Err(ReadError::Bad { .. }) if self.live && self.in_last_segment() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds the next record and gives its length.
    fn advance(&mut self) -> Result<Option<usize>, ReadError> {
        loop {
            if self.file.is_none() && !self.open_segment()? {
                return Ok(None);
            }
            self.fill(4)?;
            if self.end - self.start >= 4 {
                let found = frame::record_len(&self.buffer[self.start..self.end]);
                if let Some(len) = found.map_err(|e| self.bad(e.to_string()))? {
                    self.fill(len)?;
                    let have = self.end - self.start;
                    if have < len {
                        return Err(self.bad(FrameError::Short { have, need: len }.to_string()));
                    }
                    if self.live && self.in_last_segment() {
                        // The writer may be in the middle of it.
                        let record = &self.buffer[self.start..self.start + len];
                        frame::decode(record).map_err(|e| self.bad(e.to_string()))?;
                    }
                    return Ok(Some(len));
                }
            }
            // A writer may have begun a record since we looked.
            if !(self.live && self.in_last_segment()) {
                self.expect_zeros()?;
            }
            if self.is_at_end() {
                return Ok(None);
            }
            self.file = None;
            self.at += 1;
        }
    }

    fn open_segment(&mut self) -> Result<bool, ReadError> {
        let Some((number, path)) = self.segments.get(self.at) else {
            return Ok(false);
        };
        self.name = segment::name_of(*number);
        self.file = Some(File::open(path).map_err(|e| JournalError::io("open", path, &e))?);
        (self.start, self.end, self.offset) = (0, 0, 0);
        Ok(true)
    }

    /// Reads until `need` bytes are there or the file ends.
    fn fill(&mut self, need: usize) -> Result<(), ReadError> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if self.end - self.start >= need {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < need {
            // Grown by what was read, not by what a record claims to be long.
            let room = (self.end + CHUNK).max(CHUNK);
            if self.buffer.len() < room {
                self.buffer.resize(room, 0);
            }
            match file.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let path = &self.segments[self.at].1;
                    return Err(JournalError::io("read", path, &error).into());
                }
            }
        }
        Ok(())
    }

    fn expect_zeros(&mut self) -> Result<(), ReadError> {
        let (from, mut zeros) = (self.offset, true);
        loop {
            zeros &= self.buffer[self.start..self.end].iter().all(|b| *b == 0);
            self.start = self.end;
            self.fill(1)?;
            if self.start == self.end || !zeros {
                break;
            }
        }
        self.offset = from;
        if zeros {
            Ok(())
        } else {
            Err(self.bad("bytes follow the end of the records".into()))
        }
    }

    fn bad(&self, why: String) -> ReadError {
        ReadError::Bad {
            file: self.name.clone(),
            offset: self.offset,
            why,
            last: self.in_last_segment(),
        }
    }
}
