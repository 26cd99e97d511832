//! All end-to-end tests, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod any_node;
mod approval_rules;
mod bad_input;
mod browser;
mod browser_rules;
mod channels;
mod connections;
mod console;
mod crash;
mod demo;
mod doctor;
mod drivers;
mod evasions;
mod in_its_place;
mod interop;
mod journal;
mod kills;
mod large;
mod layering;
mod lifetimes;
mod login;
mod masking;
mod orms;
mod people_at_nodes;
mod plugin_faults;
mod policies;
mod postgres;
mod reload;
mod replay;
mod revocation;
mod sequences;
mod sessions;
mod step_up;
mod stopping;
mod tricks;
mod two_nodes;
mod upgrade;
mod upstream;
mod versions;
mod watching;
