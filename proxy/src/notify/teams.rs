//! Microsoft Teams: an Adaptive Card to a workflow's webhook. It tells and links; nobody decides there.
//!
//! Texts stand in `TextRun`s of a `RichTextBlock`, which know no Markdown. What is left there is
//! `{{DATE(…)}}` and `{{TIME(…)}}`, so no `{` is followed by another. A workflow has no updates: how
//! it ended is a message of its own.

use bytes::Bytes;
use holdpoint_core::config::TeamsOut;
use holdpoint_core::secret::Secret;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::{Value, json};

use super::card::{Card, escape_more};
use super::channel::{ChannelError, Letter, Post, SendError, address};

/// Teams takes 28 KB; the rest of a card is at most this less.
const MAX_TEXT: usize = 16 * 1024;

/// Of all facts.
const MAX_FACTS: usize = 4 * 1024;

pub struct Teams {
    pub(super) name: String,
    url: Uri,
    post: Post,
}

impl Teams {
    pub(super) fn new(name: &str, config: &TeamsOut, url: &Secret) -> Result<Self, ChannelError> {
        let url = std::str::from_utf8(url.expose())
            .map_err(|_| ChannelError::new(name, "its URL is not text"))?;
        Ok(Self {
            name: name.to_owned(),
            url: address(name, url)?,
            post: Post::new(config.ca.as_deref()).map_err(|e| ChannelError::new(name, e))?,
        })
    }

    pub(super) async fn send(&self, id: &str, body: &Bytes) -> Result<(), SendError> {
        let mut headers = HeaderMap::new();
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert("holdpoint-message-id", id);
        }
        self.post
            .json(&self.url, headers, body.clone())
            .await
            .map(|_| ())
    }
}

pub(super) fn body(letter: &Letter<'_>) -> Result<Bytes, SendError> {
    let card = Card::of(letter.notice, letter.public_url);
    let mut blocks = vec![json!({
        "type": "TextBlock", "text": card.headline(), "size": "large", "weight": "bolder",
        "wrap": true, "id": letter.id,
    })];
    let facts = card.facts();
    let length: usize = facts.iter().map(|(_, value)| value.len()).sum();
    if length <= MAX_FACTS {
        for (name, value) in &facts {
            blocks.push(runs(vec![
                json!({"type": "TextRun", "text": format!("{name}: "), "weight": "bolder"}),
                json!({"type": "TextRun", "text": plain(value)}),
            ]));
        }
    }
    let (command, values) = (card.command(), card.values());
    if command.len() + values.len() <= MAX_TEXT && length <= MAX_FACTS {
        for text in [command, values] {
            if !text.is_empty() {
                let text = plain(&text);
                blocks.push(runs(vec![
                    json!({"type": "TextRun", "text": text, "fontType": "monospace"}),
                ]));
            }
        }
    } else {
        blocks.push(runs(vec![
            json!({"type": "TextRun", "text": card.too_long()}),
        ]));
    }
    blocks.push(runs(vec![
        json!({"type": "TextRun", "text": card.evidence(), "isSubtle": true, "size": "small"}),
    ]));
    let mut content = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": blocks,
        "msteams": {"width": "Full"},
    });
    if let Some(link) = &card.link {
        content["actions"] = json!([{
            "type": "Action.OpenUrl",
            "title": if letter.notice.message.asks() { "Review" } else { "Open" },
            "url": link,
        }]);
    }
    let message = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null, "content": content,
        }],
    });
    serde_json::to_vec(&message)
        .map(Bytes::from)
        .map_err(|e| SendError::Message(e.to_string()))
}

fn runs(inlines: Vec<Value>) -> Value {
    json!({"type": "RichTextBlock", "inlines": inlines})
}

/// Keeps a card's own functions from being seen in it.
fn plain(text: &str) -> String {
    escape_more(text, |at| text[at..].starts_with("{{"))
}

#[cfg(test)]
mod tests {
    use holdpoint_core::display::{escape, unescape};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_function_is_left_and_nothing_is_lost(text in "[\\\\xu{}0-9a-f\u{202e}é]{0,24}") {
            let shown = plain(&escape(text.as_bytes()));
            prop_assert!(!shown.contains("{{"));
            prop_assert_eq!(unescape(&shown), Some(text.into_bytes()));
        }
    }
}
