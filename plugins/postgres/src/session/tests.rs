//! Scripts against a small model of the host.
//!
//! The model keeps the host's promises: frames in order, judged kinds only
//! inside a command, no client frame while a verdict is outstanding. Its verdict
//! is in the text: `DROP` is refused at once, `HOLD` waits for the script.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use holdpoint_plugin::testing::{Scripted, set_login};
use holdpoint_plugin::{
    Action, Command, Delivery, Frame, Identity, IdentityOutcome, Operation, Otherwise, Recall,
    Refusal, RefusalKind, RowPlan, Session, Setup, Side, Subscription, Verdict,
};
use proptest::prelude::*;

use super::PostgresSession;
use crate::frame;

mod commands;
mod foresee;
mod known;
mod login;
mod pipelines;
mod rows;

type Message = (Option<u8>, Vec<u8>);

/// A message with a kind.
fn m(kind: u8, body: &[u8]) -> Message {
    (Some(kind), body.to_vec())
}

fn q(text: &str) -> Message {
    m(b'Q', format!("{text}\0").as_bytes())
}

fn parse(name: &str, text: &str) -> Message {
    m(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Message {
    m(
        b'B',
        format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes(),
    )
}

fn describe(target: &str) -> Message {
    m(b'D', format!("{target}\0").as_bytes())
}

fn close(target: &str) -> Message {
    m(b'C', format!("{target}\0").as_bytes())
}

fn execute(portal: &str) -> Message {
    m(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

fn sync() -> Message {
    m(b'S', b"")
}

fn flush() -> Message {
    m(b'H', b"")
}

fn tag(text: &str) -> Message {
    m(b'C', format!("{text}\0").as_bytes())
}

fn z(status: u8) -> Message {
    m(b'Z', &[status])
}

fn error(sqlstate: &str) -> Message {
    m(
        b'E',
        format!("SERROR\0VERROR\0C{sqlstate}\0Mkey (a)=(42)\0\0").as_bytes(),
    )
}

fn status(name: &str, value: &str) -> Message {
    m(b'S', format!("{name}\0{value}\0").as_bytes())
}

enum Step {
    Client(Vec<Message>),
    Upstream(Vec<Message>),
    Approve,
}

fn client(messages: &[Message]) -> Step {
    Step::Client(messages.to_vec())
}

fn upstream(messages: &[Message]) -> Step {
    Step::Upstream(messages.to_vec())
}

/// A frame on its way through the model; `shown` ones wait for the plugin.
struct Held {
    seq: Option<u64>,
    kind: Option<u8>,
    body: Vec<u8>,
}

struct Host {
    session: PostgresSession,
    seq: u64,
    client: VecDeque<Held>,
    upstream: VecDeque<Held>,
    client_subscription: Subscription,
    upstream_subscription: Subscription,
    /// Client messages that came while a verdict was outstanding.
    hidden: Vec<Message>,
    outstanding: Option<(u64, u64, bool, bool)>,
    forwarded: u32,
    ready: bool,
    closed: bool,
    /// Frames are shown one by one instead of a burst at a time.
    split: bool,
    log: String,
    submitted: Vec<Command>,
    /// How many operations came in words, and which number they have.
    told: Vec<(usize, Recall)>,
    /// Operations by the number that the plugin gave them.
    kept: BTreeMap<u8, Vec<Operation>>,
    /// What becomes of rows.
    rows: Option<RowPlan>,
    /// It does not tell the session what the session foretold.
    lazy: Option<foresee::Lazy>,
}

fn refusal() -> Refusal {
    Refusal {
        kind: RefusalKind::Denied,
        code: "HP-DENIED".to_owned(),
        message: "denied".to_owned(),
        detail: None,
        hint: None,
    }
}

impl Host {
    fn new(settings: &[(&str, &str)], client_tls: bool) -> Self {
        set_login(Scripted {
            username: "app".to_owned(),
            answers: vec![
                ("md5".to_owned(), vec![b"md5hash".to_vec()]),
                (
                    "scram-sha-256".to_owned(),
                    vec![b"first".to_vec(), b"final".to_vec()],
                ),
            ],
        });
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            session: PostgresSession::new(Setup {
                settings: settings.iter().map(owned).collect(),
                client_tls,
                entropy: (0..32).collect(),
            }),
            seq: 0,
            client: VecDeque::new(),
            upstream: VecDeque::new(),
            client_subscription: frame::show_all(Side::Client),
            upstream_subscription: frame::show_all(Side::Upstream),
            hidden: Vec::new(),
            outstanding: None,
            forwarded: 0,
            ready: false,
            closed: false,
            split: false,
            log: String::new(),
            submitted: Vec::new(),
            told: Vec::new(),
            kept: BTreeMap::new(),
            rows: None,
            lazy: None,
        }
    }

    /// Logged in, over TLS, at a target that trusts.
    fn logged_in() -> Self {
        Self::logged_in_with(&[("upstream_tls", "off")])
    }

    fn logged_in_with(settings: &[(&str, &str)]) -> Self {
        let mut host = Self::new(settings, true);
        host.play(Step::Client(vec![startup(&[
            ("user", "agent"),
            ("database", "shop"),
        ])]));
        host.accept();
        host.play(upstream(&[
            m(b'R', &[0, 0, 0, 0]),
            status("client_encoding", "UTF8"),
            status("standard_conforming_strings", "on"),
            status("is_superuser", "off"),
            status("session_authorization", "app"),
            m(b'K', b"\0\0\0\x07\0\0\0\x09"),
            z(b'I'),
        ]));
        assert!(host.ready, "{}", host.log);
        host.log.clear();
        host
    }

    fn accept(&mut self) {
        let identity = Identity {
            subject: "agent".to_owned(),
            label: "agent".to_owned(),
            groups: Vec::new(),
        };
        let actions = self
            .session
            .on_identity(IdentityOutcome::Accepted(identity))
            .unwrap();
        self.act(actions);
    }

    fn tls(&mut self, side: Side) {
        let actions = self.session.on_tls(side).unwrap();
        self.act(actions);
    }

    fn lines(&self) -> Vec<String> {
        self.log.lines().map(str::to_owned).collect()
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Client(messages) if self.split => {
                messages
                    .into_iter()
                    .for_each(|message| self.receive(Side::Client, vec![message]));
            }
            Step::Client(messages) => self.receive(Side::Client, messages),
            Step::Upstream(messages) if self.split => messages
                .into_iter()
                .for_each(|message| self.receive(Side::Upstream, vec![message])),
            Step::Upstream(messages) => self.receive(Side::Upstream, messages),
            Step::Approve => self.verdict(Verdict::Forwarded),
        }
    }

    fn receive(&mut self, side: Side, messages: Vec<Message>) {
        if side == Side::Client && self.outstanding.is_some() {
            self.hidden.extend(messages);
            return;
        }
        let mut shown = Vec::new();
        for (kind, body) in messages {
            if self.closed {
                return;
            }
            let subscription = match side {
                Side::Client => &self.client_subscription,
                Side::Upstream => &self.upstream_subscription,
            };
            let listed = kind.and_then(|kind| {
                subscription
                    .filters
                    .iter()
                    .find(|filter| filter.kinds.contains(&kind))
            });
            let whole = match (listed, subscription.otherwise) {
                (Some(filter), _) => filter.delivery == Delivery::Whole,
                (None, Otherwise::Whole) => true,
                (None, Otherwise::Pass) => false,
                (None, Otherwise::Reject) => {
                    writeln!(self.log, "rejected {kind:?}").unwrap();
                    self.closed = true;
                    return;
                }
            };
            let seq = whole.then(|| {
                self.seq += 1;
                shown.push(Frame {
                    seq: self.seq,
                    kind,
                    body: body.clone(),
                });
                self.seq
            });
            let queue = match side {
                Side::Client => &mut self.client,
                Side::Upstream => &mut self.upstream,
            };
            queue.push_back(Held { seq, kind, body });
            self.flow(side);
        }
        if !shown.is_empty() {
            match self.tell(side, shown) {
                Ok(actions) => self.act(actions),
                Err(fault) => {
                    writeln!(self.log, "fault: {}", fault.message).unwrap();
                    self.closed = true;
                }
            }
        }
    }

    /// Frames that nobody waits for go on.
    fn flow(&mut self, side: Side) {
        let queue = match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        };
        let mut gone = Vec::new();
        while queue.front().is_some_and(|held| held.seq.is_none()) {
            gone.extend(queue.pop_front());
        }
        gone.iter().for_each(|held| self.send(side, held));
    }

    fn send(&mut self, from: Side, held: &Held) {
        let arrow = if from == Side::Client { "-> " } else { "<- " };
        writeln!(self.log, "{arrow}{}", show(held.kind, &held.body)).unwrap();
    }

    fn take(&mut self, seq: u64) -> (Side, Held) {
        for side in [Side::Client, Side::Upstream] {
            let queue = if side == Side::Client {
                &mut self.client
            } else {
                &mut self.upstream
            };
            if let Some(at) = queue.iter().position(|held| held.seq == Some(seq)) {
                return (side, queue.remove(at).unwrap());
            }
        }
        panic!("frame {seq} is not held\n{}", self.log);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.closed, "asked for more after `close`\n{}", self.log);
            match action {
                Action::Pass(seq) => {
                    if let Some(at) = self.upstream.iter().position(|held| held.seq == Some(seq)) {
                        for _ in 0..=at {
                            let held = self.upstream.pop_front().unwrap();
                            self.send(Side::Upstream, &held);
                        }
                        self.flow(Side::Upstream);
                        continue;
                    }
                    let (side, held) = self.take(seq);
                    let judged = self.client_subscription.filters.iter().any(|filter| {
                        filter.judged && held.kind.is_some_and(|kind| filter.kinds.contains(&kind))
                    });
                    assert!(!judged, "a judged frame was passed\n{}", self.log);
                    self.send(side, &held);
                    self.flow(side);
                }
                Action::Drop(seq) => {
                    let (side, _) = self.take(seq);
                    self.flow(side);
                }
                Action::Forecast(_) | Action::Expect(_) => {}
                Action::Rows((kind, plan)) => {
                    assert_eq!(kind, b'D');
                    self.rows = Some(plan);
                }
                Action::ToClient(bytes) => {
                    for (kind, body) in cut(&bytes) {
                        writeln!(self.log, "<= {}", show(kind, &body)).unwrap();
                    }
                }
                Action::ToUpstream(bytes) => {
                    assert!(!self.ready, "authored bytes after ready");
                    writeln!(self.log, "=> {}", bytes.escape_ascii()).unwrap();
                }
                Action::Submit(mut submission) => {
                    let operations = &mut submission.command.operations;
                    self.told.push((operations.len(), submission.recall));
                    match submission.recall {
                        Recall::No => {}
                        Recall::Keep(number) => {
                            self.kept.insert(number, operations.clone());
                        }
                        Recall::Kept(number) => {
                            assert!(operations.is_empty(), "words beside a number");
                            operations.clone_from(&self.kept[&number]);
                        }
                    }
                    let command = &submission.command;
                    let text = String::from_utf8_lossy(&command.text).into_owned();
                    let classes: Vec<&str> = command
                        .operations
                        .iter()
                        .map(|op| op.class.as_str())
                        .collect();
                    let inside = if command.in_transaction { " tx" } else { "" };
                    let reject = command
                        .reject
                        .as_deref()
                        .map_or(String::new(), |why| format!(" reject: {why}"));
                    writeln!(
                        self.log,
                        "submit {text:?} {}{inside}{reject}",
                        classes.join("+")
                    )
                    .unwrap();
                    self.submitted.push(submission.command.clone());
                    let (first, last) = (submission.first, submission.last);
                    assert!(self.outstanding.is_none(), "two submissions at once");
                    self.outstanding = Some((first, last, submission.notify, submission.undo));
                    if text.contains("DROP") || command.reject.is_some() {
                        // Later actions of this list come first, as in the host.
                        self.hidden.insert(0, (None, b"refuse".to_vec()));
                    } else if !text.contains("HOLD") {
                        self.hidden.insert(0, (None, b"approve".to_vec()));
                    }
                }
                Action::Completed(done) => {
                    assert!(
                        done.commands <= self.forwarded,
                        "more completed than forwarded"
                    );
                    self.forwarded -= done.commands;
                    let failed = if done.failed { " failed" } else { "" };
                    let rows = done
                        .rows
                        .map_or(String::new(), |rows| format!(" rows {rows}"));
                    writeln!(
                        self.log,
                        "completed {} {:?}{failed}{rows}",
                        done.commands, done.status
                    )
                    .unwrap();
                }
                Action::Subscribe(subscription) => match subscription.origin {
                    Side::Client => self.client_subscription = subscription,
                    Side::Upstream => self.upstream_subscription = subscription,
                },
                Action::Reframe(_) => {}
                Action::StartTls(side) => writeln!(self.log, "tls {}", word(side)).unwrap(),
                Action::TakeCredential(_) => writeln!(self.log, "take token").unwrap(),
                Action::Connect => writeln!(self.log, "connect").unwrap(),
                Action::GiveCredential(_) => writeln!(self.log, "=> password").unwrap(),
                Action::Ready => {
                    self.ready = true;
                    writeln!(self.log, "ready").unwrap();
                }
                Action::RegisterCancel(key) => writeln!(
                    self.log,
                    "cancel key {} for {}",
                    key.key.escape_ascii(),
                    key.packet.escape_ascii()
                )
                .unwrap(),
                Action::Cancel(key) => {
                    writeln!(self.log, "cancel {}", key.escape_ascii()).unwrap();
                }
                Action::Close => {
                    self.closed = true;
                    writeln!(self.log, "close").unwrap();
                }
            }
        }
        match self.hidden.first() {
            Some((None, word)) if self.outstanding.is_some() => {
                let verdict = match word.as_slice() {
                    b"approve" => Verdict::Forwarded,
                    _ => Verdict::Refused(refusal()),
                };
                self.hidden.remove(0);
                self.verdict(verdict);
            }
            _ => {}
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        let (first, last, notify, undo) = self.outstanding.take().expect("a submission");
        let forwarded = matches!(verdict, Verdict::Forwarded);
        if undo && forwarded {
            let declared = crate::describe().undo.unwrap();
            writeln!(self.log, "undo {}", show_all(&declared).join("; ")).unwrap();
        }
        let mut rest = VecDeque::new();
        for held in std::mem::take(&mut self.client) {
            match held.seq {
                Some(seq) if (first..=last).contains(&seq) => {
                    if forwarded && !undo {
                        self.send(Side::Client, &held);
                    }
                }
                _ => rest.push_back(held),
            }
        }
        self.client = rest;
        self.flow(Side::Client);
        self.forwarded += u32::from(forwarded);
        if notify || !forwarded {
            self.catch_up();
            let actions = self.session.on_verdict(verdict).unwrap();
            self.note(&actions);
            self.act(actions);
        }
        if self.outstanding.is_none() {
            let hidden = std::mem::take(&mut self.hidden);
            if !hidden.is_empty() {
                self.play(Step::Client(hidden));
            }
        }
    }
}

fn word(side: Side) -> &'static str {
    if side == Side::Client {
        "client"
    } else {
        "upstream"
    }
}

/// All messages that the gateway authored in one go.
fn show_all(bytes: &[u8]) -> Vec<String> {
    cut(bytes)
        .iter()
        .map(|(kind, body)| show(*kind, body))
        .collect()
}

fn cut(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    if bytes.len() == 1 {
        return vec![(None, bytes.to_vec())];
    }
    while let [kind, a, b, c, d, ..] = bytes {
        let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        messages.push(m(*kind, &bytes[5..size]));
        bytes = &bytes[size..];
    }
    assert!(bytes.is_empty(), "authored bytes end within a message");
    messages
}

/// `E 42501 denied`, `Z T`, `Q SELECT 1`: enough to tell messages apart.
fn show(kind: Option<u8>, body: &[u8]) -> String {
    let Some(kind) = kind else {
        return body.escape_ascii().to_string();
    };
    let mut line = char::from(kind).to_string();
    let fields = body
        .split(|byte| *byte == 0)
        .filter(|field| !field.is_empty());
    match kind {
        b'E' | b'N' if body.first() == Some(&b'S') => {
            for field in fields.filter(|field| matches!(field[0], b'C' | b'M')) {
                let field = field[1..].escape_ascii().to_string().replace("\\'", "'");
                write!(line, " {field}").unwrap();
            }
            if body.starts_with(b"SFATAL") {
                line.push_str(" FATAL");
            }
        }
        b'Q' | b'P' | b'C' | b'S' | b'Z' => {
            for field in fields {
                write!(line, " {}", field.escape_ascii()).unwrap();
            }
        }
        _ => {}
    }
    line
}

fn startup(parameters: &[(&str, &str)]) -> Message {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    (None, body)
}

/// Completions apart from the rest: they come once a burst, before it is passed on.
fn apart<'a>(lines: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    lines.iter().partition(|line| line.starts_with("completed"))
}

/// Plays `steps` after a login and compares what happened, whether frames come
/// in bursts or one at a time.
fn check(steps: impl Fn() -> Vec<Step>, expected: &str) {
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    for split in [false, true] {
        let mut host = Host::logged_in();
        host.split = split;
        steps().into_iter().for_each(|step| host.play(step));
        let got: Vec<&str> = host.log.lines().collect();
        assert_eq!(
            apart(&got),
            apart(&expected),
            "split: {split}\n{}",
            host.log
        );
    }
}

proptest! {
    #[test]
    fn any_messages_end_in_a_fault_or_an_answer(
        messages in proptest::collection::vec(
            (
                any::<bool>(),
                proptest::sample::select(&b"QPBDECHSXcdfpFRKZTGN123sInAvW"[..]),
                proptest::collection::vec(proptest::sample::select(&b"\0\0\0SPIT\x01ab"[..]), 0..20),
            ),
            0..40,
        ),
    ) {
        let mut host = Host::logged_in();
        for (from_client, kind, body) in messages {
            let side = if from_client { Side::Client } else { Side::Upstream };
            // Completions are checked against forwards, which a lying target breaks.
            host.forwarded = 1_000_000;
            host.receive(side, vec![m(kind, &body)]);
        }
    }

    #[test]
    fn any_login_ends_in_a_fault_or_an_answer(
        tls in any::<bool>(),
        messages in proptest::collection::vec(
            (
                0..3u8,
                proptest::option::of(proptest::sample::select(&b"RSKZENpXQ"[..])),
                proptest::collection::vec(proptest::sample::select(&b"\0\0\0\x03\x04\x05\x0aSI"[..]), 0..12),
            ),
            0..20,
        ),
    ) {
        let mut host = Host::new(&[("upstream_tls", "off")], tls);
        host.play(Step::Client(vec![startup(&[("user", "agent")])]));
        if tls {
            host.accept();
        }
        for (side, kind, body) in messages {
            let side = if side == 0 { Side::Client } else { Side::Upstream };
            host.receive(side, vec![(kind, body)]);
        }
    }
}
