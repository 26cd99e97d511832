//! What became of messages, over all approvals: counts by channel, and the ones given up.
//!
//! Of this process only. The journal has each message's end for good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Notice;
use crate::approvals::rfc3339;
use crate::recorder::now;

/// Given-up messages that are listed; the oldest make room.
const KEPT: usize = 256;

/// One channel's numbers since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelState {
    /// `slack:NAME`, `teams:NAME`, `email:NAME`, `pagerduty:NAME`, or a webhook's name.
    pub channel: String,
    /// Messages that it took.
    pub accepted: u64,
    /// Messages that were given up.
    pub undelivered: u64,
    /// Messages that wait or are being sent.
    pub under_way: u64,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Undelivered {
    pub approval: String,
    /// Absent: it reached no channel, since too many messages waited.
    pub channel: Option<String>,
    /// `approval.pending` or `approval.settled`.
    pub message: String,
    pub attempts: u32,
    pub error: String,
    pub at: String,
}

#[derive(Default)]
pub struct Log(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    channels: BTreeMap<String, ChannelState>,
    undelivered: VecDeque<Undelivered>,
    lost: u64,
    /// Put into the queue, and not handed to the channels yet.
    queued: u64,
}

impl Log {
    /// Each channel's numbers, and what was given up, the newest first.
    pub fn read(&self) -> (Vec<ChannelState>, Vec<Undelivered>) {
        let inner = self.inner();
        (
            inner.channels.values().cloned().collect(),
            inner.undelivered.iter().rev().cloned().collect(),
        )
    }

    /// Accepted and given up, over all channels.
    pub fn totals(&self) -> (u64, u64) {
        let inner = self.inner();
        let each = inner.channels.values();
        each.fold((0, inner.lost), |(accepted, given_up), one| {
            (accepted + one.accepted, given_up + one.undelivered)
        })
    }

    /// Waits until nothing is under way, at most for `patience`: for the end of the process.
    pub async fn idle(&self, patience: Duration) {
        const LOOK: Duration = Duration::from_millis(20);
        let quiet = async {
            while self.is_busy() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(patience, quiet).await.is_err() {
            tracing::warn!("stopping, although reviewers are not told of everything yet");
        }
    }

    fn is_busy(&self) -> bool {
        let inner = self.inner();
        inner.queued > 0 || inner.channels.values().any(|one| one.under_way > 0)
    }

    pub(super) fn queued(&self) {
        self.inner().queued += 1;
    }

    pub(super) fn handed(&self) {
        let mut inner = self.inner();
        inner.queued = inner.queued.saturating_sub(1);
    }

    /// A channel exists, although nothing was sent there yet.
    pub(super) fn open(&self, channel: &str) {
        self.inner().of(channel);
    }

    pub(super) fn begun(&self, channel: &str) {
        self.inner().of(channel).under_way += 1;
    }

    /// Nothing had to be sent after all.
    pub(super) fn dropped(&self, channel: &str) {
        let mut inner = self.inner();
        let state = inner.of(channel);
        state.under_way = state.under_way.saturating_sub(1);
    }

    pub(super) fn accepted(&self, channel: &str) {
        let mut inner = self.inner();
        let state = inner.of(channel);
        state.under_way = state.under_way.saturating_sub(1);
        state.accepted += 1;
    }

    pub(super) fn given_up(&self, notice: &Notice, channel: &str, attempts: u32, error: &str) {
        let mut inner = self.inner();
        let state = inner.of(channel);
        state.under_way = state.under_way.saturating_sub(1);
        state.undelivered += 1;
        inner.keep(notice, Some(channel), attempts, error);
    }

    /// It reached no channel.
    pub(super) fn lost(&self, notice: &Notice) {
        let mut inner = self.inner();
        inner.lost += 1;
        inner.keep(notice, None, 0, "too many messages wait");
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn of(&mut self, channel: &str) -> &mut ChannelState {
        self.channels
            .entry(channel.to_owned())
            .or_insert_with(|| ChannelState {
                channel: channel.to_owned(),
                ..ChannelState::default()
            })
    }

    fn keep(&mut self, notice: &Notice, channel: Option<&str>, attempts: u32, error: &str) {
        if self.undelivered.len() >= KEPT {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back(Undelivered {
            approval: notice.approval.to_string(),
            channel: channel.map(str::to_owned),
            message: notice.message.word().to_owned(),
            attempts,
            error: error.to_owned(),
            at: rfc3339(now().wall_ns),
        });
    }
}
