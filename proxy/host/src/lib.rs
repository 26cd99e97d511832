//! Runs holdpoint's plugins: the only crate that names wasmtime.
//!
//! An [`Engine`] compiles a component once and keeps the code; a [`Plugin`] is
//! the loaded component, shared by all; a [`Session`] is one instance, for one
//! connection, dropped with it. All calls are synchronous and bounded: CPU by a
//! ticker, memory and returned data by wasmtime, and every value that comes back
//! is checked in `convert` before anybody acts on it.
//!
//! A plugin that traps, runs over its budget or says what makes no sense loses
//! its instance for good, since its memory can no longer be trusted. What the
//! sandbox cannot see is a plugin that lies about what a command means: that is
//! what pinned digests are for.

mod bindings;
mod cache;
mod classifier;
mod convert;
mod engine;
mod faults;
mod forecast;
mod guest;
mod kept;
mod load;
mod memo;
mod plugin;
mod session;

pub use classifier::Classifier;
pub use engine::{Engine, EngineError, Limits};
pub use load::LoadError;
pub use plugin::Plugin;
pub use session::Session;
