//! What a revocation ends.

use std::sync::Arc;

use crate::approvals::Approvals;
use crate::identity::{Authenticator, Revocation};
use crate::session::Sessions;

/// Ends the sessions and approvals of whoever is revoked, within moments.
pub(super) fn end(authenticator: &Authenticator, approvals: &Approvals, sessions: &Arc<Sessions>) {
    let (authenticator, approvals) = (authenticator.clone(), approvals.clone());
    let sessions = Arc::clone(sessions);
    let mut changes = authenticator.revocations();
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            // A session that ends leaves its approvals; this is for those left as grants.
            for revocation in authenticator.revoked() {
                if let Revocation::Identity(identity) = revocation {
                    approvals.revoke_principal(&identity).await;
                }
            }
            let ended = sessions.revoke(|principal| authenticator.is_revoked(principal));
            tracing::info!(sessions = ended, "revoked");
        }
    });
}
