//! Sessions: the live ones of all nodes, those that the journal's last part tells of, and one of them as it went.
//!
//! Commands, decisions and votes are shown; what targets answered is not, only how much
//! it was. Reviewers decide about commands, and answers may hold what is not theirs to see.

use std::collections::HashSet;
use std::fmt::Write as _;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdpoint_core::id::SessionId;
use holdpoint_core::record::Entry;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Console;
use super::html::Html;
use super::one::moment;
use super::page::{Frame, Tab, notice};
use super::sign_in::{Who, query as encoded};
use crate::api::{SessionView, everywhere};
use crate::recorder::Reader;
use crate::telling::{self, Search, Summary, Tone};

/// Of the journal, from its end: what is read for one page.
const LOOK_BACK: u64 = 128 << 20;

/// Past sessions on a page of the list.
const RECENT: usize = 50;

/// Of one session. A longer one is for the command line.
const MAX_LINES: usize = 2_000;

/// What the form of the list asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    text: String,
    who: String,
    target: String,
    from: String,
    until: String,
    /// From 0; the newest sessions are on the first.
    page: usize,
}

impl Asked {
    fn search(&self) -> Search {
        Search {
            text: self.text.trim().to_owned(),
            who: self.who.trim().to_owned(),
            target: self.target.trim().to_owned(),
            from: self.from.clone(),
            until: self.until.clone(),
        }
    }

    /// The link to another page of the same search.
    fn at_page(&self, page: usize) -> String {
        let mut link = String::from("/console/sessions?");
        for (name, value) in [
            ("text", &self.text),
            ("who", &self.who),
            ("target", &self.target),
            ("from", &self.from),
            ("until", &self.until),
        ] {
            if !value.is_empty() {
                let _ = write!(link, "{name}={}&", encoded(value));
            }
        }
        let _ = write!(link, "page={page}");
        link
    }
}

pub(super) async fn list(
    State(console): State<Console>,
    headers: HeaderMap,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let who = match console.who(&headers, "/console/sessions").await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let asked = query.map(|Query(asked)| asked).unwrap_or_default();
    let search = asked.search();
    let listed = everywhere(&*console.0.sessions, console.0.others.as_ref()).await;
    let live = listed.sessions;
    let known: HashSet<String> = live.iter().map(|one| one.id.clone()).collect();
    let mut html = Html::default();
    html.raw("<div class=\"title\"><h1>Sessions</h1></div>\n");
    form(&mut html, &asked);
    let wanted = search.clone();
    let past = console
        .read(move |reader| telling::found(reader, &wanted))
        .await;
    let with_text = |id: &str| match &past {
        _ if search.text.is_empty() => true,
        Ok(all) => all.iter().any(|one| one.session.as_str() == id),
        Err(_) => false,
    };
    let now: Vec<_> = (live.iter())
        .filter(|one| {
            let who = [one.principal.label.as_str(), &one.principal.subject];
            search.fits(who, &one.target, &one.opened_at) && with_text(&one.id)
        })
        .collect();
    if asked.page == 0 {
        html.raw("<h2>Live</h2>\n");
        for node in &listed.missing {
            html.within(
                "<p class=\"told bad\" role=\"status\">Node <b>",
                node,
                "</b> does not answer: its sessions are not listed.</p>\n",
            );
        }
        if now.is_empty() {
            html.raw(match search.is_empty() {
                true => "<p class=\"soft\">Nobody is connected.</p>\n",
                false => "<p class=\"soft\">None of those who are connected.</p>\n",
            });
        }
        html.raw("<ol class=\"rows\">");
        for one in now {
            live_row(&mut html, one, console.now().unix());
        }
        html.raw("</ol>\n");
    }
    html.raw("<h2>Before</h2>\n");
    match &past {
        Ok(all) => {
            let mut past = (all.iter().rev())
                .filter(|one| !known.contains(one.session.as_str()))
                .skip(asked.page.saturating_mul(RECENT))
                .peekable();
            if past.peek().is_none() {
                html.raw("<p class=\"soft\">None.</p>\n");
            }
            html.raw("<ol class=\"rows\">");
            for one in past.by_ref().take(RECENT) {
                past_row(&mut html, one);
            }
            html.raw("</ol>\n<p class=\"buttons\">");
            if asked.page > 0 {
                html.raw("<a class=\"button quiet\" href=\"")
                    .text(&asked.at_page(asked.page - 1))
                    .raw("\">Newer</a>");
            }
            if past.peek().is_some() {
                html.raw("<a class=\"button quiet\" href=\"")
                    .text(&asked.at_page(asked.page + 1))
                    .raw("\">Older</a>");
            }
            html.raw("</p>\n<p class=\"soft small\">Of the journal's last part; <code>holdpoint sessions list</code> on the gateway's host tells of all.</p>\n");
        }
        Err(why) => {
            html.within("<p class=\"told bad\">", why, "</p>\n");
        }
    }
    frame(&console, &who, "Sessions").page(StatusCode::OK, &html)
}

fn form(html: &mut Html, asked: &Asked) {
    html.raw(
        "<form class=\"search\" method=\"get\" action=\"/console/sessions\" role=\"search\">\n",
    );
    for (start, value) in [
        (
            "<label>Text of a command<input type=\"search\" name=\"text\" value=\"",
            &asked.text,
        ),
        (
            "<label>Who<input type=\"text\" name=\"who\" value=\"",
            &asked.who,
        ),
        (
            "<label>Target<input type=\"text\" name=\"target\" value=\"",
            &asked.target,
        ),
        (
            "<label>From<input type=\"date\" name=\"from\" value=\"",
            &asked.from,
        ),
        (
            "<label>Until<input type=\"date\" name=\"until\" value=\"",
            &asked.until,
        ),
    ] {
        html.within(start, value, "\"></label>\n");
    }
    html.raw("<button class=\"button\">Search</button></form>\n");
}

fn live_row(html: &mut Html, one: &SessionView, now: u64) {
    html.raw("<li><a href=\"/console/sessions/")
        .text(&one.id)
        .raw("\"><span class=\"chip good\">live</span> <b>")
        .text(&one.principal.label)
        .raw("</b> on <b>")
        .text(&one.target)
        .raw("</b> <span class=\"soft\">");
    if let Some(node) = &one.node {
        html.within("at node ", node, " · ");
    }
    html.count(
        usize::try_from(one.commands).unwrap_or(usize::MAX),
        "command",
    )
    .raw(" · from ")
    .text(&one.source)
    .raw(" · since ");
    moment(html, &one.opened_at);
    if let Some(age) = age(&one.opened_at, now) {
        html.within(" (", &age, ")");
    }
    html.raw("</span></a></li>\n");
}

/// For how long, in whole units.
fn age(since: &str, now: u64) -> Option<String> {
    let since = OffsetDateTime::parse(since, &Rfc3339).ok()?;
    let since = u64::try_from(since.unix_timestamp()).ok()?;
    let seconds = now.saturating_sub(since);
    Some(match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    })
}

fn past_row(html: &mut Html, one: &Summary) {
    html.raw("<li><a href=\"/console/sessions/")
        .text(one.session.as_str())
        .raw("\"><b>")
        .text(&one.principal)
        .raw("</b> on <b>")
        .text(&one.target)
        .raw("</b> <span class=\"soft\">")
        .count(
            usize::try_from(one.commands).unwrap_or(usize::MAX),
            "command",
        );
    for (count, open) in [
        (one.held, "</span> <span class=\"chip waits\">held "),
        (one.refused, "</span> <span class=\"chip bad\">refused "),
        (one.unknown, "</span> <span class=\"chip bad\">unknown "),
    ] {
        if count > 0 {
            html.raw(open).show(count);
        }
    }
    html.raw("</span> <span class=\"soft\"> · ");
    moment(html, &one.opened);
    html.raw(" · ");
    match &one.closed {
        Some(reason) => html.text(reason),
        None => html.raw("open"),
    };
    html.raw("</span></a></li>\n");
}

/// One session's lines, told.
#[derive(Default)]
struct Story {
    lines: Vec<Line>,
    target: Option<String>,
    found: bool,
    cut: bool,
}

struct Line {
    since: f64,
    tone: Tone,
    head: String,
    body: String,
    command: bool,
    /// What is not shown and comes in runs that would bury the rest.
    folded: Option<Folded>,
}

/// How many, and how many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Folded {
    answers: usize,
    own: usize,
    bytes: usize,
}

impl Story {
    /// Another line, or one more of the last line's run.
    fn add(&mut self, line: Line) {
        if let (Some(last), Some(more)) = (self.lines.last_mut(), line.folded)
            && let Some(sum) = &mut last.folded
        {
            sum.answers += more.answers;
            sum.own += more.own;
            sum.bytes += more.bytes;
        } else if self.lines.len() < MAX_LINES {
            self.lines.push(line);
        } else {
            self.cut = true;
        }
    }
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
        let others = console.0.others.iter();
        let others: Vec<_> = others.flat_map(|others| others.names()).collect();
        let hint = match others.as_slice() {
            [] => "`holdpoint sessions replay` on the gateway's host knows older ones".to_owned(),
            nodes => format!(
                "`holdpoint sessions replay` on the gateway's host knows older ones; those of \
                 node {} are in that node's own journal",
                nodes.join(", ")
            ),
        };
        notice(
            StatusCode::NOT_FOUND,
            "No such session",
            "This node's journal has no such session in its last part.",
            Some(&hint),
        )
    };
    let Ok(session) = id.parse::<SessionId>() else {
        return missing();
    };
    let wanted = session.clone();
    let story = console.read(move |reader| told(reader, &wanted)).await;
    let story = match story {
        Ok(story) if story.found => story,
        Ok(_) => {
            let listed = everywhere(&*console.0.sessions, console.0.others.as_ref()).await;
            let found = listed
                .sessions
                .into_iter()
                .find(|one| one.id == session.as_str());
            return match found.filter(|one| one.node.is_some()) {
                Some(one) => recorded_there(&console, &who, &one),
                None => missing(),
            };
        }
        Err(why) => {
            return notice(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not now",
                &why,
                Some("try again in a moment"),
            );
        }
    };
    let sql = console.sql_targets();
    let target = (console.0.sessions.list().into_iter())
        .find(|one| one.id == session.as_str())
        .map(|one| one.target)
        .or(story.target.clone());
    let sql = target.is_some_and(|target| sql.contains(&target));
    let mut html = Html::default();
    html.raw("<p class=\"crumbs\"><a href=\"/console/sessions\">Sessions</a></p>\n<div class=\"title\"><h1>Session <code>")
        .text(session.as_str())
        .raw("</code></h1></div>\n<div class=\"player\" hidden><button class=\"button quiet\" type=\"button\" data-play>Replay</button><label class=\"small soft\">Speed <select data-speed><option value=\"1\">1×</option><option value=\"4\" selected>4×</option><option value=\"16\">16×</option></select></label><input type=\"range\" min=\"0\" max=\"")
        .show(story.lines.len())
        .raw("\" value=\"")
        .show(story.lines.len())
        .raw("\" aria-label=\"Shown up to this line\" data-reel></div>\n<ol class=\"story\">\n");
    for line in &story.lines {
        tell(&mut html, line, sql);
    }
    html.raw("</ol>\n");
    if story.cut {
        html.raw("<p class=\"told bad\">There is more than this page shows: <code>holdpoint sessions replay</code> shows all.</p>\n");
    }
    html.raw("<p class=\"soft small\">Answers of the target are in the journal and not on this page.</p>\n");
    frame(&console, &who, "Session").page(StatusCode::OK, &html)
}

/// A live session of another node: what is known of it, and where the rest is.
fn recorded_there(console: &Console, who: &Who, one: &SessionView) -> Response {
    let mut html = Html::default();
    html.raw("<p class=\"crumbs\"><a href=\"/console/sessions\">Sessions</a></p>\n<div class=\"title\"><h1>Session <code>")
        .text(&one.id)
        .raw("</code></h1></div>\n<ol class=\"rows\">");
    live_row(&mut html, one, console.now().unix());
    let node = one.node.as_deref().unwrap_or_default();
    html.raw("</ol>\n<p class=\"told\">It is recorded at node <b>")
        .text(node)
        .raw("</b>, in that node's journal: it is replayed there.</p>\n");
    // Behind one address for all nodes a link would lead back here.
    let link = one.link.as_ref();
    if let Some(link) = link.filter(|link| console.0.origin.is_left_by(link)) {
        html.raw("<p class=\"buttons\"><a class=\"button\" rel=\"noreferrer\" href=\"")
            .text(link)
            .raw("\">Open it at that node</a></p>\n");
    }
    frame(console, who, "Session").page(StatusCode::OK, &html)
}

fn tell(html: &mut Html, line: &Line, sql: bool) {
    html.raw(match line.tone {
        Tone::Plain => "<li",
        Tone::Head => "<li class=\"head\"",
        Tone::Good => "<li class=\"good\"",
        Tone::Waits => "<li class=\"waits\"",
        Tone::Bad => "<li class=\"bad\"",
    })
    .raw(" data-since=\"")
    .text(&format!("{:.3}", line.since))
    .raw("\"><span class=\"since\">+")
    .text(&format!("{:.3}", line.since))
    .raw(" s</span> ");
    match line.folded {
        Some(folded) => {
            html.raw("<span class=\"soft\">");
            if folded.answers > 0 {
                html.count(folded.answers, "answer").raw(" of the target, ");
            }
            if folded.own > 0 {
                html.count(folded.own, "message").raw(" of the gateway, ");
            }
            html.count(folded.bytes, "byte").raw("</span>");
        }
        None => {
            html.within("<span>", &line.head, "</span>");
        }
    }
    if !line.body.is_empty() {
        html.raw("<pre class=\"command\" tabindex=\"0\">");
        if sql && line.command {
            html.statement(&line.body);
        } else {
            html.block(&line.body);
        }
        html.raw("</pre>");
    }
    html.raw("</li>\n");
}

fn told(reader: Reader, wanted: &SessionId) -> anyhow::Result<Story> {
    let mut story = Story::default();
    story.found = telling::of_session(reader, wanted, |seen, since| {
        let Some(entry) = seen.entry else {
            return Ok(());
        };
        if let Entry::Open(open) = entry {
            story.target = Some(open.target.clone());
        }
        if let Some((tone, head, body)) = telling::told(entry, seen.blob) {
            let bytes = seen.blob.len();
            let folded = match entry {
                Entry::Response => Some((1, 0)),
                Entry::Authored { .. } => Some((0, 1)),
                _ => None,
            };
            let folded = folded.map(|(answers, own)| Folded {
                answers,
                own,
                bytes,
            });
            story.add(Line {
                since,
                tone,
                head,
                // What targets answered is not for everyone who may review.
                body: if folded.is_some() {
                    String::new()
                } else {
                    body
                },
                command: matches!(entry, Entry::Command(_)),
                folded,
            });
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
