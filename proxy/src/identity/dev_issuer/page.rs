//! The development issuer's pages: plain HTML, no script, no frame around them.

use std::fmt::Write as _;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};

/// Whom a page offers.
pub(super) struct Choice<'a> {
    pub(super) name: &'a str,
    pub(super) groups: &'a [String],
    pub(super) agent: bool,
}

/// A form on which somebody is chosen.
pub(super) struct Form<'a> {
    /// Where it is posted to.
    pub(super) action: &'a str,
    pub(super) page: &'a str,
    pub(super) csrf: &'a str,
    pub(super) text: String,
    /// A device's code, to be checked or typed.
    pub(super) user_code: Option<&'a str>,
    /// Who signed in with this browser before, and how many seconds ago.
    pub(super) known: Option<(&'a str, u64)>,
    pub(super) choices: Vec<Choice<'a>>,
}

impl Form<'_> {
    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<p>{}</p>\n<form method=\"post\" action=\"{}\">\n\
             <input type=\"hidden\" name=\"page\" value=\"{}\">\n\
             <input type=\"hidden\" name=\"csrf\" value=\"{}\">\n",
            escape(&self.text),
            escape(self.action),
            escape(self.page),
            escape(self.csrf),
        );
        if let Some(code) = self.user_code {
            let _ = writeln!(
                html,
                "<p><label>Code that the device shows: <input name=\"user_code\" value=\"{}\" \
                 autocomplete=\"off\" required></label></p>",
                escape(code)
            );
        }
        if let Some((user, age)) = self.known {
            let _ = writeln!(
                html,
                "<p><button name=\"known\" value=\"yes\">Go on as {}</button> \
                 (signed in {age} s ago)</p>",
                escape(user)
            );
        }
        for choice in &self.choices {
            let kind = if choice.agent { "agent" } else { "person" };
            let groups = match choice.groups {
                [] => String::new(),
                groups => format!(", of {}", escape(&groups.join(", "))),
            };
            let _ = writeln!(
                html,
                "<p><button name=\"user\" value=\"{0}\">{0}</button> {kind}{groups}</p>",
                escape(choice.name)
            );
        }
        html.push_str(
            "<p><button name=\"deny\" value=\"yes\" formnovalidate>Cancel</button></p>\n</form>\n",
        );
        html
    }
}

/// A page with this between head and foot.
pub(super) fn page(status: StatusCode, title: &str, inner: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n\
         <body><h1>{0}</h1>\n{inner}\
         <hr><p>holdpoint's development issuer: anyone on this machine can be anybody.</p>\n",
        escape(title)
    );
    let mut response = (status, Html(html)).into_response();
    guard(&mut response);
    response
}

/// A page that says one thing.
pub(super) fn notice(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, title, &format!("<p>{}</p>\n", escape(text)))
}

/// Nothing is kept, framed, or told to the next site.
pub(super) fn guard(response: &mut Response) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that, browsers say `Origin: null` of our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_says_is_text_and_nothing_else() {
        let form = Form {
            action: "/dev/device",
            page: "p",
            csrf: "c",
            text: "<script>".to_owned(),
            user_code: Some("\"><script>"),
            known: Some(("<script>", 3)),
            choices: vec![Choice {
                name: "'a'",
                groups: &[],
                agent: true,
            }],
        };
        let html = form.html();
        assert!(!html.contains("<script"), "{html}");
        assert!(
            html.contains("value=\"&quot;&gt;&lt;script&gt;\""),
            "{html}"
        );
        assert!(html.contains("value=\"&#39;a&#39;\""), "{html}");
    }
}
