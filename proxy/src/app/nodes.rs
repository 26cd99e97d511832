//! What this node brings to others that share its store.

use std::sync::Arc;

use holdpoint_core::approval::Reviewer;
use holdpoint_core::config::{Config, RedisConfig};

use crate::api::Problem;
use crate::approvals::{Approvals, Explained};
use crate::clock::Clock;
use crate::cluster::ClusterParts;
use crate::identity::{Authenticator, Revocation};
use crate::recorder::Recorder;

pub(super) fn parts(
    config: &Config,
    store: &RedisConfig,
    approvals: &Approvals,
    recorder: &Recorder,
    authenticator: &Authenticator,
    clock: Clock,
) -> ClusterParts {
    let journal = recorder.clone();
    let authenticator = authenticator.clone();
    ClusterParts {
        node: config.node.clone(),
        config: store.clone(),
        approvals: approvals.clone(),
        ledger: Arc::new(recorder.clone()),
        clock: Arc::new(move || clock.now()),
        admits: Arc::new(move |reviewer| may_review(&authenticator, reviewer)),
        explain: Arc::new(|refused| Explained::from(&Problem::from(refused))),
        checkpoint: Arc::new(move || journal.checkpoint()),
        verifier: recorder.verifier().to_string(),
        state: config.state.clone(),
    }
}

/// Another node has checked the token; who is revoked here votes nowhere.
fn may_review(authenticator: &Authenticator, reviewer: &Reviewer) -> bool {
    !authenticator.revoked().iter().any(|revocation| {
        matches!(revocation, Revocation::Identity(identity)
            if *identity == reviewer.identity || reviewer.also.contains(identity))
    })
}
