//! A protocol to learn from: one line is one command, one line is its answer.
//!
//! ```text
//! client  starttls                    "ok", then TLS
//! client  token eyJhbGciOi…           taken by the host; this plugin never sees it
//! client  read invoice-7              class `read`
//! client  write invoice-7             class `write`
//! client  anything else               class `unknown`, which no rule may allow as proven
//! server  # waiting for a reviewer    a notice
//! server  refused HP-DENIED: …        a refusal, in place of the answer
//! ```
//!
//! Read in this order: here for what the plugin declares, [`session`] for what
//! it does with a connection, [`classify`] for what a line means, [`reply`] for
//! the lines it writes itself. A real protocol has the same files.
//!
//! Limits: a line has no kind byte, and only kinds can be declared *judged*. The
//! host therefore cannot catch this plugin passing a line that it should have
//! submitted; with a protocol that has kinds it would.

mod classify;
mod reply;
mod session;

use holdpoint_plugin::{Descriptor, Layout, Otherwise, Side, Subscription};

fn describe() -> Descriptor {
    let lines = Layout::Delimited(b"\n".to_vec());
    Descriptor {
        name: "echo".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        default_port: Some(7007),
        direct_tls_alpn: None,
        client_layout: lines.clone(),
        upstream_layout: lines,
        // Every line of both sides is held and shown. A protocol with large
        // answers lets the kinds that carry them `pass`.
        subscriptions: [Side::Client, Side::Upstream]
            .map(|origin| Subscription {
                origin,
                filters: Vec::new(),
                otherwise: Otherwise::Whole,
            })
            .to_vec(),
        // From harmless to worst: rules may say "at most `read`".
        classes: ["read", "write", "unknown"].map(str::to_owned).to_vec(),
        undo: None,
    }
}

holdpoint_plugin::stream_plugin! {
    describe: describe,
    session: session::EchoSession,
    classify: classify::fields,
}
