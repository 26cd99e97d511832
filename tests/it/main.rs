//! All end-to-end tests, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod bad_input;
mod crash;
mod demo;
mod journal;
mod layering;
mod plugin_faults;
mod policies;
mod postgres;
mod reload;
mod revocation;
mod stopping;
mod upstream;
