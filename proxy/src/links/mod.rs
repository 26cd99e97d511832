//! Which person stands behind an account of a chat system.
//!
//! An account counts for nothing by itself. Whoever clicks with one that is not linked gets an
//! invitation; the console asks its bearer to sign in at their issuer and to confirm, and from then on,
//! for a bounded time, the account stands for that principal, with the groups proved at that moment.
//! A person has one account at each channel: linking another one ends the first.
//!
//! Links lie in `links.json` of the state directory (0600), so that a restart ends none. Invitations
//! are signed by this process and end with it. Of several nodes each gives its links to the others on
//! its signed word (`links-elsewhere.json`); the latest of an account counts, and of a person.
//!
//! Limits: for as long as a link lasts, groups that somebody has left still count, unless the identity
//! is revoked. Whoever holds an account can decide as its person.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use holdpoint_core::principal::Principal;
use holdpoint_core::secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::state_file::{self, FromNode, StateFileError};

const FILE: &str = "links.json";
const ELSEWHERE: &str = "links-elsewhere.json";

/// An invitation is good for so long.
const INVITED: u64 = 600;

/// More people than that do not review at one gateway.
const MAX_LINKS: usize = 10_000;

const MAC: usize = 32;

/// Of a chat system, as it names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    /// `slack:NAME`: a link at one channel says nothing at another.
    pub channel: String,
    pub team: String,
    pub user: String,
}

impl Account {
    /// For the journal.
    pub fn text(&self) -> String {
        format!("{} of {}", self.user, self.team)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    account: Account,
    principal: Principal,
    until_unix: u64,
}

/// What an invitation says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    pub account: Account,
    /// What the account calls itself.
    pub label: String,
    until_unix: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    File(#[from] StateFileError),
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    #[error("too many accounts are linked")]
    Full,
    #[error("this channel takes no answers")]
    Channel,
}

pub struct Links {
    path: PathBuf,
    /// By channel.
    lasts: HashMap<String, Duration>,
    key: Secret,
    links: Mutex<BTreeMap<Account, Link>>,
    elsewhere: PathBuf,
    /// By node. Taken after `links`, where both are.
    others: Mutex<BTreeMap<String, FromNode<Link>>>,
}

impl Links {
    /// `lasts` says for each channel that takes answers how long a link is good there.
    ///
    /// # Errors
    /// The file is not ours alone, or not as we wrote it.
    pub fn open(
        state: &Path,
        lasts: impl IntoIterator<Item = (String, Duration)>,
    ) -> Result<Self, LinkError> {
        let mut key = vec![0; 32];
        getrandom::fill(&mut key).map_err(LinkError::Random)?;
        let (path, elsewhere) = (state.join(FILE), state.join(ELSEWHERE));
        let links = read(&path)?;
        let others = state_file::read(&elsewhere)?.unwrap_or_default();
        Ok(Self {
            path,
            lasts: lasts.into_iter().collect(),
            key: Secret::new(key),
            links: Mutex::new(links),
            elsewhere,
            others: Mutex::new(others),
        })
    }

    /// What proves that this account asked to be linked, in hex.
    pub fn invite(&self, account: Account, label: &str, unix: u64) -> Option<String> {
        let invitation = Invitation {
            account,
            label: label.to_owned(),
            until_unix: unix.saturating_add(INVITED),
        };
        let text = serde_json::to_vec(&invitation).ok()?;
        let mut token = self.mac(&text)?.finalize().into_bytes().to_vec();
        token.extend(text);
        Some(hex::encode(token))
    }

    /// The reverse of [`Links::invite`], within its time.
    pub fn invited(&self, token: &str, unix: u64) -> Option<Invitation> {
        let bytes = hex::decode(token).ok()?;
        let (mac, text) = bytes.split_at_checked(MAC)?;
        self.mac(text)?.verify_slice(mac).ok()?;
        let invitation: Invitation = serde_json::from_slice(text).ok()?;
        (unix < invitation.until_unix).then_some(invitation)
    }

    /// How long a link at this channel is good.
    pub fn lasts(&self, channel: &str) -> Option<Duration> {
        self.lasts.get(channel).copied()
    }

    /// From now on `account` stands for `principal`. Gives until when, in Unix seconds.
    ///
    /// # Errors
    /// It could not be written down: the link is not there.
    pub fn link(
        &self,
        account: &Account,
        principal: Principal,
        unix: u64,
    ) -> Result<u64, LinkError> {
        let lasts = self.lasts(&account.channel).ok_or(LinkError::Channel)?;
        let until_unix = unix.saturating_add(lasts.as_secs());
        let mut links = self.links();
        let mut next = links.clone();
        next.retain(|have, link| {
            let same =
                have.channel == account.channel && link.principal.identity == principal.identity;
            link.until_unix > unix && !same
        });
        if next.len() >= MAX_LINKS {
            return Err(LinkError::Full);
        }
        let link = Link {
            account: account.clone(),
            principal,
            until_unix,
        };
        next.insert(account.clone(), link);
        self.write(&next)?;
        *links = next;
        Ok(until_unix)
    }

    /// Who stands behind `account` now.
    pub fn who(&self, account: &Account, unix: u64) -> Option<Principal> {
        let links = self.links();
        let others = self.others();
        let all = || {
            let theirs = others.values().flat_map(|from| from.items.iter());
            links.values().chain(theirs)
        };
        // Which of two nodes' links is the later one is seen by how long it lasts.
        let link = all()
            .filter(|link| link.account == *account && unix < link.until_unix)
            .max_by_key(|link| link.until_unix)?;
        let moved = all().any(|other| {
            other.account.channel == account.channel
                && other.account != *account
                && other.principal.identity == link.principal.identity
                && other.until_unix > link.until_unix
        });
        (!moved).then(|| link.principal.clone())
    }

    /// What other nodes are given.
    pub fn list(&self) -> Vec<Link> {
        self.links().values().cloned().collect()
    }

    /// Another node's list, on its word; the greater `number` is the later one, and none is
    /// of two lists.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn take_up(&self, node: &str, number: u64, items: Vec<Link>) -> Result<(), LinkError> {
        let mut others = self.others();
        if let Some(before) = others.get(node).filter(|before| before.number >= number) {
            if before.number > number {
                tracing::warn!(node, "an old list of another node's links is not taken up");
            }
            return Ok(());
        }
        let mut next = others.clone();
        next.insert(node.to_owned(), FromNode { number, items });
        state_file::write(&self.elsewhere, &next)?;
        *others = next;
        Ok(())
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<String, FromNode<Link>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mac(&self, text: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose()).ok()?;
        mac.update(b"holdpoint.invitation.v1\0");
        mac.update(text);
        Some(mac)
    }

    fn write(&self, links: &BTreeMap<Account, Link>) -> Result<(), LinkError> {
        let all: Vec<_> = links.values().collect();
        Ok(state_file::write(&self.path, &all)?)
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<Account, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<BTreeMap<Account, Link>, LinkError> {
    let links: Vec<Link> = state_file::read(path)?.unwrap_or_default();
    let keyed = links.into_iter().map(|link| (link.account.clone(), link));
    Ok(keyed.collect())
}
