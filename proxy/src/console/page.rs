//! The frame that every page has, and pages that say one thing.

use axum::http::StatusCode;
use axum::response::{Html as Answer, IntoResponse as _, Response};

use super::assets::VERSION;
use super::html::Html;
use super::sign_in::Who;
use crate::api::Problem;

/// Where somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Approvals,
    Sessions,
    Rules,
    Health,
    None,
}

pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    pub(super) tab: Tab,
    /// Whether anyone is signed in.
    pub(super) who: Option<&'a Who>,
    pub(super) pending: usize,
    /// What the page shows, if it is kept fresh: see `approvals::changes`.
    pub(super) live: Option<String>,
}

impl Frame<'_> {
    /// A whole page.
    pub(super) fn page(&self, status: StatusCode, inner: &Html) -> Response {
        let mut html = Html::default();
        html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>");
        if self.pending > 0 {
            html.raw("(").show(self.pending).raw(") ");
        }
        html.text(self.title)
            .raw(" · holdpoint</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"stylesheet\" href=\"/console/console.css?v=")
            .text(&VERSION)
            .raw("\">\n<script defer src=\"/console/console.js?v=")
            .text(&VERSION)
            .raw("\"></script>\n");
        if self.live.is_some() {
            html.raw("<noscript><meta http-equiv=\"refresh\" content=\"15\"></noscript>\n");
        }
        html.raw("</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to content</a>\n<header><a class=\"mark\" href=\"/console\">holdpoint</a>");
        if let Some(who) = self.who {
            self.navigation(&mut html, who);
        }
        html.raw("</header>\n<main id=\"main\"");
        if let Some(live) = &self.live {
            html.raw(" data-live=\"").text(live).raw("\"");
        }
        html.raw(">\n")
            .join(inner)
            .raw("</main>\n<footer id=\"keys\" hidden><kbd>j</kbd> <kbd>k</kbd> move · <kbd>Enter</kbd> opens · <kbd>a</kbd> approve · <kbd>d</kbd> deny · <kbd>u</kbd> back</footer>\n</body>\n</html>\n");
        (status, Answer(html.into_string())).into_response()
    }

    fn navigation(&self, html: &mut Html, who: &Who) {
        html.raw("<nav aria-label=\"Main\">");
        for (tab, start, name) in [
            (Tab::Approvals, "<a href=\"/console\"", "Approvals"),
            (Tab::Sessions, "<a href=\"/console/sessions\"", "Sessions"),
            (Tab::Rules, "<a href=\"/console/rules\"", "Rules"),
            (Tab::Health, "<a href=\"/console/health\"", "Health"),
        ] {
            html.raw(start);
            if tab == self.tab {
                html.raw(" aria-current=\"page\"");
            }
            html.raw(">").text(name);
            if tab == Tab::Approvals && self.pending > 0 {
                html.raw(" <span class=\"count\">")
                    .show(self.pending)
                    .raw("</span>");
            }
            html.raw("</a>");
        }
        html.raw("</nav>\n<form class=\"who\" method=\"post\" action=\"/console/logout\"><input type=\"hidden\" name=\"csrf\" value=\"")
            .text(&who.session.csrf)
            .raw("\">");
        if who.keys {
            html.within(
                "<a href=\"/console/keys\" title=\"Security keys\">",
                &who.label(),
                "</a>",
            );
        } else {
            html.within("<span>", &who.label(), "</span>");
        }
        html.raw(" <button class=\"plain\">Sign out</button></form>");
    }
}

/// A page that says one thing.
pub(super) fn notice(status: StatusCode, title: &str, text: &str, hint: Option<&str>) -> Response {
    let mut html = Html::default();
    html.raw("<section class=\"notice\">")
        .within("<h1>", title, "</h1>")
        .within("<p>", text, "</p>");
    if let Some(hint) = hint {
        html.within("<p class=\"soft\">", hint, "</p>");
    }
    html.raw("<p><a href=\"/console\">Back to approvals</a></p></section>");
    let frame = Frame {
        title,
        tab: Tab::None,
        who: None,
        pending: 0,
        live: None,
    };
    frame.page(status, &html)
}

/// What the API would have answered, as a page.
pub(super) fn refused(title: &str, problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = format!("{} ({})", problem.detail, problem.code);
    notice(status, title, &text, problem.hint.as_deref())
}
