//! A vote for another node, from here to there and back.
//!
//! The reviewer is told what the owner answered; until it has, no more than that the vote
//! was submitted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdpoint_core::approval::Vote;
use tokio::time::Instant;

use super::letter::{Answer, Ballot, Said};
use super::mirror::Seen;
use super::scripts::{Reply, Script};
use super::seal::Kind;
use super::{Cluster, random};
use crate::approvals::{Cast, Explained, VoteRefused};

/// Between looks for the answer; grows up to the second.
const LOOK: Duration = Duration::from_millis(4);
const LONGEST_LOOK: Duration = Duration::from_millis(64);
/// For replicas to have a vote.
const REPLICAS: Duration = Duration::from_secs(1);
/// Of a MAC, in hex.
const MARK: usize = 64;

impl Cluster {
    pub(super) async fn cast(&self, seen: Seen, vote: Vote) -> Result<Cast, VoteRefused> {
        let inner = &self.0;
        let failed = |why: String| VoteRefused::NotDelivered(why);
        if let Some(why) = inner.peers.refuses(&seen.node) {
            return Err(failed(format!("{why}; vote at that node, if you trust it")));
        }
        let ballot = Ballot {
            nonce: random().map_err(|error| failed(error.to_string()))?,
            owner: seen.node,
            epoch: seen.epoch,
            incarnation: seen.life,
            from: inner.node.clone(),
            vote,
        };
        let owner = ballot.owner.as_str();
        let body = serde_json::to_vec(&ballot).map_err(|error| failed(error.to_string()))?;
        let mark = inner.seal.mark(Kind::Ballot, &[owner], &body);
        let keys = [
            inner.keys.request(owner, ballot.vote.approval.as_str()),
            inner.keys.votes(owner),
        ];
        let mut cmd = Script::Vote.call(&keys);
        cmd.arg(ballot.vote.digest.to_string())
            .arg(&ballot.epoch)
            .arg(&ballot.incarnation)
            .arg(body)
            .arg(mark);
        let reply: Reply = inner.mail.ask(&cmd).await.map_err(|error| {
            failed(format!("{error}; it did not reach node `{owner}` for sure"))
        })?;
        if let Some(refused) = refused(&reply, owner) {
            return Err(refused);
        }
        inner.counts.cast.fetch_add(1, Ordering::Relaxed);
        let safe = self.replicated().await;
        let answer = self.answer_to(&ballot.owner, &ballot.nonce, inner.config.vote_wait);
        match answer.await {
            Some(Said::Counted(counted)) => Ok(Cast::Final(counted)),
            Some(Said::Refused(why)) => Err(VoteRefused::Elsewhere(why)),
            Some(Said::Told(_)) => Err(failed("an answer to something else".to_owned())),
            None if safe => Ok(Cast::Submitted { node: ballot.owner }),
            None => Err(failed(format!(
                "fewer than {} replicas of the store have it, and node `{owner}` has not answered",
                inner.config.replicas
            ))),
        }
    }

    /// Whether as many replicas have what was written as are asked for.
    async fn replicated(&self) -> bool {
        let wanted = self.0.config.replicas;
        if wanted == 0 {
            return true;
        }
        let mut cmd = redis::cmd("WAIT");
        cmd.arg(wanted).arg(REPLICAS.as_millis().to_string());
        match self.0.mail.ask::<usize>(&cmd).await {
            Ok(have) => have >= wanted,
            Err(_) => false,
        }
    }

    /// What the owner says, if it says it in time.
    pub(super) async fn answer_to(
        &self,
        owner: &str,
        nonce: &str,
        patience: Duration,
    ) -> Option<Said> {
        let inner = &self.0;
        let until = Instant::now() + patience;
        let place = [owner, nonce];
        let mut cmd = redis::cmd("GET");
        cmd.arg(inner.keys.answer(owner, nonce));
        let mut wait = LOOK;
        loop {
            tokio::time::sleep(wait).await;
            // Who waits for long need not look so often.
            wait = (wait * 2).min(LONGEST_LOOK.max(patience / 300));
            if let Ok(Some(text)) = inner.mail.ask::<Option<String>>(&cmd).await
                && let Some((mark, body)) = text.split_at_checked(MARK)
                && inner
                    .seal
                    .is_ours(Kind::Answer, &place, body.as_bytes(), mark)
                && let Ok(answer) = serde_json::from_str::<Answer>(body)
                && answer.nonce == nonce
            {
                return Some(answer.said);
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }
}

/// What the store says of a vote that it did not take.
fn refused(reply: &Reply, owner: &str) -> Option<VoteRefused> {
    let over = |detail: String, code: &str, state: Option<&str>| {
        Some(VoteRefused::Elsewhere(Explained {
            status: 409,
            code: code.to_owned(),
            detail,
            hint: None,
            state: state.map(str::to_owned),
        }))
    };
    let again = |why: &str| {
        Some(VoteRefused::NotDelivered(format!(
            "{why}: reload, look again, cast it again"
        )))
    };
    match reply.word.as_str() {
        "ok" => None,
        "settled" => over(
            format!("this approval is already {}", reply.more),
            "HP-SETTLED",
            Some(&reply.more),
        ),
        "digest" => over(
            "the digest is not the one of this approval: reload it and look again".to_owned(),
            "HP-DIGEST",
            None,
        ),
        "epoch" => again(&format!("node `{owner}` restarted")),
        "life" => again("the store failed over or began anew"),
        "gone" => again(&format!("node `{owner}` does not show it any more")),
        _ => again("the store is a replica now"),
    }
}
