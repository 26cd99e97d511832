//! The gateway's services, scripted, and a toy protocol.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use holdpoint_core::Now;
use holdpoint_core::approval::{
    Approval, ClaimError, Clearance, Draft, Reviewer, Verdict as Ballot, Vote,
};
use holdpoint_core::command::{Command, Confidence, Operation};
use holdpoint_core::config::{Limits, OnTokenExpiry, Target, UpstreamTls};
use holdpoint_core::decision::{Decision, Hold, Outcome, Reviewers, Step};
use holdpoint_core::denial::Denial;
use holdpoint_core::framing::{Delivery, Filter, Layout, LengthPrefixed, Side};
use holdpoint_core::gate::{HoldLimits, Opened, Settlement};
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::plugin::{
    Action, AuthError, Completion, CredentialSlot, Descriptor, Exchange, Frame, IdentityOutcome,
    PluginError, Setup, Submission, Subscribe, UpstreamAuth, Verdict,
};
use holdpoint_core::policy::{Ask, Judge};
use holdpoint_core::principal::{Identity, Kind, Principal};
use holdpoint_core::record::{Durability, Entry, NewRecord, PluginUsed};
use holdpoint_core::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::*;
use super::SOON;
use crate::clock::Clock;
use crate::transport::ServerTls;

pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn toy_layout() -> Layout {
    Layout::LengthPrefixed(LengthPrefixed {
        header: 2,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 1,
        little_endian: false,
        adjust: 2,
    })
}

fn filter(kinds: &[u8], delivery: Delivery, judged: bool) -> Filter {
    Filter {
        kinds: kinds.to_vec(),
        delivery,
        judged,
        max_frame: 0,
    }
}

pub(super) fn client_filters() -> Vec<Filter> {
    vec![
        filter(b"Q", Delivery::Whole, true),
        filter(b"ST", Delivery::Whole, false),
        filter(b"D", Delivery::Pass, false),
    ]
}

/// Logs in by the first frame, submits each `Q`, does what an `evil` one says.
struct Toy {
    /// False while it rests.
    awake: Arc<AtomicBool>,
}

impl Instance for Toy {
    fn rest(&mut self, _: Option<&str>) {
        self.awake.store(false, Ordering::SeqCst);
    }

    fn is_awake(&self) -> bool {
        self.awake.load(Ordering::SeqCst)
    }

    fn open(&mut self) -> Result<Vec<Action>, PluginError> {
        self.awake.store(true, Ordering::SeqCst);
        Ok(vec![Action::TakeCredential(CredentialSlot {
            kind: Some(b'T'),
            skip: 0,
            nul_terminated: false,
        })])
    }

    fn on_tls(&mut self, _: Side) -> Result<Vec<Action>, PluginError> {
        Ok(Vec::new())
    }

    fn belongs_to(&mut self, _: Digest) -> Result<(), PluginError> {
        Ok(())
    }

    fn on_frames(&mut self, side: Side, frames: &[Frame]) -> Result<Vec<Action>, PluginError> {
        self.awake.store(true, Ordering::SeqCst);
        let mut out = Vec::new();
        for frame in frames {
            match (side, frame.kind) {
                (Side::Client, Some(b'Q')) if frame.body.starts_with(b"evil ") => {
                    out.push(match &frame.body[5..] {
                        b"pass" => Action::Pass(frame.seq),
                        b"author" => Action::ToUpstream(frame.body.clone()),
                        b"reframe" => Action::Reframe(Side::Client, Layout::Raw),
                        _ => Action::Ready,
                    });
                }
                (Side::Client, Some(b'Q')) if frame.body == "undo" => {
                    let mut submission = submission(frame);
                    submission.undo = true;
                    submission.command.text = Bytes::from_static(b"ok");
                    out.push(Action::Submit(Box::new(submission)));
                }
                (Side::Client, Some(b'Q')) => {
                    out.push(Action::Submit(Box::new(submission(frame))));
                }
                (Side::Client, _) => out.push(Action::Pass(frame.seq)),
                (Side::Upstream, _) => out.extend([
                    Action::Completed(Completion {
                        commands: 1,
                        status: "done".to_owned(),
                        failed: false,
                        rows: None,
                    }),
                    Action::Pass(frame.seq),
                ]),
            }
        }
        // One command at a time, as the interface asks: the rest comes again.
        let submits = |action: &Action| matches!(action, Action::Submit(_));
        if out.iter().filter(|action| submits(action)).count() > 1 {
            unreachable!("tests send one judged frame at a time, or one in each batch");
        }
        Ok(out)
    }

    fn on_identity(&mut self, _: &IdentityOutcome) -> Result<Vec<Action>, PluginError> {
        let welcome = Bytes::from(frame(b'W', b""));
        Ok(vec![
            Action::Connect,
            Action::Ready,
            Action::ToClient(welcome),
        ])
    }

    fn on_verdict(&mut self, verdict: &Verdict) -> Result<Vec<Action>, PluginError> {
        Ok(match verdict {
            Verdict::Forwarded => Vec::new(),
            Verdict::Refused(denial) => {
                vec![Action::ToClient(frame(b'X', denial.code.as_bytes()).into())]
            }
        })
    }

    fn notice(&mut self, _: &str) -> Result<Vec<u8>, PluginError> {
        Ok(Vec::new())
    }

    fn terminate(&mut self, denial: &Denial) -> Vec<u8> {
        frame(b'!', denial.code.as_bytes())
    }
}

fn submission(frame: &Frame) -> Submission {
    let operation = Operation {
        class: "toy".to_owned(),
        effects: Vec::new(),
        objects: Vec::new(),
        functions: Vec::new(),
        unknown_functions: Vec::new(),
        confidence: Confidence::Proven,
        housekeeping: false,
        facts: Vec::new(),
    };
    let command = Command {
        operations: [operation].into(),
        text: frame.body.clone(),
        parameters: Vec::new(),
        secrets: Vec::new(),
        context: Vec::new(),
        in_transaction: false,
        canonical: None,
        reject: None,
        wire: Bytes::new(),
    };
    Submission {
        first: frame.seq,
        last: frame.seq,
        command,
        notify: false,
        undo: false,
    }
}

struct ToyProtocol(Descriptor, Arc<AtomicBool>);

impl Protocol for ToyProtocol {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn used(&self) -> PluginUsed {
        PluginUsed {
            name: "toy".to_owned(),
            version: "0".to_owned(),
            digest: String::new(),
        }
    }

    fn instance(
        &self,
        _: Setup,
        _: Box<dyn UpstreamAuth>,
    ) -> Result<Box<dyn Instance>, PluginError> {
        let awake = Arc::clone(&self.1);
        Ok(Box::new(Toy { awake }))
    }
}

/// Allows `ok`, holds `hold`, denies the rest.
struct Rulebook;

impl Judge for Rulebook {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let outcome = match &ask.command.text {
            text if text.starts_with(b"ok") => Outcome::Allow,
            text if text.starts_with(b"hold") => Outcome::Hold(Hold {
                steps: vec![Step::of(vec![Reviewers::Group("reviewers".to_owned())], 1)],
                expires_in: Duration::from_secs(60),
                reason: None,
                justify: false,
                windows: Vec::new(),
                break_glass: Vec::new(),
                step_up: None,
                webauthn: false,
            }),
            _ => Outcome::Deny { message: None },
        };
        let (rule, policy) = ("toy:rule".to_owned(), "v1".to_owned());
        Decision {
            outcome,
            rule,
            policy,
            monitored: Vec::new(),
        }
    }

    fn protected(&self, _target: &str) -> holdpoint_core::policy::Protected {
        holdpoint_core::policy::Protected::default()
    }

    fn version(&self) -> &str {
        "v1"
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// A journal that a test can block or break.
pub(super) struct FakeLedger {
    records: Mutex<Vec<(Entry, Bytes)>>,
    blocked: watch::Sender<bool>,
    broken: Mutex<bool>,
}

impl FakeLedger {
    pub(super) fn block(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    pub(super) fn fail(&self) {
        *lock(&self.broken) = true;
    }

    pub(super) fn entries(&self) -> Vec<(Entry, Bytes)> {
        lock(&self.records).clone()
    }
}

impl Ledger for FakeLedger {
    fn submit(&self, record: NewRecord, _: Durability) -> Ticket {
        if *lock(&self.broken) {
            return Ticket::Ready(Some(Err(LedgerError("broken on purpose".to_owned()))));
        }
        lock(&self.records).push((record.entry, record.blob));
        let mut blocked = self.blocked.subscribe();
        Ticket::Later(Box::pin(async move {
            let _ = blocked.wait_for(|blocked| !blocked).await;
            Ok(())
        }))
    }
}

struct Doorman;

impl Gatekeeper for Doorman {
    fn connect(&self, token: Secret, now: Now) -> Later<Result<Principal, Denial>> {
        assert_eq!(token.expose(), b"token");
        Box::pin(async move {
            let identity = Identity {
                issuer: "i".to_owned(),
                subject: "agent".to_owned(),
            };
            Ok(Principal {
                identity,
                kind: Kind::Agent,
                label: "agent".to_owned(),
                client_id: None,
                actors: Vec::new(),
                owners: Vec::new(),
                groups: Vec::new(),
                scopes: Vec::new(),
                expires: now.unix() + 3600,
                token: String::new(),
                token_id: None,
                auth_time: None,
            })
        })
    }

    fn is_revoked(&self, _: &Principal) -> bool {
        false
    }
}

/// One approval at a time, settled by the test.
pub(super) struct FakeDesk {
    clock: Clock,
    approval: Mutex<Option<Approval>>,
    settled: Arc<Notify>,
    opened: Notify,
    left: Mutex<bool>,
    /// Whether the session's instance is there, and whether it was at an opening.
    awake: Arc<AtomicBool>,
    pub(super) opened_awake: AtomicBool,
}

impl FakeDesk {
    pub(super) async fn opened(&self) {
        timeout(SOON, self.opened.notified())
            .await
            .expect("nothing was held");
    }

    pub(super) fn left(&self) -> bool {
        *lock(&self.left)
    }

    pub(super) fn approve(&self) {
        let mut approval = lock(&self.approval);
        let approval = approval.as_mut().unwrap();
        let reviewer = Reviewer {
            identity: Identity {
                issuer: "i".to_owned(),
                subject: "rita".to_owned(),
            },
            label: "rita".to_owned(),
            groups: vec!["reviewers".to_owned()],
            on_call: Vec::new(),
            agent: false,
            also: Vec::new(),
            auth_time: None,
        };
        let vote = Vote {
            approval: approval.draft().id.clone(),
            digest: approval.draft().digest,
            verdict: Ballot::Approve,
            reason: None,
            reviewer,
            window: None,
            channel: "test".to_owned(),
            nonce: None,
            assertion: None,
        };
        approval.vote(vote, self.clock.now()).unwrap();
        self.settled.notify_one();
    }
}

impl Desk for FakeDesk {
    fn open(&self, draft: Draft, now: Now) -> Later<(Opened, Option<Waiter>)> {
        let approval = Approval::open(draft, now);
        let opened = Opened::Waiting {
            approval: approval.draft().id.clone(),
            joined: false,
            expires_mono_ns: approval.expires_mono_ns(),
        };
        *lock(&self.approval) = Some(approval);
        let awake = self.awake.load(Ordering::SeqCst);
        self.opened_awake.store(awake, Ordering::SeqCst);
        self.opened.notify_one();
        let settled = Arc::clone(&self.settled);
        let waiter: Waiter = Box::pin(async move {
            settled.notified().await;
            Settlement::Approved
        });
        Box::pin(async move { (opened, Some(waiter)) })
    }

    fn claim(&self, claim: Claim, now: Now) -> Later<Result<Clearance, ClaimError>> {
        let mut approval = lock(&self.approval);
        let claimed =
            approval
                .as_mut()
                .unwrap()
                .claim(&claim.digest, &claim.session, claim.command, now);
        Box::pin(async move { claimed })
    }

    fn leave(&self, _: ApprovalId, _: SessionId, _: bool) -> Later<()> {
        *lock(&self.left) = true;
        Box::pin(async {})
    }
}

struct NoSecrets;

impl Custody for NoSecrets {
    fn password(&self, _: &str) -> Option<Secret> {
        None
    }

    fn auth(&self, _: &str, _: &str) -> Box<dyn UpstreamAuth> {
        Box::new(Self)
    }
}

impl UpstreamAuth for NoSecrets {
    fn username(&self) -> String {
        "account".to_owned()
    }

    fn start(&mut self, _: &str) -> Result<Box<dyn Exchange>, AuthError> {
        Err(AuthError::NoCredential)
    }
}

/// A session that is running, and the test's end of everything around it.
pub(super) struct Scene {
    pub(super) client: DuplexStream,
    pub(super) target: TcpStream,
    pub(super) ledger: Arc<FakeLedger>,
    pub(super) desk: Arc<FakeDesk>,
    pub(super) task: JoinHandle<()>,
}

impl Scene {
    /// Connected to the client and to the target, and logged in.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clock = Clock::new();
        let ledger = Arc::new(FakeLedger {
            records: Mutex::default(),
            blocked: watch::Sender::new(false),
            broken: Mutex::new(false),
        });
        let desk = Arc::new(FakeDesk {
            clock,
            approval: Mutex::default(),
            settled: Arc::default(),
            opened: Notify::new(),
            left: Mutex::new(false),
            awake: Arc::default(),
            opened_awake: AtomicBool::new(true),
        });
        let parts = Arc::new(parts(clock, &ledger, &desk));
        let route = Arc::new(route(listener.local_addr().unwrap().port()));
        let protocol = Arc::new(ToyProtocol(descriptor(), Arc::clone(&desk.awake)));
        let id = SessionId::from_random(7);
        let entered = parts.sessions.enter(id, ("l", "t"), None, 10, clock.now());
        let place = entered.unwrap();
        let (mut client, io) = tokio::io::duplex(1 << 16);
        let accepted = Accepted {
            io: Box::new(io),
            source: None,
            place,
        };
        let mut session = Session::start(parts, route, protocol, accepted)
            .await
            .unwrap();
        // As if the handshake had been: what these tests are about comes after it.
        session.client_tls = true;
        let task = tokio::spawn(session.run());
        client.write_all(&frame(b'T', b"token")).await.unwrap();
        let (target, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        Self {
            client,
            target,
            ledger,
            desk,
            task,
        }
    }

    pub(super) fn is_awake(&self) -> bool {
        self.desk.awake.load(Ordering::SeqCst)
    }

    pub(super) async fn rests(&self) {
        let rests = async {
            while self.is_awake() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, rests).await.expect("it does not rest");
    }

    pub(super) async fn log_in(&mut self) {
        assert_eq!(self.at_client(2).await, frame(b'W', b""));
    }

    pub(super) async fn at_client(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(SOON, self.client.read_exact(&mut bytes))
            .await
            .expect("too little")
            .unwrap();
        bytes
    }

    /// The next bytes that the target gets.
    pub(super) async fn at_target(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        let count = timeout(SOON, self.target.read(&mut bytes))
            .await
            .expect("nothing came")
            .unwrap();
        bytes.truncate(count);
        bytes
    }
}

fn descriptor() -> Descriptor {
    let subscribe = |side, filters, otherwise| Subscribe {
        side,
        filters,
        otherwise,
    };
    Descriptor {
        name: "toy".to_owned(),
        version: "0".to_owned(),
        default_port: None,
        direct_tls_alpn: None,
        client_layout: toy_layout(),
        upstream_layout: toy_layout(),
        subscriptions: vec![
            subscribe(Side::Client, client_filters(), Delivery::Reject),
            subscribe(
                Side::Upstream,
                vec![filter(b"E", Delivery::Whole, false)],
                Delivery::Pass,
            ),
        ],
        classes: ["toy".to_owned()].into(),
        undo: Some(Bytes::from_static(b"undo\n")),
    }
}

fn parts(clock: Clock, ledger: &Arc<FakeLedger>, desk: &Arc<FakeDesk>) -> Parts {
    let judge: Arc<dyn Judge> = Arc::new(Rulebook);
    Parts {
        clock,
        ledger: Arc::clone(ledger) as Arc<dyn Ledger>,
        gatekeeper: Arc::new(Doorman),
        desk: Arc::clone(desk) as Arc<dyn Desk>,
        custody: Arc::new(NoSecrets),
        rules: Arc::new(ArcSwap::from_pointee(judge)),
        sessions: Arc::default(),
        cancels: Arc::default(),
        limits: Limits {
            max_sessions: 10,
            max_sessions_per_principal: 10,
            handshake: SOON,
            max_command: 1000,
            held_ahead: 1000,
            drain: SOON,
        },
        hold: HoldLimits {
            inline_wait_agent: Duration::from_secs(30),
            inline_wait_person: Duration::from_secs(30),
            max_hold: Duration::from_secs(60),
            max_hold_in_transaction: Duration::from_secs(60),
            heartbeat: Duration::from_secs(10),
        },
        clock_skew: Duration::ZERO,
        max_session: Duration::from_secs(600),
        on_token_expiry: OnTokenExpiry::RefuseNewCommands,
        relaxed: false,
        sync_responses: false,
    }
}

fn route(port: u16) -> Route {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = std::env::temp_dir().join(format!("holdpoint-session-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = ServerTls::load(&cert, &key, None).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    Route {
        listener: "l".to_owned(),
        name: "t".to_owned(),
        target: Target {
            protocol: "toy".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            tls: UpstreamTls::Off,
            danger_allow_cleartext: false,
            user: "account".to_owned(),
            password: None,
            tags: Vec::new(),
            owners: Vec::new(),
            settings: Default::default(),
            connect_timeout: SOON,
        },
        tls,
        upstream_tls: None,
    }
}
