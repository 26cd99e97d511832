//! Lines for the gateway's operator. The host limits how many it keeps.
//!
//! Never write a client's bytes here: the record holds them, the log must not.

#[cfg(target_arch = "wasm32")]
use crate::bindings::holdpoint::plugin::host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing as host;

pub use crate::bindings::holdpoint::plugin::host::Level;

pub fn debug(message: &str) {
    host::log(Level::Debug, message);
}

pub fn info(message: &str) {
    host::log(Level::Info, message);
}

pub fn warn(message: &str) {
    host::log(Level::Warn, message);
}

pub fn error(message: &str) {
    host::log(Level::Error, message);
}
