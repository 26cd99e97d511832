//! All end-to-end tests, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod bad_input;
mod connections;
mod crash;
mod demo;
mod journal;
mod kills;
mod layering;
mod lifetimes;
mod plugin_faults;
mod policies;
mod postgres;
mod reload;
mod revocation;
mod stopping;
mod upstream;
