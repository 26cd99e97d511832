//! Whether the journal is well, and what there is of it.

use std::path::Path;

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
    pub rules: RulesInForce,
    pub plugins: Vec<PluginInForce>,
}

/// The rules that new commands are judged by.
#[derive(Debug, Clone, Default)]
pub struct RulesInForce {
    pub version: String,
    /// Name and text.
    pub files: Vec<(String, String)>,
    pub warnings: Vec<String>,
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

/// Free space below which somebody should look.
const LITTLE: u64 = 1 << 30;

pub(super) async fn show(State(console): State<Console>, headers: HeaderMap) -> Response {
    let who = match console.who(&headers, "/console/health").await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let health = (console.0.health)();
    let dir = console.0.journal.clone();
    let disk = tokio::task::spawn_blocking(move || Disk::of(&dir)).await;
    let mut html = Html::default();
    html.raw("<div class=\"title\"><h1>Journal and gateway</h1></div>\n");
    match &health.journal {
        Ok(()) => {
            html.raw("<p class=\"told\">The journal is writing.</p>\n");
        }
        Err(why) => {
            html.within("<p class=\"told bad\">Look at the journal: ", why, "</p>\n");
        }
    }
    html.raw("<dl class=\"numbers\">\n<div><dt>Records since the start</dt><dd>")
        .show(health.records)
        .raw("</dd></div>\n<div><dt>Syncs to disk</dt><dd>")
        .show(health.syncs)
        .raw("</dd></div>\n<div><dt>Live sessions</dt><dd>")
        .show(console.0.sessions.count())
        .raw("</dd></div>\n<div><dt>Approvals pending</dt><dd>")
        .show(console.0.approvals.pending())
        .raw("</dd></div>\n</dl>\n<dl class=\"facts\">\n<dt>Head</dt><dd><code>")
        .text(&health.head)
        .raw("</code><br><span class=\"soft small\">records and first digits of the root; every approval shows it, too</span></dd>\n");
    match disk {
        Ok(Ok(disk)) => disk.tell(&mut html),
        _ => {
            html.raw("<dt>On disk</dt><dd><span class=\"chip bad\">cannot be read</span></dd>\n");
        }
    }
    html.raw("<dt>Checked by</dt><dd><code>holdpoint verify</code> on the gateway's host or on a copy; it needs no key to the content</dd>\n<dt>Gateway</dt><dd>")
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
    html.raw("</dd>\n<dt>Rules</dt><dd><a href=\"/console/rules\"><code>")
        .text(&health.rules.version)
        .raw("</code></a></dd>\n</dl>\n");
    let frame = Frame {
        title: "Health",
        tab: Tab::Health,
        who: Some(&who),
        pending: console.0.approvals.pending(),
        live: None,
    };
    frame.page(StatusCode::OK, &html)
}

/// What the journal takes, and what is left for it.
struct Disk {
    files: usize,
    bytes: u64,
    free: u64,
}

impl Disk {
    fn of(dir: &Path) -> std::io::Result<Self> {
        let (mut files, mut bytes) = (0, 0);
        for entry in std::fs::read_dir(dir)? {
            let about = entry?.metadata()?;
            if about.is_file() {
                files += 1;
                bytes += about.len();
            }
        }
        let space = rustix::fs::statvfs(dir)?;
        Ok(Self {
            files,
            bytes,
            free: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }

    fn tell(&self, html: &mut Html) {
        html.raw("<dt>On disk</dt><dd>")
            .text(&size(self.bytes))
            .raw(" in ")
            .count(self.files, "file")
            .raw("<br>")
            .text(&size(self.free))
            .raw(" free");
        if self.free < LITTLE {
            html.raw(" <span class=\"chip bad\">little</span>");
        }
        html.raw("</dd>\n");
    }
}

fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_say_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}
