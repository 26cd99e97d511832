//! The journal's directory: who may write to it, who is writing, and the key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdpoint_core::record::checkpoint::{NodeKey, Verifier, signers};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::{JournalError, checkpoints};

const LOCK: &str = "lock";
const PUBLIC: &str = "journal.pub";
/// A predecessor that is ending, or a `verify` that looks whether we live, lets go within this.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A directory that only we write to, as long as this lives.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    handle: File,
    _lock: File,
}

impl Dir {
    pub(super) fn lock(path: &Path) -> Result<Self, JournalError> {
        make_private(path)?;
        let handle = File::open(path).map_err(|e| JournalError::io("open", path, &e))?;
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| JournalError::io("open", &lock_path, &e))?;
        let started = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(JournalError::InUse(path.to_owned()));
                }
                Err(error) => return Err(JournalError::io("lock", &lock_path, &error)),
            }
        }
        // Whom a successor asks to make room.
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| JournalError::io("write", &lock_path, &e))?;
        Ok(Self {
            path: path.to_owned(),
            handle,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes names that were created or changed durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.handle
            .sync_all()
            .map_err(|e| JournalError::io("sync", &self.path, &e))
    }

    /// Leaves the key where the next start reads it, and its public half where auditors find it.
    ///
    /// For after the journal was found to be good: until then its `journal.pub` is what
    /// verifies it.
    pub(super) fn keep(&self, path: &Path, key: &Key) -> Result<(), JournalError> {
        if let Some(seed) = &key.drawn {
            write_seed(path, seed)?;
        }
        let public = format!("{}\n", key.key.verifier());
        let beside = path.with_file_name(PUBLIC);
        for place in [self.path.join(PUBLIC), beside] {
            if fs::read_to_string(&place).is_ok_and(|text| text == public) {
                continue;
            }
            fs::write(&place, &public).map_err(|e| JournalError::io("write", &place, &e))?;
        }
        Ok(())
    }
}

/// The node's key.
pub(super) struct Key {
    pub(super) key: NodeKey,
    /// Its seed, if it lies in no file yet.
    drawn: Option<Zeroizing<[u8; 32]>>,
}

impl Key {
    /// Reads the seed; draws one where there is none and nothing was signed yet. Writes nothing.
    pub(super) fn read(path: &Path, node: &str, journal: &Path) -> Result<Self, JournalError> {
        if let Some(seed) = read_seed(path)? {
            let key = NodeKey::new(node, &seed)?;
            return Ok(Self { key, drawn: None });
        }
        if let Some(note) = checkpoints::last_note(journal)? {
            return Err(JournalError::NoKey {
                path: path.to_owned(),
                journal: journal.to_owned(),
                signed: signers(&note),
            });
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|e| JournalError::io("draw a key for", path, &e))?;
        Ok(Self {
            key: NodeKey::new(node, &seed)?,
            drawn: Some(seed),
        })
    }
}

/// Reads a public key: a file's path, the key itself, or else the journal's own `journal.pub`.
pub fn read_verifier(given: Option<&str>, journal: &Path) -> Result<Verifier, JournalError> {
    let path = match given {
        Some(text) => match text.parse() {
            Ok(key) => return Ok(key),
            Err(_) => PathBuf::from(text),
        },
        None => journal.join(PUBLIC),
    };
    let text = fs::read_to_string(&path).map_err(|e| JournalError::io("read", &path, &e))?;
    Ok(text.parse()?)
}

/// Whether a process writes to this journal now.
pub fn is_live(journal: &Path) -> bool {
    let Ok(lock) = File::open(journal.join(LOCK)) else {
        return false;
    };
    matches!(
        flock(&lock, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

/// The process that writes to this journal now.
pub fn writer_pid(journal: &Path) -> Option<i32> {
    if !is_live(journal) {
        return None;
    }
    fs::read_to_string(journal.join(LOCK))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn make_private(path: &Path) -> Result<(), JournalError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| JournalError::io("make directory", path, &e))?;
    let meta = fs::metadata(path).map_err(|e| JournalError::io("look at", path, &e))?;
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(JournalError::Unsafe {
            path: path.to_owned(),
            problem: format!("belongs to user {}, and we run as {user}", meta.uid()),
            hint: "give it to the gateway's user (chown)",
        });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(JournalError::Unsafe {
            path: path.to_owned(),
            problem: format!("can be written by others (mode {:o})", meta.mode() & 0o777),
            hint: "run chmod 700 on it",
        });
    }
    Ok(())
}

fn read_seed(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, JournalError> {
    let io = |e: io::Error| JournalError::io("read the journal's key", path, &e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mode = file.metadata().map_err(io)?.mode();
    if mode & 0o077 != 0 {
        return Err(JournalError::Unsafe {
            path: path.to_owned(),
            problem: format!("can be read by others (mode {:o})", mode & 0o777),
            hint: "make a new key if others may have read it, and run chmod 600 on it",
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(1024).read_to_string(&mut text).map_err(io)?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), seed.as_mut()).map_err(|_| JournalError::Unsafe {
        path: path.to_owned(),
        problem: "is not a journal key: 64 hex digits".into(),
        hint: "put the right file there, or name another in `journal.key`",
    })?;
    Ok(Some(seed))
}

fn write_seed(path: &Path, seed: &[u8; 32]) -> Result<(), JournalError> {
    let io = |e: io::Error| JournalError::io("write the journal's key", path, &e);
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(io)?;
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(seed)));
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    if let Some(parent) = path.parent() {
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(io)?;
    }
    Ok(())
}
