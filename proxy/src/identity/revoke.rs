//! Who is let in no more, although their token is good.
//!
//! A JWT stays good until it expires, and its issuer hands out more; this list is
//! how an operator ends that at once. It only ever refuses, so entries are not tied to one
//! issuer where refusing too much is the worst case. Kept in a private file when it has one,
//! written whole and renamed into place.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdpoint_core::principal::{Identity, Principal};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// Somebody, also where they stand behind another as an actor or an owner.
    Identity(Identity),
    /// An OAuth client: every token that it obtained or obtains.
    Client(String),
    /// One token, by its `jti`.
    Token(String),
}

/// A revocation, and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    #[serde(flatten)]
    pub what: Revocation,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<Identity>,
}

/// The list cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("cannot read the revocations in `{}`: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("`{}` is not a list of revocations: {cause}; mend it or move it away", path.display())]
    Broken {
        path: PathBuf,
        cause: serde_json::Error,
    },
    #[error(
        "in force now, but a restart forgets it: cannot write `{}`: {cause}",
        path.display()
    )]
    Write { path: PathBuf, cause: io::Error },
}

type List = BTreeMap<Revocation, Option<Identity>>;

/// The list, shared by all who check.
#[derive(Debug)]
pub(super) struct Revocations {
    list: Mutex<List>,
    changes: watch::Sender<u64>,
    file: Option<PathBuf>,
}

impl Revocations {
    pub(super) fn in_memory() -> Self {
        Self {
            list: Mutex::default(),
            changes: watch::Sender::new(0),
            file: None,
        }
    }

    /// Reads `file`, which need not exist yet.
    pub(super) fn open(file: PathBuf) -> Result<Self, RevokeError> {
        let list = match fs::read(&file) {
            Ok(text) => {
                let listed: Vec<Revoked> =
                    serde_json::from_slice(&text).map_err(|cause| RevokeError::Broken {
                        path: file.clone(),
                        cause,
                    })?;
                listed.into_iter().map(|one| (one.what, one.by)).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => List::new(),
            Err(cause) => return Err(RevokeError::Read { path: file, cause }),
        };
        Ok(Self {
            list: Mutex::new(list),
            changes: watch::Sender::new(0),
            file: Some(file),
        })
    }

    /// In force when this returns, also when the error says that it could not be kept.
    pub(super) fn add(
        &self,
        revocation: Revocation,
        by: Option<Identity>,
    ) -> Result<(), RevokeError> {
        let mut list = self.list();
        let known = list.entry(revocation).or_default();
        *known = known.take().or(by);
        self.changes.send_modify(|count| *count += 1);
        self.keep(&list)
    }

    /// Gives whether it was there.
    pub(super) fn remove(&self, revocation: &Revocation) -> Result<bool, RevokeError> {
        let mut list = self.list();
        let was = list.remove(revocation).is_some();
        if was {
            self.changes.send_modify(|count| *count += 1);
            self.keep(&list)?;
        }
        Ok(was)
    }

    pub(super) fn all(&self) -> Vec<Revocation> {
        self.list().keys().cloned().collect()
    }

    pub(super) fn entries(&self) -> Vec<Revoked> {
        entries(&self.list())
    }

    pub(super) fn has(&self, revocation: &Revocation) -> bool {
        self.list().contains_key(revocation)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What it is that is revoked about `principal`.
    pub(super) fn matching(&self, principal: &Principal) -> Option<&'static str> {
        let list = self.list();
        if list.is_empty() {
            return None;
        }
        let identity =
            |identity: &Identity| list.contains_key(&Revocation::Identity(identity.clone()));
        let client = principal.client_id.clone().map(Revocation::Client);
        let token = principal.token_id.clone().map(Revocation::Token);
        if identity(&principal.identity) {
            Some("the identity")
        } else if principal.actors.iter().any(identity) {
            Some("one that acts for it")
        } else if principal.owners.iter().any(identity) {
            // Whose agent goes on alone is for the configuration to say anew.
            Some("an owner")
        } else if client.is_some_and(|client| list.contains_key(&client)) {
            Some("the client")
        } else if token.is_some_and(|token| list.contains_key(&token)) {
            Some("the token")
        } else {
            None
        }
    }

    /// Written under the lock, so that the file is never older than the list.
    fn keep(&self, list: &List) -> Result<(), RevokeError> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        write(path, list).map_err(|cause| RevokeError::Write {
            path: path.clone(),
            cause,
        })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entries(list: &List) -> Vec<Revoked> {
    let entry = |(what, by): (&Revocation, &Option<Identity>)| Revoked {
        what: what.clone(),
        by: by.clone(),
    };
    list.iter().map(entry).collect()
}

fn write(path: &Path, list: &List) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    serde_json::to_writer_pretty(&mut file, &entries(list))?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
