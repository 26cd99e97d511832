//! Write a holdpoint plugin in Rust.
//!
//! A plugin reads one protocol. The gateway ends TLS, cuts the stream into
//! frames as the plugin's [`Descriptor`] says and keeps their bytes; the plugin
//! says what the frames mean and answers with [`Action`]s. It has no socket,
//! file, clock or randomness, and no secret ever reaches it.
//!
//! ```
//! use holdpoint_plugin::*;
//!
//! struct Lines;
//!
//! impl Session for Lines {
//!     fn new(_setup: Setup) -> Self {
//!         Self
//!     }
//!
//!     fn on_frames(&mut self, _: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
//!         Ok(frames.iter().map(|frame| Action::Drop(frame.seq)).collect())
//!     }
//!
//!     fn on_identity(&mut self, _: IdentityOutcome) -> Result<Vec<Action>, Fault> {
//!         Ok(vec![Action::Connect, Action::Ready])
//!     }
//!
//!     fn on_verdict(&mut self, _: Verdict) -> Result<Vec<Action>, Fault> {
//!         Ok(Vec::new())
//!     }
//!
//!     fn terminate(&self, refusal: &Refusal) -> Vec<u8> {
//!         format!("{}\n", refusal.message).into_bytes()
//!     }
//! }
//!
//! fn describe() -> Descriptor {
//!     Descriptor {
//!         name: "lines".to_owned(),
//!         version: "0.1.0".to_owned(),
//!         default_port: None,
//!         direct_tls_alpn: None,
//!         client_layout: Layout::Delimited(b"\n".to_vec()),
//!         upstream_layout: Layout::Delimited(b"\n".to_vec()),
//!         subscriptions: Vec::new(),
//!         classes: Vec::new(),
//!         undo: None,
//!     }
//! }
//!
//! fn classify(_: Vec<(String, Vec<u8>)>) -> Result<Command, String> {
//!     Err("nothing to classify".to_owned())
//! }
//!
//! holdpoint_plugin::stream_plugin! { describe: describe, session: Lines, classify: classify }
//! # fn main() {}
//! ```
//!
//! The crate of a plugin is a `cdylib` for the gateway and an `rlib` for native
//! tests; see `plugins/echo` for one to read and copy. The meaning of every
//! type here is written in `wit/types.wit` and `wit/stream.wit`.

pub mod auth;
#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod export;
pub mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use bindings::exports::holdpoint::plugin::stream_protocol::{
    Action, CancelKey, Completion, Descriptor, Forecast, Frame, Identity, IdentityOutcome, Pattern,
    Piece, Recall, Setup, Submission, Verdict,
};
pub use bindings::holdpoint::plugin::framing::{
    CredentialFrame, CredentialSlot, Delivery, Filter, Layout, LengthPrefixed, MaskedField,
    Otherwise, RowEdit, RowPlan, Side, Subscription,
};
pub use bindings::holdpoint::plugin::types::{
    Command, Confidence, Fault, Object, Operation, Parameter, Refusal, RefusalKind, Span,
};

/// One client's connection, from its first byte to its end.
///
/// Each connection has an instance of the plugin to itself. A panic or a call
/// over its budget of CPU ends that connection and no other.
pub trait Session {
    /// Called once, before anything is read.
    fn new(setup: Setup) -> Self;

    /// For protocols in which the server speaks first.
    ///
    /// # Errors
    /// The session ends, as in all methods that may fail.
    fn open(&mut self) -> Result<Vec<Action>, Fault> {
        Ok(Vec::new())
    }

    /// A handshake asked for with [`Action::StartTls`] has succeeded.
    ///
    /// # Errors
    /// As in [`Session::open`]; a protocol that never asks need not implement it.
    fn on_tls(&mut self, origin: Side) -> Result<Vec<Action>, Fault> {
        let side = if origin == Side::Client {
            "client"
        } else {
            "upstream"
        };
        Err(Fault {
            message: format!("TLS began on the {side} side, where nobody asked for it"),
        })
    }

    /// Frames of one side, in order, that the subscription asked to see. Each
    /// stays with the host until it is passed, dropped or part of a submission.
    ///
    /// # Errors
    /// As in [`Session::open`].
    fn on_frames(&mut self, origin: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault>;

    /// What came of the token that [`Action::TakeCredential`] pointed at.
    ///
    /// # Errors
    /// As in [`Session::open`].
    fn on_identity(&mut self, outcome: IdentityOutcome) -> Result<Vec<Action>, Fault>;

    /// The decision on the submission that is outstanding. Called for each
    /// refusal, and for a forward only where the submission set `notify`.
    ///
    /// # Errors
    /// As in [`Session::open`].
    fn on_verdict(&mut self, verdict: Verdict) -> Result<Vec<Action>, Fault>;

    /// Bytes that tell the client `text` while its command is held. Empty where
    /// the protocol has no way to say so.
    fn notice(&self, _text: &str) -> Vec<u8> {
        Vec::new()
    }

    /// Bytes that end the session with this refusal, whatever state it is in.
    fn terminate(&self, refusal: &Refusal) -> Vec<u8>;
}
