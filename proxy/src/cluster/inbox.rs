//! Ballots and errands for this node: checked, judged like any vote or done, answered.
//!
//! A ballot is taken where it bears the nodes' mark, is for this process of this node, was
//! cast in the life of the store that this node posts to, and has not come before. Who may
//! vote is then judged by the approval itself, as it is now.
//!
//! The position in the stream is kept in memory: after a restart nothing that was held is
//! resumed, so a ballot for a former process has nothing to decide.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::streams::StreamReadReply;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::letter::{Answer, Asked, Ballot, Said, Work};
use super::motions::too_old;
use super::seal::Kind;
use super::{BLOCK, Cluster, Refusal, owner};
use crate::approvals::Explained;

/// Ballots judged at once.
const AT_ONCE: usize = 64;
/// Ballots that are remembered, so that none counts as a new one.
const REMEMBERED: usize = 100_000;
/// For the node that asked; it waits seconds only.
const KEEP_ANSWER: u64 = 120;
/// Forged ballots are written to the journal no more often.
const ALARM_EVERY: Duration = Duration::from_secs(10);

/// Why a ballot is not judged.
#[derive(Debug, PartialEq, Eq)]
enum NotTaken {
    /// It does not bear the nodes' mark, or is not what a node writes.
    Forged,
    /// It came before.
    Repeated,
    /// For a former process, or from a former life of the store: to be cast again. Its nonce.
    Stale(String),
}

/// What was taken out of the box.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Ballot(Box<Ballot>),
    Errand(Box<Asked>),
}

#[derive(Default)]
struct Seen {
    nonces: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether it is new.
    fn add(&mut self, nonce: &str) -> bool {
        if !self.nonces.insert(nonce.to_owned()) {
            return false;
        }
        self.order.push_back(nonce.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.nonces.remove(&oldest);
        }
        true
    }
}

pub(super) async fn run(cluster: Cluster) {
    let mut stop = cluster.0.stop.subscribe();
    let mut life = cluster.0.life.subscribe();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut seen = Seen::default();
    let mut position = "0-0".to_owned();
    let mut lived = String::new();
    let block = BLOCK.as_millis().to_string();
    loop {
        let now = life.borrow_and_update().clone();
        if now != lived && !lived.is_empty() {
            // Another life counts anew, and may count from before.
            position = "0-0".to_owned();
        }
        lived = now;
        let key = cluster.0.keys.votes(&cluster.0.node);
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT").arg(64).arg("BLOCK").arg(&block);
        cmd.arg("STREAMS").arg(key).arg(&position);
        let read = tokio::select! {
            read = cluster.0.inbox.ask::<Option<StreamReadReply>>(&cmd) => read,
            _ = stop.changed() => return,
        };
        let Ok(read) = read else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        for entry in read
            .into_iter()
            .flat_map(|read| read.keys)
            .flat_map(|key| key.ids)
        {
            position.clone_from(&entry.id);
            let field = |name: &str| bytes_of(&entry.map, name);
            let taken = cluster.admit(&field("body"), &field("mark"), &mut seen);
            let Ok(turn) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let (cluster, id) = (cluster.clone(), entry.id);
            tokio::spawn(async move {
                cluster.handle(taken).await;
                let mut cmd = redis::cmd("XDEL");
                cmd.arg(cluster.0.keys.votes(&cluster.0.node)).arg(id);
                let _: Result<u64, _> = cluster.0.mail.ask(&cmd).await;
                drop(turn);
            });
        }
    }
}

fn bytes_of(map: &HashMap<String, redis::Value>, name: &str) -> Vec<u8> {
    match map.get(name) {
        Some(redis::Value::BulkString(bytes)) => bytes.clone(),
        Some(redis::Value::SimpleString(text)) => text.clone().into_bytes(),
        _ => Vec::new(),
    }
}

impl Cluster {
    /// Takes a ballot or an errand, or says why not. Judges nothing yet.
    fn admit(&self, body: &[u8], mark: &[u8], seen: &mut Seen) -> Result<Taken, NotTaken> {
        let inner = &self.0;
        let mark = String::from_utf8_lossy(mark);
        let ours = |kind| inner.seal.is_ours(kind, &[&inner.node], body, &mark);
        if ours(Kind::Errand) {
            let asked: Asked = serde_json::from_slice(body).map_err(|_| NotTaken::Forged)?;
            if asked.owner != inner.node {
                return Err(NotTaken::Forged);
            }
            // One for a former process was not answered: whoever asked has given up.
            if asked.epoch != inner.epoch || !seen.add(&asked.nonce) {
                return Err(NotTaken::Repeated);
            }
            let life = asked.incarnation.as_ref();
            if life.is_some_and(|life| *life != *inner.life.borrow()) {
                return Err(NotTaken::Stale(asked.nonce));
            }
            return Ok(Taken::Errand(Box::new(asked)));
        }
        if !ours(Kind::Ballot) {
            return Err(NotTaken::Forged);
        }
        let ballot: Ballot = serde_json::from_slice(body).map_err(|_| NotTaken::Forged)?;
        if ballot.owner != inner.node {
            return Err(NotTaken::Forged);
        }
        if !seen.add(&ballot.nonce) {
            return Err(NotTaken::Repeated);
        }
        if ballot.epoch != inner.epoch || ballot.incarnation != *inner.life.borrow() {
            return Err(NotTaken::Stale(ballot.nonce));
        }
        Ok(Taken::Ballot(Box::new(ballot)))
    }

    async fn handle(&self, taken: Result<Taken, NotTaken>) {
        let counts = &self.0.counts;
        match taken {
            Ok(Taken::Errand(asked)) => {
                let said = self.run(&asked).await;
                self.answer(&asked.nonce, said).await;
            }
            Ok(Taken::Ballot(ballot)) => {
                let said = self.judge(&ballot).await;
                let count = match &said {
                    Said::Counted(_) => &counts.counted,
                    Said::Refused(_) | Said::Told(_) => &counts.refused,
                };
                count.fetch_add(1, Ordering::Relaxed);
                self.answer(&ballot.nonce, said).await;
            }
            Err(NotTaken::Forged) => {
                counts.forged.fetch_add(1, Ordering::Relaxed);
                self.forged().await;
            }
            Err(NotTaken::Repeated) => {
                counts.stale.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a ballot came again and was ignored");
            }
            Err(NotTaken::Stale(nonce)) => {
                counts.stale.fetch_add(1, Ordering::Relaxed);
                let said = Said::Refused(Explained {
                    status: 503,
                    code: "HP-STORE".to_owned(),
                    detail:
                        "the vote was not counted: the node restarted or the store failed over \
                             after it was cast"
                            .to_owned(),
                    hint: Some("reload, look again, cast it again".to_owned()),
                    state: None,
                });
                self.answer(&nonce, said).await;
            }
        }
    }

    /// Does what another node asks. What may open something is judged by the approval.
    async fn run(&self, asked: &Asked) -> Said {
        let from = asked.from.as_str();
        match Work::read(&asked.errand) {
            Some(Work::Errand(errand)) => {
                tracing::info!(%from, ?errand, "asked by another node");
                Said::Told(self.0.neighbour.run(from, errand).await)
            }
            // Only what names a life of the store was checked for that.
            Some(Work::Motion(motion)) if asked.incarnation.is_some() => {
                tracing::info!(%from, "another node moves something");
                self.decide(from, *motion).await
            }
            Some(Work::Motion(_)) | None => {
                tracing::warn!(%from, "asked by another node for something that this version does not know");
                Said::Refused(too_old(&self.0.node))
            }
        }
    }

    /// The same judgement as for a vote that was cast here; on return it is in the journal.
    async fn judge(&self, ballot: &Ballot) -> Said {
        let vote = ballot.vote.clone();
        if let Some(said) = self.not_heard(&ballot.from, Some(&vote.reviewer)) {
            return said;
        }
        tracing::info!(
            approval.id = %vote.approval, from = %ballot.from, reviewer = %vote.reviewer.identity.subject,
            "a vote came from another node"
        );
        match self.0.approvals.cast(vote, (self.0.clock)()).await {
            Ok(counted) => Said::Counted(counted),
            Err(refused) => Said::Refused((self.0.explain)(Refusal::Vote(refused))),
        }
    }

    async fn answer(&self, nonce: &str, said: Said) {
        let inner = &self.0;
        let answer = Answer {
            nonce: nonce.to_owned(),
            said,
        };
        let Ok(body) = serde_json::to_string(&answer) else {
            return;
        };
        if body.len() > owner::MAX_BODY {
            tracing::warn!("an answer is too long for the store: its node is told nothing");
            return;
        }
        let place = [inner.node.as_str(), nonce];
        let mark = inner.seal.mark(Kind::Answer, &place, body.as_bytes());
        let mut cmd = redis::cmd("SET");
        cmd.arg(inner.keys.answer(&inner.node, nonce))
            .arg(format!("{mark}{body}"))
            .arg("EX")
            .arg(KEEP_ANSWER);
        // Where this fails the reviewer knows no more than that it was submitted.
        if let Err(error) = inner.mail.ask::<String>(&cmd).await {
            tracing::warn!(%error, "the answer to a vote did not reach its node");
        }
    }

    pub(super) async fn forged(&self) {
        {
            let mut alarmed = self
                .0
                .alarmed
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = Instant::now();
            if alarmed.is_some_and(|at| now < at + ALARM_EVERY) {
                return;
            }
            *alarmed = Some(now);
        }
        let total = self.0.counts.forged.load(Ordering::Relaxed);
        let message = format!(
            "a vote or an errand in the store was not written by any node and did not count ({total} so far): \
             somebody else can write to the store, or the nodes' `cluster_secret` differ"
        );
        self.alarm("vote", &self.0.node, message).await;
    }
}
