//! The contract of a channel, and all channels that there are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::config::Config;
use holdpoint_core::secret::Secret;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};

use super::email::Email;
use super::pagerduty::PagerDuty;
use super::slack::Slack;
use super::teams::Teams;
use super::webhook::WebhookSender;
use super::{Message, Notice};
use crate::http_client::{Answer, HttpClient, HttpError, USER_AGENT, checked};
use crate::secrets::Secrets;

/// Of one attempt, from dialling to the last byte of the answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Little in an answer is of use; this much of it is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Longest that a server's `Retry-After` is taken at its word.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A place where reviewers are told. Each keeps this contract, which one battery of tests checks:
///
/// - [`Channel::make`] gives the same bytes for the same letter and thread; they are sent unchanged
///   in every attempt, with the letter's id where the vendor has room for one.
/// - [`Channel::send`] is one attempt. It succeeds only once the vendor has taken the message, and its
///   error says whether another attempt may help.
/// - The agent's text is shown so that it can be read back exactly, or not at all: never cut, never
///   taken for markup.
/// - How an approval ended is told wherever it was told that it waits; so is that the client left,
///   and that what was approved was used later.
/// - Nothing of a secret is in an error.
#[derive(Clone)]
pub enum Channel {
    Webhook(Arc<WebhookSender>),
    Slack(Arc<Slack>),
    Teams(Arc<Teams>),
    Email(Arc<Email>),
    PagerDuty(Arc<PagerDuty>),
}

/// What is to be told.
pub(super) struct Letter<'a> {
    /// Stays the same over all attempts.
    pub(super) id: String,
    pub(super) notice: &'a Notice,
    pub(super) public_url: Option<&'a str>,
    pub(super) wall_ns: u64,
}

/// What the messages about one approval leave for the next one.
#[derive(Debug, Default)]
pub(super) struct Thread {
    /// The first message arrived.
    pub(super) opened: bool,
    /// So did how it ended.
    pub(super) closed: bool,
    /// Where a channel finds it again.
    pub(super) place: Option<super::slack::Place>,
}

/// A channel cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("{channel}: {cause}")]
pub struct ChannelError {
    pub(super) channel: String,
    pub(super) cause: String,
}

impl ChannelError {
    pub(super) fn new(channel: &str, cause: impl ToString) -> Self {
        Self {
            channel: channel.to_owned(),
            cause: cause.to_string(),
        }
    }
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("answered {status}")]
    Status {
        status: StatusCode,
        wait: Option<Duration>,
    },
    /// The vendor's own word for it.
    #[error("answered `{word}`")]
    Said { word: String, passing: bool },
    #[error("the mail server: {text}")]
    Mail { text: String, passing: bool },
    #[error("the message cannot be made: {0}")]
    Message(String),
}

impl SendError {
    /// Whether trying again may help. A redirect never does: it is not followed.
    pub(super) fn passing(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Status { status, .. } => {
                status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408
            }
            Self::Said { passing, .. } | Self::Mail { passing, .. } => *passing,
            Self::Message(_) => false,
        }
    }

    /// How long the server asks to be left alone.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Status { wait, .. } => *wait,
            _ => None,
        }
    }
}

impl Channel {
    /// As in the journal and in the API.
    pub fn name(&self) -> &str {
        match self {
            Self::Webhook(webhook) => &webhook.name,
            Self::Slack(slack) => slack.name(),
            Self::Teams(teams) => &teams.name,
            Self::Email(email) => &email.name,
            Self::PagerDuty(pagerduty) => &pagerduty.name,
        }
    }

    /// Whether `message` is told here, after what was told of the approval before.
    ///
    /// Programs behind webhooks keep count of their own: they hear of everything that their
    /// configuration asks for. People hear
    /// only of what they were asked for; and where a message cannot be brought up to date,
    /// a new one is not worth it for what follows at once from the one before.
    pub(super) fn tells(&self, message: Message, thread: &Thread) -> bool {
        let follows = message.follows();
        match self {
            Self::Webhook(webhook) => webhook.wants(message),
            Self::Slack(_) if follows => thread.place.is_some(),
            Self::PagerDuty(_) if message == Message::Left => thread.opened,
            // Resolved already, unless that did not arrive.
            Self::PagerDuty(_) if follows => thread.opened && !thread.closed,
            Self::Teams(_) | Self::Email(_) if message == Message::Used => {
                thread.opened && !thread.closed
            }
            _ if follows || message == Message::Settled => thread.opened,
            _ => true,
        }
    }

    pub(super) fn make(&self, letter: &Letter<'_>, thread: &Thread) -> Result<Bytes, SendError> {
        match self {
            Self::Webhook(_) => super::webhook::body(letter),
            Self::Slack(slack) => slack.make(letter, thread),
            Self::Teams(_) => super::teams::body(letter),
            Self::Email(email) => email.make(letter),
            Self::PagerDuty(pagerduty) => pagerduty.make(letter),
        }
    }

    pub(super) async fn send(
        &self,
        letter: &Letter<'_>,
        body: &Bytes,
        thread: &mut Thread,
    ) -> Result<(), SendError> {
        match self {
            Self::Webhook(webhook) => {
                let unix = crate::recorder::now().unix();
                webhook.send(&letter.id, body, unix).await
            }
            Self::Slack(slack) => slack.send(letter, body, thread).await,
            Self::Teams(teams) => teams.send(&letter.id, body).await,
            Self::Email(email) => email.send(body).await,
            Self::PagerDuty(pagerduty) => pagerduty.send(body).await,
        }
    }
}

/// All channels of a configuration, opened: nothing is sent by that.
#[derive(Clone, Default)]
pub struct Channels {
    all: Vec<Channel>,
}

impl Channels {
    /// # Errors
    /// A URL, a CA bundle or a secret cannot be used; the message names the channel.
    pub fn open(config: &Config, secrets: &Secrets) -> Result<Self, ChannelError> {
        let review = &config.review;
        let missing = |channel: &str| ChannelError::new(channel, "its secret is not there");
        let mut all = Vec::new();
        for webhook in &review.webhooks {
            let name = format!("webhook `{}`", webhook.name);
            let secret = secrets
                .webhook(&webhook.name)
                .ok_or_else(|| missing(&name))?;
            let sender = WebhookSender::new(webhook, &secret)?;
            all.push(Channel::Webhook(Arc::new(sender)));
        }
        let secret = |name: &str, key: &str| -> Result<Secret, ChannelError> {
            let secret = secrets.channel(name, key);
            secret.ok_or_else(|| missing(name))
        };
        for (name, config) in &review.slack {
            let name = format!("slack:{name}");
            let (token, signing) = (secret(&name, "token")?, secret(&name, "signing_secret")?);
            let slack = Slack::new(name, config, &token, &signing)?;
            all.push(Channel::Slack(Arc::new(slack)));
        }
        for (name, config) in &review.teams {
            let name = format!("teams:{name}");
            let teams = Teams::new(&name, config, &secret(&name, "workflow_url")?)?;
            all.push(Channel::Teams(Arc::new(teams)));
        }
        for (name, config) in &review.email {
            let name = format!("email:{name}");
            let password = match &config.login {
                Some(_) => Some(secret(&name, "password")?),
                None => None,
            };
            let email = Email::new(&name, config, password.as_ref())?;
            all.push(Channel::Email(Arc::new(email)));
        }
        for (name, config) in &review.pagerduty {
            let name = format!("pagerduty:{name}");
            let pagerduty = PagerDuty::new(&name, config, &secret(&name, "routing_key")?)?;
            all.push(Channel::PagerDuty(Arc::new(pagerduty)));
        }
        Ok(Self { all })
    }

    pub fn all(&self) -> &[Channel] {
        &self.all
    }

    /// Those that bring answers, by their name in the configuration.
    pub fn slack(&self) -> BTreeMap<String, Arc<Slack>> {
        let slack = self.all.iter().filter_map(|channel| match channel {
            Channel::Slack(slack) => Some((slack.short_name().to_owned(), Arc::clone(slack))),
            _ => None,
        });
        slack.collect()
    }
}

/// Where a channel posts to, and how.
pub(super) struct Post {
    http: HttpClient,
}

impl Post {
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, HttpError> {
        Ok(Self {
            http: HttpClient::new(ca, MAX_ANSWER)?,
        })
    }

    /// Posts JSON. Any answer but a 2xx is an error.
    pub(super) async fn json(
        &self,
        url: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, SendError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.clone())
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .header(header::USER_AGENT, USER_AGENT)
            .body(body);
        let mut request = request.map_err(|e| SendError::Message(e.to_string()))?;
        request.headers_mut().extend(headers);
        let answer = self.http.send(request, TIMEOUT).await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(SendError::Status {
                status: answer.status,
                wait: retry_after(&answer.headers),
            })
        }
    }
}

/// In seconds; the form with a date is not worth a clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// A URL that is itself a secret, or one below a configured base: no error repeats it.
pub(super) fn address(channel: &str, url: &str) -> Result<Uri, ChannelError> {
    checked(url).map_err(|_| {
        ChannelError::new(
            channel,
            "its URL is none with `https` (or `http` to this machine)",
        )
    })
}
