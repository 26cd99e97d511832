//! Nodes watch each other's journals: each keeps the last signed head of every other, and
//! raises an alarm when one signs another history.
//!
//! A journal only grows. Two heads of one size are the same head, and a later one is not
//! shorter. A head that is older than the one we have is late mail, nothing more. The first
//! key that is seen of a node is its key; another one is an alarm until an operator removes the
//! file that keeps the first.
//!
//! Limits: that a longer tree contains the shorter one is not proved here; `holdpoint verify`
//! does, with the heads that are kept in these files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdpoint_core::id::Digest;
use holdpoint_core::record::checkpoint::Verifier;
use serde::{Deserialize, Serialize};

use super::seal::Kind;
use super::{Cluster, StoreError};

/// What is kept of other nodes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    #[error("cannot use `{}`, where other nodes' journal heads are kept: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("`{}` is not a journal head: {why}; mend it, or remove it to trust what the node says next", path.display())]
    Broken { path: PathBuf, why: String },
}

/// The last head of one node that fitted with those before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Its public key, as in `journal.pub`.
    key: String,
    size: u64,
    root: Digest,
    /// Unix seconds, by the clock of that node.
    time: u64,
    /// The whole signed note: evidence.
    note: String,
}

/// What a head means beside the one before.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It fits, and is news.
    News(Box<Head>),
    /// The same again, or late mail.
    Old,
    /// It does not fit.
    Alarm(String),
}

pub(super) struct Peers {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    heads: BTreeMap<String, Head>,
    /// What was found wrong with each node last.
    alarms: BTreeMap<String, String>,
}

impl Peers {
    pub(super) fn open(dir: &Path) -> Result<Self, PeersError> {
        let io = |path: &Path, cause| PeersError::Io {
            path: path.to_owned(),
            cause,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|cause| io(dir, cause))?;
        let mut known = Known::default();
        for file in fs::read_dir(dir).map_err(|cause| io(dir, cause))? {
            let path = file.map_err(|cause| io(dir, cause))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(node) = name.and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            let text = fs::read(&path).map_err(|cause| io(&path, cause))?;
            let head = serde_json::from_slice(&text).map_err(|error| PeersError::Broken {
                path: path.clone(),
                why: error.to_string(),
            })?;
            known.heads.insert(node.to_owned(), head);
        }
        Ok(Self {
            dir: dir.to_owned(),
            known: Mutex::new(known),
        })
    }

    /// What is wrong with other nodes' journals, in words.
    pub(super) fn alarms(&self) -> Vec<String> {
        self.known().alarms.values().cloned().collect()
    }

    /// Looks at a head. Gives an alarm that was not raised before.
    fn look(&self, node: &str, key: &str, note: &str) -> Option<String> {
        let mut known = self.known();
        match judge(node, known.heads.get(node), key, note) {
            Finding::Old => None,
            Finding::News(head) => {
                // Kept first: a restart must not forget what was seen.
                if let Err(error) = keep(&self.dir, node, &head) {
                    tracing::error!(%error, node, "the head of a node's journal is not kept");
                }
                known.heads.insert(node.to_owned(), *head);
                None
            }
            Finding::Alarm(why) => {
                let before = known.alarms.insert(node.to_owned(), why.clone());
                (before.as_ref() != Some(&why)).then_some(why)
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(node: &str, known: Option<&Head>, key: &str, note: &str) -> Finding {
    if let Some(known) = known
        && known.key != key
    {
        return Finding::Alarm(format!(
            "node `{node}` signs its journal with another key than before: \
             somebody else may speak as that node"
        ));
    }
    let opened = key.parse::<Verifier>().and_then(|key| key.open(note));
    let checkpoint = match opened {
        Ok(checkpoint) if checkpoint.origin == format!("holdpoint/{node}") => checkpoint,
        Ok(checkpoint) => {
            return Finding::Alarm(format!(
                "node `{node}` shows a head of another journal, `{}`",
                checkpoint.origin
            ));
        }
        Err(error) => {
            return Finding::Alarm(format!(
                "node `{node}` shows a head that is not its own: {error}"
            ));
        }
    };
    let head = Head {
        key: key.to_owned(),
        size: checkpoint.size,
        root: checkpoint.root,
        time: checkpoint.time.unwrap_or(0),
        note: note.to_owned(),
    };
    let Some(known) = known else {
        return Finding::News(Box::new(head));
    };
    if head.size == known.size && head.root != known.root {
        return Finding::Alarm(format!(
            "node `{node}` has signed two histories of {} records: roots {} and {}",
            head.size, known.root, head.root
        ));
    }
    if head.size < known.size && head.time > known.time {
        return Finding::Alarm(format!(
            "the journal of node `{node}` has shrunk, from {} records to {}",
            known.size, head.size
        ));
    }
    if head.size < known.size || (head.size == known.size && head.time <= known.time) {
        return Finding::Old;
    }
    Finding::News(Box::new(head))
}

/// Whole and renamed into place.
fn keep(dir: &Path, node: &str, head: &Head) -> io::Result<()> {
    let part = dir.join(format!("{node}.part"));
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(&serde_json::to_vec_pretty(head)?)?;
    fs::rename(&part, dir.join(format!("{node}.json")))
}

/// A node's name is a file's name here.
fn is_name(node: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !node.is_empty() && node.len() <= 64 && !node.starts_with('.') && node.chars().all(fits)
}

impl Cluster {
    /// Looks at the head of another node's journal.
    pub(super) async fn look_at_journal(&self, node: &str) -> Result<(), StoreError> {
        let inner = &self.0;
        if !is_name(node) {
            return Ok(());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(inner.keys.checkpoint(node))
            .arg("note")
            .arg("key")
            .arg("mark");
        let (note, key, mark): (Option<String>, Option<String>, Option<String>) =
            inner.mail.ask(&cmd).await?;
        let (Some(note), Some(key), Some(mark)) = (note, key, mark) else {
            return Ok(());
        };
        // A key that no node wrote would be trusted for ever if it came first.
        let found = if inner
            .seal
            .is_ours(Kind::Key, &[node], key.as_bytes(), &mark)
        {
            inner.peers.look(node, &key, &note)
        } else {
            let mut known = inner.peers.known();
            let why = format!("the key of node `{node}` in the store was not written by any node");
            let before = known.alarms.insert(node.to_owned(), why.clone());
            (before.as_ref() != Some(&why)).then_some(why)
        };
        if let Some(why) = found {
            inner
                .counts
                .checkpoint_alarms
                .fetch_add(1, Ordering::Relaxed);
            self.alarm("checkpoint", node, why).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use holdpoint_core::record::checkpoint::NodeKey;

    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::new("a", &[seed; 32]).unwrap()
    }

    fn note(seed: u8, size: u64, root: u8, time: u64) -> (String, String) {
        let key = key(seed);
        let note = key.sign(size, Digest([root; 32]), time);
        (key.verifier().to_string(), note)
    }

    fn peers(name: &str) -> Peers {
        let dir =
            std::env::temp_dir().join(format!("holdpoint-peers-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Peers::open(&dir).unwrap()
    }

    fn look(peers: &Peers, (key, note): &(String, String)) -> Option<String> {
        peers.look("a", key, note)
    }

    #[test]
    fn a_journal_that_grows_is_no_alarm_and_late_mail_is_none_either() {
        let peers = peers("grows");
        for at in [
            (10, 1, 100),
            (10, 1, 160),
            (12, 2, 170),
            (10, 1, 100),
            (12, 2, 230),
        ] {
            assert_eq!(look(&peers, &note(1, at.0, at.1, at.2)), None, "{at:?}");
        }
        assert!(peers.alarms().is_empty());
    }

    #[test]
    fn two_histories_of_one_length_are_an_alarm_raised_once() {
        let peers = peers("fork");
        assert_eq!(look(&peers, &note(1, 10, 1, 100)), None);
        let said = look(&peers, &note(1, 10, 2, 101)).unwrap();
        assert!(said.contains("two histories of 10 records"), "{said}");
        assert_eq!(look(&peers, &note(1, 10, 2, 101)), None);
        assert_eq!(peers.alarms(), [said]);
    }

    #[test]
    fn a_shorter_journal_is_an_alarm_after_a_restart_of_the_watcher_too() {
        let first = peers("shrinks");
        assert_eq!(look(&first, &note(1, 10, 1, 100)), None);
        let again = Peers::open(&first.dir).unwrap();
        let said = look(&again, &note(1, 7, 3, 101)).unwrap();
        assert!(said.contains("from 10 records to 7"), "{said}");
    }

    #[test]
    fn another_key_and_a_wrong_signature_are_alarms() {
        let peers = peers("keys");
        assert_eq!(look(&peers, &note(1, 10, 1, 100)), None);
        let said = look(&peers, &note(2, 11, 1, 101)).unwrap();
        assert!(said.contains("another key"), "{said}");
        let (key, _) = note(1, 0, 0, 0);
        let (_, forged) = note(2, 11, 1, 102);
        let said = look(&peers, &(key.clone(), forged)).unwrap();
        assert!(said.contains("not its own"), "{said}");
        let (_, good) = note(1, 11, 1, 103);
        let changed = good.replacen("\n11\n", "\n12\n", 1);
        let said = look(&peers, &(key, changed)).unwrap();
        assert!(said.contains("signature"), "{said}");
    }
}
