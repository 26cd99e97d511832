//! Delivery: order, attempts, pauses, and what is written down of it.
//!
//! Messages of one approval reach a channel in their order: what settled it waits until what
//! opened it has arrived or was given up, so that a channel can update its own message. Different
//! approvals do not wait for each other.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdpoint_core::id::{ApprovalId, Digest, FieldHasher};
use holdpoint_core::record::{Durability, Entry};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::aside::Aside;
use super::channel::{Letter, Thread};
use super::{Channel, Inbox, Log, Message, Notice};
use crate::approvals::{Approvals, Delivery};
use crate::recorder::now;

/// Attempts at one message, the pauses between them doubling from a second.
const ATTEMPTS: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Attempts under way at one channel; the next ones wait for their turn.
const PER_CHANNEL: usize = 32;

/// Messages that wait at one channel; past it the next ones are given up.
const WAITING: usize = 16_384;

/// Threads after which those of finished approvals are looked for.
const THREADS: usize = 1_024;

/// Delivers what comes out of `inbox` until its senders are gone.
///
/// `public_url` is the base of the links in messages. Called inside of a runtime of
/// ordinary priority, which does what takes locks.
///
/// # Errors
/// The thread that sends them cannot be started.
pub fn spawn(
    mut inbox: Inbox,
    channels: Vec<Channel>,
    public_url: Option<String>,
    approvals: Approvals,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let (aside, main) = (Aside::start()?, Handle::current());
    let lane = |channel: Channel| {
        inbox.log.open(channel.name());
        Lane {
            shared: Arc::new(Shared {
                channel,
                aside: Arc::clone(&aside),
                main: main.clone(),
                turns: Semaphore::new(PER_CHANNEL),
                public_url: public_url.clone(),
                approvals: approvals.clone(),
                log: Arc::clone(&inbox.log),
            }),
            room: Arc::new(Semaphore::new(WAITING)),
            threads: HashMap::new(),
            sweep_at: THREADS,
        }
    };
    let mut lanes: Vec<_> = channels.into_iter().map(lane).collect();
    Ok(tokio::spawn(async move {
        while let Some(notice) = inbox.receiver.recv().await {
            for lane in &mut lanes {
                lane.take(notice.clone());
            }
            inbox.log.handed();
        }
    }))
}

/// One channel, and the approvals that it knows of.
struct Lane {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// By approval, what the message before left behind, once it is through.
    threads: HashMap<ApprovalId, oneshot::Receiver<Thread>>,
    sweep_at: usize,
}

struct Shared {
    channel: Channel,
    /// Where messages are made and sent.
    aside: Arc<Aside>,
    /// Where everything is done that takes a lock which a session may wait for.
    main: Handle,
    turns: Semaphore,
    public_url: Option<String>,
    approvals: Approvals,
    log: Arc<Log>,
}

impl Lane {
    fn take(&mut self, notice: Notice) {
        let shared = Arc::clone(&self.shared);
        shared.log.begun(shared.channel.name());
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            let error = "too many messages wait for this channel";
            tracing::error!(approval.id = %notice.approval, channel = shared.channel.name(), error);
            shared
                .log
                .given_up(&notice, shared.channel.name(), 0, error);
            return;
        };
        let before = self.threads.remove(&notice.approval);
        let (left, after) = oneshot::channel();
        if lives(notice.about.state()) {
            self.threads.insert(notice.approval.clone(), after);
            self.sweep();
        }
        let aside = shared.aside.here.clone();
        aside.spawn(async move {
            let mut thread = match before {
                // An error: that task is gone, and with it what it knew.
                Some(before) => before.await.unwrap_or_default(),
                None => Thread::default(),
            };
            if let Ok(turn) = shared.turns.acquire().await {
                // Thousands may wait for their turn: it takes memory from here on.
                Box::pin(shared.deliver(&notice, &mut thread, turn)).await;
            }
            // Nobody waits where this was the last one.
            let _ = left.send(thread);
            drop(place);
        });
    }

    /// An approval that was used ends without a message.
    fn sweep(&mut self) {
        if self.threads.len() < self.sweep_at {
            return;
        }
        let approvals = &self.shared.approvals;
        self.threads
            .retain(|id, _| approvals.get(id).is_some_and(|view| lives(&view.state)));
        self.sweep_at = (2 * self.threads.len()).max(THREADS);
    }
}

/// Whether more may be told of an approval.
fn lives(state: &str) -> bool {
    matches!(state, "pending" | "approved")
}

impl Shared {
    async fn deliver(
        self: &Arc<Self>,
        notice: &Notice,
        thread: &mut Thread,
        turn: SemaphorePermit<'_>,
    ) {
        let name = self.channel.name();
        let closes = notice.message == Message::Settled;
        if !self.channel.tells(notice.message, thread) {
            let this = Arc::clone(self);
            let dropped = async move { this.log.dropped(this.channel.name()) };
            let _ = self.main.spawn(dropped).await;
            return;
        }
        let letter = Letter {
            id: message_id(notice, name),
            notice,
            public_url: self.public_url.as_deref(),
            wall_ns: now().wall_ns,
        };
        let (mut attempts, mut turn) = (0, Some(turn));
        let (shown, error) = match self.channel.make(&letter, thread) {
            Err(error) => {
                tracing::error!(approval.id = %notice.approval, channel = name, %error, "no message made");
                (Digest::of(b""), Some(error.to_string()))
            }
            Ok(body) => {
                let error = self
                    .attempt((&letter, &body), thread, &mut turn, &mut attempts)
                    .await;
                (Digest::of(&body), error)
            }
        };
        thread.opened |= !closes && !notice.message.follows() && error.is_none();
        thread.closed |= closes && error.is_none();
        let done = Arc::clone(self).book(notice.clone(), shown, attempts, error);
        // An error: the gateway stops.
        let _ = self.main.spawn(done).await;
        // Not before: what is sent and not written down yet must not pile up.
        drop(turn);
    }

    /// Writes down what became of a message.
    async fn book(
        self: Arc<Self>,
        notice: Notice,
        shown: Digest,
        attempts: u32,
        error: Option<String>,
    ) {
        let name = self.channel.name();
        let entry = Entry::Notified {
            approval: notice.approval.clone(),
            channel: name.to_owned(),
            shown,
            accepted: error.is_none(),
        };
        let session = Some(notice.session.clone());
        if let Err(error) = self
            .approvals
            .record(session, entry, Durability::Written)
            .await
        {
            tracing::error!(approval.id = %notice.approval, %error, "a delivery is not in the journal");
        }
        match &error {
            None => self.log.accepted(name),
            Some(error) => self.log.given_up(&notice, name, attempts, error),
        }
        self.report(&notice.approval, notice.message, attempts, error)
            .await;
    }

    /// Sends until it is taken, or there is no sense in trying on. Gives why not.
    async fn attempt<'t>(
        self: &'t Arc<Self>,
        (letter, body): (&Letter<'_>, &bytes::Bytes),
        thread: &mut Thread,
        turn: &mut Option<SemaphorePermit<'t>>,
        attempts: &mut u32,
    ) -> Option<String> {
        let notice = letter.notice;
        let mut pause = Duration::from_secs(1);
        loop {
            *attempts += 1;
            if turn.is_none() {
                *turn = self.turns.acquire().await.ok();
            }
            let Err(error) = self.channel.send(letter, body, thread).await else {
                return None;
            };
            tracing::warn!(
                approval.id = %notice.approval, channel = self.channel.name(), attempts, %error,
                "a message to reviewers was not accepted"
            );
            let text = error.to_string();
            if *attempts >= ATTEMPTS || !error.passing() {
                return Some(text);
            }
            // A pause keeps nobody else waiting.
            *turn = None;
            let (this, so_far) = (Arc::clone(self), *attempts);
            let (id, message) = (notice.approval.clone(), notice.message);
            let told = async move { this.report(&id, message, so_far, Some(text)).await };
            let _ = self.main.spawn(told).await;
            let asked = error.wait().unwrap_or_default();
            tokio::time::sleep(pause.max(asked).min(MAX_PAUSE)).await;
            pause = (pause * 2).min(MAX_PAUSE);
            let (approvals, id) = (self.approvals.clone(), notice.approval.clone());
            let decided = async move { approvals.get(&id).is_none_or(|view| view.is_decided()) };
            let decided = self.main.spawn(decided).await.unwrap_or(true);
            if notice.message.asks() && decided {
                return Some("decided before it could be delivered".to_owned());
            }
        }
    }

    async fn report(
        &self,
        approval: &ApprovalId,
        message: Message,
        attempts: u32,
        error: Option<String>,
    ) {
        let delivery = Delivery {
            channel: self.channel.name().to_owned(),
            message: message.word().to_owned(),
            attempts,
            accepted: error.is_none(),
            error,
        };
        self.approvals.delivered(approval, delivery).await;
    }
}

/// One message to one channel, whatever the attempt. An approval can settle twice, so
/// how it did is part of it.
pub(super) fn message_id(notice: &Notice, channel: &str) -> String {
    let state = match notice.message {
        Message::Settled => notice.about.state(),
        _ => "",
    };
    let mut hasher = FieldHasher::new("holdpoint.message.v2");
    hasher
        .field(notice.approval.as_str().as_bytes())
        .field(notice.message.word().as_bytes())
        .field(state.as_bytes())
        .field(channel.as_bytes());
    format!("msg_{}", &hasher.finish().to_string()[..32])
}

/// The message that opened what `notice` is about.
pub(super) fn opening_id(notice: &Notice, channel: &str) -> String {
    let opening = Notice {
        message: Message::Pending,
        ..notice.clone()
    };
    message_id(&opening, channel)
}
