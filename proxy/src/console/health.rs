//! What is in force, and whether the journal is well.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::Console;
use super::html::Html;
use super::page::{Frame, Tab};

/// The state of the gateway, read when somebody looks.
#[derive(Debug, Clone)]
pub struct Health {
    pub node: String,
    /// `ok`, or what is wrong with the journal.
    pub journal: Result<(), String>,
    /// Stopping: nobody new is let in.
    pub stopping: bool,
    pub records: u64,
    pub syncs: u64,
    /// Number of records and first digits of the root that a checkpoint would sign.
    pub head: String,
    /// Version of the rules.
    pub policy: String,
    pub plugins: Vec<PluginInForce>,
}

/// The plugin that new sessions of a target get.
#[derive(Debug, Clone)]
pub struct PluginInForce {
    pub target: String,
    pub name: String,
    pub version: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
}

pub(super) async fn show(State(console): State<Console>, headers: HeaderMap) -> Response {
    let who = match console.who(&headers, "/console/health").await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let health = (console.0.health)();
    let mut html = Html::default();
    html.raw("<h1>Health</h1>\n<dl class=\"facts\">\n<dt>Journal</dt><dd>");
    match &health.journal {
        Ok(()) => {
            html.raw("<span class=\"chip good\">writing</span>");
        }
        Err(why) => {
            html.raw("<span class=\"chip bad\">look at it</span> ")
                .text(why);
        }
    }
    html.raw("<br><span class=\"soft\">")
        .show(health.records)
        .raw(" records, ")
        .show(health.syncs)
        .raw(" syncs since the start · head <code>")
        .text(&health.head)
        .raw("</code></span></dd>\n<dt>Gateway</dt><dd>")
        .text(&health.node)
        .raw(", version ")
        .text(env!("CARGO_PKG_VERSION"));
    if health.stopping {
        html.raw(" <span class=\"chip waits\">stopping</span>");
    }
    if let Err(why) = console.0.approvals.health() {
        html.raw("</dd>\n<dt>Other nodes</dt><dd><span class=\"chip bad\">look at it</span> ")
            .text(&why);
    }
    html.raw("</dd>\n<dt>Rules in force</dt><dd><code>")
        .text(&health.policy)
        .raw("</code></dd>\n<dt>Now</dt><dd>")
        .show(console.0.sessions.list().len())
        .raw(" sessions, ")
        .show(console.0.approvals.pending())
        .raw(" approvals pending</dd>\n</dl>\n<h2>Plugins in force</h2>\n<ul class=\"rows\">\n");
    for plugin in &health.plugins {
        html.raw("<li><b>")
            .text(&plugin.target)
            .raw("</b> ")
            .text(&plugin.name)
            .raw(" ")
            .text(&plugin.version)
            .raw("<br><code class=\"soft small\">")
            .text(&plugin.digest)
            .raw("</code></li>\n");
    }
    html.raw("</ul>\n");
    let frame = Frame {
        title: "Health",
        tab: Tab::Health,
        who: Some(&who),
        pending: console.0.approvals.pending(),
        live: None,
    };
    frame.page(StatusCode::OK, &html)
}
