//! Servers that play the vendors: each refuses what its vendor's documentation does not allow, and
//! says what a person there would see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdpoint_core::config::{
    EmailOut, MailTls, PagerDutyOut, SecretRef, Severity, SlackOut, TeamsOut, WebhookOut,
};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Channel;
use super::email::Email;
use super::pagerduty::PagerDuty;
use super::slack::Slack;
use super::teams::Teams;
use super::webhook::WebhookSender;

pub(crate) const KINDS: [Kind; 5] = [
    Kind::Webhook,
    Kind::Slack,
    Kind::Teams,
    Kind::Email,
    Kind::PagerDuty,
];

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TOKEN: &str = "xoxb-hunter2-token";
const ROUTING_KEY: &str = "hunter20123456789abcdefghijklmno";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Webhook,
    Slack,
    Teams,
    Email,
    PagerDuty,
}

/// What came, as a person at the vendor would see it.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    /// Says that somebody must decide, as against how that ended.
    pub(crate) asks: bool,
    /// Names the message over all attempts.
    pub(crate) id: String,
    /// What ties the end to the beginning.
    pub(crate) thread: String,
    pub(crate) headline: String,
    /// The command as shown, each time that it is.
    pub(crate) shown: Vec<String>,
    pub(crate) link: String,
    pub(crate) may_approve: bool,
    pub(crate) raw: Vec<u8>,
}

/// What a server does in place of accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Passes: 503, 429, SMTP 451.
    Busy,
    /// Does not: 400, 404, SMTP 550.
    Refuses,
}

#[derive(Default)]
struct Kept {
    came: Vec<Came>,
    faults: Vec<String>,
    trouble: Vec<Trouble>,
}

#[derive(Clone)]
pub(crate) struct Vendor {
    kind: Kind,
    kept: Arc<Mutex<Kept>>,
}

impl Vendor {
    /// A server on loopback, and the channel that is set up to use it.
    pub(crate) async fn start(kind: Kind) -> (Self, Channel) {
        let vendor = Self {
            kind,
            kept: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let this = vendor.clone();
        if kind == Kind::Email {
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let this = this.clone();
                    tokio::spawn(async move { this.smtp(socket).await });
                }
            });
        } else {
            let router = Router::new().fallback(http).with_state(this);
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        (vendor, channel(kind, port))
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        let kept = self.kept();
        assert!(
            kept.faults.is_empty(),
            "{:?}: {:#?}",
            self.kind,
            kept.faults
        );
        kept.came.clone()
    }

    /// What the next attempts meet.
    pub(crate) fn trouble(&self, next: &[Trouble]) {
        self.kept().trouble = next.to_vec();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    fn next_trouble(&self) -> Option<Trouble> {
        let mut kept = self.kept();
        (!kept.trouble.is_empty()).then(|| kept.trouble.remove(0))
    }

    fn keep(&self, read: Result<Came, String>) -> bool {
        let mut kept = self.kept();
        match read {
            Ok(came) => {
                kept.came.push(came);
                true
            }
            Err(fault) => {
                kept.faults.push(fault);
                false
            }
        }
    }
}

/// A channel whose server listens at `port` of this machine.
pub(crate) fn channel(kind: Kind, port: u16) -> Channel {
    let secret = || SecretRef::Env("X".to_owned());
    let base = format!("http://127.0.0.1:{port}");
    match kind {
        Kind::Webhook => {
            let config = WebhookOut {
                name: "ops".to_owned(),
                url: format!("{base}/hook/hunter2"),
                secret: secret(),
                ca: None,
                events: None,
            };
            let sender = WebhookSender::new(&config, &WHSEC.to_owned().into());
            Channel::Webhook(Arc::new(sender.unwrap()))
        }
        Kind::Slack => {
            let config = SlackOut {
                token: secret(),
                signing_secret: secret(),
                channel: "C0123456789".to_owned(),
                buttons: true,
                link_lasts: std::time::Duration::from_secs(3_600),
                api_url: format!("{base}/api"),
                ca: None,
            };
            let signing = "0123456789abcdef".to_owned().into();
            let slack = Slack::new(
                "slack:ops".to_owned(),
                &config,
                &TOKEN.to_owned().into(),
                &signing,
            );
            Channel::Slack(Arc::new(slack.unwrap()))
        }
        Kind::Teams => {
            let config = TeamsOut {
                workflow_url: secret(),
                ca: None,
            };
            let url = format!("{base}/workflows/x?sig=hunter2");
            let teams = Teams::new("teams:ops", &config, &url.into());
            Channel::Teams(Arc::new(teams.unwrap()))
        }
        Kind::Email => {
            let config = EmailOut {
                host: "127.0.0.1".to_owned(),
                port,
                tls: MailTls::Off,
                login: Some(("holdpoint".to_owned(), secret())),
                from: "holdpoint@acme.example".to_owned(),
                to: vec!["ops@acme.example".to_owned(), "dba@acme.example".to_owned()],
                ca: None,
            };
            let password = "hunter2".to_owned().into();
            let email = Email::new("email:ops", &config, Some(&password));
            Channel::Email(Arc::new(email.unwrap()))
        }
        Kind::PagerDuty => {
            let config = PagerDutyOut {
                routing_key: secret(),
                severity: Severity::Warning,
                api_url: base,
                ca: None,
            };
            let key = ROUTING_KEY.to_owned().into();
            let pagerduty = PagerDuty::new("pagerduty:ops", &config, &key);
            Channel::PagerDuty(Arc::new(pagerduty.unwrap()))
        }
    }
}

async fn http(State(vendor): State<Vendor>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    match vendor.next_trouble() {
        Some(Trouble::Busy) => {
            let wait = [(header::RETRY_AFTER, "1")];
            return (StatusCode::TOO_MANY_REQUESTS, wait, "busy").into_response();
        }
        Some(Trouble::Refuses) if vendor.kind == Kind::Slack => {
            return axum::Json(json!({"ok": false, "error": "channel_not_found"})).into_response();
        }
        Some(Trouble::Refuses) => return (StatusCode::BAD_REQUEST, "no").into_response(),
        None => {}
    }
    let count = vendor.kept().came.len();
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let read = || -> Result<(Came, Response), String> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        check(
            kind.is_some_and(|kind| kind.starts_with("application/json")),
            "content type",
        )?;
        let json: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        match vendor.kind {
            Kind::Webhook => webhook(path, &headers, &body, &json)
                .map(|came| (came, StatusCode::NO_CONTENT.into_response())),
            Kind::Slack => slack(path, &headers, &body, &json, count).map(|(came, answer)| {
                (came, axum::Json(answer).into_response())
            }),
            Kind::Teams => teams(path, &body, &json)
                .map(|came| (came, StatusCode::ACCEPTED.into_response())),
            Kind::PagerDuty => pagerduty(path, &body, &json).map(|came| {
                let answer = json!({"status": "success", "message": "Event processed", "dedup_key": came.thread});
                (came, (StatusCode::ACCEPTED, axum::Json(answer)).into_response())
            }),
            Kind::Email => Err("mail by HTTP".to_owned()),
        }
    };
    match read() {
        Ok((came, answer)) => {
            vendor.keep(Ok(came));
            answer
        }
        Err(fault) => {
            vendor.keep(Err(fault));
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}

fn check(holds: bool, what: impl ToString) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn webhook(path: &str, headers: &HeaderMap, body: &Bytes, json: &Value) -> Result<Came, String> {
    check(path == "/hook/hunter2", path)?;
    let webhook = Webhook::new(WHSEC).unwrap();
    webhook.verify(body, headers).map_err(|e| e.to_string())?;
    Ok(Came {
        asks: ["approval.pending", "approval.escalated", "approval.left"]
            .contains(&text(&json["type"]).as_str()),
        id: headers["webhook-id"].to_str().unwrap().to_owned(),
        thread: text(&json["approval"]["id"]),
        headline: text(&json["approval"]["state"]),
        shown: vec![text(&json["approval"]["shown"]["text"])],
        link: text(&json["link"]),
        may_approve: false,
        raw: body.to_vec(),
    })
}

/// The limits of Slack's reference of Block Kit.
pub(crate) fn slack_blocks(blocks: &Value) -> Result<(Vec<String>, Vec<Value>), String> {
    let mut shown = Vec::new();
    let mut buttons = Vec::new();
    let blocks = blocks.as_array().ok_or("no blocks")?;
    check(!blocks.is_empty() && blocks.len() <= 50, "1 to 50 blocks")?;
    let plain = |value: &Value, most: usize| {
        let length = text(&value["text"]).chars().count();
        check(value["type"] == "plain_text", format!("not plain: {value}"))?;
        check(
            length > 0 && length <= most,
            format!("1 to {most}: {value}"),
        )
    };
    for block in blocks {
        match text(&block["type"]).as_str() {
            "header" => plain(&block["text"], 150)?,
            "context" => {
                for element in block["elements"].as_array().ok_or("no elements")? {
                    plain(element, 2_000)?;
                }
            }
            "rich_text" => {
                for part in block["elements"].as_array().ok_or("no elements")? {
                    let code = part["type"] == "rich_text_preformatted";
                    check(
                        code || part["type"] == "rich_text_section",
                        format!("{part}"),
                    )?;
                    let mut whole = String::new();
                    for element in part["elements"].as_array().ok_or("no elements")? {
                        check(element["type"] == "text", format!("not text: {element}"))?;
                        check(!text(&element["text"]).is_empty(), "an empty text")?;
                        whole += &text(&element["text"]);
                    }
                    check(whole.chars().count() <= 3_100, "a text too long")?;
                    if code {
                        shown.push(whole);
                    }
                }
            }
            "actions" => {
                let elements = block["elements"].as_array().ok_or("no elements")?;
                check(elements.len() <= 25, "25 elements")?;
                for button in elements {
                    check(button["type"] == "button", format!("no button: {button}"))?;
                    plain(&button["text"], 75)?;
                    check(text(&button["action_id"]).len() <= 255, "action_id")?;
                    check(text(&button["value"]).len() <= 2_000, "value")?;
                    check(text(&button["url"]).len() <= 3_000, "url")?;
                    if let Some(confirm) = button.get("confirm") {
                        plain(&confirm["title"], 100)?;
                        plain(&confirm["text"], 300)?;
                        plain(&confirm["confirm"], 30)?;
                        plain(&confirm["deny"], 30)?;
                    }
                    buttons.push(button.clone());
                }
            }
            other => return Err(format!("block `{other}`")),
        }
    }
    Ok((shown, buttons))
}

fn slack(
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
    json: &Value,
    count: usize,
) -> Result<(Came, Value), String> {
    let authorization = headers.get(header::AUTHORIZATION).map(|v| v.as_bytes());
    check(
        authorization == Some(format!("Bearer {TOKEN}").as_bytes()),
        "authorization",
    )?;
    check(json["channel"] == "C0123456789", "channel")?;
    let fallback = text(&json["text"]);
    check(
        !fallback.is_empty() && !fallback.contains(['<', '>']),
        "text",
    )?;
    let (shown, buttons) = slack_blocks(&json["blocks"])?;
    let pressed = |id: &str| buttons.iter().find(|button| button["action_id"] == id);
    let link = pressed("holdpoint.open").map(|button| text(&button["url"]));
    let first = "1700000000.000100";
    let (asks, ts) = match path {
        "/api/chat.postMessage" => {
            let metadata = &json["metadata"];
            check(metadata["event_type"] == "holdpoint_approval", "metadata")?;
            match json["thread_ts"].as_str() {
                // Seen as part of the thread that it is in.
                Some(ts) => (true, ts.to_owned()),
                None => (true, format!("1700000000.{:06}", 100 + count)),
            }
        }
        "/api/chat.update" => {
            check(json["ts"] == first, format!("ts {}", json["ts"]))?;
            (pressed("holdpoint.deny").is_some(), first.to_owned())
        }
        path => return Err(path.to_owned()),
    };
    let may_approve = pressed("holdpoint.approve").is_some();
    check(asks || !may_approve, "a settled message has buttons")?;
    let came = Came {
        asks,
        id: text(&json["metadata"]["event_payload"]["message_id"]),
        thread: ts.clone(),
        headline: text(&json["blocks"][0]["text"]["text"]),
        shown,
        link: link.unwrap_or_default(),
        may_approve,
        raw: body.to_vec(),
    };
    Ok((
        came,
        json!({"ok": true, "channel": "C0123456789", "ts": ts}),
    ))
}

fn teams(path: &str, body: &Bytes, json: &Value) -> Result<Came, String> {
    check(path == "/workflows/x?sig=hunter2", path)?;
    check(body.len() <= 28 * 1024, format!("{} bytes", body.len()))?;
    check(json["type"] == "message", "type")?;
    let attachment = &json["attachments"][0];
    let kind = "application/vnd.microsoft.card.adaptive";
    check(attachment["contentType"] == kind, "contentType")?;
    let card = &attachment["content"];
    check(
        card["type"] == "AdaptiveCard" && card["version"] == "1.4",
        "card",
    )?;
    let mut shown = Vec::new();
    let blocks = card["body"].as_array().ok_or("no body")?;
    for block in &blocks[1..] {
        check(block["type"] == "RichTextBlock", format!("{block}"))?;
        for run in block["inlines"].as_array().ok_or("no inlines")? {
            check(run["type"] == "TextRun", format!("{run}"))?;
            check(!text(&run["text"]).contains("{{"), "a function of cards")?;
            if run["fontType"] == "monospace" {
                shown.push(text(&run["text"]));
            }
        }
    }
    let actions = card["actions"].as_array().ok_or("no actions")?;
    check(
        actions.len() == 1 && actions[0]["type"] == "Action.OpenUrl",
        "actions",
    )?;
    let headline = text(&blocks[0]["text"]);
    Ok(Came {
        asks: headline.starts_with("Approval") && headline.contains("needed"),
        id: text(&blocks[0]["id"]),
        // It has no updates: whoever reads them finds the approval's page.
        thread: text(&actions[0]["url"]),
        headline,
        shown,
        link: text(&actions[0]["url"]),
        may_approve: false,
        raw: body.to_vec(),
    })
}

fn pagerduty(path: &str, body: &Bytes, json: &Value) -> Result<Came, String> {
    check(path == "/v2/enqueue", path)?;
    check(body.len() <= 512 * 1024, "512 KB")?;
    check(json["routing_key"] == ROUTING_KEY, "routing key")?;
    let key = text(&json["dedup_key"]);
    check(!key.is_empty() && key.len() <= 255, "dedup_key")?;
    let asks = json["event_action"] == "trigger";
    check(asks || json["event_action"] == "resolve", "event_action")?;
    let payload = &json["payload"];
    let mut shown = Vec::new();
    if asks {
        let summary = text(&payload["summary"]);
        check(
            !summary.is_empty() && summary.chars().count() <= 1024,
            "summary",
        )?;
        check(!text(&payload["source"]).is_empty(), "source")?;
        let severities = ["critical", "error", "warning", "info"];
        check(
            severities.contains(&text(&payload["severity"]).as_str()),
            "severity",
        )?;
        let command = text(&payload["custom_details"]["Command"]);
        if !command.starts_with("The command is too long") {
            shown.push(command);
        }
    }
    let id = text(&payload["custom_details"]["Message"]);
    Ok(Came {
        asks,
        id: if asks { id } else { key.clone() },
        thread: key,
        headline: text(&payload["summary"]),
        shown,
        link: text(&json["links"][0]["href"]),
        may_approve: false,
        raw: body.to_vec(),
    })
}

impl Vendor {
    /// Enough of RFC 5321 for one mail.
    async fn smtp(&self, socket: TcpStream) {
        let mut lines = BufReader::new(socket);
        let mut mail = String::new();
        let mut to = Vec::new();
        lines.write_all(b"220 mail.example\r\n").await.unwrap();
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let answer = match line.trim_end() {
                ehlo if ehlo.starts_with("EHLO ") => "250-mail.example\r\n250 AUTH PLAIN",
                auth if auth.starts_with("AUTH PLAIN ") => {
                    let given = STANDARD.decode(&auth[11..]).unwrap();
                    assert_eq!(given, b"\0holdpoint\0hunter2");
                    "235 in"
                }
                from if from.starts_with("MAIL FROM:<holdpoint@acme.example>") => {
                    match self.next_trouble() {
                        Some(Trouble::Busy) => "451 later hunter2",
                        Some(Trouble::Refuses) => "550 never hunter2",
                        None => "250 ok",
                    }
                }
                rcpt if rcpt.starts_with("RCPT TO:<") => {
                    to.push(rcpt.to_owned());
                    "250 ok"
                }
                "DATA" => {
                    lines.write_all(b"354 go on\r\n").await.unwrap();
                    loop {
                        let mut line = String::new();
                        lines.read_line(&mut line).await.unwrap();
                        if line == ".\r\n" {
                            break;
                        }
                        mail += line.strip_prefix('.').unwrap_or(&line);
                    }
                    let fault = (to.len() != 2).then(|| format!("to {to:?}"));
                    self.keep(match fault {
                        Some(fault) => Err(fault),
                        None => read_mail(&mail),
                    });
                    "250 queued"
                }
                "QUIT" => "221 bye",
                other => {
                    self.keep(Err(format!("SMTP: {other}")));
                    "500 what"
                }
            };
            let answer = format!("{answer}\r\n");
            if lines.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Headers, unfolded; a name that comes twice is a fault.
fn headers(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut headers = BTreeMap::new();
    for line in text.replace("\r\n ", " ").replace("\r\n\t", " ").lines() {
        let (name, value) = line.split_once(": ").ok_or(format!("header {line:?}"))?;
        let twice = headers.insert(name.to_lowercase(), value.to_owned());
        check(twice.is_none(), format!("two headers {name}"))?;
    }
    Ok(headers)
}

fn read_mail(mail: &str) -> Result<Came, String> {
    check(mail.is_ascii(), "a mail in ASCII")?;
    let (head, body) = mail.split_once("\r\n\r\n").ok_or("no body")?;
    let head = headers(head)?;
    let known = [
        "from",
        "to",
        "date",
        "message-id",
        "auto-submitted",
        "subject",
        "in-reply-to",
        "references",
        "mime-version",
        "content-type",
    ];
    for name in head.keys() {
        check(known.contains(&name.as_str()), format!("a header `{name}`"))?;
    }
    check(head["from"] == "holdpoint@acme.example", &head["from"])?;
    check(
        head["to"] == "ops@acme.example, dba@acme.example",
        &head["to"],
    )?;
    let boundary = head["content-type"]
        .strip_prefix("multipart/alternative; boundary=\"")
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or("content type")?;
    let parts: Vec<_> = body.split(&format!("--{boundary}")).collect();
    check(parts.len() == 4 && parts[3].starts_with("--"), "two parts")?;
    let (plain, html) = (part(parts[1], "text/plain")?, part(parts[2], "text/html")?);
    let plain = plain.replace("\r\n", "\n");
    let html = html.replace("\r\n", "\n");
    let mut shown = Vec::new();
    let lines: Vec<_> = plain
        .lines()
        .skip_while(|line| !line.starts_with("| "))
        .take_while(|line| line.starts_with("| "))
        .map(|line| &line[2..])
        .collect();
    if !lines.is_empty() {
        shown.push(lines.join("\n"));
    }
    if let Some(rest) = html.split_once("<pre style=\"white-space:pre-wrap\">\n") {
        let text = rest.1.split_once("</pre>").ok_or("no end of pre")?.0;
        check(!text.contains(['<', '>']), "markup in the command")?;
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&");
        shown.push(text);
    }
    let link = html.split("<a href=\"").nth(1).unwrap_or_default();
    let first = !head.contains_key("references");
    let subject = &head["subject"];
    let follows = subject.starts_with("Re: ") || subject.starts_with("ALARM ");
    check(first != follows, subject)?;
    let headline = plain.lines().next().unwrap_or_default().to_owned();
    Ok(Came {
        asks: headline.starts_with("Approval") && headline.contains("needed"),
        id: head["message-id"].clone(),
        thread: head
            .get("references")
            .unwrap_or(&head["message-id"])
            .clone(),
        headline,
        shown,
        link: link.split('"').next().unwrap_or_default().to_owned(),
        may_approve: false,
        raw: format!("{plain}{html}").into_bytes(),
    })
}

fn part(part: &str, kind: &str) -> Result<String, String> {
    let (head, body) = part
        .trim_start_matches("\r\n")
        .split_once("\r\n\r\n")
        .ok_or("a part without body")?;
    let head = headers(head)?;
    check(
        head["content-type"].starts_with(kind),
        &head["content-type"],
    )?;
    let body = body.strip_suffix("\r\n").unwrap_or(body);
    match head["content-transfer-encoding"].as_str() {
        "7bit" => Ok(body.to_owned()),
        "base64" => {
            let text: String = body.split_whitespace().collect();
            let bytes = STANDARD.decode(text).map_err(|e| e.to_string())?;
            String::from_utf8(bytes).map_err(|e| e.to_string())
        }
        "quoted-printable" => quoted(body),
        other => Err(format!("encoding {other}")),
    }
}

fn quoted(text: &str) -> Result<String, String> {
    let text = text.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'=' {
            let digits = std::str::from_utf8(&tail[..2]).map_err(|e| e.to_string())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|e| e.to_string())?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|e| e.to_string())
}
