//! Spans, events and metrics, in one list.
//!
//! A span a session, one event an outcome, always the same field names:
//! `session.id`, `principal.sub`, `principal.iss`, `target`, `command.id`,
//! `decision`, `rule`, `approval.id`. Statement text and secrets stay in the
//! record. `HOLDPOINT_LOG` filters, in the form of tracing's `EnvFilter`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// What is logged where `HOLDPOINT_LOG` says nothing. pingora reports each
/// connection that ends early as an error, which is an agent's business.
const DEFAULT: &str = "info,pingora_core=warn";

/// Logs to standard error from now on. A second call changes nothing.
pub fn init(json: bool) {
    let filter =
        EnvFilter::try_from_env("HOLDPOINT_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    let done = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    if let Err(error) = done {
        tracing::debug!(%error, "logging is set up already");
    }
}
