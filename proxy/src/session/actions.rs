//! Does what the plugin asks. Each action is checked first: a plugin that asks for
//! what has no place ends its session, since nothing else it says can be trusted.

use bytes::Bytes;
use holdpoint_core::framing::{Delivery, Side};
use holdpoint_core::gate::Input;
use holdpoint_core::mask::RowRule;
use holdpoint_core::plugin::{Action, Completion, Submission, Subscribe};

use super::Session;
use super::end::End;
use super::line::LineError;
use crate::crash;

/// The same text, without memory of its own where the client's bytes have it.
fn within(wire: &Bytes, text: Bytes) -> Bytes {
    match memchr::memmem::find(wire, &text) {
        Some(at) => wire.slice(at..at + text.len()),
        None => text,
    }
}

/// What a batch of actions asked for that is done at its end.
#[derive(Default)]
struct Batch {
    completions: Vec<Completion>,
    submission: Option<Box<Submission>>,
    close: bool,
    /// What the plugin wrote to the client last.
    said: Option<Bytes>,
}

impl Session {
    /// Carries out all that the plugin has asked for and not been given.
    pub(super) async fn act(&mut self) -> Result<(), End> {
        while let Some(actions) = self.todo.pop_front() {
            let mut batch = Batch::default();
            for action in actions {
                self.action(action, &mut batch).await?;
            }
            self.settle(batch)?;
        }
        Ok(())
    }

    async fn action(&mut self, action: Action, batch: &mut Batch) -> Result<(), End> {
        if batch.close {
            return Err(End::misbehaved("it asked for more after `close`"));
        }
        match action {
            Action::Pass(seq) => {
                // A Close behind it is the client's own.
                batch.said = None;
                self.pass(seq)
            }
            Action::Drop(seq) => self.drop_frame(seq),
            Action::ToClient(bytes) => {
                batch.said = Some(bytes.clone());
                self.author_client(bytes);
                Ok(())
            }
            Action::ToUpstream(bytes) => self.author_upstream(bytes),
            Action::Submit(submission) => self.submit(submission, batch),
            Action::Completed(completion) => {
                batch.completions.push(completion);
                Ok(())
            }
            Action::Subscribe(subscribe) => self.subscribe(&subscribe),
            Action::Reframe(side, layout) => self.reframe(side, layout),
            Action::Rows(rule) => self.rows(rule),
            // What happens once a session is boxed, so that it does not add to the size
            // of every session for good.
            Action::StartTls(Side::Client) => Box::pin(self.start_client_tls()).await,
            Action::StartTls(Side::Upstream) => Box::pin(self.start_upstream_tls()).await,
            Action::TakeCredential(slot) => self.expect_credential(slot),
            Action::Connect => Box::pin(self.connect()).await,
            Action::GiveCredential(frame) => self.give_credential(&frame),
            Action::Ready => self.get_ready(),
            Action::RegisterCancel { key, packet } => self.register_cancel(key, packet.into()),
            Action::Cancel(key) => self.cancel_other(&key),
            Action::Close => {
                batch.close = true;
                Ok(())
            }
        }
    }

    /// What has to come last: records before commands, answers before questions.
    fn settle(&mut self, batch: Batch) -> Result<(), End> {
        self.commit();
        self.release_client()?;
        for completion in batch.completions {
            crash::point("P6");
            self.feed(Input::Completed(completion))?;
        }
        if let Some(submission) = batch.submission {
            self.judge(*submission)?;
        }
        match (batch.close, batch.said) {
            (false, _) => Ok(()),
            (true, Some(said)) => Err(End::Refused(said)),
            (true, None) => Err(End::Goodbye),
        }
    }

    fn pass(&mut self, seq: u64) -> Result<(), End> {
        match self.upstream_line.pass_through(seq) {
            Ok(()) => self.release_upstream(),
            Err(LineError::Unknown(_)) => {
                if self.undecided.is_some() {
                    return Err(End::misbehaved(
                        "it passed a client's frame past a held command",
                    ));
                }
                self.client_line.pass_one(seq)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn drop_frame(&mut self, seq: u64) -> Result<(), End> {
        match self.upstream_line.drop_one(seq) {
            Ok(()) => self.release_upstream(),
            Err(LineError::Unknown(_)) => self.client_line.drop_one(seq)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) fn author_client(&mut self, bytes: Bytes) {
        let mid_frame = self.upstream_wire.mid_frame();
        self.journal.author(bytes, mid_frame);
    }

    fn author_upstream(&mut self, bytes: Bytes) -> Result<(), End> {
        match (&mut self.upstream, &self.upstream_login) {
            (Some(upstream), Some(login)) => {
                upstream.author(login, bytes);
                Ok(())
            }
            _ => Err(End::misbehaved("it wrote to the target outside of login")),
        }
    }

    fn submit(&mut self, submission: Box<Submission>, batch: &mut Batch) -> Result<(), End> {
        if !self.ready || self.undecided.is_some() || batch.submission.is_some() {
            return Err(End::misbehaved("it submitted a command where none may be"));
        }
        batch.submission = Some(submission);
        Ok(())
    }

    /// Cuts the submission's bytes, once, and puts it before the gate.
    fn judge(&mut self, submission: Submission) -> Result<(), End> {
        let Submission {
            first,
            last,
            mut command,
            notify,
            undo,
        } = submission;
        command.wire = self.client_line.take(first, last)?;
        command.text = within(&command.wire, command.text);
        if undo {
            command.wire = self.undo()?;
        }
        let limit = self.parts.limits.max_command;
        if command.wire.len() > limit as usize {
            return Err(End::TooLarge(limit));
        }
        self.take_over_rules()?;
        let random = self.random.next()?;
        self.undecided = Some(notify);
        self.place.count_command();
        self.feed(Input::Submitted {
            command: Box::new(command),
            random,
        })
    }

    /// What the plugin declared before any client came, and only where it has something
    /// to make good: a client is told that its transaction is over.
    fn undo(&mut self) -> Result<Bytes, End> {
        let declared = self.protocol.descriptor().undo.clone();
        match declared.filter(|_| self.refused) {
            Some(undo) => {
                self.refused = false;
                Ok(undo)
            }
            None => Err(End::misbehaved(
                "it gave up a transaction in which nothing was refused",
            )),
        }
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), End> {
        check_subscription(subscribe)?;
        let wire = match subscribe.side {
            Side::Client => &mut self.client_wire,
            Side::Upstream => &mut self.upstream_wire,
        };
        wire.subscribe(&subscribe.filters, subscribe.otherwise);
        Ok(())
    }

    /// Frames behind the last one that was shown are not cut before this: see
    /// [`super::wire::Wire::guards_rows`]. The first time comes before login is over.
    fn rows(&mut self, rule: RowRule) -> Result<(), End> {
        if self.ready && !self.upstream_wire.guards_rows() {
            return Err(End::misbehaved(
                "it began to mask in the midst of a session",
            ));
        }
        if !self.upstream_wire.rows(rule) {
            return Err(End::misbehaved("it takes frames of another kind for rows"));
        }
        Ok(())
    }

    fn reframe(&mut self, side: Side, layout: holdpoint_core::framing::Layout) -> Result<(), End> {
        let (wire, line) = match side {
            Side::Client => (&mut self.client_wire, &self.client_line),
            Side::Upstream => (&mut self.upstream_wire, &self.upstream_line),
        };
        // After login frames come in batches: what lies behind is cut already.
        if wire.mid_frame() || (self.ready && !line.is_empty()) {
            return Err(End::misbehaved(
                "it changed the layout in the midst of frames",
            ));
        }
        wire.reframe(layout)
            .map_err(|error| End::Misbehaved(error.to_string()))
    }
}

/// Refuses a subscription that would let a judged frame pass unseen.
pub(super) fn check_subscription(subscribe: &Subscribe) -> Result<(), End> {
    let judged = |delivery| {
        let all = &subscribe.filters;
        all.iter()
            .any(|filter| filter.judged && filter.delivery == delivery)
    };
    if judged(Delivery::Pass) {
        return Err(End::misbehaved("it lets a judged kind pass"));
    }
    if subscribe.side == Side::Upstream && judged(Delivery::Whole) {
        return Err(End::misbehaved("it judges what the target sends"));
    }
    Ok(())
}
