//! The proof that a command may go upstream.

use std::fmt;

use bytes::Bytes;

use crate::id::{CommandId, SessionId};

/// Proof that this exact command may be sent upstream, once.
///
/// Only [`super::Gate`] makes one, after the command's record is durable. It
/// cannot be built by hand:
///
/// ```compile_fail,E0451
/// use holdpoint_core::gate::Permit;
/// use holdpoint_core::id::{CommandId, SessionId};
/// let forged = Permit {
///     session: SessionId::from_random(1),
///     command: CommandId(1),
///     bytes: bytes::Bytes::from_static(b"DROP TABLE t"),
/// };
/// ```
///
/// nor made from bytes:
///
/// ```compile_fail,E0624
/// use holdpoint_core::gate::Permit;
/// use holdpoint_core::id::{CommandId, SessionId};
/// let forged = Permit::new(SessionId::from_random(1), CommandId(1), bytes::Bytes::new());
/// ```
///
/// nor used twice, by copying it:
///
/// ```compile_fail,E0599
/// fn twice(permit: holdpoint_core::gate::Permit) {
///     let _copy = permit.clone();
/// }
/// ```
///
/// or by spending it again:
///
/// ```compile_fail,E0382
/// fn twice(permit: holdpoint_core::gate::Permit) {
///     let _first = permit.into_bytes();
///     let _second = permit.into_bytes();
/// }
/// ```
#[must_use = "a permit that is dropped sends nothing, and its command ends as unknown"]
pub struct Permit {
    session: SessionId,
    command: CommandId,
    bytes: Bytes,
}

impl Permit {
    pub(super) fn new(session: SessionId, command: CommandId, bytes: Bytes) -> Self {
        Self {
            session,
            command,
            bytes,
        }
    }

    pub fn command(&self) -> CommandId {
        self.command
    }

    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// How many bytes it lets through.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Spends the permit. For `Upstream::send`, which writes exactly these bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// Names the command; its bytes belong in the record only.
impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("session", &self.session)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}
