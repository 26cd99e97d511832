//! Votes that are signed by the reviewer's security key.
//!
//! The page asks the browser for a signature over exactly the vote that its form would cast; what comes
//! back is checked here against the reviewer's own keys, and once more by the approval service, which
//! trusts no channel, and by `holdpoint verify`, years later. What was asked for is used once, by who was
//! asked, for what they were asked.

use std::time::Duration;

use axum::http::StatusCode;
use holdpoint_core::approval::{Verdict, Vote, challenge};
use holdpoint_core::decision::Window;
use holdpoint_core::id::ApprovalId;
use holdpoint_core::principal::Identity;
use holdpoint_core::webauthn::Assertion;
use serde::Deserialize;

use super::Console;
use super::html::Html;
use super::sign_in::{Who, after, random};
use crate::api::{Problem, approval_id};
use crate::approvals::View;
use crate::security_keys::KeysError;

/// To read a command and find a key.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a browser was asked to have signed.
pub(super) struct Asked {
    by: Identity,
    /// `None`: a new key.
    approval: Option<ApprovalId>,
}

/// The part of a form that the script fills in; empty without a signature.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Signature {
    nonce: String,
    credential: String,
    authenticator_data: String,
    client_data: String,
    signature: String,
}

impl Console {
    /// Something to be signed by `by` alone, once.
    pub(super) fn ask(&self, by: &Identity, approval: Option<ApprovalId>) -> Option<String> {
        let nonce = random().ok()?;
        let now = self.now().mono_ns;
        let asked = Asked {
            by: by.clone(),
            approval,
        };
        self.0.asked.put(&nonce, asked, now, after(now, PATIENCE));
        Some(nonce)
    }

    /// Whether `by` was asked for this, and for the first time.
    pub(super) fn was_asked(
        &self,
        nonce: &str,
        by: &Identity,
        approval: Option<&ApprovalId>,
    ) -> bool {
        let asked = self.0.asked.take(nonce, self.now().mono_ns);
        asked.is_some_and(|asked| asked.by == *by && asked.approval.as_ref() == approval)
    }

    /// Puts the reviewer's signature on `vote`, if the form has one.
    ///
    /// # Errors
    /// It is not theirs, not of this vote, or was used before. The vote is not to be cast.
    pub(super) async fn sign(&self, vote: &mut Vote, form: Signature) -> Result<(), Problem> {
        if form.signature.is_empty() || vote.verdict != Verdict::Approve {
            return Ok(());
        }
        let by = vote.reviewer.identity.clone();
        let Some(keys) = self.0.keys.clone() else {
            return Err(refused("there are no security keys at this gateway"));
        };
        if !self.was_asked(&form.nonce, &by, Some(&vote.approval)) {
            return Err(refused(
                "the signature was not asked for by this page, came before, or too late",
            ));
        }
        let key = keys.one(&by, &form.credential).map_err(not_used)?;
        let assertion = Assertion {
            credential: key.credential,
            nonce: form.nonce,
            authenticator_data: form.authenticator_data,
            client_data: form.client_data,
            signature: form.signature,
        };
        let counter = assertion
            .check(&vote.challenge(&assertion.nonce))
            .map_err(|why| not_used(why.into()))?;
        let (unix, id) = (self.now().unix(), form.credential);
        let used = tokio::task::spawn_blocking(move || keys.used(&by, &id, counter, unix)).await;
        match used {
            Ok(used) => used.map_err(not_used)?,
            Err(_) => return Err(refused("the key's counter could not be kept")),
        }
        vote.assertion = Some(Box::new(assertion));
        Ok(())
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "HP-SECURITY-KEY", why)
        .hint("open the approval again and sign anew")
}

fn not_used(why: KeysError) -> Problem {
    match why {
        KeysError::File(error) => {
            tracing::error!(%error, "security keys cannot be kept, so a signature does not count");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "HP-SECURITY-KEY",
                "the use of the key could not be written down; the gateway's log says why",
            )
        }
        why => refused(&format!(
            "the security key's signature is not good for this vote: {why}"
        )),
    }
}

/// What a form to approve needs for the script to have it signed: attributes of the form.
///
/// `None` where nobody could sign.
pub(super) fn form(
    html: &mut Html,
    console: &Console,
    who: &Who,
    view: &View,
) -> Option<Challenges> {
    let keys = console.0.keys.as_ref()?;
    let (by, id) = (&who.principal.identity, approval_id(&view.id).ok()?);
    let own = keys.of(by);
    if own.is_empty() {
        return None;
    }
    let nonce = console.ask(by, Some(id.clone()))?;
    let ids: Vec<_> = own.iter().map(|key| key.credential.id.as_str()).collect();
    html.raw(" data-webauthn=\"get\" data-rp=\"")
        .text(&keys.rp().id)
        .raw("\" data-keys=\"")
        .text(&ids.join(" "))
        .raw("\"");
    Some(Challenges {
        id,
        digest: view.digest.parse().ok()?,
        nonce,
    })
}

/// Makes the challenge for each way to approve one approval.
pub(super) struct Challenges {
    id: ApprovalId,
    digest: holdpoint_core::id::Digest,
    nonce: String,
}

impl Challenges {
    /// Base64url, for an attribute.
    pub(super) fn of(&self, window: Option<Window>) -> String {
        encoded(&challenge(
            &self.id,
            &self.digest,
            Verdict::Approve,
            window,
            &self.nonce,
        ))
    }

    /// Inputs for [`Signature`].
    pub(super) fn inputs(&self, html: &mut Html) {
        html.raw("<input type=\"hidden\" name=\"nonce\" value=\"")
            .text(&self.nonce)
            .raw("\">\n<input type=\"hidden\" name=\"credential\">\n<input type=\"hidden\" name=\"authenticator_data\">\n<input type=\"hidden\" name=\"client_data\">\n<input type=\"hidden\" name=\"signature\">\n<p class=\"told bad\" role=\"alert\" data-failed hidden></p>\n<noscript><p class=\"told bad\">A security key signs only where script runs.</p></noscript>\n");
    }
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
