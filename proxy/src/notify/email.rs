//! Mail by SMTP: plain text and the same as HTML. It tells and links; nobody decides there.
//!
//! Settling answers the first message (`References`), so that both stand in one thread. TLS is required
//! everywhere but on loopback. Line ends that an agent chose cannot reach a header: what stands there
//! is on one line by [`holdpoint_core::display`], and the library encodes the rest.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdpoint_core::config::{EmailOut, MailTls};
use holdpoint_core::secret::Secret;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::Message;
use super::card::Card;
use super::channel::{ChannelError, Letter, SendError, TIMEOUT};
use super::deliver::opening_id;

/// Longer commands are not sent by mail.
const MAX_TEXT: usize = 256 * 1024;

/// A subject stays one that a list of mails can show.
const MAX_SUBJECT: usize = 200;

pub struct Email {
    pub(super) name: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    envelope: Envelope,
    /// What our ids end with.
    domain: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl Email {
    pub(super) fn new(
        name: &str,
        config: &EmailOut,
        password: Option<&Secret>,
    ) -> Result<Self, ChannelError> {
        let failed = |cause: String| ChannelError::new(name, cause);
        let mailbox = |text: &str| -> Result<Mailbox, ChannelError> {
            let address = text.parse();
            let address = address.map_err(|e| failed(format!("`{text}` is no address: {e}")))?;
            Ok(Mailbox::new(None, address))
        };
        let from = mailbox(&config.from)?;
        let to: Vec<_> = config
            .to
            .iter()
            .map(|to| mailbox(to))
            .collect::<Result<_, _>>()?;
        let envelope = Envelope::new(
            Some(from.email.clone()),
            to.iter().map(|one| one.email.clone()).collect(),
        )
        .map_err(|e| failed(e.to_string()))?;
        let tls = || tls(config).map_err(failed);
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(config.host.as_str())
                .port(config.port)
                .timeout(Some(TIMEOUT))
                .tls(match config.tls {
                    MailTls::Off => Tls::None,
                    MailTls::Starttls => Tls::Required(tls()?),
                    MailTls::Implicit => Tls::Wrapper(tls()?),
                })
                .hello_name(ClientId::Domain(from.email.domain().to_owned()));
        if let (Some((user, _)), Some(password)) = (&config.login, password) {
            let password = std::str::from_utf8(password.expose())
                .map_err(|_| failed("its password is not text".to_owned()))?;
            builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            domain: from.email.domain().to_owned(),
            from,
            to,
            envelope,
            transport: builder.build(),
        })
    }

    pub(super) fn make(&self, letter: &Letter<'_>) -> Result<Bytes, SendError> {
        let broken = |e: &dyn std::fmt::Display| SendError::Message(e.to_string());
        let card = Card::of(letter.notice, letter.public_url);
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(letter.wall_ns);
        let opening = format!(
            "<{}@{}>",
            opening_id(letter.notice, &self.name),
            self.domain
        );
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .date(at)
            .message_id(Some(format!("<{}@{}>", letter.id, self.domain)))
            // No out-of-office answers to this.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        // Mail programs that go by the subject need the same one in both.
        let subject = subject(&card);
        builder = match letter.notice.message {
            Message::Pending => builder.subject(subject),
            Message::BrokenGlass => builder
                .subject(format!("ALARM {subject}"))
                .references(opening),
            _ => builder
                .subject(format!("Re: {subject}"))
                .in_reply_to(opening.clone())
                .references(opening),
        };
        // Ours, since the library would choose one at random and attempts must not differ.
        let parts = MultiPart::alternative()
            .boundary(&letter.id)
            .singlepart(part(ContentType::TEXT_PLAIN, plain(&card)))
            .singlepart(part(ContentType::TEXT_HTML, html(&card)));
        let message = builder.multipart(parts).map_err(|e| broken(&e))?;
        Ok(message.formatted().into())
    }

    pub(super) async fn send(&self, body: &Bytes) -> Result<(), SendError> {
        // The library's limit is for each step of the conversation.
        let sent = tokio::time::timeout(6 * TIMEOUT, self.transport.send_raw(&self.envelope, body));
        match sent.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(SendError::Mail {
                passing: !error.is_permanent() && !error.is_tls(),
                text: told(&error),
            }),
            Err(_) => Err(SendError::Mail {
                text: "it took too long".to_owned(),
                passing: true,
            }),
        }
    }
}

/// Never the server's own words: it may repeat what it was sent.
fn told(error: &lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("answered {code}"),
        None if error.is_tls() => "TLS cannot be agreed on".to_owned(),
        None if error.is_timeout() => "it took too long".to_owned(),
        None if error.is_response() => "its answer is none of SMTP".to_owned(),
        None if error.is_client() => {
            "it does not offer what is required, such as STARTTLS".to_owned()
        }
        None => "it cannot be reached".to_owned(),
    }
}

fn tls(config: &EmailOut) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(ca) = &config.ca {
        let wrong =
            |e: &dyn std::fmt::Display| format!("cannot use the CA bundle `{}`: {e}", ca.display());
        let pem = std::fs::read(ca).map_err(|e| wrong(&e))?;
        let certificate = Certificate::from_pem(&pem).map_err(|e| wrong(&e))?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(certificate);
    }
    builder.build().map_err(|e| e.to_string())
}

fn part(kind: ContentType, text: String) -> SinglePart {
    SinglePart::builder().header(kind).body(text)
}

fn subject(card: &Card<'_>) -> String {
    let whole = format!("[holdpoint] Approval: {}", card.title());
    if whole.len() <= MAX_SUBJECT {
        whole
    } else {
        format!("[holdpoint] Approval: {}", card.view.id)
    }
}

fn fits(card: &Card<'_>) -> bool {
    let facts: usize = card.facts().iter().map(|(_, value)| value.len()).sum();
    facts + card.command().len() + card.values().len() <= MAX_TEXT
}

/// Every line of the command begins with `| `, so that none looks like one of ours.
fn plain(card: &Card<'_>) -> String {
    let mut text = format!("{}\n\n", card.headline());
    if let Some(link) = &card.link {
        let _ = write!(text, "{link}\n\n");
    }
    if fits(card) {
        for (name, value) in card.facts() {
            let _ = writeln!(text, "{name}: {value}");
        }
        for block in [card.command(), card.values()] {
            if !block.is_empty() {
                text.push('\n');
                for line in block.split('\n') {
                    let _ = writeln!(text, "| {line}");
                }
            }
        }
    } else {
        let _ = writeln!(text, "{}", card.too_long());
    }
    let _ = write!(text, "\n{}\n", card.evidence());
    text
}

fn html(card: &Card<'_>) -> String {
    let mut html = format!(
        "<!doctype html><html><body style=\"font-family:sans-serif\"><h1 style=\"font-size:20px\">{}</h1>\n",
        markup(card.headline())
    );
    if let Some(link) = &card.link {
        let word = if card.message.asks() {
            "Review"
        } else {
            "Open"
        };
        let _ = writeln!(html, "<p><a href=\"{}\">{word}</a></p>", markup(link));
    }
    if fits(card) {
        html.push_str("<table>\n");
        for (name, value) in card.facts() {
            let (name, value) = (markup(name), markup(&value));
            let _ = writeln!(
                html,
                "<tr><th style=\"text-align:left\">{name}</th><td>{value}</td></tr>"
            );
        }
        html.push_str("</table>\n");
        for block in [card.command(), card.values()] {
            if !block.is_empty() {
                // A line end right after the tag would be taken away.
                let _ = writeln!(
                    html,
                    "<pre style=\"white-space:pre-wrap\">\n{}</pre>",
                    markup(&block)
                );
            }
        }
    } else {
        let _ = writeln!(html, "<p>{}</p>", markup(&card.too_long()));
    }
    let _ = writeln!(
        html,
        "<p style=\"color:#666;font-size:12px\">{}</p></body></html>",
        markup(&card.evidence())
    );
    html
}

fn markup(text: &str) -> String {
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
