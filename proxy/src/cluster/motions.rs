//! What is asked of the process that another node is: errands, and motions, which its owner
//! decides as it decides votes.
//!
//! A motion goes as a ballot goes. It names the life of the store in which the approval was
//! seen, so that none from before a failover counts; the owner judges it like one that was
//! made there, writes it down, applies it, and answers.
//!
//! Nodes of several versions live together while they are upgraded. Each says what it can be
//! asked; nobody is asked for more, since a version that knows no envelopes would take
//! it for forged; and a kind that is not known is answered, not judged.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{BreakGlass, Draft, Reviewer, Shown};
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{HANDOVER, Taken};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::letter::{Asked, Motion, SPEAKS, Said, Work};
use super::mirror::Seen;
use super::scripts::{Reply, Script};
use super::seal::Kind;
use super::{Cluster, Inner, Refusal, StoreError, random};
use crate::approvals::{
    Asks, Cast, Elsewhere, Errand, Explained, Given, Joined, JustifyRefused, Later, Offer, Others,
    ReviewView, View, VoteRefused, ask_all,
};

/// Between looks for an approval that is not seen.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// One that is not seen for so long is gone.
const MISSED: Duration = Duration::from_secs(2);

/// A process of another node.
pub(super) struct To<'a> {
    pub(super) node: &'a str,
    pub(super) epoch: String,
    /// In which life of the store it was seen, where that matters.
    pub(super) life: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// The node refused it, or cannot be asked for it.
    Refused(Explained),
    /// Nothing happened.
    NotSent(String),
    /// It may have been done.
    Silent(String),
}

impl Cluster {
    /// Asks for something, and waits for the answer.
    pub(super) async fn send(
        &self,
        to: &To<'_>,
        work: &Work,
        patience: Duration,
    ) -> Result<Value, Unsaid> {
        let inner = &self.0;
        let node = to.node;
        let failed = |why: String| Unsaid::NotSent(why);
        if self
            .version_of(to)
            .await
            .map_err(|error| failed(error.to_string()))?
            < work.since()
        {
            return Err(Unsaid::Refused(too_old(node)));
        }
        let asked = Asked {
            nonce: random().map_err(|error| failed(error.to_string()))?,
            owner: node.to_owned(),
            epoch: to.epoch.clone(),
            from: inner.node.clone(),
            incarnation: to.life.clone(),
            errand: work.write().map_err(|error| failed(error.to_string()))?,
        };
        let body = serde_json::to_vec(&asked).map_err(|error| failed(error.to_string()))?;
        let mark = inner.seal.mark(Kind::Errand, &[node], &body);
        let mut cmd = Script::Errand.call(&[inner.keys.lease(node), inner.keys.votes(node)]);
        cmd.arg(&asked.epoch).arg(body).arg(mark);
        cmd.arg(to.life.as_deref().unwrap_or_default());
        let reply: Reply = (inner.mail.ask(&cmd).await).map_err(|error| {
            Unsaid::Silent(format!("{error}; it did not reach node `{node}` for sure"))
        })?;
        match reply.word.as_str() {
            "ok" => {}
            "life" => {
                return Err(failed(
                    "the store failed over or began anew: look again".to_owned(),
                ));
            }
            _ => return Err(failed(format!("node `{node}` is not there"))),
        }
        match self.answer_to(node, &asked.nonce, patience).await {
            Some(Said::Told(answer)) => Ok(answer),
            Some(Said::Refused(why)) => Err(Unsaid::Refused(why)),
            Some(Said::Counted(_)) => Err(Unsaid::Silent("an answer to something else".to_owned())),
            None => Err(Unsaid::Silent(format!("no answer within {patience:?}"))),
        }
    }

    /// Tells the others what this process can be asked.
    pub(super) async fn say_version(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        let place = [inner.node.as_str(), inner.epoch.as_str()];
        let speaks = SPEAKS.to_string();
        let mark = inner.seal.mark(Kind::Speaks, &place, speaks.as_bytes());
        let mut cmd = redis::cmd("HSET");
        cmd.arg(inner.keys.checkpoint(&inner.node));
        cmd.arg("speaks").arg(&speaks).arg("speaks_mark").arg(mark);
        let _: u64 = inner.mail.ask(&cmd).await?;
        Ok(())
    }

    /// What a process can be asked. One that does not say is of the first version: the mark is
    /// over its epoch, so what a newer one left there says nothing of it.
    async fn version_of(&self, to: &To<'_>) -> Result<u32, StoreError> {
        let inner = &self.0;
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(inner.keys.checkpoint(to.node));
        cmd.arg("speaks").arg("speaks_mark");
        let said: (Option<String>, Option<String>) = inner.mail.ask(&cmd).await?;
        let (Some(speaks), Some(mark)) = said else {
            return Ok(1);
        };
        let place = [to.node, to.epoch.as_str()];
        let ours = (inner.seal).is_ours(Kind::Speaks, &place, speaks.as_bytes(), &mark);
        Ok(speaks.parse().ok().filter(|_| ours).unwrap_or(1))
    }

    /// Has the owner of an approval decide. `None` where it did not answer in time.
    async fn move_(&self, seen: &Seen, motion: Motion) -> Result<Option<Value>, Unsaid> {
        if let Some(why) = self.0.peers.refuses(&seen.node) {
            return Err(Unsaid::NotSent(format!(
                "{why}; ask that node, if you trust it"
            )));
        }
        let to = To {
            node: &seen.node,
            epoch: seen.epoch.clone(),
            life: Some(seen.life.clone()),
        };
        let work = Work::Motion(Box::new(motion));
        match self.send(&to, &work, self.0.config.vote_wait).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Unsaid::Silent(why)) => {
                tracing::info!(node = to.node, why, "submitted, and not answered");
                Ok(None)
            }
            Err(unsaid) => Err(unsaid),
        }
    }

    pub(super) async fn move_words(
        &self,
        seen: Seen,
        (approval, by, text): (ApprovalId, Identity, String),
    ) -> Result<Cast<()>, JustifyRefused> {
        let motion = Motion::Justify { approval, by, text };
        match self.move_(&seen, motion).await {
            Ok(Some(_)) => Ok(Cast::Final(())),
            Ok(None) => Ok(Cast::Submitted { node: seen.node }),
            Err(Unsaid::Refused(why)) => Err(JustifyRefused::Elsewhere(why)),
            Err(Unsaid::NotSent(why) | Unsaid::Silent(why)) => {
                Err(JustifyRefused::NotDelivered(why))
            }
        }
    }

    pub(super) async fn move_glass(
        &self,
        seen: Seen,
        glass: BreakGlass,
    ) -> Result<Cast<String>, VoteRefused> {
        match self.move_(&seen, Motion::BreakGlass(glass)).await {
            Ok(Some(state)) => Ok(Cast::Final(state.as_str().unwrap_or_default().to_owned())),
            Ok(None) => Ok(Cast::Submitted { node: seen.node }),
            Err(unsaid) => Err(vote_refused(unsaid)),
        }
    }

    /// Reviews outlive the process that held the command: whoever has it is asked for first.
    pub(super) async fn move_review(
        &self,
        (approval, by, note): (ApprovalId, Reviewer, Option<String>),
    ) -> Result<Cast<()>, VoteRefused> {
        let (reviews, missing) = self.their_reviews().await;
        let found = reviews
            .into_iter()
            .find(|review| approval.as_str() == review.id);
        let Some(node) = found.and_then(|review| review.node) else {
            if missing.is_empty() {
                return Err(VoteRefused::Unknown(approval));
            }
            let silent = missing.join("`, `");
            return Err(VoteRefused::NotDelivered(format!(
                "it is not here, and node `{silent}` did not answer"
            )));
        };
        let gone = || VoteRefused::NotDelivered(format!("node `{node}` is not there"));
        let seen = Seen {
            epoch: self.0.mirror.epoch(&node).ok_or_else(gone)?,
            life: self.0.life.borrow().clone(),
            node,
        };
        match self
            .move_(&seen, Motion::Review { approval, by, note })
            .await
        {
            Ok(Some(_)) => Ok(Cast::Final(())),
            Ok(None) => Ok(Cast::Submitted { node: seen.node }),
            Err(unsaid) => Err(vote_refused(unsaid)),
        }
    }

    /// What other nodes have to be looked into, and those that did not say.
    pub(super) async fn their_reviews(&self) -> (Vec<ReviewView>, Vec<String>) {
        let (mut reviews, mut missing) = (Vec::new(), Vec::new());
        let others: Arc<dyn Others> = Arc::new(self.clone());
        for (node, said) in ask_all(Some(&others), &Errand::Reviews).await {
            match said.map(serde_json::from_value::<Vec<ReviewView>>) {
                Ok(Ok(theirs)) => reviews.extend(theirs.into_iter().map(|review| ReviewView {
                    node: Some(node.clone()),
                    ..review
                })),
                _ => missing.push(node),
            }
        }
        (reviews, missing)
    }

    /// What another node has for a command that is about to be held here: with its owner's
    /// word, or to be waited for. Whoever does not answer in time may have given it: then
    /// nobody uses it.
    pub(super) async fn take_from_others(
        &self,
        draft: &Draft,
        only: Option<&ApprovalId>,
    ) -> Option<Offer> {
        let inner = &self.0;
        let digest = draft.digest.to_string();
        let mut silent = BTreeSet::new();
        for (seen, id) in inner.mirror.with_digest(&digest) {
            // Whether it is approved and free is for its owner to say: whoever was told of that
            // may be faster than what is seen of it here.
            let same = |view: &Arc<View>| view.rule == draft.rule;
            let Ok(approval) = id.parse::<ApprovalId>() else {
                continue;
            };
            // A node that did not answer is waited for once.
            let asked = only.is_none_or(|only| *only == approval) && !silent.contains(&seen.node);
            if !asked || !inner.mirror.get(&id).as_ref().is_some_and(same) {
                continue;
            }
            let Some(key) = inner.peers.key(&seen.node) else {
                tracing::warn!(
                    node = seen.node,
                    "the key of another node is not known yet: its approval is not taken over"
                );
                continue;
            };
            // What is shown is in the journals of both; the owner needs none of it.
            let mut asks = draft.clone();
            asks.shown = nothing_shown();
            let motion = Motion::HandOver {
                approval: approval.clone(),
                draft: Box::new(asks),
                windows: true,
                join: true,
            };
            let note = match self.move_(&seen, motion).await {
                Ok(Some(Value::String(note))) => note,
                Ok(Some(Value::Number(left))) => {
                    return Some(Offer::Joined(Joined {
                        node: seen.node,
                        approval,
                        left: Duration::from_millis(left.as_u64()?),
                    }));
                }
                Ok(_) => {
                    tracing::warn!(
                        node = seen.node,
                        approval.id = id,
                        "another node did not say whether it gives its approval: the command is held anew"
                    );
                    silent.insert(seen.node);
                    continue;
                }
                Err(unsaid) => {
                    tracing::info!(
                        node = seen.node,
                        approval.id = id,
                        ?unsaid,
                        "another node's approval is not to be had"
                    );
                    continue;
                }
            };
            match Taken::read(&seen.node, &key, &note) {
                Ok(taken) if taken.word.approval == approval => {
                    return Some(Offer::Given(Box::new(taken)));
                }
                Ok(_) => self.forged().await,
                Err(error) => {
                    tracing::error!(
                        node = seen.node,
                        approval.id = id,
                        error,
                        "what another node gave is not signed by it"
                    );
                    inner.counts.forged.fetch_add(1, Ordering::Relaxed);
                    self.forged().await;
                }
            }
        }
        None
    }

    /// Decides what another node moved. On return it is in the journal.
    pub(super) async fn decide(&self, from: &str, motion: Motion) -> Said {
        let reviewer = match &motion {
            Motion::Justify { .. } | Motion::HandOver { .. } | Motion::Leave { .. } => None,
            Motion::BreakGlass(glass) => Some(&glass.by),
            Motion::Review { by, .. } => Some(by),
        };
        if let Some(said) = self.not_heard(from, reviewer) {
            return said;
        }
        let now: Now = (self.0.clock)();
        let approvals = &self.0.approvals;
        let done = match motion {
            Motion::Justify { approval, by, text } => (approvals.justify(&approval, by, text, now))
                .await
                .map(|()| Value::Null)
                .map_err(Refusal::Words),
            Motion::BreakGlass(glass) => (approvals.break_glass(glass, now).await)
                .map(|state| json!(state.word()))
                .map_err(Refusal::Vote),
            Motion::Review { approval, by, note } => (approvals.review(&approval, by, note).await)
                .map(|()| Value::Null)
                .map_err(Refusal::Vote),
            Motion::HandOver {
                approval,
                draft,
                windows,
                join,
            } => {
                let asks = Asks { windows, join };
                let given = approvals.give(&approval, *draft, from, asks).await;
                given.map_err(Refusal::Vote).map(|given| match given {
                    Given::Word(word) => {
                        json!((self.0.attest)(HANDOVER, &json!(word).to_string()))
                    }
                    Given::Wait(left) => {
                        json!(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
                    }
                })
            }
            Motion::Leave {
                approval,
                session,
                grant,
            } => {
                approvals.guest_leaves(&approval, &session, grant).await;
                Ok(Value::Null)
            }
        };
        match done {
            Ok(value) => Said::Told(value),
            Err(refused) => Said::Refused((self.0.explain)(refused)),
        }
    }

    /// Why nothing of that reviewer, or that node, counts here.
    pub(super) fn not_heard(&self, from: &str, reviewer: Option<&Reviewer>) -> Option<Said> {
        if reviewer.is_some_and(|reviewer| !(self.0.admits)(reviewer)) {
            return Some(Said::Refused(Explained {
                status: 403,
                code: "HP-REVOKED".to_owned(),
                detail: "this reviewer is revoked at the node that holds the command".to_owned(),
                hint: Some("ask an operator".to_owned()),
                state: None,
            }));
        }
        let why = self.0.peers.refuses(from)?;
        Some(Said::Refused(Explained {
            status: 503,
            code: "HP-STORE".to_owned(),
            detail: format!("the vote was not counted: {why}"),
            hint: Some("vote at another node, and tell an operator".to_owned()),
            state: None,
        }))
    }
}

/// The other nodes, for the approvals of this one: which does not keep them alive.
pub(super) struct Away(pub(super) Weak<Inner>);

impl Elsewhere for Away {
    fn take<'a>(
        &'a self,
        draft: &'a Draft,
        only: Option<&'a ApprovalId>,
    ) -> Later<'a, Option<Offer>> {
        let cluster = self.0.upgrade().map(Cluster);
        Box::pin(async move { cluster?.take_from_others(draft, only).await })
    }

    fn decided(&self, id: &ApprovalId) -> Later<'static, Option<Arc<View>>> {
        let (inner, id) = (self.0.clone(), id.clone());
        Box::pin(async move {
            let mut lost = None;
            loop {
                let decided = inner.upgrade()?.mirror.decided_or_gone(id.as_str());
                if let Some(decided) = decided {
                    if let Some(view) = decided.await {
                        return Some(view);
                    }
                    lost = None;
                }
                // A store that failed over shows it again in a moment.
                if lost.get_or_insert_with(Instant::now).elapsed() > MISSED {
                    return None;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
    }

    fn leave(
        &self,
        node: &str,
        id: &ApprovalId,
        session: &SessionId,
        grant: bool,
    ) -> Later<'static, ()> {
        let (inner, node) = (self.0.clone(), node.to_owned());
        let motion = Motion::Leave {
            approval: id.clone(),
            session: session.clone(),
            grant,
        };
        Box::pin(async move {
            let Some(cluster) = inner.upgrade().map(Cluster) else {
                return;
            };
            let Some(epoch) = cluster.0.mirror.epoch(&node) else {
                return;
            };
            let seen = Seen {
                epoch,
                life: cluster.0.life.borrow().clone(),
                node,
            };
            if let Err(unsaid) = cluster.move_(&seen, motion).await {
                tracing::info!(
                    node = seen.node,
                    ?unsaid,
                    "another node is not told that nobody waits"
                );
            }
        })
    }
}

fn nothing_shown() -> Shown {
    Shown {
        text: String::new().into(),
        parameters: Vec::new(),
        context: Vec::new(),
        class: String::new(),
        effects: Vec::new(),
        objects: Vec::new(),
        proven: false,
        in_transaction: false,
    }
}

fn vote_refused(unsaid: Unsaid) -> VoteRefused {
    match unsaid {
        Unsaid::Refused(why) => VoteRefused::Elsewhere(why),
        Unsaid::NotSent(why) | Unsaid::Silent(why) => VoteRefused::NotDelivered(why),
    }
}

/// Of a node that does not know what it is asked.
pub(super) fn too_old(node: &str) -> Explained {
    Explained {
        status: 501,
        code: "HP-TOO-OLD".to_owned(),
        detail: format!("node `{node}` is too old for this: nothing was done"),
        hint: Some("upgrade that node; until then do it there".to_owned()),
        state: None,
    }
}
