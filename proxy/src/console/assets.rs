//! The one style sheet and the one script, as they are in the binary.

use std::sync::LazyLock;

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use holdpoint_core::id::Digest;

const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");

/// Changes with either, so that a browser never shows a page with the other version's style.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let both = [STYLE, SCRIPT].concat();
    let digest = Digest::of(both.as_bytes()).to_string();
    digest.get(..12).unwrap_or_default().to_owned()
});

pub(super) async fn style() -> impl IntoResponse {
    (kept("text/css; charset=utf-8"), STYLE)
}

pub(super) async fn script() -> impl IntoResponse {
    (kept("text/javascript; charset=utf-8"), SCRIPT)
}

/// Nothing in them is secret, and pages name their version.
fn kept(kind: &'static str) -> [(HeaderName, &'static str); 2] {
    [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=86400"),
    ]
}
