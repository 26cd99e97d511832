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
mod interop;
mod journal;
mod layering;
mod login;
mod policies;
mod postgres;
mod reload;
mod replay;
mod sessions;
mod upgrade;
mod upstream;
