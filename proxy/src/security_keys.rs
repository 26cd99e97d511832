//! Security keys and passkeys that reviewers registered, by who they are.
//!
//! They lie in `security-keys.json` of the state directory (0600). Whoever adds or removes one has been
//! asked by the console to sign in just before, and the journal has it first. A counter that does not
//! rise means that there are two of a key: that signature does not count, and neither do those after it
//! until the counter has passed where it was.
//!
//! Of several nodes each gives its list to the others on its signed word; those of others lie in
//! `security-keys-elsewhere.json`, and are removed where they were registered. A key that two people
//! registered at two nodes, before these heard of each other, is *disputed*: it counts for neither at
//! any node until one of them has removed it.
//!
//! Limits: whoever can sign in as somebody can add a key as them: it stays visible in the journal and
//! on their page. A counter that goes back is seen by the node at which that key signs; each node
//! learns of the others' counters with their lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdpoint_core::principal::Identity;
use holdpoint_core::webauthn::{Counter, Credential, RelyingParty, WebauthnError};
use serde::{Deserialize, Serialize};

use crate::state_file::{self, FromNode, StateFileError};

const FILE: &str = "security-keys.json";
const ELSEWHERE: &str = "security-keys-elsewhere.json";

/// One at home, one at the desk, one in the safe, and some more.
const MAX_OF_ONE: usize = 10;

/// More do not review at one gateway.
const MAX_KEYS: usize = 10_000;

/// A key, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityKey {
    pub owner: Identity,
    /// The owner's own name for it.
    pub name: String,
    pub credential: Credential,
    pub counter: Counter,
    pub added_unix: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_unix: Option<u64>,
    /// The node at which it was registered, where that is another one.
    #[serde(skip)]
    pub node: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    File(#[from] StateFileError),
    #[error("you have {MAX_OF_ONE} keys already: remove one first")]
    Full,
    #[error("too many keys are registered here")]
    AllFull,
    #[error("this key is registered already")]
    Twice,
    #[error("it was registered at node `{0}`: remove it there")]
    Elsewhere(String),
    #[error("{0}")]
    Refused(#[from] WebauthnError),
}

pub struct SecurityKeys {
    path: PathBuf,
    elsewhere: PathBuf,
    rp: RelyingParty,
    keys: Mutex<Vec<SecurityKey>>,
    /// By node. Taken after `keys`, where both are.
    others: Mutex<Others>,
}

type Others = BTreeMap<String, FromNode<SecurityKey>>;

/// A key that several people say is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disputed {
    /// By whoever registered it, and at which node; none for this one.
    pub owners: BTreeSet<(String, Option<String>)>,
}

impl std::fmt::Display for Disputed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = self.owners.iter().map(|(owner, node)| match node {
            Some(node) => format!("{owner} at node `{node}`"),
            None => format!("{owner} here"),
        });
        let said = said.collect::<Vec<_>>().join(" and ");
        write!(
            f,
            "one security key is registered for {said}: it counts for nobody"
        )
    }
}

impl SecurityKeys {
    /// # Errors
    /// The file is not ours alone, or not as we wrote it.
    pub fn open(state: &Path, rp: RelyingParty) -> Result<Self, KeysError> {
        let (path, elsewhere) = (state.join(FILE), state.join(ELSEWHERE));
        let keys = state_file::read(&path)?.unwrap_or_default();
        let others = state_file::read(&elsewhere)?.unwrap_or_default();
        Ok(Self {
            path,
            elsewhere,
            rp,
            keys: Mutex::new(keys),
            others: Mutex::new(others),
        })
    }

    /// What new keys are made for.
    pub fn rp(&self) -> &RelyingParty {
        &self.rp
    }

    /// All of somebody's keys that are good here, the first one first.
    pub fn of(&self, owner: &Identity) -> Vec<SecurityKey> {
        let (good, _) = self.registered(owner);
        good
    }

    /// All of somebody's keys: those that are good here, and those that are somebody else's too.
    pub fn registered(&self, owner: &Identity) -> (Vec<SecurityKey>, Vec<SecurityKey>) {
        let keys = self.keys();
        let others = self.others();
        let theirs = others.iter().flat_map(|(node, from)| {
            from.items.iter().map(|key| SecurityKey {
                node: Some(node.clone()),
                ..key.clone()
            })
        });
        let all = keys.iter().cloned().chain(theirs);
        let own = all.filter(|key| key.owner == *owner && key.credential.rp == self.rp);
        // Registered at two nodes by one person it is one key.
        let mut seen = BTreeSet::new();
        let own = own.filter(|key| seen.insert(key.credential.id.clone()));
        own.partition(|key| !is_disputed(key, &keys, &others))
    }

    /// All that count for nobody, in the same order at every node.
    pub fn disputed(&self) -> Vec<Disputed> {
        disputed(&self.keys(), &self.others())
            .into_values()
            .collect()
    }

    /// What other nodes are given.
    pub fn list(&self) -> Vec<SecurityKey> {
        self.keys().clone()
    }

    /// Another node's list, on its word; the greater `number` is the later one, and none is
    /// of two lists.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn take_up(
        &self,
        node: &str,
        number: u64,
        mut keys: Vec<SecurityKey>,
    ) -> Result<(), KeysError> {
        let here = self.keys();
        let mut others = self.others();
        let before = others.get(node);
        if let Some(before) = before.filter(|before| before.number >= number) {
            if before.number > number {
                tracing::warn!(
                    node,
                    "an old list of another node's security keys is not taken up"
                );
            }
            return Ok(());
        }
        for key in &mut keys {
            // What it signed here counts, too.
            let same = |one: &&SecurityKey| one.credential.id == key.credential.id;
            let known = before.and_then(|before| before.items.iter().find(same));
            if let Some(known) = known.filter(|known| known.counter.0 > key.counter.0) {
                key.counter = known.counter;
            }
        }
        let mut next = others.clone();
        let from = FromNode {
            number,
            items: keys,
        };
        next.insert(node.to_owned(), from);
        state_file::write(&self.elsewhere, &next)?;
        let before = disputed(&here, &others);
        for (id, new) in disputed(&here, &next) {
            if before.get(&id) != Some(&new) {
                tracing::error!("{new}; one of them removes it on their page of the console");
            }
        }
        *others = next;
        Ok(())
    }

    /// Somebody's key of this name that its authenticator gave.
    ///
    /// # Errors
    /// There is none, or it is somebody else's.
    pub fn one(&self, owner: &Identity, id: &str) -> Result<SecurityKey, KeysError> {
        let own = self.of(owner).into_iter();
        let mut found = own.filter(|key| key.credential.id == id);
        Ok(found.next().ok_or(WebauthnError::NotYours)?)
    }

    /// As [`SecurityKeys::one`], whether it counts or not: to be removed.
    ///
    /// # Errors
    /// There is none.
    pub fn any(&self, owner: &Identity, id: &str) -> Result<SecurityKey, KeysError> {
        let (good, disputed) = self.registered(owner);
        let mut own = good.into_iter().chain(disputed);
        let found = own.find(|key| key.credential.id == id);
        Ok(found.ok_or(WebauthnError::NotYours)?)
    }

    /// Whether [`SecurityKeys::add`] would take it.
    ///
    /// # Errors
    /// It would not, for the reason given.
    pub fn check(&self, owner: &Identity, credential: &Credential) -> Result<(), KeysError> {
        let keys = self.keys();
        self.known_elsewhere(credential)?;
        may_add(&keys, owner, credential)
    }

    fn known_elsewhere(&self, new: &Credential) -> Result<(), KeysError> {
        let others = self.others();
        if others.values().any(|from| has(&from.items, new)) {
            return Err(KeysError::Twice);
        }
        Ok(())
    }

    /// # Errors
    /// It is registered already, there are too many, or it cannot be written down.
    pub fn add(&self, key: SecurityKey) -> Result<(), KeysError> {
        let mut keys = self.keys();
        self.known_elsewhere(&key.credential)?;
        may_add(&keys, &key.owner, &key.credential)?;
        let mut next = keys.clone();
        next.push(key);
        self.keep(&mut keys, next)
    }

    /// # Errors
    /// It is not theirs, or the change cannot be written down.
    pub fn remove(&self, owner: &Identity, id: &str) -> Result<(), KeysError> {
        if let Some(node) = self.any(owner, id)?.node {
            return Err(KeysError::Elsewhere(node));
        }
        let mut keys = self.keys();
        let mut next = keys.clone();
        next.retain(|key| key.owner != *owner || key.credential.id != id);
        if next.len() == keys.len() {
            return Err(WebauthnError::NotYours.into());
        }
        self.keep(&mut keys, next)
    }

    /// A key signed, and stood at `counter`.
    ///
    /// # Errors
    /// The counter did not rise, or it cannot be written down: the signature must not count.
    pub fn used(
        &self,
        owner: &Identity,
        id: &str,
        counter: Counter,
        unix: u64,
    ) -> Result<(), KeysError> {
        let mine = |key: &&mut SecurityKey| key.owner == *owner && key.credential.id == id;
        // It may have become somebody else's too since it was looked up.
        self.one(owner, id)?;
        let mut keys = self.keys();
        let mut next = keys.clone();
        if let Some(key) = next.iter_mut().find(mine) {
            signs(key, counter, unix)?;
            return self.keep(&mut keys, next);
        }
        let mut others = self.others();
        let mut next = others.clone();
        let mut theirs = next.values_mut().flat_map(|from| from.items.iter_mut());
        let key = theirs.find(mine).ok_or(WebauthnError::NotYours)?;
        signs(key, counter, unix)?;
        state_file::write(&self.elsewhere, &next)?;
        *others = next;
        Ok(())
    }

    fn keep(&self, keys: &mut Vec<SecurityKey>, next: Vec<SecurityKey>) -> Result<(), KeysError> {
        state_file::write(&self.path, &next)?;
        *keys = next;
        Ok(())
    }

    fn keys(&self) -> MutexGuard<'_, Vec<SecurityKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody else has it, too.
fn is_disputed(key: &SecurityKey, keys: &[SecurityKey], others: &Others) -> bool {
    let theirs = others.values().flat_map(|from| &from.items);
    let mut all = keys.iter().chain(theirs);
    all.any(|other| other.credential.id == key.credential.id && other.owner != key.owner)
}

/// By the name that its authenticator gave.
fn disputed(keys: &[SecurityKey], others: &Others) -> BTreeMap<String, Disputed> {
    let mut owners: BTreeMap<&str, Vec<(&Identity, Option<&String>)>> = BTreeMap::new();
    let theirs = others.iter().flat_map(|(node, from)| {
        let items = from.items.iter();
        items.map(move |key| (key, Some(node)))
    });
    for (key, node) in keys.iter().map(|key| (key, None)).chain(theirs) {
        let of = owners.entry(key.credential.id.as_str()).or_default();
        of.push((&key.owner, node));
    }
    let several = |of: &Vec<(&Identity, Option<&String>)>| of.iter().any(|one| one.0 != of[0].0);
    let of_several = owners.into_iter().filter(|(_, of)| several(of));
    let named = |(id, of): (&str, Vec<(&Identity, Option<&String>)>)| {
        let name = |(owner, node): (&Identity, Option<&String>)| {
            let name = format!("`{}` of {}", owner.subject, owner.issuer);
            (name, node.cloned())
        };
        let owners = of.into_iter().map(name).collect();
        (id.to_owned(), Disputed { owners })
    };
    of_several.map(named).collect()
}

fn has(keys: &[SecurityKey], credential: &Credential) -> bool {
    keys.iter().any(|key| key.credential.id == credential.id)
}

fn signs(key: &mut SecurityKey, counter: Counter, unix: u64) -> Result<(), KeysError> {
    if !key.counter.may_become(counter) {
        tracing::warn!(
            principal.iss = key.owner.issuer,
            principal.sub = key.owner.subject,
            key = key.name,
            "a security key's counter went back: there may be two of it"
        );
        return Err(WebauthnError::Counter.into());
    }
    key.counter = counter;
    key.used_unix = Some(unix);
    Ok(())
}

fn may_add(keys: &[SecurityKey], owner: &Identity, new: &Credential) -> Result<(), KeysError> {
    // Whoever's it is: one key must not speak for two people.
    if has(keys, new) {
        return Err(KeysError::Twice);
    }
    if keys.iter().filter(|key| key.owner == *owner).count() >= MAX_OF_ONE {
        return Err(KeysError::Full);
    }
    if keys.len() >= MAX_KEYS {
        return Err(KeysError::AllFull);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdpoint_core::webauthn::PublicKey;

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("holdpoint-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn rp(id: &str) -> RelyingParty {
        RelyingParty {
            id: id.to_owned(),
            origin: format!("https://{id}"),
        }
    }

    fn who(subject: &str) -> Identity {
        Identity {
            issuer: "https://id.example".to_owned(),
            subject: subject.to_owned(),
        }
    }

    fn key(owner: &str, id: &str, counter: u32) -> SecurityKey {
        SecurityKey {
            owner: who(owner),
            name: "desk".to_owned(),
            credential: Credential {
                id: id.to_owned(),
                key: PublicKey::EdDsa("AA".to_owned()),
                rp: rp("gw.example"),
            },
            counter: Counter(counter),
            added_unix: 1,
            used_unix: None,
            node: None,
        }
    }

    fn is(result: Result<(), KeysError>, why: WebauthnError) -> bool {
        matches!(result, Err(KeysError::Refused(found)) if found == why)
    }

    #[test]
    fn keys_are_kept_over_a_restart_and_are_their_owners_alone() {
        let dir = dir("security-keys");
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        keys.add(key("rita", "a", 0)).unwrap();
        assert!(matches!(
            keys.add(key("sam", "a", 0)),
            Err(KeysError::Twice)
        ));
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        assert_eq!(keys.of(&who("rita")).len(), 1);
        assert!(keys.of(&who("sam")).is_empty());
        assert!(keys.one(&who("sam"), "a").is_err());
        assert!(is(keys.remove(&who("sam"), "a"), WebauthnError::NotYours));
        assert!(is(
            keys.used(&who("sam"), "a", Counter(1), 2),
            WebauthnError::NotYours
        ));
        keys.remove(&who("rita"), "a").unwrap();
        assert!(keys.one(&who("rita"), "a").is_err());
    }

    #[test]
    fn a_counter_that_goes_back_is_refused_over_a_restart_too() {
        let dir = dir("security-keys-counter");
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        keys.add(key("rita", "a", 5)).unwrap();
        keys.used(&who("rita"), "a", Counter(6), 2).unwrap();
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        for back in [6, 5, 0] {
            let used = keys.used(&who("rita"), "a", Counter(back), 3);
            assert!(is(used, WebauthnError::Counter), "{back}");
        }
        assert_eq!(keys.one(&who("rita"), "a").unwrap().used_unix, Some(2));
    }

    #[test]
    fn keys_of_another_relying_party_are_good_no_more() {
        let dir = dir("security-keys-rp");
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        keys.add(key("rita", "a", 0)).unwrap();
        let keys = SecurityKeys::open(&dir, rp("other.example")).unwrap();
        assert!(keys.of(&who("rita")).is_empty());
        assert!(keys.one(&who("rita"), "a").is_err());
    }

    #[test]
    fn keys_of_another_node_sign_here_and_go_when_it_says_so() {
        let dir = dir("security-keys-elsewhere");
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        let theirs = || vec![key("rita", "a", 5), key("sam", "b", 0)];
        keys.take_up("n2", 10, theirs()).unwrap();
        let own = keys.of(&who("rita"));
        assert_eq!((own.len(), own[0].node.as_deref()), (1, Some("n2")));
        // Nobody registers it here as theirs, and it is removed where it was registered.
        for owner in ["rita", "eve"] {
            assert!(matches!(
                keys.add(key(owner, "a", 0)),
                Err(KeysError::Twice)
            ));
        }
        assert!(matches!(
            keys.remove(&who("rita"), "a"),
            Err(KeysError::Elsewhere(node)) if node == "n2"
        ));
        // What it signed here counts over a restart, and over a list that knows less of it.
        keys.used(&who("rita"), "a", Counter(7), 2).unwrap();
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        keys.take_up("n2", 10, theirs()).unwrap();
        let back = keys.used(&who("rita"), "a", Counter(7), 3);
        assert!(is(back, WebauthnError::Counter));
        assert!(is(
            keys.used(&who("eve"), "a", Counter(9), 3),
            WebauthnError::NotYours
        ));
        // Removed there: an older list that somebody puts back brings nothing back.
        keys.take_up("n2", 12, vec![key("sam", "b", 0)]).unwrap();
        assert!(keys.of(&who("rita")).is_empty());
        keys.take_up("n2", 11, theirs()).unwrap();
        assert!(keys.of(&who("rita")).is_empty());
        let keys = SecurityKeys::open(&dir, rp("gw.example")).unwrap();
        keys.take_up("n2", 11, theirs()).unwrap();
        assert!(keys.of(&who("rita")).is_empty() && keys.of(&who("sam")).len() == 1);
        // Nor is another list of the same number taken for it.
        keys.take_up("n2", 12, theirs()).unwrap();
        assert!(keys.of(&who("rita")).is_empty());
        keys.add(key("ruth", "c", 0)).unwrap();
        assert_eq!(keys.list().len(), 1, "others' keys are not given on");
    }

    /// The same at the two nodes where it was registered and at a third.
    #[test]
    fn a_key_of_two_people_counts_for_neither_until_one_has_removed_it() {
        let open = |name: &str| SecurityKeys::open(&dir(name), rp("gw.example")).unwrap();
        let (a, b, c) = (open("disputed-a"), open("disputed-b"), open("disputed-c"));
        a.add(key("rita", "k", 0)).unwrap();
        a.add(key("rita", "own", 0)).unwrap();
        b.add(key("sam", "k", 0)).unwrap();
        let tell = |number: u64| {
            for node in [&b, &c] {
                node.take_up("a", number, a.list()).unwrap();
            }
            for node in [&a, &c] {
                node.take_up("b", number, b.list()).unwrap();
            }
        };
        tell(1);
        for node in [&a, &b, &c] {
            assert_eq!(node.of(&who("rita")).len(), 1, "the other one is hers");
            assert!(node.of(&who("sam")).is_empty());
            for owner in ["rita", "sam"] {
                assert!(node.one(&who(owner), "k").is_err());
                let used = node.used(&who(owner), "k", Counter(1), 2);
                assert!(is(used, WebauthnError::NotYours), "{owner}");
                let (_, shown) = node.registered(&who(owner));
                assert_eq!(shown.len(), 1, "{owner} sees it");
            }
            let said = node.disputed();
            assert_eq!(said.len(), 1);
            let said = said[0].to_string();
            assert!(said.contains("`rita`") && said.contains("`sam`"), "{said}");
        }
        // Removed where it was registered, and there alone; then it is the other's at all.
        assert!(matches!(
            a.remove(&who("sam"), "k"),
            Err(KeysError::Elsewhere(node)) if node == "b"
        ));
        b.remove(&who("sam"), "k").unwrap();
        tell(2);
        for node in [&a, &b, &c] {
            assert_eq!(node.of(&who("rita")).len(), 2);
            assert!(node.of(&who("sam")).is_empty() && node.disputed().is_empty());
        }
        // One person's key at two nodes is no dispute, and one key.
        c.take_up("d", 1, vec![key("rita", "k", 0)]).unwrap();
        assert!(c.disputed().is_empty());
        assert_eq!(c.of(&who("rita")).len(), 2);
    }

    #[test]
    fn nobody_has_keys_without_end() {
        let keys = SecurityKeys::open(&dir("security-keys-many"), rp("gw.example")).unwrap();
        for n in 0..MAX_OF_ONE {
            keys.add(key("rita", &n.to_string(), 0)).unwrap();
        }
        assert!(matches!(
            keys.add(key("rita", "more", 0)),
            Err(KeysError::Full)
        ));
        keys.add(key("sam", "more", 0)).unwrap();
    }
}
