//! Why a session ends: for the record, the log, and the client.

use std::io;

use bytes::Bytes;
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::display::escape_line;
use holdpoint_core::gate::{GateError, Withdrawal};
use holdpoint_core::plugin::PluginError;

use super::line::LineError;
use super::parts::LedgerError;
use super::wire::WireError;
use crate::upstream::UpstreamError;

/// Every way a session can end. Once it is known, nothing goes upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the client left")]
    ClientLeft,
    #[error("the connection to the client broke: {0}")]
    ClientBroke(io::Error),
    #[error("the protocol came to its end")]
    Goodbye,
    /// With what it told the client.
    #[error("the plugin refused the session: {}", told(.0))]
    Refused(Bytes),
    #[error("the client broke the protocol: {0}")]
    Protocol(String),
    #[error("more than {0} bytes are waiting to become one command")]
    TooLarge(u32),
    #[error("login took longer than `limits.handshake`")]
    Slow,
    #[error("the target did not finish the login within `limits.handshake`")]
    UpstreamSlow,
    #[error("the session's time is over")]
    Expired,
    #[error("the identity was revoked")]
    Revoked,
    #[error("an operator ended the session")]
    Killed,
    #[error("the gateway stops")]
    Shutdown,
    #[error("the target closed the connection")]
    UpstreamLeft,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the connection to the target broke: {0}")]
    UpstreamBroke(io::Error),
    #[error("the target broke the protocol: {0}")]
    UpstreamProtocol(WireError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("the plugin broke the interface: {0}")]
    Misbehaved(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the gate was driven wrongly: {0}")]
    Gate(#[from] GateError),
    #[error("the system gives no randomness: {0}")]
    Random(getrandom::Error),
}

/// The words of a message in a protocol of which only the plugin knows the form.
fn told(bytes: &[u8]) -> String {
    const MOST: usize = 512;
    let bytes = bytes.get(..MOST).unwrap_or(bytes);
    let words: Vec<_> = bytes
        .split(|byte| byte.is_ascii_control())
        .filter(|word| word.len() > 1)
        .map(escape_line)
        .collect();
    words.join(" ")
}

impl From<LineError> for End {
    fn from(error: LineError) -> Self {
        Self::Misbehaved(error.to_string())
    }
}

impl End {
    pub(super) fn misbehaved(what: &str) -> Self {
        Self::Misbehaved(what.to_owned())
    }

    /// Where it was the target that was waited for.
    pub(super) fn at_target(self) -> Self {
        match self {
            Self::Slow => Self::UpstreamSlow,
            other => other,
        }
    }

    /// The word in the session's last record.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::ClientLeft | Self::ClientBroke(_) | Self::Goodbye => "client",
            Self::Refused(_) | Self::Protocol(_) | Self::TooLarge(_) | Self::Slow => "refused",
            Self::Expired => "expired",
            Self::Revoked | Self::Killed => "revoked",
            Self::Shutdown => "shutdown",
            Self::UpstreamLeft
            | Self::UpstreamSlow
            | Self::Upstream(_)
            | Self::UpstreamBroke(_)
            | Self::UpstreamProtocol(_) => "upstream",
            Self::Plugin(_) | Self::Misbehaved(_) | Self::Gate(_) | Self::Random(_) => "plugin",
            Self::Ledger(_) => "journal",
        }
    }

    /// What becomes of a command that is held at this moment.
    pub(super) fn withdrawal(&self) -> Withdrawal {
        match self {
            Self::Revoked | Self::Killed | Self::Expired => Withdrawal::Revoked,
            Self::Shutdown | Self::Ledger(_) => Withdrawal::Shutdown,
            _ => Withdrawal::ClientGone,
        }
    }

    /// Whether somebody here ended it: what it has at the target is to end with it,
    /// since its connection's end alone stops nothing there.
    pub(super) fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Revoked | Self::Killed | Self::Expired | Self::Shutdown
        )
    }

    /// Whether the plugin, not the world, is at fault.
    pub(super) fn blames_plugin(&self) -> bool {
        matches!(self, Self::Plugin(_) | Self::Misbehaved(_))
    }

    /// What the client is told; nothing where it has been told or has left.
    pub(super) fn denial(&self) -> Option<Denial> {
        let unavailable = |code: &str, message: &str| Denial::new(Kind::Unavailable, code, message);
        let refused = |code: &str, message: &str| Denial::new(Kind::Unauthenticated, code, message);
        let malformed = |code: &str, message: String| Denial::new(Kind::Malformed, code, message);
        Some(match self {
            Self::ClientLeft | Self::ClientBroke(_) | Self::Goodbye | Self::Refused(_) => {
                return None;
            }
            Self::Protocol(what) => malformed("HP-PROTOCOL", format!("protocol violation: {what}")),
            Self::TooLarge(limit) => malformed(
                "HP-TOO-LARGE",
                format!("a command is larger than {limit} bytes"),
            )
            .hint("split it into smaller commands"),
            Self::Slow => malformed("HP-PROTOCOL", "the login took too long".to_owned()),
            Self::Expired => refused("HP-TOKEN-EXPIRED", "the session's time is over")
                .hint("connect again with a fresh token: `holdpoint token`"),
            Self::Revoked => {
                refused("HP-REVOKED", "this identity was revoked").hint("ask an operator")
            }
            Self::Killed => {
                refused("HP-REVOKED", "an operator ended this session").hint("ask an operator")
            }
            Self::Shutdown => unavailable("HP-SHUTDOWN", "the gateway is stopping")
                .hint("connect again; what was not answered was not executed or is unknown"),
            Self::UpstreamLeft
            | Self::UpstreamSlow
            | Self::Upstream(_)
            | Self::UpstreamBroke(_)
            | Self::UpstreamProtocol(_) => unavailable(
                "HP-UPSTREAM",
                "the target cannot be reached or ended the connection",
            )
            .hint("tell the operator of this gateway; its log has the cause"),
            Self::Plugin(PluginError::Quarantined { .. } | PluginError::ShutOut { .. }) => {
                unavailable(
                    "HP-PLUGIN",
                    "the gateway's plugin for this target failed too often and is out of service",
                )
                .hint("tell the operator of this gateway; connecting again does not help")
            }
            Self::Plugin(_) | Self::Misbehaved(_) | Self::Gate(_) | Self::Random(_) => unavailable(
                "HP-PLUGIN",
                "the gateway failed on this session; it is over",
            )
            .hint("the operator's log and journal say more; connect again"),
            Self::Ledger(_) => unavailable(
                "HP-JOURNAL",
                "the journal cannot be written, so nothing may run",
            )
            .hint(
                "tell the operator of this gateway; what was not answered was not executed or is \
                 unknown",
            ),
        })
    }
}
