//! Which messages still ask for a decision, on disk, so that a gateway that died can have its messages
//! brought up to date by the next one.
//!
//! A line for each message that was posted and for each that is over. Losing it, or its last lines, costs a
//! message its update until somebody presses a button of it; so nothing is synced.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Place;

/// Lines after which the file is written anew.
const MAX_LINES: usize = 8_192;

/// Messages that are remembered; further ones are not.
const MAX_OPEN: usize = 16_384;

pub(super) struct Book {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    lines: usize,
    open: BTreeMap<String, Place>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    approval: String,
    /// Absent: it is over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    place: Option<Place>,
}

impl Book {
    /// Opens it empty. Gives what was left open, by approval.
    pub(super) fn open(path: &Path) -> io::Result<(Self, BTreeMap<String, Place>)> {
        let left = match File::open(path) {
            Ok(file) => read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let book = Self {
            path: path.to_owned(),
            inner: Mutex::new(Inner {
                file: fresh(path)?,
                lines: 0,
                open: BTreeMap::new(),
            }),
        };
        // Until they are brought up to date they are still open.
        for (approval, place) in &left {
            book.posted(approval, place);
        }
        Ok((book, left))
    }

    pub(super) fn posted(&self, approval: &str, place: &Place) {
        self.note(approval, Some(place));
    }

    pub(super) fn over(&self, approval: &str) {
        self.note(approval, None);
    }

    fn note(&self, approval: &str, place: Option<&Place>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match place {
            Some(place) if inner.open.len() < MAX_OPEN => {
                inner.open.insert(approval.to_owned(), place.clone());
            }
            Some(_) => return,
            None => {
                if inner.open.remove(approval).is_none() {
                    return;
                }
            }
        }
        let line = Line {
            approval: approval.to_owned(),
            place: place.cloned(),
        };
        if let Err(error) = self.write(&mut inner, &line) {
            tracing::warn!(file = %self.path.display(), %error, "a message may stay as it is after a crash");
        }
    }

    fn write(&self, inner: &mut Inner, line: &Line) -> io::Result<()> {
        if inner.lines >= MAX_LINES {
            inner.file = fresh(&self.path)?;
            inner.lines = 0;
            for (approval, place) in inner.open.clone() {
                let place = Some(place);
                append(inner, &Line { approval, place })?;
            }
            return Ok(());
        }
        append(inner, line)
    }
}

fn append(inner: &mut Inner, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    inner.lines += 1;
    inner.file.write_all(&text)
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// A line that is torn or not ours is passed over.
fn read(file: File) -> BTreeMap<String, Place> {
    let mut open = BTreeMap::new();
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    for line in lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok()) {
        match line.place {
            Some(place) => open.insert(line.approval, place),
            None => open.remove(&line.approval),
        };
        if open.len() > MAX_OPEN {
            break;
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ts: usize) -> Place {
        Place {
            channel: "C1".to_owned(),
            ts: ts.to_string(),
        }
    }

    #[test]
    fn what_was_not_over_is_found_again_whatever_else_is_in_the_file() {
        let path = std::env::temp_dir().join(format!("holdpoint-book-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let (book, left) = Book::open(&path).unwrap();
        assert!(left.is_empty());
        for n in 0..MAX_LINES {
            book.posted(&format!("hp-{n}"), &place(n));
            if n % 1_000 != 7 {
                book.over(&format!("hp-{n}"));
            }
        }
        book.over("hp-unknown");
        drop(book);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"approval\":\"hp-8\",\"pla").unwrap();
        let (_, left) = Book::open(&path).unwrap();
        let names: Vec<_> = left.keys().cloned().collect();
        assert_eq!(names.len(), 9, "{names:?}");
        assert_eq!(left["hp-3007"], place(3_007));
        let (_, again) = Book::open(&path).unwrap();
        assert_eq!(again, left);
    }
}
