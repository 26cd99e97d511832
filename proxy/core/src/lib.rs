//! holdpoint's pure part: what a command is, what policy says of it, who may
//! approve it, and what is recorded.
//!
//! Values in, values out. There is no socket, file, task or clock here: time
//! arrives as [`Now`], bytes as [`bytes::Bytes`], and everything that touches
//! the world sits in the `holdpoint` crate. A command takes this way:
//!
//! frames ([`framing`]) → [`command::Command`] → [`policy`] → [`gate`]
//! → record ([`record`]) → [`gate::Permit`] → upstream,
//! with [`approval`] between policy and record where a rule holds.

pub mod approval;
pub mod command;
pub mod config;
pub mod decision;
pub mod denial;
pub mod display;
pub mod framing;
pub mod gate;
pub mod id;
pub mod mask;
pub mod plugin;
pub mod policy;
pub mod principal;
pub mod record;
pub mod secret;
pub mod source;
mod time;
pub mod webauthn;

pub use time::Now;
