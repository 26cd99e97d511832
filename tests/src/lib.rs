//! The harness of the end-to-end tests: real PostgreSQL, real clients, the real
//! `holdpoint` binary, each with its own directory and free ports.
//!
//! A test builds what it needs from these parts, nearest the target first:
//!
//! - [`RedisServer`] and [`FaultProxy`]: where several nodes meet, and a network that breaks;
//! - [`PgServer`]: a PostgreSQL of our own, shared by the tests that run at the same time;
//! - [`Tap`]: between gateway and target, keeps every byte of both directions;
//! - [`Issuer`] and [`WebhookReceiver`]: who signs tokens and who is told of holds;
//! - [`People`]: who signs in at the gateway's development issuer;
//! - [`FakeSlack`]: where reviewers press buttons;
//! - [`Gateway`]: `holdpoint serve` as a child process;
//! - [`Reviewer`], [`psql`], [`drivers`]: people and clients.
//!
//! When a gateway is dropped the [`oracle`] reconciles the tap, the journal and what
//! reviewers received, and the logs are searched for every secret the test used.
//!
//! `HOLDPOINT_KEEP=1` leaves directories behind and says where. A client that is
//! not installed makes its tests *skipped*, said on standard error; with `CI`
//! set that is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails its test by panicking"
)]

pub mod browser;
pub mod certs;
mod compiled;
pub mod desk;
pub mod dir;
pub mod fault;
pub mod gateway;
pub mod issuer;
pub mod needs;
pub mod oracle;
pub mod people;
pub mod pg;
pub mod psql;
pub mod pty;
pub mod random;
pub mod redis;
pub mod reviewer;
pub mod slack;
pub mod small;
pub mod tap;
pub mod webhook;
pub mod wire;

pub use browser::Browser;
pub use dir::TestDir;
pub use fault::{FaultProxy, Network};
pub use gateway::{Gateway, RULES, Settings};
pub use issuer::Issuer;
pub use people::People;
pub use pg::{Database, PgServer};
pub use psql::Psql;
pub use redis::RedisServer;
pub use reviewer::Reviewer;
pub use slack::FakeSlack;
pub use small::SmallDisk;
pub use tap::Tap;
pub use webhook::WebhookReceiver;

/// Polls until `probe` gives something, or panics with `what` after `seconds`.
pub fn eventually<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "waited {seconds} s for {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
