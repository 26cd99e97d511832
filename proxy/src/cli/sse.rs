//! Reads server-sent events, bounded.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use crate::http_client::Streaming;

/// No event is longer: an approval with a command of some megabytes fits in.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// The gateway says something at least every 15 seconds.
const SILENCE: Duration = Duration::from_secs(50);

/// One event, with the id to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) data: String,
}

/// A connection that events come by.
pub(super) struct EventStream {
    answer: Streaming,
    parser: Parser,
    heard: Instant,
}

impl EventStream {
    pub(super) fn new(answer: Streaming) -> Self {
        Self {
            answer,
            parser: Parser::default(),
            heard: Instant::now(),
        }
    }

    /// The next event; `None` at the end of the stream. May be dropped while it waits.
    ///
    /// # Errors
    /// The connection broke, or nothing came for too long.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.next()? {
                return Ok(Some(event));
            }
            let more = tokio::time::timeout_at(self.heard + SILENCE, self.answer.next()).await;
            self.heard = Instant::now();
            match more.context("the gateway is silent")? {
                Some(bytes) => self.parser.buffer.extend_from_slice(&bytes?),
                None => return Ok(None),
            }
        }
    }
}

#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    /// Of `buffer`, has no line feed in it.
    looked: usize,
    event: Event,
}

impl Parser {
    fn next(&mut self) -> anyhow::Result<Option<Event>> {
        while let Some(end) = self.buffer[self.looked..].iter().position(|b| *b == b'\n') {
            let end = self.looked + end;
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..=end);
            self.looked = 0;
            if let Some(event) = self.line(line.trim_end_matches('\r')) {
                return Ok(Some(event));
            }
        }
        self.looked = self.buffer.len();
        if self.buffer.len() + self.event.data.len() > MAX_EVENT {
            bail!("the gateway sent an event that is too long");
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = Event {
                // An id counts until another comes.
                id: self.event.id.clone(),
                ..Event::default()
            };
            let done = std::mem::replace(&mut self.event, event);
            return (!done.data.is_empty()).then_some(done);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments keep the connection alive.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = b": hello\n\nid: a-1\nevent: reset\ndata: {}\n\nid: a-2\r\nevent: approval\r\ndata: {\"x\":1}\r\n\r\n: alive\n\ndata: y\ndata: z\n\n";
        let event = |id: &str, name: &str, data: &str| Event {
            id: id.to_owned(),
            name: name.to_owned(),
            data: data.to_owned(),
        };
        let all = [
            event("a-1", "reset", "{}"),
            event("a-2", "approval", "{\"x\":1}"),
            event("a-2", "", "y\nz"),
        ];
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                parser.buffer.extend_from_slice(part);
                while let Some(event) = parser.next().unwrap() {
                    seen.push(event);
                }
            }
            assert_eq!(seen, all, "{cut}");
        }
    }
}
