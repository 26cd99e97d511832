//! Slack: one message an approval, with buttons where the whole command is in it, brought up to date
//! when the approval is over.
//!
//! What is posted comes from [`blocks`], what comes back is read by [`inbound`]. Who is behind a click
//! and whether the vote counts is decided elsewhere (`api::slack`). Everything is sent to the configured
//! API; no URL out of a message of Slack's is ever called.
//!
//! Limits: a post whose answer was lost is posted again, so there may be two of it; a click on the
//! older one brings it up to date.

mod blocks;
mod book;
pub(crate) mod inbound;

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use holdpoint_core::config::SlackOut;
use holdpoint_core::secret::Secret;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Message;
use super::channel::{ChannelError, Letter, Post, SendError, Thread, address};
use crate::approvals::View;
use book::Book;
use inbound::Signing;

pub(crate) use blocks::fits;

/// Errors of Slack's own doing, after which trying again may help.
const PASSING: [&str; 6] = [
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "ratelimited",
    "team_added_to_org",
];

pub struct Slack {
    /// `slack:NAME`.
    name: String,
    channel: String,
    buttons: bool,
    signing: Signing,
    authorization: HeaderValue,
    post_message: Uri,
    update: Uri,
    post_ephemeral: Uri,
    open_view: Uri,
    post: Post,
    /// Once it is known where: see [`Slack::remember`].
    book: OnceLock<Book>,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) channel: String,
    /// What Slack calls a timestamp is the message's name.
    pub(crate) ts: String,
}

/// The start of every answer.
#[derive(Deserialize)]
struct Said {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
}

impl Slack {
    pub(super) fn new(
        name: String,
        config: &SlackOut,
        token: &Secret,
        signing_secret: &Secret,
    ) -> Result<Self, ChannelError> {
        let failed = |cause: &str| ChannelError::new(&name, cause);
        let text = std::str::from_utf8(token.expose()).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !text.starts_with("xoxb-") || !text.chars().all(plain) {
            return Err(failed("its token is no bot token (`xoxb-…`)"));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {text}"))
            .map_err(|_| failed("its token cannot be sent"))?;
        authorization.set_sensitive(true);
        let signing = Signing::new(signing_secret)
            .ok_or_else(|| failed("its signing secret is shorter than 16 bytes"))?;
        let method = |method: &str| address(&name, &format!("{}/{method}", config.api_url));
        Ok(Self {
            channel: config.channel.clone(),
            buttons: config.buttons,
            signing,
            authorization,
            post_message: method("chat.postMessage")?,
            update: method("chat.update")?,
            post_ephemeral: method("chat.postEphemeral")?,
            open_view: method("views.open")?,
            post: Post::new(config.ca.as_deref()).map_err(|e| ChannelError::new(&name, e))?,
            book: OnceLock::new(),
            name,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As in the configuration.
    pub(crate) fn short_name(&self) -> &str {
        self.name.strip_prefix("slack:").unwrap_or(&self.name)
    }

    pub(crate) fn signing(&self) -> &Signing {
        &self.signing
    }

    /// Keeps in `state` which messages are open, and brings those up to date that a process before this
    /// one left behind.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn remember(self: &Arc<Self>, state: &Path) -> io::Result<()> {
        let path = state.join(format!("slack-{}.posted", self.short_name()));
        let (book, left) = Book::open(&path)?;
        if self.book.set(book).is_err() || left.is_empty() {
            return Ok(());
        }
        tracing::info!(
            channel = self.name,
            messages = left.len(),
            "messages of an earlier process are closed"
        );
        let this = Arc::clone(self);
        tokio::spawn(async move {
            for (approval, place) in left {
                let text = gone(&approval);
                match this.close(&place, &text).await {
                    // What cannot be found there any more needs no update.
                    Ok(()) | Err(SendError::Said { passing: false, .. }) => this.over(&approval),
                    Err(error) => {
                        tracing::warn!(channel = this.name, approval.id = approval, %error, "an old message keeps its buttons");
                    }
                }
            }
        });
        Ok(())
    }

    fn over(&self, approval: &str) {
        if let Some(book) = self.book.get() {
            book.over(approval);
        }
    }

    /// Whether one may approve here what `view` shows.
    pub(crate) fn may_approve(&self, view: &View) -> bool {
        self.buttons && fits(view) && !view.needs_console()
    }

    /// Whether one may decide here at all.
    pub(crate) fn has_buttons(&self) -> bool {
        self.buttons
    }

    pub(super) fn make(&self, letter: &Letter<'_>, thread: &Thread) -> Result<Bytes, SendError> {
        let notice = letter.notice;
        let (kind, view, base) = (notice.message, notice.view(), letter.public_url);
        let mut message = match kind {
            Message::Settled
            | Message::Pending
            | Message::Left
            | Message::Used
            | Message::UsedLater => blocks::message(kind, view, base, self.buttons),
            _ => blocks::note(kind, view, base),
        };
        if kind == Message::Settled || kind.follows() {
            // Only an alarm was posted of it: how it ended is a message of its own.
            if let Some(place) = &thread.place {
                at(&mut message, place);
                return bytes(&message);
            }
        }
        message["channel"] = self.channel.clone().into();
        message["metadata"] = json!({
            "event_type": "holdpoint_approval",
            "event_payload": {"message_id": letter.id, "approval": view.id},
        });
        message["unfurl_links"] = false.into();
        message["unfurl_media"] = false.into();
        if let (Some(place), false) = (&thread.place, kind == Message::Pending) {
            message["thread_ts"] = place.ts.clone().into();
            // In the channel, too: it concerns people who did not follow the thread.
            message["reply_broadcast"] = (kind != Message::Reviewed).into();
        }
        bytes(&message)
    }

    pub(super) async fn send(
        &self,
        letter: &Letter<'_>,
        body: &Bytes,
        thread: &mut Thread,
    ) -> Result<(), SendError> {
        let approval = letter.notice.approval.as_str();
        let kind = letter.notice.message;
        if (kind == Message::Settled || kind.follows()) && thread.place.is_some() {
            self.call(&self.update, body.clone()).await?;
            if kind != Message::Left {
                self.over(approval);
            }
            return Ok(());
        }
        // What has buttons says what is asked now.
        let notice = letter.notice;
        if let (Some(place), true) = (&thread.place, notice.message.asks())
            && let Err(error) = self.refresh(place, notice.view(), letter.public_url).await
        {
            tracing::warn!(channel = self.name, %error, "a message was not brought up to date");
        }
        let said = self.call(&self.post_message, body.clone()).await?;
        match (said.channel, said.ts) {
            (Some(channel), Some(ts)) => {
                if letter.notice.message == Message::Pending {
                    let place = thread.place.insert(Place { channel, ts });
                    if let Some(book) = self.book.get() {
                        book.posted(approval, place);
                    }
                }
                Ok(())
            }
            _ => Err(SendError::Said {
                word: "ok without ts".to_owned(),
                passing: false,
            }),
        }
    }

    /// Brings a message up to date with what is known now.
    pub(crate) async fn refresh(
        &self,
        place: &Place,
        view: &View,
        public_url: Option<&str>,
    ) -> Result<(), SendError> {
        let message = if view.is_decided() {
            Message::Settled
        } else {
            Message::Pending
        };
        let mut message = blocks::message(message, view, public_url, self.buttons);
        at(&mut message, place);
        self.call(&self.update, bytes(&message)?).await.map(|_| ())
    }

    /// Takes the buttons of a message whose approval nobody knows any more.
    pub(crate) async fn close(&self, place: &Place, text: &str) -> Result<(), SendError> {
        let mut message = blocks::saying(text);
        at(&mut message, place);
        self.call(&self.update, bytes(&message)?).await.map(|_| ())
    }

    /// Tells one person something that nobody else sees.
    pub(crate) async fn whisper(
        &self,
        channel: &str,
        user: &str,
        text: &str,
        link: Option<(&str, &str)>,
    ) -> Result<(), SendError> {
        let mut message = blocks::whisper(text, link);
        message["channel"] = channel.into();
        message["user"] = user.into();
        self.call(&self.post_ephemeral, bytes(&message)?)
            .await
            .map(|_| ())
    }

    /// Asks for the reason of a denial. `trigger` is good for three seconds.
    pub(crate) async fn ask_reason(
        &self,
        trigger: &str,
        view: &View,
        metadata: &str,
    ) -> Result<(), SendError> {
        let body = json!({"trigger_id": trigger, "view": blocks::reason(view, metadata)});
        self.call(&self.open_view, bytes(&body)?).await.map(|_| ())
    }

    async fn call(&self, method: &Uri, body: Bytes) -> Result<Said, SendError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        let answer = self.post.json(method, headers, body).await?;
        let said: Said = serde_json::from_slice(&answer.body).map_err(|_| SendError::Said {
            word: "no JSON of Slack's".to_owned(),
            passing: true,
        })?;
        if said.ok {
            return Ok(said);
        }
        let word = said.error.unwrap_or_default();
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        let known = word.len() <= 64 && word.chars().all(plain);
        Err(SendError::Said {
            passing: PASSING.contains(&word.as_str()),
            word: if known { word } else { "an error".to_owned() },
        })
    }
}

/// What is said of an approval that no process knows any more.
pub(crate) fn gone(approval: &str) -> String {
    format!(
        "{approval} is over: the gateway that asked for it does not know it any more. Nothing runs by it."
    )
}

fn at(message: &mut Value, place: &Place) {
    message["channel"] = place.channel.clone().into();
    message["ts"] = place.ts.clone().into();
}

fn bytes(message: &Value) -> Result<Bytes, SendError> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(|e| SendError::Message(e.to_string()))
}
