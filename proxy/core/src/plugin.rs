//! What a stream plugin says and is told: the WIT of `wit/stream.wit` as plain
//! values, so that neither the gate nor the session names wasmtime.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::Command;
use crate::denial::Denial;
use crate::framing::{Delivery, Filter, Layout, Side};
use crate::mask::RowRule;

/// What a plugin declares about itself.
#[derive(Debug, Clone)]
pub struct Descriptor {
    pub name: String,
    pub version: String,
    pub default_port: Option<u16>,
    pub direct_tls_alpn: Option<String>,
    pub client_layout: Layout,
    pub upstream_layout: Layout,
    pub subscriptions: Vec<Subscribe>,
    /// Harmless first.
    pub classes: Arc<[String]>,
    /// The one message that may go to a target in the place of a client's, see the WIT.
    pub undo: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub side: Side,
    pub filters: Vec<Filter>,
    pub otherwise: Delivery,
}

/// A frame as shown to a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub seq: u64,
    pub kind: Option<u8>,
    pub body: Bytes,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub settings: Vec<(String, String)>,
    pub client_tls: bool,
    pub entropy: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub first: u64,
    pub last: u64,
    /// `wire` is empty: the host fills it with the frames' own bytes.
    pub command: Command,
    /// Report the verdict also when the command goes forward.
    pub notify: bool,
    /// What is sent is the descriptor's `undo`, in the place of the frames.
    pub undo: bool,
}

/// Where the agent's token sits in the next client frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialSlot {
    pub kind: Option<u8>,
    pub skip: u16,
    pub nul_terminated: bool,
}

/// A frame that carries the target's password: `before`, the password, `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFrame {
    pub before: Vec<u8>,
    pub after: Vec<u8>,
    /// Offset and width in `before` of a big-endian length that counts the password too.
    pub length: Option<(u8, u8)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// How many forwarded commands this ends, oldest first.
    pub commands: u32,
    pub status: String,
    pub failed: bool,
    pub rows: Option<u64>,
}

/// What a plugin asks the session to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Pass(u64),
    Drop(u64),
    ToClient(Bytes),
    ToUpstream(Bytes),
    Submit(Box<Submission>),
    Completed(Completion),
    Subscribe(Subscribe),
    Reframe(Side, Layout),
    /// For rows of the target that are not cut yet.
    Rows(RowRule),
    StartTls(Side),
    TakeCredential(CredentialSlot),
    Connect,
    GiveCredential(CredentialFrame),
    Ready,
    RegisterCancel {
        key: Vec<u8>,
        packet: Vec<u8>,
    },
    Cancel(Vec<u8>),
    Close,
}

/// Who the plugin is told has logged in.
#[derive(Debug, Clone)]
pub enum IdentityOutcome {
    Accepted {
        subject: String,
        label: String,
        groups: Vec<String>,
    },
    Refused(Denial),
}

#[derive(Debug, Clone)]
pub enum Verdict {
    Forwarded,
    Refused(Denial),
}

/// Why a plugin did not answer. Each of these refuses the command; all but
/// `Busy` also end the session, since the plugin's state is gone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PluginError {
    #[error("plugin `{plugin}` gave up: {message}")]
    Fault { plugin: String, message: String },
    #[error("plugin `{plugin}` trapped: {message}")]
    Trap { plugin: String, message: String },
    #[error("plugin `{plugin}` used more than {budget_ms} ms of CPU in one call")]
    Deadline { plugin: String, budget_ms: u64 },
    #[error("plugin `{plugin}` broke the interface: {message}")]
    Misbehaved { plugin: String, message: String },
    #[error(
        "plugin `{plugin}` is quarantined: it failed for {principals} principals; mend it and reload"
    )]
    Quarantined { plugin: String, principals: usize },
    #[error(
        "plugin `{plugin}` failed {faults} times in sessions of this principal, which gets no more; \
         mend it and reload"
    )]
    ShutOut { plugin: String, faults: u32 },
}

/// Login at the target, as the host offers it to a plugin. Holds the secret.
pub trait UpstreamAuth: Send {
    /// The account to log in as; empty where none is configured.
    fn username(&self) -> String;

    /// Starts one login.
    ///
    /// # Errors
    /// The mechanism is not one of the host's, or too many logins were started.
    fn start(&mut self, mechanism: &str) -> Result<Box<dyn Exchange>, AuthError>;
}

/// One login. Dropped without harm at any point.
pub trait Exchange: Send {
    /// Answers one challenge; an empty answer ends a verified exchange.
    ///
    /// # Errors
    /// Nothing is to be sent, and the exchange is over.
    fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, AuthError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the target asks for a login mechanism that is not supported")]
    UnknownMechanism,
    #[error("the target's challenge makes no sense")]
    BadChallenge,
    #[error("the target's challenge is weaker than allowed")]
    Weak,
    #[error("the target failed to prove that it knows the password")]
    PeerNotVerified,
    #[error("no password is configured for this target")]
    NoCredential,
}
