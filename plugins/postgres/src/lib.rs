//! PostgreSQL for holdpoint: the wire protocol, login, and what a statement does.
//!
//! Where to read: [`session`] follows one connection, `login` its beginning,
//! `extended` makes units of the extended protocol into commands, `classify`
//! says what a text does. Nothing here sees a result row, a password or a clock.
//!
//! Limits, each with a test: replication, function calls by message and COPY in
//! both directions at once are refused; text is read as UTF-8 with
//! `standard_conforming_strings` on, and a session that leaves either ends.

mod adapter;
mod classify;
mod describe;
mod extended;
mod frame;
mod login;
mod options;
mod outside;
mod reply;
mod session;
mod startup;

pub use describe::describe;
pub use outside::classify;
pub use session::PostgresSession;

pub use frame::fuzz_client;
pub use reply::fuzz_upstream;
pub use startup::fuzz_startup;

#[cfg(feature = "component")]
holdpoint_plugin::stream_plugin! {
    describe: describe,
    session: PostgresSession,
    classify: classify,
}
