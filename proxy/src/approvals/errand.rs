//! What one node of several asks of another beside votes.
//!
//! Nothing of it lets a command pass: an errand tells what is there, or ends something. What
//! may open something (a justification, broken glass) is a motion, and goes as a vote goes.

use std::sync::Arc;

use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::principal::Identity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Later;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Its live sessions.
    Sessions,
    /// Its open windows.
    Windows,
    /// What went by a broken glass there and is to be looked into.
    Reviews,
    /// The end of a session, if it has it.
    Kill { session: SessionId, by: Identity },
    /// The end of a window, if it has it.
    EndWindow { approval: ApprovalId, by: Identity },
    /// A proof that its journal with `to` records grew from the one with `from`.
    Prove { from: u64, to: u64 },
    /// The end of somebody's access.
    Revoke { identity: Identity, by: Identity },
}

/// Why another node's answer is not here. It may have done what it was asked, all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// The other nodes, as far as they are there.
pub trait Others: Send + Sync {
    /// Those that are seen now.
    fn names(&self) -> Vec<String>;

    /// Those that were seen lately and are not now, without having said goodbye.
    fn gone(&self) -> Vec<String> {
        Vec::new()
    }

    /// What `node` answers. With an answer, what it did is in its journal.
    fn ask<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, Result<Value, NoAnswer>>;
}

/// What each of the other nodes answers, all asked at once.
pub(crate) async fn ask_all(
    others: Option<&Arc<dyn Others>>,
    errand: &Errand,
) -> Vec<(String, Result<Value, NoAnswer>)> {
    let Some(others) = others else {
        return Vec::new();
    };
    let mut asked = tokio::task::JoinSet::new();
    for node in others.names() {
        let (others, errand) = (Arc::clone(others), errand.clone());
        asked.spawn(async move {
            let said = others.ask(&node, errand).await;
            (node, said)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    answers
}
