//! Lets the plugin see what has arrived.

use holdpoint_core::framing::{Rule, Side};
use holdpoint_core::record::{Durability, Entry};

use super::Session;
use super::end::End;
use super::journal::After;
use super::line::Chunk;
use crate::upstream::Unjudged;

/// Frames in one call of the plugin, after login. Before, one at a time: each may
/// change how the bytes behind it are to be cut.
const BATCH: usize = 256;

impl Session {
    /// Goes on until nothing is left that could be shown now.
    pub(super) async fn show(&mut self) -> Result<(), End> {
        loop {
            let upstream = self.show_upstream()?;
            if upstream {
                self.act().await?;
            }
            let client = self.show_client().await?;
            if client {
                self.act().await?;
            }
            if !upstream && !client {
                return Ok(());
            }
        }
    }

    /// Client frames are looked at: nothing is undecided. While the gateway stops,
    /// only what still runs at the target may need more of the client.
    pub(super) fn shows_client(&self) -> bool {
        let gate = self.gate.as_ref();
        let answered = gate.is_some_and(|gate| gate.submitted() > 0 && gate.outstanding() == 0);
        let stopping = answered && self.place.is_draining();
        let idle = gate.is_none_or(|gate| gate.idle());
        idle && self.undecided.is_none() && !stopping
    }

    async fn show_client(&mut self) -> Result<bool, End> {
        if self.slot.is_some() {
            return Box::pin(self.take_credential()).await;
        }
        if !self.shows_client() || self.client_wire.len() == 0 {
            return Ok(false);
        }
        let limit = self.parts.limits.max_command;
        if self.client_line.bytes() > limit as usize {
            let waits = self
                .gate
                .as_ref()
                .is_some_and(|gate| gate.outstanding() > 0);
            return if waits {
                Ok(false)
            } else {
                Err(End::TooLarge(limit))
            };
        }
        let most = if self.ready { BATCH } else { 1 };
        let burst = self
            .client_wire
            .cut(most)
            .map_err(|error| self.client_error(error))?;
        let Some(burst) = burst else { return Ok(false) };
        let frames = self.client_line.push(burst, &mut self.seq);
        if frames.is_empty() {
            self.release_client()?;
        } else {
            let actions = self.plugin.on_frames(Side::Client, &frames)?;
            self.todo.push_back(actions);
        }
        Ok(true)
    }

    fn client_error(&self, error: super::wire::WireError) -> End {
        use holdpoint_core::framing::FramingError;
        match error {
            super::wire::WireError::Framing(
                FramingError::Large { limit, .. } | FramingError::Endless { limit },
            ) => End::TooLarge(limit),
            other => End::Protocol(other.to_string()),
        }
    }

    fn show_upstream(&mut self) -> Result<bool, End> {
        if self.upstream_wire.len() == 0 {
            return Ok(false);
        }
        // What a frame says of the rows behind it counts before they are cut.
        let guarded = self.upstream_wire.guards_rows();
        let most = if self.ready && !guarded { BATCH } else { 1 };
        let burst = self
            .upstream_wire
            .cut(most)
            .map_err(End::UpstreamProtocol)?;
        let Some(burst) = burst else { return Ok(false) };
        // What the target said before is no command's answer.
        if self.ready
            && let Some(gate) = &mut self.gate
        {
            gate.responded(burst.bytes.len() as u64);
        }
        let frames = self.upstream_line.push(burst, &mut self.seq);
        self.release_upstream();
        if !self.upstream_wire.mid_frame() {
            self.journal.frame_ended();
        }
        if frames.is_empty() {
            self.commit();
        } else {
            let actions = self.plugin.on_frames(Side::Upstream, &frames)?;
            self.todo.push_back(actions);
        }
        let most = self.parts.limits.max_command as usize * 2 + BATCH * 1024;
        if self.upstream_line.bytes() > most {
            return Err(End::misbehaved(
                "it holds back too much of the target's answer",
            ));
        }
        Ok(true)
    }

    /// Moves what the plugin has let go on to the client's side.
    pub(super) fn release_upstream(&mut self) {
        while let Some(released) = self.upstream_line.release() {
            self.journal.respond(released.chunk);
        }
    }

    /// Records what may go to the target without a permit; it leaves after that.
    pub(super) fn release_client(&mut self) -> Result<(), End> {
        if self.undecided.is_some() {
            return Ok(());
        }
        while let Some(released) = self.client_line.release() {
            self.pass_on(released.rule, &released.chunk)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, rule: Rule, chunk: &Chunk) -> Result<(), End> {
        if self.upstream.is_none() || !self.journal.opened {
            return Err(End::misbehaved(
                "it passed a client's frame before there was a target",
            ));
        }
        let bytes = chunk.bytes();
        let frames = Unjudged::new(rule, bytes.clone())
            .ok_or_else(|| End::misbehaved("it passed a frame of a judged kind"))?;
        self.record(
            Entry::Passed,
            bytes,
            Durability::Written,
            After::Pass(frames),
        );
        Ok(())
    }
}
