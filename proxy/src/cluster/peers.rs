//! Nodes watch each other's journals: each keeps the last signed head of every other that it
//! was shown to have grown from the one before, and raises an alarm when one signs another
//! history.
//!
//! A journal only grows. Two heads of one size are the same head, a later one is not shorter,
//! and from time to time, and whenever its process is another one, the node proves that the
//! later tree contains the earlier (RFC 9162, 2.1.4). A head that is older than the one we have
//! is late mail, nothing more. The first key that is seen of a node is its key; another one is
//! an alarm. A node whose own signature says that its journal is another one now is refused:
//! its ballots do not count here and none are cast for it, until an operator removes the file
//! that keeps what was seen of it.
//!
//! Limits: a history that is rewritten and never leads to another head of this node is for
//! `holdpoint verify` to find. Between two proofs a rewritten past is not seen.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdpoint_core::id::Digest;
use holdpoint_core::record::checkpoint::Verifier;
use holdpoint_core::record::tree;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::seal::Kind;
use super::{Cluster, StoreError};
use crate::approvals::{Errand, NoAnswer};

/// A node reads its whole journal for a proof: it is asked for no more than one in this time,
/// nor for more than a hundredth of its time.
const PROVE_EVERY: Duration = Duration::from_secs(600);
const SHARE: u32 = 100;
/// After one that did not come.
const PROVE_AGAIN: Duration = Duration::from_secs(10);
/// For a proof to come.
const PATIENCE: Duration = Duration::from_secs(300);
/// So often a node may fail to prove it; then it is an alarm.
const MAX_UNPROVED: u32 = 3;

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
    /// It is not the node's: somebody else may have put it there.
    Foreign(String),
    /// The node itself signed what does not fit.
    Forked(String),
}

/// What is to be done about a head.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// To be raised; it was not before.
    Alarm(String),
    /// The node is to prove that the second grew from the first.
    Prove(Box<(Head, Head)>),
}

/// What was found wrong with a node last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    why: String,
    /// By the node's own signature: it is refused.
    proven: bool,
}

/// When a node is to prove its growth.
struct Proving {
    /// The process that did last.
    epoch: String,
    /// Not before.
    next: Instant,
    running: bool,
    failed: u32,
}

pub(super) struct Peers {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// In their files: the last that was shown to have grown from the one before.
    heads: BTreeMap<String, Head>,
    /// The last that was seen.
    latest: BTreeMap<String, Head>,
    proving: BTreeMap<String, Proving>,
    wrong: BTreeMap<String, Wrong>,
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
        let known = self.known();
        known
            .wrong
            .values()
            .map(|wrong| wrong.why.clone())
            .collect()
    }

    /// Why a node is refused, if it is.
    pub(super) fn refuses(&self, node: &str) -> Option<String> {
        let known = self.known();
        let wrong = known.wrong.get(node).filter(|wrong| wrong.proven);
        wrong.map(|wrong| wrong.why.clone())
    }

    /// The public key of a node, as it was first seen; none where its journal is another
    /// one now.
    pub(super) fn key(&self, node: &str) -> Option<String> {
        let known = self.known();
        if known.wrong.contains_key(node) {
            return None;
        }
        let head = known.heads.get(node).or_else(|| known.latest.get(node));
        head.map(|head| head.key.clone())
    }

    /// Looks at a head that process `epoch` of the node shows.
    fn look(&self, node: &str, epoch: &str, key: &str, note: &str) -> Next {
        let mut known = self.known();
        let kept = known.wrong.contains_key(node) && known.heads.contains_key(node);
        if kept && !self.file(node).exists() {
            tracing::warn!(node, "what was seen of a node's journal is forgotten");
            known.forget(node);
        }
        let before = known.latest.get(node).or_else(|| known.heads.get(node));
        match judge(node, before, key, note) {
            Finding::Foreign(why) => known.accuse(node, why, false),
            Finding::Forked(why) => known.accuse(node, why, true),
            Finding::Old => known.due(node, epoch),
            Finding::News(head) => {
                // From nothing everything grows.
                if known.heads.get(node).is_none_or(|kept| kept.size == 0) {
                    self.trust(&mut known, node, (*head).clone());
                }
                known.latest.insert(node.to_owned(), *head);
                known.due(node, epoch)
            }
        }
    }

    /// Takes up what came of asking for a proof. Gives an alarm that was not raised before.
    fn proved(&self, node: &str, epoch: &str, head: Head, took: Duration, said: Said) -> Next {
        let mut known = self.known();
        let Some(proving) = known.proving.get_mut(node) else {
            return Next::Nothing;
        };
        proving.running = false;
        match said {
            Said::Grew => {
                proving.failed = 0;
                epoch.clone_into(&mut proving.epoch);
                proving.next = Instant::now() + PROVE_EVERY.max(took * SHARE);
                self.trust(&mut known, node, head);
                if known.wrong.get(node).is_some_and(|wrong| !wrong.proven) {
                    known.wrong.remove(node);
                }
                Next::Nothing
            }
            Said::Forked => {
                let size = known.heads.get(node).map_or(0, |kept| kept.size);
                let why = format!(
                    "the journal of node `{node}` with {} records did not grow from the one \
                     with {size} that it signed before: its past was rewritten",
                    head.size
                );
                known.accuse(node, why, true)
            }
            Said::Nothing(why) => {
                proving.failed += 1;
                proving.next = Instant::now() + PROVE_AGAIN;
                if proving.failed < MAX_UNPROVED {
                    tracing::warn!(node, why, "a node did not prove that its journal grew");
                    return Next::Nothing;
                }
                let why = format!("node `{node}` does not prove that its journal grew: {why}");
                known.accuse(node, why, false)
            }
        }
    }

    fn trust(&self, known: &mut Known, node: &str, head: Head) {
        // Kept first: a restart must not forget what was seen.
        if let Err(error) = self.keep(node, &head) {
            tracing::error!(%error, node, "the head of a node's journal is not kept");
        }
        known.heads.insert(node.to_owned(), head);
    }

    /// Whole and renamed into place.
    fn keep(&self, node: &str, head: &Head) -> io::Result<()> {
        let part = self.dir.join(format!("{node}.part"));
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(&serde_json::to_vec_pretty(head)?)?;
        fs::rename(&part, self.file(node))
    }

    fn file(&self, node: &str) -> PathBuf {
        self.dir.join(format!("{node}.json"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node said when it was to prove that its journal grew.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Grew,
    /// A proof that proves something else, or none although it tried.
    Forked,
    /// No answer, or that it cannot now.
    Nothing(String),
}

impl Known {
    fn forget(&mut self, node: &str) {
        self.heads.remove(node);
        self.latest.remove(node);
        self.proving.remove(node);
        self.wrong.remove(node);
    }

    fn accuse(&mut self, node: &str, why: String, proven: bool) -> Next {
        // What the node signed itself stays the reason.
        if self
            .wrong
            .get(node)
            .is_some_and(|wrong| wrong.proven && !proven)
        {
            return Next::Nothing;
        }
        let wrong = Wrong {
            why: why.clone(),
            proven,
        };
        match self.wrong.insert(node.to_owned(), wrong.clone()) {
            Some(before) if before == wrong => Next::Nothing,
            _ => Next::Alarm(why),
        }
    }

    /// Whether it is time for a proof.
    fn due(&mut self, node: &str, epoch: &str) -> Next {
        let (Some(kept), Some(latest)) = (self.heads.get(node), self.latest.get(node)) else {
            return Next::Nothing;
        };
        if kept.size == latest.size {
            return Next::Nothing;
        }
        let now = Instant::now();
        let proving = self.proving.entry(node.to_owned());
        let proving = proving.or_insert_with(|| Proving {
            epoch: String::new(),
            next: now,
            running: false,
            failed: 0,
        });
        let another = proving.epoch != epoch && proving.failed == 0;
        if proving.running || !(another || now >= proving.next) {
            return Next::Nothing;
        }
        proving.running = true;
        Next::Prove(Box::new((kept.clone(), latest.clone())))
    }
}

fn judge(node: &str, known: Option<&Head>, key: &str, note: &str) -> Finding {
    if let Some(known) = known
        && known.key != key
    {
        return Finding::Forked(format!(
            "node `{node}` signs its journal with another key than before: \
             somebody else may speak as that node"
        ));
    }
    let opened = key.parse::<Verifier>().and_then(|key| key.open(note));
    let checkpoint = match opened {
        Ok(checkpoint) if checkpoint.origin == format!("holdpoint/{node}") => checkpoint,
        Ok(checkpoint) => {
            return Finding::Forked(format!(
                "node `{node}` shows a head of another journal, `{}`",
                checkpoint.origin
            ));
        }
        Err(error) => {
            return Finding::Foreign(format!(
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
        return Finding::Forked(format!(
            "node `{node}` has signed two histories of {} records: roots {} and {}",
            head.size, known.root, head.root
        ));
    }
    if head.size < known.size && head.time > known.time {
        return Finding::Forked(format!(
            "the journal of node `{node}` has shrunk, from {} records to {}",
            known.size, head.size
        ));
    }
    if head.size < known.size || (head.size == known.size && head.time <= known.time) {
        return Finding::Old;
    }
    Finding::News(Box::new(head))
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
        let ours = (inner.seal).is_ours(Kind::Key, &[node], key.as_bytes(), &mark);
        let next = if ours {
            let epoch = inner.mirror.epoch(node).unwrap_or_default();
            inner.peers.look(node, &epoch, &key, &note)
        } else {
            let why = format!("the key of node `{node}` in the store was not written by any node");
            inner.peers.known().accuse(node, why, false)
        };
        if let Next::Prove(heads) = next {
            let (cluster, node) = (self.clone(), node.to_owned());
            // Takes as long as that node needs to read its journal.
            tokio::spawn(async move {
                let next = cluster.have_proved(&node, *heads).await;
                cluster.raise(&node, next).await;
            });
            return Ok(());
        }
        self.raise(node, next).await;
        Ok(())
    }

    async fn have_proved(&self, node: &str, (kept, head): (Head, Head)) -> Next {
        let epoch = self.0.mirror.epoch(node).unwrap_or_default();
        let began = Instant::now();
        let errand = Errand::Prove {
            from: kept.size,
            to: head.size,
        };
        let said = match self.errand(node, errand, PATIENCE).await {
            Ok(answer) => match serde_json::from_value::<Vec<Digest>>(answer) {
                Ok(proof) => {
                    let (old, new) = (&kept.root, &head.root);
                    match tree::consistent(kept.size, old, head.size, new, &proof) {
                        true => Said::Grew,
                        false => Said::Forked,
                    }
                }
                Err(_) => Said::Nothing("it cannot make the proof".to_owned()),
            },
            Err(NoAnswer(why)) => Said::Nothing(why),
        };
        self.0
            .peers
            .proved(node, &epoch, head, began.elapsed(), said)
    }

    async fn raise(&self, node: &str, next: Next) {
        if let Next::Alarm(why) = next {
            (self.0.counts.checkpoint_alarms).fetch_add(1, Ordering::Relaxed);
            self.alarm("checkpoint", node, why).await;
        }
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
        match peers.look("a", "e1", key, note) {
            Next::Alarm(why) => Some(why),
            Next::Nothing | Next::Prove(_) => None,
        }
    }

    /// What is to be proved, from and to.
    fn to_prove(next: &Next) -> Option<(u64, u64)> {
        match next {
            Next::Prove(heads) => Some((heads.0.size, heads.1.size)),
            _ => None,
        }
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
        assert!(peers.refuses("a").is_some());
        // What anybody may have put there refuses nobody.
        let peers = self::peers("signatures");
        assert_eq!(look(&peers, &note(1, 10, 1, 100)), None);
        let (key, _) = note(1, 0, 0, 0);
        let (_, forged) = note(2, 11, 1, 102);
        let said = look(&peers, &(key.clone(), forged)).unwrap();
        assert!(said.contains("not its own"), "{said}");
        let (_, good) = note(1, 11, 1, 103);
        let changed = good.replacen("\n11\n", "\n12\n", 1);
        let said = look(&peers, &(key, changed)).unwrap();
        assert!(said.contains("signature"), "{said}");
        assert_eq!(peers.refuses("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn growth_is_proved_at_first_for_each_process_and_from_time_to_time() {
        let peers = peers("proves");
        let see = |epoch: &str, size, root| {
            let (key, note) = note(1, size, root, 100 + size);
            to_prove(&peers.look("a", epoch, &key, &note))
        };
        let head = |size: u64, root| {
            let (key, note) = note(1, size, root, 100 + size);
            match judge("a", None, &key, &note) {
                Finding::News(head) => *head,
                other => panic!("{other:?}"),
            }
        };
        let took = Duration::from_secs(1);
        let said = |epoch, size, root, said| peers.proved("a", epoch, head(size, root), took, said);
        // The first is believed; what comes then is to be proved, one at a time.
        assert_eq!(see("e1", 10, 1), None);
        assert_eq!(see("e1", 12, 2), Some((10, 12)));
        assert_eq!(see("e1", 13, 3), None);
        assert_eq!(said("e1", 12, 2, Said::Grew), Next::Nothing);
        assert_eq!(see("e1", 14, 4), None);
        tokio::time::advance(PROVE_EVERY).await;
        assert_eq!(see("e1", 15, 5), Some((12, 15)));
        assert_eq!(said("e1", 15, 5, Said::Grew), Next::Nothing);
        // Another process may have another journal.
        assert_eq!(see("e2", 16, 6), Some((15, 16)));
        let Next::Alarm(why) = said("e2", 16, 6, Said::Forked) else {
            panic!("no alarm");
        };
        assert!(why.contains("with 16 records did not grow"), "{why}");
        assert_eq!(peers.refuses("a"), Some(why));
        // The head that was proved last is what is kept, over a restart too.
        let again = Peers::open(&peers.dir).unwrap();
        assert_eq!(again.known().heads["a"].size, 15);
        // Until an operator says that it is well so.
        fs::remove_file(peers.file("a")).unwrap();
        assert_eq!(see("e2", 17, 7), None);
        assert_eq!((peers.refuses("a"), peers.alarms()), (None, Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_proves_nothing_is_an_alarm_and_not_refused() {
        let peers = peers("mute");
        assert_eq!(look(&peers, &note(1, 10, 1, 100)), None);
        for at in 1..=MAX_UNPROVED {
            let (key, note) = note(1, 10 + u64::from(at), 2, 100 + u64::from(at));
            let Next::Prove(heads) = peers.look("a", "e1", &key, &note) else {
                panic!("not asked");
            };
            let said = Said::Nothing("no answer".to_owned());
            let next = peers.proved("a", "e1", heads.1, Duration::ZERO, said);
            assert_eq!(
                matches!(next, Next::Alarm(_)),
                at == MAX_UNPROVED,
                "{next:?}"
            );
            tokio::time::advance(PROVE_AGAIN).await;
        }
        assert_eq!(peers.alarms().len(), 1);
        assert_eq!(peers.refuses("a"), None);
    }
}
