//! The proof that one command may use one approval, or one turn of a window.

use crate::id::{ApprovalId, CommandId, Digest, SessionId};

/// Proof that one command may go forward under one approval. Made by
/// [`super::Approval::claim`], once per approval, and by [`super::OpenWindow::claim`],
/// once per use; and it cannot be made otherwise:
///
/// ```compile_fail,E0451
/// use holdpoint_core::approval::Clearance;
/// use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
/// let forged = Clearance {
///     approval: ApprovalId::from_random(1),
///     digest: Digest([0; 32]),
///     session: SessionId::from_random(1),
///     command: CommandId(1),
/// };
/// ```
///
/// ```compile_fail,E0599
/// fn twice(clearance: holdpoint_core::approval::Clearance) {
///     let _copy = clearance.clone();
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Clearance {
    approval: ApprovalId,
    digest: Digest,
    session: SessionId,
    command: CommandId,
}

impl Clearance {
    /// For approvals and windows alone.
    pub(super) fn new(
        approval: &ApprovalId,
        digest: &Digest,
        session: &SessionId,
        command: CommandId,
    ) -> Self {
        Self {
            approval: approval.clone(),
            digest: *digest,
            session: session.clone(),
            command,
        }
    }

    pub fn approval(&self) -> &ApprovalId {
        &self.approval
    }

    pub fn covers(&self, digest: &Digest, session: &SessionId, command: CommandId) -> bool {
        self.digest == *digest && self.session == *session && self.command == command
    }
}
