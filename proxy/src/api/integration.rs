//! Signed votes from configured systems, such as a chat bridge.
//!
//! The signature covers the raw bytes, the time and the id (Standard Webhooks).
//! What it proves is that the integration says so: the vote is recorded under
//! `integration:NAME`, counts only for people that the configuration lets it
//! speak for, and passes every check that a reviewer's own vote passes.
//!
//! A group in that list lets the integration say who is in it; such a group, and
//! no other, is then taken as the reviewer's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use holdpoint_core::approval::Reviewer;
use holdpoint_core::config::Integration;
use holdpoint_core::decision::Reviewers;
use holdpoint_core::display::escape_line;
use holdpoint_core::id::Digest;
use holdpoint_core::principal::Identity;
use holdpoint_core::secret::Secret;
use serde::{Deserialize, Serialize};
use standardwebhooks::{HEADER_WEBHOOK_ID, Webhook};
use utoipa::ToSchema;

use super::Problem;
use crate::notify::webhook;

/// Names the integration that signed.
pub(super) const HEADER: &str = "holdpoint-integration";

/// Longer than a signature is good (300 s to either side).
const REMEMBER: Duration = Duration::from_secs(600);

/// Ids remembered; past it signed votes are refused, not forgotten.
const MAX_REMEMBERED: usize = 10_000;

const MAX_ID: usize = 128;
/// Characters of a name that an integration gives; the rest is left out.
const MAX_LABEL: usize = 200;

/// The integrations of the configuration, with their secrets.
#[derive(Default)]
pub struct Integrations {
    known: BTreeMap<String, Known>,
    seen: Mutex<HashMap<(String, String), Seen>>,
}

struct Known {
    secret: Webhook,
    reviewers: Vec<Reviewers>,
}

struct Seen {
    body: Digest,
    until_mono_ns: u64,
}

/// A signed vote.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedDecision {
    pub approval_id: String,
    /// `approve` or `deny`.
    pub decision: super::approvals::Choice,
    /// Of what the reviewer was shown, hex.
    pub digest: String,
    pub reviewer: AssertedReviewer,
    pub reason: Option<String>,
    /// How an approval lets it run, of the `windows` that its rule offers; once unless given.
    #[serde(default)]
    pub window: Option<String>,
    /// The integration's own name for this decision.
    pub nonce: String,
}

/// Who the integration says decided.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssertedReviewer {
    /// The issuer's URL, as in the reviewer's own tokens.
    pub issuer: String,
    pub subject: String,
    #[serde(default)]
    pub label: Option<String>,
    /// Only groups that the configuration lets the integration assert are used.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl Integrations {
    /// # Errors
    /// A secret is not of the Standard Webhooks form; the text names the integration.
    pub fn new(
        configured: impl IntoIterator<Item = (String, Integration, Secret)>,
    ) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        for (name, integration, secret) in configured {
            let secret =
                webhook::key(&secret).map_err(|why| format!("integration `{name}`: {why}"))?;
            known.insert(
                name,
                Known {
                    secret,
                    reviewers: integration.reviewers,
                },
            );
        }
        Ok(Self {
            known,
            seen: Mutex::default(),
        })
    }

    /// Checks the signature over `raw`, then reads it. Gives the decision, its
    /// reviewer, and the webhook's id.
    pub(super) fn verify(
        &self,
        headers: &HeaderMap,
        raw: &[u8],
        mono_ns: u64,
    ) -> Result<(SignedDecision, Reviewer, String, String), Problem> {
        let refused = || {
            Problem::new(
                axum::http::StatusCode::UNAUTHORIZED,
                "HP-SIGNATURE",
                "the integration or its signature is not accepted",
            )
            .hint("sign the raw body by Standard Webhooks, with a clock that is right")
        };
        let one = |name: &str| {
            let mut all = headers.get_all(name).iter();
            match (all.next(), all.next()) {
                (Some(value), None) => value.to_str().ok(),
                _ => None,
            }
        };
        let name = one(HEADER).ok_or_else(refused)?;
        let known = self.known.get(name).ok_or_else(refused)?;
        let id = one(HEADER_WEBHOOK_ID)
            .filter(|id| id.len() <= MAX_ID)
            .ok_or_else(refused)?;
        known.secret.verify(raw, headers).map_err(|_| refused())?;

        // Only what was signed is remembered, so nobody else can fill the list.
        self.remember(name, id, Digest::of(raw), mono_ns)?;
        let signed: SignedDecision = serde_json::from_slice(raw).map_err(|error| {
            Problem::bad_request(format!("the body is not a decision: {error}"))
        })?;
        let reviewer = known.reviewer(&signed.reviewer).ok_or_else(|| {
            Problem::new(
                axum::http::StatusCode::FORBIDDEN,
                "HP-NOT-ELIGIBLE",
                format!("integration `{name}` may not speak for this reviewer"),
            )
            .hint("an operator: `reviewers` of the integration")
        })?;
        Ok((signed, reviewer, name.to_owned(), id.to_owned()))
    }

    /// The same message again is harmless, since a vote counts once; the same id
    /// with another body is not the same message.
    fn remember(&self, name: &str, id: &str, body: Digest, mono_ns: u64) -> Result<(), Problem> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), id.to_owned());
        if let Some(earlier) = seen.get(&key).filter(|one| mono_ns < one.until_mono_ns) {
            return if earlier.body == body {
                Ok(())
            } else {
                Err(Problem::new(
                    axum::http::StatusCode::CONFLICT,
                    "HP-REPLAY",
                    "this webhook-id came before with another body",
                ))
            };
        }
        if seen.len() >= MAX_REMEMBERED {
            seen.retain(|_, one| mono_ns < one.until_mono_ns);
        }
        if seen.len() >= MAX_REMEMBERED {
            return Err(Problem::new(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                "HP-LIMIT",
                "too many signed decisions within ten minutes",
            ));
        }
        let until = u64::try_from(REMEMBER.as_nanos()).unwrap_or(u64::MAX);
        seen.insert(
            key,
            Seen {
                body,
                until_mono_ns: mono_ns.saturating_add(until),
            },
        );
        Ok(())
    }
}

impl Known {
    fn reviewer(&self, asserted: &AssertedReviewer) -> Option<Reviewer> {
        let named = self.reviewers.iter().any(|set| match set {
            Reviewers::Person { issuer, subject } => {
                *issuer == asserted.issuer && *subject == asserted.subject
            }
            Reviewers::Group(_) | Reviewers::Owner | Reviewers::OnCall(_) => false,
        });
        let may_assert = |group: &&String| {
            self.reviewers
                .iter()
                .any(|set| matches!(set, Reviewers::Group(own) if own == *group))
        };
        let groups: Vec<_> = asserted.groups.iter().filter(may_assert).cloned().collect();
        if !named && groups.is_empty() {
            return None;
        }
        let label = asserted.label.as_deref().unwrap_or(&asserted.subject);
        let label: String = label.chars().take(MAX_LABEL).collect();
        Some(Reviewer {
            identity: Identity {
                issuer: asserted.issuer.clone(),
                subject: asserted.subject.clone(),
            },
            label: escape_line(label.as_bytes()),
            groups,
            on_call: Vec::new(),
            agent: false,
            also: Vec::new(),
            auth_time: None,
        })
    }
}
