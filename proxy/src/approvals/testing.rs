//! A journal in memory and the usual cast, for tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, Draft, Reviewer, Shown, Verdict, Vote};
use holdpoint_core::config::HoldConfig;
use holdpoint_core::decision::{Hold, Reviewers, Step};
use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
use holdpoint_core::principal::{Identity, Kind, Principal};
use holdpoint_core::record::{Durability, Entry, NewRecord};

use super::view::Times;
use super::{Approvals, Clock, Later, Ledger, NotWritten, View};
use crate::recorder::Head;

/// Keeps entries; may be slow, may fail.
#[derive(Default)]
pub(crate) struct MemoryLedger {
    entries: Mutex<Vec<Entry>>,
    pub(crate) fails: AtomicBool,
    pub(crate) slow: AtomicBool,
}

impl Ledger for MemoryLedger {
    fn write(&self, record: NewRecord, _: Durability) -> Later<'_, Result<(), NotWritten>> {
        Box::pin(async move {
            if self.slow.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
            if self.fails.load(Ordering::SeqCst) {
                return Err(NotWritten("no space left".to_owned()));
            }
            self.entries.lock().unwrap().push(record.entry);
            Ok(())
        })
    }

    fn head(&self) -> Head {
        let size = self.entries.lock().unwrap().len() as u64;
        Head {
            size,
            root: Digest::of(&size.to_be_bytes()),
        }
    }
}

impl MemoryLedger {
    /// The states that an approval was recorded to have reached, in order.
    pub(crate) fn settled(&self, id: &ApprovalId) -> Vec<String> {
        self.all()
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Settled {
                    approval, state, ..
                } if approval == *id => Some(state),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }
}

/// A clock that is set by hand.
#[derive(Clone, Default)]
pub(crate) struct Hands(Arc<AtomicU64>);

impl Hands {
    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Now {
        let mono_ns = 1 + self.0.load(Ordering::SeqCst);
        Now {
            wall_ns: 1_700_000_000_000_000_000 + mono_ns,
            mono_ns,
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        let this = self.clone();
        Arc::new(move || this.now())
    }
}

pub(crate) struct Desk {
    pub(crate) approvals: Approvals,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) hands: Hands,
}

pub(crate) fn config() -> HoldConfig {
    HoldConfig {
        inline_wait_agent: Duration::from_secs(45),
        inline_wait_person: Duration::from_secs(300),
        max_hold: Duration::from_secs(1_800),
        max_hold_in_transaction: Duration::from_secs(60),
        heartbeat: Duration::from_secs(15),
        grant_ttl: Duration::from_secs(600),
        deny_cooldown: Duration::from_secs(300),
        max_pending_per_principal: 3,
        max_pending: 5,
    }
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: HoldConfig) -> Self {
        let (ledger, hands) = (Arc::new(MemoryLedger::default()), Hands::default());
        let approvals = Approvals::new(config, ledger.clone(), hands.clock(), None);
        Self {
            approvals,
            ledger,
            hands,
        }
    }
}

pub(crate) fn identity(subject: &str) -> Identity {
    Identity {
        issuer: "https://issuer.example".to_owned(),
        subject: subject.to_owned(),
    }
}

pub(crate) fn principal(subject: &str) -> Principal {
    Principal {
        identity: identity(subject),
        kind: Kind::Agent,
        label: subject.to_owned(),
        client_id: None,
        actors: Vec::new(),
        owners: vec![identity("olivia")],
        groups: Vec::new(),
        scopes: Vec::new(),
        expires: u64::MAX,
        token: "00".to_owned(),
        token_id: None,
        auth_time: None,
    }
}

/// `session` and `command` make it distinct; the same `text` by the same agent
/// has the same digest.
pub(crate) fn draft(agent: &str, text: &str, session: u128) -> Draft {
    Draft {
        id: ApprovalId::from_random(session),
        digest: Digest::of(format!("{agent}/{text}").as_bytes()),
        session: SessionId::from_random(session),
        command: CommandId(1),
        target: "shop".to_owned(),
        principal: principal(agent).into(),
        hold: Hold {
            steps: vec![Step::of(vec![Reviewers::Group("dba".to_owned())], 1)],
            expires_in: Duration::from_secs(60),
            reason: None,
            justify: false,
            windows: Vec::new(),
            break_glass: Vec::new(),
            step_up: None,
            webauthn: false,
        },
        rule: "prod:ddl".to_owned(),
        policy: "p1".to_owned(),
        shown: Shown {
            text: text.into(),
            parameters: Vec::new(),
            context: Vec::new(),
            class: "ddl".to_owned(),
            effects: Vec::new(),
            objects: Vec::new(),
            proven: true,
            in_transaction: false,
        },
    }
}

pub(crate) fn reviewer(subject: &str) -> Reviewer {
    Reviewer {
        identity: identity(subject),
        label: subject.to_owned(),
        groups: vec!["dba".to_owned()],
        on_call: Vec::new(),
        agent: false,
        also: Vec::new(),
        auth_time: None,
    }
}

pub(crate) fn vote(draft: &Draft, subject: &str, verdict: Verdict) -> Vote {
    Vote {
        approval: draft.id.clone(),
        digest: draft.digest,
        verdict,
        reason: (verdict == Verdict::Deny).then(|| "no".to_owned()),
        window: None,
        reviewer: reviewer(subject),
        channel: "api".to_owned(),
        nonce: None,
        assertion: None,
    }
}

/// What the world sees of one that was just opened.
pub(crate) fn view(draft: &Draft) -> View {
    let now = Hands::default().now();
    let times = Times::opened(now, draft.hold.expires_in);
    let approval = Approval::open(draft.clone(), now);
    View::of(
        &approval,
        times,
        1,
        &[],
        None,
        MemoryLedger::default().head(),
    )
}
