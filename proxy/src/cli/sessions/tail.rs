//! `holdpoint sessions tail`: what is going on now, read from the journal as it grows.
//!
//! It begins at the journal's end; with a session, at that session's beginning. A record
//! shows when it is in the file, which is before the command it tells of is sent.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::record::{Entry, frame};
use serde_json::json;

use super::{Paint, Seen, flat, lines, told, utc};
use crate::recorder::Reader;

/// Between looks at a journal that has not grown.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(in crate::cli) struct TailArgs {
    /// The journal's directory.
    journal: PathBuf,
    /// Only this session, from its beginning; ends with it.
    session: Option<SessionId>,
    /// From the journal's beginning.
    #[arg(long)]
    all: bool,
    /// Print JSON, one record a line, without bytes of the wire.
    #[arg(long)]
    json: bool,
}

/// What was learned from the records so far.
#[derive(Default)]
struct Known {
    /// Who is at work where, by session.
    who: HashMap<SessionId, String>,
    of_approval: HashMap<ApprovalId, SessionId>,
}

impl TailArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut reader = Reader::open(&self.journal)?;
        let mut known = Known::default();
        let mut shows = self.all || self.session.is_some();
        loop {
            while let Some(raw) = reader
                .next_record()
                .context("reading stops here; `holdpoint verify` tells more")?
            {
                let frame = frame::decode(raw.bytes)
                    .with_context(|| format!("`{}` at byte {}", raw.file, raw.offset))?;
                let entry = frame.entry().ok();
                let seen = Seen {
                    seq: frame.seq,
                    session: frame.session.as_ref(),
                    at: frame.at,
                    entry: entry.as_ref(),
                    meta: frame.meta,
                    blob: frame.blob,
                };
                let session = known.learn(&seen);
                let wanted = match &self.session {
                    None => true,
                    Some(only) => session.as_ref() == Some(only),
                };
                if shows && wanted {
                    // Locked for one record: nothing else is printed, but a reader may go away.
                    self.print(&mut io::stdout().lock(), &seen, session.as_ref(), &known)?;
                    if self.session.is_some() && matches!(seen.entry, Some(Entry::Close(_))) {
                        return Ok(());
                    }
                }
                if matches!(seen.entry, Some(Entry::Close(_)))
                    && let Some(session) = &session
                {
                    known.forget(session);
                }
            }
            shows = true;
            std::thread::sleep(LOOK);
            reader.again()?;
        }
    }

    fn print(
        &self,
        out: &mut impl Write,
        seen: &Seen<'_>,
        session: Option<&SessionId>,
        known: &Known,
    ) -> anyhow::Result<()> {
        let at = utc(seen.at.wall_ns)?;
        if self.json {
            let entry: serde_json::Value = serde_json::from_slice(seen.meta)?;
            let line = json!({ "seq": seen.seq, "at": at, "session": session, "entry": entry });
            writeln!(out, "{line}")?;
            out.flush()?;
            return Ok(());
        }
        let Some((tone, head, body)) = seen.entry.and_then(|entry| told(entry, seen.blob)) else {
            return Ok(());
        };
        // Answers of the target would drown the rest.
        if matches!(
            seen.entry,
            Some(Entry::Response | Entry::Authored { .. } | Entry::Passed)
        ) {
            return Ok(());
        }
        let paint = Paint(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        let who = session
            .and_then(|session| known.who.get(session))
            .map_or("-", String::as_str);
        writeln!(out, "{at}  {who}  {}", paint.with(tone, &head))?;
        for line in lines(&body).lines() {
            writeln!(out, "{:22}{line}", "")?;
        }
        out.flush()?;
        Ok(())
    }
}

impl Known {
    /// Gives the session that a record is about.
    fn learn(&mut self, seen: &Seen<'_>) -> Option<SessionId> {
        let session = seen.session.cloned();
        match (seen.entry, &session) {
            (Some(Entry::Open(open)), Some(session)) => {
                let who = format!("{} on {}", flat(&open.principal.label), flat(&open.target));
                self.who.insert(session.clone(), who);
            }
            (Some(Entry::Hold(draft)), Some(session)) => {
                self.of_approval.insert(draft.id.clone(), session.clone());
            }
            _ => {}
        }
        if session.is_some() {
            return session;
        }
        let entry = seen.entry?;
        if let Entry::Killed { session, .. } = entry {
            return Some(session.clone());
        }
        let approval = entry.approval()?;
        self.of_approval.get(approval).cloned()
    }

    fn forget(&mut self, session: &SessionId) {
        self.who.remove(session);
        self.of_approval.retain(|_, of| of != session);
    }
}
