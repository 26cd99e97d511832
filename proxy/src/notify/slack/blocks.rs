//! What is posted to Slack, in Block Kit.
//!
//! An agent's text stands only in `rich_text` elements of type `text`, which know no markup: no
//! mention, no link, no code fence can come of it. On top of that [`literal`] escapes what a client
//! might still decode or trim, in the one form that [`holdpoint_core::display::unescape`] reads back.
//!
//! A command is in one element, whole, or not in the message at all; without it there is no
//! button to approve.

use serde_json::{Value, json};

use super::super::Message;
use super::super::card::{Card, escape_more};
use crate::approvals::View;

/// Slack's limit on a text, in characters; ours is in bytes, which are never fewer.
const MAX_TEXT: usize = 3_000;

/// Of the `value` of a button, Slack's limit is 2,000 characters.
pub(crate) const APPROVE: &str = "holdpoint.approve";
pub(crate) const DENY: &str = "holdpoint.deny";
const OPEN: &str = "holdpoint.open";

/// Of what a rule offers; the console has all. Slack takes 25 buttons in a row.
const MAX_WINDOWS: usize = 10;

/// The modal that asks for a reason.
pub(crate) const REASON: &str = "holdpoint.reason";

/// Block and element in which the reason is typed.
pub(crate) const REASON_INPUT: &str = "reason";

/// A message's text and blocks.
pub(super) fn message(
    message: Message,
    view: &View,
    public_url: Option<&str>,
    buttons: bool,
) -> Value {
    let card = Card::new(message, view, public_url);
    let mut blocks = vec![json!({
        "type": "header", "text": {"type": "plain_text", "text": card.headline(), "emoji": false},
    })];
    let facts = facts(&card);
    let whole = fits(view);
    if let Some(facts) = facts {
        blocks.push(facts);
    }
    if whole {
        for text in [card.command(), card.values()] {
            if !text.is_empty() {
                blocks.push(preformatted(&text));
            }
        }
    } else {
        blocks.push(paragraph(&card.too_long()));
    }
    let mut actions = Vec::new();
    if message.asks() && buttons {
        if whole && !view.needs_console() {
            actions.push(approve(view, None));
            let offered = view.windows.iter().take(MAX_WINDOWS).enumerate();
            actions.extend(offered.map(|offer| approve(view, Some(offer))));
        }
        actions.push(json!({
            "type": "button", "action_id": DENY, "style": "danger", "value": value(view),
            "text": {"type": "plain_text", "text": "Deny…", "emoji": false},
        }));
    }
    if let Some(link) = &card.link {
        actions.push(json!({
            "type": "button", "action_id": OPEN, "url": link,
            "text": {"type": "plain_text", "text": "Open", "emoji": false},
        }));
    }
    if !actions.is_empty() {
        blocks.push(json!({"type": "actions", "elements": actions}));
    }
    blocks.push(json!({
        "type": "context",
        "elements": [{"type": "plain_text", "text": card.evidence(), "emoji": false}],
    }));
    json!({"text": mrkdwn(&format!("{} ({})", card.headline(), view.id)), "blocks": blocks})
}

/// Whether everything that a decision needs has room in a message.
pub(crate) fn fits(view: &View) -> bool {
    let card = Card::new(Message::Pending, view, None);
    let short = |text: &str| literal(text).len() <= MAX_TEXT;
    short(&card.command()) && short(&card.values()) && facts(&card).is_some()
}

/// Once, or as the rule offers; then with the offer's place in the list, since no two buttons
/// of a message have one name.
fn approve(view: &View, offer: Option<(usize, &String)>) -> Value {
    let text = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
    let (action, value, label, often) = match offer {
        None => (
            APPROVE.to_owned(),
            value(view),
            "Approve".to_owned(),
            "once, exactly as shown".to_owned(),
        ),
        Some((at, window)) => {
            let span = if window == "session" {
                "this session".to_owned()
            } else {
                window.clone()
            };
            (
                format!("{APPROVE}.{at}"),
                format!("{}/{window}", value(view)),
                format!("Approve for {span}"),
                format!("exactly as shown and as often as it is asked for, for {span}"),
            )
        }
    };
    json!({
        "type": "button", "action_id": action, "style": "primary", "value": value,
        "text": text(&label),
        "confirm": {
            "title": text("Approve this command?"),
            "text": text(&format!("It may run {often}. This is recorded with your name.")),
            "confirm": text("Approve it"),
            "deny": text("Back"),
        },
    })
}

/// What a click is about; see `inbound::About`.
fn value(view: &View) -> String {
    format!("{}/{}", view.id, view.digest)
}

/// None where they are too long.
fn facts(card: &Card<'_>) -> Option<Value> {
    let mut elements = Vec::new();
    let mut length = 0;
    for (name, value) in card.facts() {
        let value = literal(&value);
        length += name.len() + value.len() + 3;
        elements
            .push(json!({"type": "text", "text": format!("{name}: "), "style": {"bold": true}}));
        elements.push(json!({"type": "text", "text": format!("{value}\n")}));
    }
    (length <= MAX_TEXT).then(|| {
        json!({
            "type": "rich_text",
            "elements": [{"type": "rich_text_section", "elements": elements}],
        })
    })
}

fn preformatted(text: &str) -> Value {
    json!({
        "type": "rich_text",
        "elements": [{
            "type": "rich_text_preformatted",
            "elements": [{"type": "text", "text": literal(text)}],
        }],
    })
}

fn paragraph(text: &str) -> Value {
    json!({
        "type": "rich_text",
        "elements": [{
            "type": "rich_text_section",
            "elements": [{"type": "text", "text": literal(text)}],
        }],
    })
}

/// What follows the message of an approval in its thread.
pub(super) fn note(message: Message, view: &View, public_url: Option<&str>) -> Value {
    let card = Card::new(message, view, public_url);
    let mut blocks = vec![json!({
        "type": "header", "text": {"type": "plain_text", "text": card.headline(), "emoji": false},
    })];
    blocks.extend(facts(&card));
    let command = card.command();
    if literal(&command).len() <= MAX_TEXT && !command.is_empty() {
        blocks.push(preformatted(&command));
    }
    if let Some(link) = &card.link {
        blocks.push(json!({"type": "actions", "elements": [{
            "type": "button", "action_id": OPEN, "url": link,
            "text": {"type": "plain_text", "text": "Open", "emoji": false},
        }]}));
    }
    json!({"text": mrkdwn(&format!("{} ({})", card.headline(), view.id)), "blocks": blocks})
}

/// A message that says one thing.
pub(super) fn saying(text: &str) -> Value {
    json!({"text": mrkdwn(text), "blocks": [paragraph(text)]})
}

pub(super) fn whisper(text: &str, link: Option<(&str, &str)>) -> Value {
    let mut message = saying(text);
    if let Some((word, url)) = link
        && let Some(blocks) = message["blocks"].as_array_mut()
    {
        blocks.push(json!({"type": "actions", "elements": [{
            "type": "button", "action_id": OPEN, "url": url, "style": "primary",
            "text": {"type": "plain_text", "text": word, "emoji": false},
        }]}));
    }
    message
}

/// The modal that asks why something is denied.
pub(super) fn reason(view: &View, metadata: &str) -> Value {
    let text = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
    json!({
        "type": "modal",
        "callback_id": REASON,
        "private_metadata": metadata,
        "title": text("Deny a command"),
        "submit": text("Deny it"),
        "close": text("Back"),
        "blocks": [
            paragraph(&format!("{}, {} on {}", view.id, view.shown.class, view.target)),
            {
                "type": "input", "block_id": REASON_INPUT, "label": text("Reason"),
                "hint": text("The agent is told. Say what to do instead."),
                "element": {
                    "type": "plain_text_input", "action_id": REASON_INPUT, "multiline": true,
                    "min_length": 1, "max_length": 500,
                },
            },
        ],
    })
}

/// For where Slack reads markup.
fn mrkdwn(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Text that means itself, whatever a client does to it: no entity that it could decode, no white
/// space at either end that it could trim.
fn literal(text: &str) -> String {
    let start = text.len() - text.trim_start().len();
    let end = text.trim_end().len().max(start);
    let entity = |at: usize| {
        let rest = &text[at..];
        ["&amp;", "&lt;", "&gt;"]
            .iter()
            .any(|entity| rest.starts_with(entity))
    };
    escape_more(text, |at| at < start || at >= end || entity(at))
}

#[cfg(test)]
mod tests {
    use holdpoint_core::display::{escape, unescape};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_client_could_decode_or_trim_is_escaped() {
        assert_eq!(literal("a & b < c"), "a & b < c");
        assert_eq!(literal("a &amp; &lt;b"), "a \\u{26}amp; \\u{26}lt;b");
        assert_eq!(literal("\n a\n\n"), "\\u{a}\\u{20}a\\u{a}\\u{a}");
        assert_eq!(literal(" \n"), "\\u{20}\\u{a}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[\\\\xu{}0-9a-f&;ampltg<> \n\u{202e}é]{0,40}") {
            let shown = literal(&escape(text.as_bytes()));
            prop_assert_eq!(unescape(&shown), Some(text.into_bytes()));
        }
    }
}
