//! Security keys as the record shows them: whose they are, and that their counters rise.
//!
//! Limits: a key that was registered at another node, or in a journal before this one, is known
//! by its votes alone.

use std::collections::HashMap;

use super::linkage::Checked;
use crate::approval::Vote;
use crate::principal::Identity;
use crate::webauthn::{Counter, Credential, PublicKey};

#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, Key>);

#[derive(Debug)]
struct Key {
    owner: Identity,
    key: PublicKey,
    counter: Counter,
    removed: bool,
}

impl Keys {
    pub(super) fn added(
        &mut self,
        by: &Identity,
        credential: &Credential,
        counter: Counter,
    ) -> Checked {
        let key = Key {
            owner: by.clone(),
            key: credential.key.clone(),
            counter,
            removed: false,
        };
        match self.0.insert(credential.id.clone(), key) {
            Some(before) if !before.removed => Err(format!(
                "the security key {} of `{}` was registered before",
                credential.id, by.subject
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn removed(&mut self, by: &Identity, id: &str) -> Checked {
        // Not forgotten: it must not sign anything after this.
        let Some(key) = self.0.get_mut(id) else {
            return Ok(());
        };
        key.removed = true;
        if key.owner == *by {
            Ok(())
        } else {
            Err(format!(
                "the security key {id} was removed by `{}`, whose it is not",
                by.subject
            ))
        }
    }

    /// Of a vote that counted. Its signature is checked with the vote.
    pub(super) fn signed(&mut self, vote: &Vote) -> Checked {
        let Some(assertion) = &vote.assertion else {
            return Ok(());
        };
        let who = &vote.reviewer.label;
        let credential = &assertion.credential;
        let challenge = vote.challenge(&assertion.nonce);
        let counter = assertion
            .check(&challenge)
            .map_err(|why| format!("the vote of `{who}` is not signed as it says: {why}"))?;
        let owner = &vote.reviewer.identity;
        let key = self.0.entry(credential.id.clone()).or_insert_with(|| Key {
            owner: owner.clone(),
            key: credential.key.clone(),
            counter: Counter(0),
            removed: false,
        });
        if key.owner != *owner || key.key != credential.key || key.removed {
            return Err(format!(
                "the vote of `{who}` is signed with a security key that is not theirs"
            ));
        }
        if !key.counter.may_become(counter) {
            return Err(format!(
                "the counter of the security key of `{who}` went back"
            ));
        }
        key.counter = counter;
        Ok(())
    }
}
