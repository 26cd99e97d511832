//! Sessions: the live ones, those that the journal's last part tells of, and one of them as it went.
//!
//! Commands, decisions and votes are shown; what targets answered is not, only how much
//! it was. Reviewers decide about commands, and answers may hold what is not theirs to see.

use std::collections::HashSet;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdpoint_core::id::SessionId;
use holdpoint_core::record::Entry;

use super::Console;
use super::html::Html;
use super::page::{Frame, Tab, notice};
use super::sign_in::Who;
use crate::recorder::Reader;
use crate::telling::{self, Summary, Tone};

/// Of the journal, from its end: what is read for one page.
const LOOK_BACK: u64 = 128 << 20;

/// Past sessions in the list.
const RECENT: usize = 50;

/// Of one session. A longer one is for the command line.
const MAX_LINES: usize = 2_000;

pub(super) async fn list(State(console): State<Console>, headers: HeaderMap) -> Response {
    let who = match console.who(&headers, "/console/sessions").await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let live = console.0.sessions.list();
    let mut html = Html::default();
    html.raw("<h1>Sessions</h1>\n");
    if live.is_empty() {
        html.raw("<p class=\"empty\">Nobody is connected.</p>\n");
    }
    html.raw("<ol class=\"rows\">\n");
    for one in &live {
        html.raw("<li><a href=\"/console/sessions/")
            .text(&one.id)
            .raw("\"><span class=\"chip good\">live</span> <b>")
            .text(&one.principal.label)
            .raw("</b> on <b>")
            .text(&one.target)
            .raw("</b> <span class=\"soft\">")
            .show(one.commands)
            .raw(" commands · from ")
            .text(&one.source)
            .raw(" · since ")
            .text(&one.opened_at)
            .raw("</span></a></li>\n");
    }
    html.raw("</ol>\n<h2>Before</h2>\n");
    let known: HashSet<String> = live.into_iter().map(|one| one.id).collect();
    match console.read(telling::summaries).await {
        Ok(all) => {
            let past = all
                .iter()
                .rev()
                .filter(|one| !known.contains(one.session.as_str()));
            html.raw("<ol class=\"rows\">\n");
            for one in past.take(RECENT) {
                past_row(&mut html, one);
            }
            html.raw("</ol>\n<p class=\"soft small\">The latest; <code>holdpoint sessions list</code> on the gateway's host tells of all.</p>\n");
        }
        Err(why) => {
            html.within("<p class=\"told bad\">", &why, "</p>\n");
        }
    }
    frame(&console, &who, "Sessions").page(StatusCode::OK, &html)
}

fn past_row(html: &mut Html, one: &Summary) {
    html.raw("<li><a href=\"/console/sessions/")
        .text(one.session.as_str())
        .raw("\"><b>")
        .text(&one.principal)
        .raw("</b> on <b>")
        .text(&one.target)
        .raw("</b> <span class=\"soft\">")
        .show(one.commands)
        .raw(" commands");
    for (count, what) in [
        (one.held, " held"),
        (one.refused, " refused"),
        (one.unknown, " unknown"),
    ] {
        if count > 0 {
            html.raw(", ").show(count).raw(what);
        }
    }
    html.raw(" · ").text(&one.opened).raw(" · ");
    match &one.closed {
        Some(reason) => html.text(reason),
        None => html.raw("open"),
    };
    html.raw("</span></a></li>\n");
}

/// One session's lines, told.
struct Story {
    lines: Vec<(f64, Tone, String, String)>,
    found: bool,
    cut: bool,
}

pub(super) async fn one(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let who = match console
        .who(&headers, &format!("/console/sessions/{id}"))
        .await
    {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let missing = || {
        notice(
            StatusCode::NOT_FOUND,
            "No such session",
            "The journal's last part has no such session.",
            Some("`holdpoint sessions replay` on the gateway's host knows older ones"),
        )
    };
    let Ok(session) = id.parse::<SessionId>() else {
        return missing();
    };
    let wanted = session.clone();
    let story = console.read(move |reader| told(reader, &wanted)).await;
    let story = match story {
        Ok(story) if story.found => story,
        Ok(_) => return missing(),
        Err(why) => {
            return notice(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not now",
                &why,
                Some("try again in a moment"),
            );
        }
    };
    let mut html = Html::default();
    html.raw("<h1>Session <code>")
        .text(session.as_str())
        .raw("</code></h1>\n<ol class=\"story\">\n");
    for (since, tone, head, body) in &story.lines {
        html.raw(match tone {
            Tone::Plain => "<li>",
            Tone::Head => "<li class=\"head\">",
            Tone::Good => "<li class=\"good\">",
            Tone::Waits => "<li class=\"waits\">",
            Tone::Bad => "<li class=\"bad\">",
        })
        .raw("<span class=\"at\">+")
        .text(&format!("{since:.3}"))
        .raw(" s</span> <span>")
        .text(head)
        .raw("</span>");
        if !body.is_empty() {
            html.raw("<pre class=\"command\">")
                .block(body)
                .raw("</pre>");
        }
        html.raw("</li>\n");
    }
    html.raw("</ol>\n");
    if story.cut {
        html.raw("<p class=\"told bad\">There is more than this page shows: <code>holdpoint sessions replay</code> shows all.</p>\n");
    }
    html.raw("<p class=\"soft small\">Answers of the target are in the journal and not on this page.</p>\n");
    frame(&console, &who, "Session").page(StatusCode::OK, &html)
}

fn told(reader: Reader, wanted: &SessionId) -> anyhow::Result<Story> {
    let mut story = Story {
        lines: Vec::new(),
        found: false,
        cut: false,
    };
    story.found = telling::of_session(reader, wanted, |seen, since| {
        let Some(entry) = seen.entry else {
            return Ok(());
        };
        if story.lines.len() >= MAX_LINES {
            story.cut = true;
            return Ok(());
        }
        if let Some((tone, head, body)) = telling::told(entry, seen.blob) {
            let answer = matches!(entry, Entry::Response | Entry::Authored { .. });
            let body = if answer { String::new() } else { body };
            story.lines.push((since, tone, head, body));
        }
        Ok(())
    })?;
    Ok(story)
}

impl Console {
    /// Reads the last part of the journal, away from the threads that serve.
    async fn read<T: Send + 'static>(
        &self,
        how: impl FnOnce(Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let busy = || "The journal cannot be read now; the gateway's log says why.".to_owned();
        let _turn = self.0.reading.acquire().await.map_err(|_| busy())?;
        let dir = self.0.journal.clone();
        let task = tokio::task::spawn_blocking(move || {
            let reader = Reader::open_last(&dir, LOOK_BACK)?;
            how(reader)
        });
        match task.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "console: reading the journal");
                Err(busy())
            }
            Err(error) => {
                tracing::error!(%error, "console: reading the journal failed");
                Err(busy())
            }
        }
    }
}

fn frame<'a>(console: &Console, who: &'a Who, title: &'a str) -> Frame<'a> {
    Frame {
        title,
        tab: Tab::Sessions,
        who: Some(who),
        pending: console.0.approvals.pending(),
        live: None,
    }
}
