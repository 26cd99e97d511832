//! What this node brings to others that share its store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use holdpoint_core::config::{Config, RedisConfig};
use holdpoint_core::id::Digest;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::frame::leaf_hash;
use holdpoint_core::record::tree::Prover;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::{self, Problem, kill_here, revoke_here};
use crate::approvals::{Approvals, Errand, Explained, Later};
use crate::clock::Clock;
use crate::cluster::{ClusterParts, Neighbour, Refusal};
use crate::identity::{Authenticator, Revocation};
use crate::links::{Link, Links};
use crate::recorder::{Reader, Recorder};
use crate::security_keys::{SecurityKey, SecurityKeys};

pub(super) fn parts(
    (config, store): (&Config, &RedisConfig),
    approvals: &Approvals,
    recorder: &Recorder,
    authenticator: &Authenticator,
    sessions: Arc<dyn api::Sessions>,
    people: &People,
    clock: Clock,
) -> ClusterParts {
    let (journal, signer) = (recorder.clone(), recorder.clone());
    let authenticator = authenticator.clone();
    let here = Here {
        authenticator: authenticator.clone(),
        approvals: approvals.clone(),
        sessions,
        journal: config.journal.dir.clone(),
        console: super::admin::public_url(config),
        proving: Arc::default(),
        recorder: recorder.clone(),
        people: people.clone(),
    };
    ClusterParts {
        node: config.node.clone(),
        config: store.clone(),
        approvals: approvals.clone(),
        ledger: Arc::new(recorder.clone()),
        clock: Arc::new(move || clock.now()),
        // Another node has checked the token; who is revoked here votes nowhere.
        admits: Arc::new(move |reviewer| authenticator.admits(reviewer)),
        explain: Arc::new(|refused| Explained::from(&explain(refused))),
        neighbour: Arc::new(here),
        checkpoint: Arc::new(move || journal.checkpoint()),
        attest: Arc::new(move |kind, said| signer.attest(kind, said)),
        verifier: recorder.verifier().to_string(),
        state: config.state.clone(),
    }
}

fn explain(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Vote(refused) => refused.into(),
        Refusal::Words(refused) => refused.into(),
    }
}

/// What others may have this node do.
struct Here {
    authenticator: Authenticator,
    approvals: Approvals,
    sessions: Arc<dyn api::Sessions>,
    journal: PathBuf,
    /// Where browsers find this node's console.
    console: Option<String>,
    /// One proof at a time: each reads the journal from its beginning.
    proving: Arc<Mutex<()>>,
    recorder: Recorder,
    people: People,
}

/// What is known here of those who review.
#[derive(Clone)]
pub(super) struct People {
    pub(super) links: Arc<Links>,
    /// Where the configuration has them.
    pub(super) keys: Option<Arc<SecurityKeys>>,
}

/// The same, as nodes give it to each other.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    #[serde(default)]
    keys: Vec<SecurityKey>,
    #[serde(default)]
    links: Vec<Link>,
}

impl People {
    fn take_up(&self, node: &str, number: u64, said: &str) -> Result<(), String> {
        let known: Known = serde_json::from_str(said).map_err(|error| error.to_string())?;
        if let Some(keys) = &self.keys {
            let kept = keys.take_up(node, number, known.keys);
            kept.map_err(|error| error.to_string())?;
        }
        let kept = self.links.take_up(node, number, known.links);
        kept.map_err(|error| error.to_string())
    }
}

/// Somebody who is let in no more, as nodes tell each other.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    identity: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Identity>,
}

impl Neighbour for Here {
    fn run<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, Value> {
        let from = Some(node.to_owned());
        Box::pin(async move {
            match errand {
                Errand::Sessions => json!(self.listed()),
                Errand::Windows => json!(self.approvals.windows().await),
                Errand::Reviews => json!(self.approvals.reviews().await),
                Errand::Kill { session, by } => {
                    json!(kill_here((&*self.sessions, &self.approvals), &session, by, from).await)
                }
                Errand::EndWindow { approval, by } => {
                    json!(self.approvals.revoke_window(&approval, by).await.is_ok())
                }
                Errand::Prove { from, to } => {
                    let (journal, turn) = (self.journal.clone(), Arc::clone(&self.proving));
                    let made = tokio::task::spawn_blocking(move || {
                        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                        prove(&journal, from, to)
                    });
                    match made.await {
                        Ok(Ok(proof)) => json!(proof),
                        Ok(Err(error)) => json!({ "error": error.to_string() }),
                        Err(error) => json!({ "error": error.to_string() }),
                    }
                }
                Errand::Revoke { identity, by } => {
                    json!(revoke_here(self.all(), &identity, Some(by), from).await)
                }
            }
        })
    }

    fn revoked(&self) -> String {
        let listed = self.authenticator.revoked_by().into_iter();
        let listed = listed.filter_map(|one| match one.what {
            Revocation::Identity(identity) => Some(Listed {
                identity,
                by: one.by,
            }),
            // Nobody can ask for these yet.
            Revocation::Client(_) | Revocation::Token(_) => None,
        });
        json!(listed.collect::<Vec<_>>()).to_string()
    }

    fn learn<'a>(&'a self, node: &'a str, list: &'a str) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            let listed: Vec<Listed> =
                serde_json::from_str(list).map_err(|error| error.to_string())?;
            let mut trouble = None;
            for Listed { identity, by } in listed {
                if self
                    .authenticator
                    .has_revoked(&Revocation::Identity(identity.clone()))
                {
                    continue;
                }
                let done = revoke_here(self.all(), &identity, by, Some(node.to_owned())).await;
                trouble = trouble.or(done.warning);
            }
            match trouble {
                None => Ok(()),
                Some(why) => Err(why),
            }
        })
    }

    fn shares(&self) -> Option<(u64, String)> {
        // First: a change stands in the journal before it is in the list.
        let number = self.recorder.head().size;
        let known = Known {
            keys: (self.people.keys.as_ref()).map_or_else(Vec::new, |keys| keys.list()),
            links: self.people.links.list(),
        };
        Some((number, serde_json::to_string(&known).ok()?))
    }

    fn take_up<'a>(
        &'a self,
        node: &'a str,
        number: u64,
        said: &'a str,
    ) -> Later<'a, Result<(), String>> {
        let (people, node, said) = (self.people.clone(), node.to_owned(), said.to_owned());
        Box::pin(async move {
            let kept = move || people.take_up(&node, number, &said);
            match tokio::task::spawn_blocking(kept).await {
                Ok(done) => done,
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.authenticator.revocations()
    }
}

/// That the journal's first `to` records begin with its first `from`.
fn prove(journal: &Path, from: u64, to: u64) -> anyhow::Result<Vec<Digest>> {
    let mut prover = Prover::new(from, to).context("there is no such growth")?;
    let mut reader = Reader::open(journal)?;
    while let Some(record) = reader.next_record()? {
        if !prover.push(leaf_hash(record.bytes)) {
            break;
        }
    }
    prover.proof().context("the journal is shorter")
}

impl Here {
    /// The live sessions, with where each can be looked at.
    fn listed(&self) -> Vec<api::SessionView> {
        let mut sessions = self.sessions.list();
        for one in &mut sessions {
            let page = |base: &String| {
                let base = base.trim_end_matches('/');
                format!("{base}/console/sessions/{}", one.id)
            };
            one.link = self.console.as_ref().map(page);
        }
        sessions
    }

    fn all(&self) -> (&dyn api::Tokens, &dyn api::Sessions, &Approvals) {
        (&self.authenticator, &*self.sessions, &self.approvals)
    }
}
