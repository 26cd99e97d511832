//! What a session waits for.

use std::future::{Future as _, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use holdpoint_core::gate::{Gate, Settlement};
use tokio::time::Instant;

use super::Session;
use super::drive::Answer;
use super::journal::After;
use super::parts::LedgerError;
use super::signals::Signal;

/// Bytes on their way to one side above which the other side is not read.
const WINDOW: usize = 1 << 20;

/// How long nothing is shown to a plugin before its instance is given up. Longer than most
/// clients think between commands that belong together: waking costs a login's calls again.
/// Not much longer, since of thousands that log in one after the other all that are awake
/// at the same time leave holes in memory once they rest.
const QUIET: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 1_000 });

/// When to look whether the session has gone quiet, and the last frame seen when that was
/// looked at before. Each command would move a deadline, so none does.
pub(super) struct Quiet {
    at: Option<Instant>,
    seq: u64,
}

impl Quiet {
    pub(super) fn from(now: Instant) -> Self {
        Self {
            at: Some(now + QUIET),
            seq: 0,
        }
    }
}

pub(super) enum Event {
    Signal(Signal),
    Recorded(Result<After, LedgerError>),
    Desk(Answer),
    Settled(Settlement),
    /// So many commands are with the kernel, whole.
    Sent(usize),
    ClientBroke(io::Error),
    UpstreamBroke(io::Error),
    /// 0 bytes: the client left.
    Client(usize),
    Upstream(usize),
    Time,
}

impl Session {
    /// The next thing that happens. Nothing is lost by dropping it.
    pub(super) async fn next(&mut self) -> Event {
        self.journal.hand_over(&*self.parts.ledger);
        // Before its approval is opened: thousands may come at once, and their instances
        // need not all be there at the same time.
        if self.gate.as_ref().is_some_and(Gate::holds) {
            self.rest();
        }
        self.set_timer();
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Thousands of commands may be held at once, each for minutes, and thousands of
    /// sessions may be open of which nothing is heard.
    pub(super) fn rest(&mut self) {
        if self.plugin.is_awake() {
            let now = self.parts.clock.now();
            let heartbeat = self.gate.as_ref().and_then(|gate| gate.heartbeat(now));
            self.plugin.rest(heartbeat.as_deref());
        }
        // A heartbeat takes some of this again.
        self.journal.rest();
        self.client_line.rest();
        self.client_out.rest();
        self.upstream_line.rest();
        if let Some(upstream) = &mut self.upstream {
            upstream.rest();
        }
        if let Some(gate) = &mut self.gate {
            gate.rest();
        }
        self.todo.shrink_to_fit();
        self.desk.shrink_to_fit();
        self.random.rest();
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(signal) = self.place.signals().poll_hear(cx) {
            return Poll::Ready(Event::Signal(signal));
        }
        if let Poll::Ready(answer) = self.journal.poll(cx) {
            return Poll::Ready(Event::Recorded(answer));
        }
        if let Some(first) = self.desk.front_mut()
            && let Poll::Ready(answer) = first.as_mut().poll(cx)
        {
            self.desk.pop_front();
            return Poll::Ready(Event::Desk(answer));
        }
        if let Some(waiter) = &mut self.waiter
            && let Poll::Ready(settlement) = waiter.as_mut().poll(cx)
        {
            self.waiter = None;
            return Poll::Ready(Event::Settled(settlement));
        }
        if let Some(upstream) = &mut self.upstream {
            match upstream.poll_flush(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Event::UpstreamBroke(error)),
                Poll::Ready(Ok(())) => {
                    let sent = upstream.sent();
                    if sent > 0 {
                        return Poll::Ready(Event::Sent(sent));
                    }
                }
                Poll::Pending => {}
            }
        }
        if !self.client_out.is_empty()
            && let Poll::Ready(Err(error)) = self.client_out.poll_flush(cx, &mut self.client)
        {
            return Poll::Ready(Event::ClientBroke(error));
        }
        if self.reads_upstream()
            && let Some(upstream) = &mut self.upstream
            && let Poll::Ready(read) = self.upstream_wire.poll_read(cx, upstream.io())
        {
            return Poll::Ready(read.map_or_else(Event::UpstreamBroke, Event::Upstream));
        }
        if self.reads_client()
            && let Poll::Ready(read) = self.client_wire.poll_read(cx, &mut self.client)
        {
            return Poll::Ready(read.map_or_else(Event::ClientBroke, Event::Client));
        }
        self.timer.as_mut().poll(cx).map(|()| Event::Time)
    }

    fn reads_upstream(&self) -> bool {
        self.client_out.len() + self.journal.bytes() < WINDOW
    }

    /// While a command is undecided the client is read only to notice that it leaves;
    /// what else it sends is kept, up to a bound.
    fn reads_client(&self) -> bool {
        if !self.ready || !self.shows_client() {
            return self.client_wire.len() < self.parts.limits.held_ahead.max(1);
        }
        let backlog = self
            .upstream
            .as_ref()
            .map_or(0, |upstream| upstream.backlog());
        backlog < WINDOW && self.client_line.bytes() <= self.parts.limits.max_command as usize
    }

    /// The earliest of all deadlines.
    fn set_timer(&mut self) {
        let clock = self.parts.clock;
        let gate = self.gate.as_ref().and_then(|gate| gate.deadline());
        let gate = gate.map(|at| clock.instant(at));
        let handshake = (!self.ready).then_some(self.handshake_by);
        let begun = self.gate.as_ref().is_some_and(|gate| gate.submitted() > 0);
        let drain = self.drain_by.filter(|_| !begun);
        let quiet = self
            .quiet
            .at
            .filter(|_| self.ready && self.plugin.is_awake());
        let next = [gate, handshake, self.over_by, drain, quiet];
        let next = next.into_iter().flatten().min();
        // A session has an end once it is ready, so there is always one.
        let next = next.unwrap_or(self.handshake_by);
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
    }

    /// Rests once nothing was shown to the plugin for [`QUIET`].
    pub(super) fn rest_if_quiet(&mut self) {
        if !self.ready || !self.is_past(self.quiet.at) {
            return;
        }
        if self.quiet.seq == self.seq {
            self.rest();
            // Not again of one that cannot rest.
            self.quiet.at = self.quiet.at.filter(|_| !self.plugin.is_awake());
        } else {
            self.quiet.seq = self.seq;
            self.quiet.at = Some(Instant::now() + QUIET);
        }
    }

    pub(super) fn is_past(&self, deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|at| Instant::now() >= at)
    }
}
