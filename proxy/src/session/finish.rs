//! The end of a session, whatever it came from.
//!
//! Held commands are withdrawn first. Then the client is told, if it can be; what
//! was promised to it still leaves, in order. The record's last line comes when nothing
//! more can happen. Then the client is heard out, so that it reads what it was told.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::gate::Input;
use holdpoint_core::record::{Close, Durability, Entry, NewRecord};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::Session;
use super::end::End;
use super::journal::After;
use super::registry::Place;
use crate::transport::Duplex;

/// For a client that does not read what it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// For a client that is still sending when it is told that the session is over.
const HEAR_OUT: Duration = Duration::from_secs(2);
/// Silence after which nothing more is expected: more than most round trips.
const SILENCE: Duration = Duration::from_millis(250);
/// What it may still send in that time. Thrown away as it comes, so this costs no memory.
const HEARD: usize = 64 << 20;
/// As [`HEARD`], of somebody who has not said yet who it is.
const HEARD_OF_A_STRANGER: usize = 1 << 20;

impl Session {
    pub(super) async fn finish(mut self: Box<Self>, end: End) {
        self.log_end(&end);
        self.todo.clear();
        self.withdraw(&end);
        let no_journal = matches!(end, End::Ledger(_));
        let denial = end.denial();
        let denial = denial.filter(|_| no_journal || !self.upstream_wire.mid_frame());
        let farewell: Option<Bytes> = denial.map(|denial| self.plugin.terminate(&denial).into());
        if let Some(bytes) = farewell.clone().filter(|_| !no_journal) {
            self.author_client(bytes);
        }
        self.commit();
        // Before anything is waited for: the process may not live to the end of it.
        self.journal.hand_over(&*self.parts.ledger);
        if end.is_ours() && timeout(PATIENCE, self.cancel_at_target()).await.is_err() {
            tracing::warn!("the cancel did not reach the target in time");
        }
        if end.blames_plugin() && self.journal.opened {
            let entry = Entry::Plugin {
                message: end.to_string(),
                digest: self.protocol.used().digest,
            };
            self.record(entry, Bytes::new(), Durability::Written, After::Nothing);
        }
        let goodbye = matches!(end, End::Goodbye);
        let told = timeout(PATIENCE, self.keep_promises(goodbye)).await.is_ok();
        if !told {
            tracing::debug!("the client did not take its last bytes in time");
        }
        // That nothing can be recorded is the one thing that is said unrecorded.
        if let Some(bytes) = farewell.filter(|_| no_journal && !self.journal.is_mid_frame()) {
            self.client_out.push(bytes);
            let flush = poll_fn(|cx| self.client_out.poll_flush(cx, &mut self.client));
            let _ = timeout(PATIENCE, flush).await;
        }
        self.close_record(&end).await;
        if let Some(upstream) = self.upstream.take() {
            // What is not out by now stays here, unless the client said goodbye itself.
            if goodbye {
                let _ = timeout(PATIENCE, upstream.close()).await;
            }
        }
        let most = match self.principal {
            Some(_) => HEARD,
            None => HEARD_OF_A_STRANGER,
        };
        let (mut client, place) = self.leave();
        if told && end.denial().is_some() {
            hear_out(&mut client, most).await;
        }
        let _ = timeout(PATIENCE, client.shutdown()).await;
        drop(place);
    }

    /// Gives up all but the connection, and what makes it count among those there are.
    fn leave(self: Box<Self>) -> (Duplex, Place) {
        let Self { client, place, .. } = *self;
        (client, place)
    }

    fn log_end(&self, end: &End) {
        let (reason, cause) = (end.reason(), end);
        let commands = self.gate.as_ref().map_or(0, |gate| gate.submitted());
        match end {
            End::Plugin(_)
            | End::Misbehaved(_)
            | End::Gate(_)
            | End::Ledger(_)
            | End::Random(_) => {
                tracing::error!(reason, %cause, commands, "session over");
            }
            // What an operator has to mend, not the client.
            End::Upstream(_) | End::UpstreamSlow | End::UpstreamProtocol(_) => {
                tracing::warn!(reason, %cause, commands, "session over");
            }
            End::Refused(_) if self.upstream.is_some() && !self.ready => {
                tracing::warn!(reason, %cause, commands, "login at the target failed");
            }
            _ => tracing::info!(reason, %cause, commands, "session over"),
        }
    }

    /// From here on nothing is forwarded.
    fn withdraw(&mut self, end: &End) {
        let now = self.parts.clock.now();
        let Some(gate) = &mut self.gate else { return };
        let reason = end.withdrawal();
        if let Err(error) = gate.input(Input::Withdrawn { reason }, now) {
            tracing::debug!(%error, "nothing to withdraw");
        }
        while let Some(action) = self.gate.as_mut().and_then(|gate| gate.poll()) {
            self.quiet_action(action);
        }
    }

    /// Waits for the records on their way, and writes what they release.
    async fn keep_promises(&mut self, goodbye: bool) {
        self.journal.hand_over(&*self.parts.ledger);
        while !self.journal.is_empty() {
            match poll_fn(|cx| self.journal.poll(cx)).await {
                Ok(After::Client { bytes, .. }) => self.client_out.push(bytes),
                Ok(After::Pass(frames)) if goodbye => {
                    if let Some(upstream) = &mut self.upstream {
                        upstream.pass(frames);
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        while let Some(answer) = self.desk.pop_front() {
            answer.await;
        }
        let _ = poll_fn(|cx| self.client_out.poll_flush(cx, &mut self.client)).await;
    }

    async fn close_record(&mut self, end: &End) {
        if !self.journal.opened {
            return;
        }
        let now = self.parts.clock.now();
        let ledger = &self.parts.ledger;
        let mut commands = 0;
        if let Some(gate) = &mut self.gate {
            for record in gate.close(now) {
                // Answered by what follows: records keep their order.
                drop(ledger.submit(record, Durability::Written));
            }
            commands = gate.submitted();
        }
        let entry = Entry::Close(Close {
            reason: end.reason().to_owned(),
            commands,
            // The writer knows these two, and corrects the first.
            records: 0,
            head: String::new(),
        });
        let session = Some(self.place.id().clone());
        let record = NewRecord {
            session,
            at: now,
            entry,
            blob: Bytes::new(),
        };
        if let Err(error) = ledger.submit(record, Durability::Synced).await {
            tracing::error!(%error, "the session's end is not recorded");
        }
    }
}

/// Reads and throws away what the client still sends, until it closes or is silent.
///
/// A connection that is closed with bytes unread is reset, and a reset takes from the
/// client what it was told last: instead of the reason it would see a network error. Our own
/// side stays open meanwhile: psycopg, for one, looks at nothing that it was told once it
/// finds the end of the stream while it sends.
async fn hear_out(client: &mut Duplex, most: usize) {
    let by = Instant::now() + HEAR_OUT;
    let mut buffer = vec![0; 16 * 1024];
    let mut heard = 0;
    while heard < most {
        let silence = by.min(Instant::now() + SILENCE);
        match timeout_at(silence, client.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => heard += count,
            _ => return,
        }
    }
    tracing::debug!(heard, "the client still sends, and is cut off");
}
