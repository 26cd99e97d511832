//! The rules and plugins in force, as they were loaded: files on disk may be newer.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use toml::{Table, Value};

use super::Console;
use super::html::Html;
use super::page::{Frame, Tab};

pub(super) async fn show(State(console): State<Console>, headers: HeaderMap) -> Response {
    let who = match console.who(&headers, "/console/rules").await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let health = (console.0.health)();
    let mut html = Html::default();
    html.raw("<div class=\"title\"><h1>Rules in force</h1><span class=\"soft\">version <code>")
        .text(&health.rules.version)
        .raw("</code></span></div>\n<p class=\"soft\">In a file the first rule that matches decides; of several files the strictest counts. What no rule matches is denied.</p>\n");
    for warning in &health.rules.warnings {
        html.within("<p class=\"told bad\">", warning, "</p>\n");
    }
    for (name, text) in &health.rules.files {
        file(&mut html, name, text);
    }
    html.raw("<h2>Plugins in force</h2>\n<ul class=\"rows\">\n");
    for plugin in &health.plugins {
        html.raw("<li class=\"pad\"><b>")
            .text(&plugin.target)
            .raw("</b> ")
            .text(&plugin.name)
            .raw(" ")
            .text(&plugin.version)
            .raw("<br><span class=\"soft small\">SHA-256 <code>")
            .text(&plugin.digest)
            .raw("</code></span></li>\n");
    }
    html.raw("</ul>\n");
    let frame = Frame {
        title: "Rules",
        tab: Tab::Rules,
        who: Some(&who),
        pending: console.0.approvals.pending(),
        live: None,
    };
    frame.page(StatusCode::OK, &html)
}

fn file(html: &mut Html, name: &str, text: &str) {
    html.within("<section class=\"file\"><h2><code>", name, "</code></h2>\n");
    // It compiled, so it parses; otherwise the text alone is shown.
    let parsed: Table = text.parse().unwrap_or_default();
    let rules = parsed.get("rule").and_then(Value::as_array);
    html.raw("<ol class=\"rows\">");
    for rule in rules.into_iter().flatten().filter_map(Value::as_table) {
        row(html, rule);
    }
    html.raw(
        "</ol>\n<details><summary>The file's text</summary><pre class=\"command\" tabindex=\"0\">",
    )
    .block(text)
    .raw("</pre></details></section>\n");
}

fn row(html: &mut Html, rule: &Table) {
    html.raw("<li class=\"pad\">");
    let monitor = rule.get("mode").and_then(Value::as_str) == Some("monitor");
    html.raw(if rule.contains_key("deny") {
        "<span class=\"chip bad\">deny</span>"
    } else if rule.contains_key("hold") {
        "<span class=\"chip waits\">hold</span>"
    } else {
        "<span class=\"chip good\">allow</span>"
    });
    if monitor {
        html.raw("<span class=\"chip\">monitor only</span>");
    }
    html.within(
        " <b>",
        rule.get("name").and_then(Value::as_str).unwrap_or("?"),
        "</b>",
    );
    for (start, key) in [
        ("<br><span class=\"soft small\">when</span> <code>", "match"),
        ("<br><span class=\"soft small\">and</span> <code>", "when"),
        ("<br><span class=\"soft small\">then</span> <code>", "hold"),
        ("<br><span class=\"soft small\">says</span> <code>", "deny"),
    ] {
        match rule.get(key) {
            Some(Value::Table(table)) => html.within(start, &inline(table), "</code>"),
            Some(Value::String(text)) => html.within(start, text, "</code>"),
            _ => continue,
        };
    }
    html.raw("</li>\n");
}

fn inline(table: &Table) -> String {
    let mut text = String::new();
    for (key, value) in table {
        let _ = write!(
            text,
            "{}{key} = {value}",
            if text.is_empty() { "" } else { ", " }
        );
    }
    text
}
