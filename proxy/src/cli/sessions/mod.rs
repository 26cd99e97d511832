//! `holdpoint sessions`: what was done and what is going on, read from the journal, and
//! (`kill`) the end of a live session, through the gateway.
//!
//! Everything that an agent, a target or a reviewer chose is escaped before it
//! reaches a terminal.

mod export;
mod kill;
mod tail;

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use holdpoint_core::Now;
use holdpoint_core::approval::Verdict;
use holdpoint_core::decision::Outcome;
use holdpoint_core::display::escape;
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::record::{Entry, Open, frame};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::recorder::Reader;

#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// All sessions, oldest first.
    List(ListArgs),
    /// One session's records, one a line.
    Show(ShowArgs),
    /// One session as it went: commands, decisions, approvals and answers.
    Replay(ShowArgs),
    /// Records as JSON lines, for other programs.
    Export(export::ExportArgs),
    /// What is going on now.
    Tail(tail::TailArgs),
    /// End a live session; for reviewers.
    Kill(kill::KillArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The journal's directory.
    pub journal: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The journal's directory.
    pub journal: PathBuf,
    /// The session's id, `s-…`.
    pub session: SessionId,
    /// Print JSON, one record a line; bytes of the wire in hex as `blob`.
    #[arg(long)]
    pub json: bool,
}

/// One line of `sessions list`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub session: SessionId,
    /// RFC 3339, UTC.
    pub opened: String,
    pub seconds: f64,
    pub principal: String,
    pub subject: String,
    pub target: String,
    pub source: String,
    pub commands: u64,
    pub held: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Why it ended; absent while it is open.
    pub closed: Option<String>,
}

/// One record, as `sessions show --json` prints it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    seq: u64,
    at: String,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a SessionId>,
    entry: serde_json::Value,
    #[serde(skip_serializing_if = "str::is_empty")]
    blob: &'a str,
}

impl SessionsCommand {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout();
        match self {
            Self::List(args) => list(&mut out, args)?,
            Self::Show(args) => show(&mut out, args)?,
            Self::Replay(args) if args.json => show(&mut out, args)?,
            Self::Replay(args) => replay(&mut out, args)?,
            Self::Export(args) => args.run()?,
            Self::Tail(args) => args.run()?,
            Self::Kill(args) => return args.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads the sessions of a journal, oldest first.
pub(super) fn summaries(journal: &Path) -> anyhow::Result<Vec<Summary>> {
    let mut all: Vec<(Summary, u64)> = Vec::new();
    let mut by_id: HashMap<SessionId, usize> = HashMap::new();
    each(journal, |seq| {
        let Some(id) = seq.session else { return Ok(()) };
        if let Some(Entry::Open(open)) = seq.entry {
            by_id.insert(id.clone(), all.len());
            all.push((Summary::new(id, open, seq.at)?, seq.at.wall_ns));
        }
        let Some((summary, opened)) = by_id.get(id).and_then(|at| all.get_mut(*at)) else {
            return Ok(());
        };
        summary.seconds = seconds(seq.at.wall_ns, *opened);
        match seq.entry {
            Some(Entry::Command(_)) => summary.commands += 1,
            Some(Entry::Hold(_) | Entry::Joined { .. }) => summary.held += 1,
            Some(Entry::Refused { .. }) => summary.refused += 1,
            Some(Entry::Unknown { .. }) => summary.unknown += 1,
            Some(Entry::Close(close)) => summary.closed = Some(close.reason.clone()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(all.into_iter().map(|(summary, _)| summary).collect())
}

impl Summary {
    fn new(id: &SessionId, open: &Open, at: Now) -> anyhow::Result<Self> {
        Ok(Self {
            session: id.clone(),
            opened: utc(at.wall_ns)?,
            seconds: 0.0,
            principal: open.principal.label.clone(),
            subject: open.principal.identity.subject.clone(),
            target: open.target.clone(),
            source: open.source.clone(),
            commands: 0,
            held: 0,
            refused: 0,
            unknown: 0,
            closed: None,
        })
    }
}

fn list(out: &mut impl Write, args: &ListArgs) -> anyhow::Result<()> {
    let all = summaries(&args.journal)?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
        return Ok(());
    }
    for one in &all {
        write!(
            out,
            "{}  {}  {:>8.1}s  {} -> {}  {} command(s)",
            one.session,
            one.opened,
            one.seconds,
            flat(&one.principal),
            flat(&one.target),
            one.commands
        )?;
        for (count, what) in [
            (one.held, "held"),
            (one.refused, "refused"),
            (one.unknown, "unknown"),
        ] {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        match &one.closed {
            Some(reason) => writeln!(out, "  ended: {}", flat(reason))?,
            None => writeln!(out, "  open")?,
        }
    }
    Ok(())
}

fn show(out: &mut impl Write, args: &ShowArgs) -> anyhow::Result<()> {
    of_session(args, |record, since| {
        let blob = hex::encode(record.blob);
        if args.json {
            let line = Line {
                seq: record.seq,
                at: utc(record.at.wall_ns)?,
                seconds: since,
                session: record.session,
                entry: serde_json::from_slice(record.meta)?,
                blob: &blob,
            };
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)?;
            return Ok(());
        }
        let meta = String::from_utf8_lossy(record.meta);
        write!(out, "{:>8} {since:>+10.3}s {}", record.seq, flat(&meta))?;
        if !record.blob.is_empty() {
            write!(out, " + {} bytes", record.blob.len())?;
        }
        writeln!(out)?;
        Ok(())
    })
}

fn replay(out: &mut impl Write, args: &ShowArgs) -> anyhow::Result<()> {
    let paint = Paint(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    of_session(args, |record, since| {
        let Some(entry) = record.entry else {
            writeln!(
                out,
                "{since:>+10.3}s  (a newer holdpoint wrote this record)"
            )?;
            return Ok(());
        };
        if let Some((colour, head, body)) = told(entry, record.blob) {
            writeln!(out, "{since:>+10.3}s  {}", paint.with(colour, &head))?;
            for line in body.lines() {
                writeln!(out, "{:13}{line}", "")?;
            }
        }
        Ok(())
    })
}

/// ANSI colours, on a terminal only.
struct Paint(bool);

impl Paint {
    fn with(&self, colour: &str, text: &str) -> String {
        if self.0 && !colour.is_empty() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const PLAIN: &str = "";

/// Colour, headline and text of one record; `None` for what only machines need.
fn told(entry: &Entry, blob: &[u8]) -> Option<(&'static str, String, String)> {
    let none = String::new();
    let told = match entry {
        Entry::Open(open) => (
            BOLD,
            format!(
                "{} opens a session on `{}` from {}",
                flat(&open.principal.label),
                flat(&open.target),
                flat(&open.source)
            ),
            none,
        ),
        Entry::Command(command) => {
            let (colour, verdict) = match &command.decision.outcome {
                Outcome::Allow => (GREEN, "allowed"),
                Outcome::Hold(_) => (YELLOW, "held"),
                Outcome::Deny { .. } => (RED, "denied"),
            };
            let head = format!(
                "command {} ({}) {verdict} by `{}`",
                command.id,
                flat(&command.class),
                flat(&command.decision.rule)
            );
            let mut body = command.text.clone();
            for parameter in &command.parameters {
                body.push('\n');
                body.push_str(parameter);
            }
            // Escaped when it was recorded; again, in case the record lies.
            (colour, head, lines(&body))
        }
        Entry::Hold(draft) => (
            YELLOW,
            format!(
                "approval {} asked for: {} of the reviewers of `{}`",
                draft.id,
                draft.hold.quorum,
                flat(&draft.rule)
            ),
            draft.hold.reason.as_deref().map(lines).unwrap_or_default(),
        ),
        Entry::Joined { command, approval } => (
            YELLOW,
            format!("command {command} joins approval {approval}"),
            none,
        ),
        Entry::Notified {
            approval,
            channel,
            accepted,
            ..
        } => {
            let took = if *accepted {
                "was told of"
            } else {
                "could not be told of"
            };
            (
                PLAIN,
                format!("`{}` {took} {approval}", flat(channel)),
                none,
            )
        }
        Entry::Vote { vote, refused } => {
            let (colour, verdict) = match vote.verdict {
                Verdict::Approve => (GREEN, "approves"),
                Verdict::Deny => (RED, "denies"),
            };
            let mut head = format!("{} {verdict} {}", flat(&vote.reviewer.label), vote.approval);
            if let Some(why) = refused {
                head = format!("{head} (not counted: {})", flat(why));
            }
            (
                colour,
                head,
                vote.reason.as_deref().map(lines).unwrap_or_default(),
            )
        }
        Entry::Settled {
            approval,
            state,
            reason,
            ..
        } => {
            let colour = if state == "approved" { GREEN } else { RED };
            let body = reason.as_deref().map(lines).unwrap_or_default();
            (
                colour,
                format!("approval {approval} is {}", flat(state)),
                body,
            )
        }
        Entry::Forward {
            command, approval, ..
        } => (
            GREEN,
            format!("command {command} goes forward under {approval}"),
            none,
        ),
        Entry::Refused { command, denial } => (
            RED,
            format!("command {command} was not executed: {}", flat(&denial.code)),
            lines(&denial.message),
        ),
        Entry::Response => (PLAIN, format!("answer, {} bytes", blob.len()), escape(blob)),
        Entry::Completed {
            commands,
            status,
            failed,
            rows,
            ..
        } => {
            let ids: Vec<_> = commands.iter().map(ToString::to_string).collect();
            let rows = rows
                .map(|rows| format!(", {rows} row(s)"))
                .unwrap_or_default();
            let colour = if *failed { RED } else { PLAIN };
            let head = format!("command {} ended: {}{rows}", ids.join(", "), flat(status));
            (colour, head, none)
        }
        Entry::Authored { to } => (
            PLAIN,
            format!(
                "the gateway writes {} bytes to the {}",
                blob.len(),
                flat(to)
            ),
            escape(blob),
        ),
        Entry::Plugin { message, .. } => (RED, format!("plugin: {}", flat(message)), none),
        Entry::Unknown { command, .. } => (
            RED,
            format!("command {command} may have run: its end was never seen"),
            none,
        ),
        Entry::Close(close) => (
            BOLD,
            format!(
                "closed ({}), {} command(s)",
                flat(&close.reason),
                close.commands
            ),
            none,
        ),
        Entry::Killed { session, by } => (
            RED,
            format!("{} ends session {session}", flat(&by.subject)),
            none,
        ),
        Entry::Passed
        | Entry::Start(_)
        | Entry::Stop { .. }
        | Entry::Reload { .. }
        | Entry::Gap { .. }
        | Entry::Revoked { .. } => return None,
    };
    Some(told)
}

/// One record as the commands above see it.
struct Seen<'a> {
    seq: u64,
    session: Option<&'a SessionId>,
    at: Now,
    /// `None` for what this version does not know.
    entry: Option<&'a Entry>,
    meta: &'a [u8],
    blob: &'a [u8],
}

/// The records of a session, and those of its approvals wherever they stand.
fn of_session(
    args: &ShowArgs,
    mut each_one: impl FnMut(&Seen<'_>, f64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut approvals: HashSet<ApprovalId> = HashSet::new();
    let mut opened = None;
    each(&args.journal, |record| {
        let killed = matches!(record.entry,
            Some(Entry::Killed { session, .. }) if *session == args.session);
        let own = killed || record.session == Some(&args.session);
        if own && let Some(Entry::Hold(draft)) = record.entry {
            approvals.insert(draft.id.clone());
        }
        if own && let Some(Entry::Joined { approval, .. }) = record.entry {
            approvals.insert(approval.clone());
        }
        let about = match record.entry {
            Some(Entry::Vote { vote, .. }) => Some(&vote.approval),
            Some(Entry::Settled { approval, .. } | Entry::Notified { approval, .. }) => {
                Some(approval)
            }
            _ => None,
        };
        if !own && !about.is_some_and(|approval| approvals.contains(approval)) {
            return Ok(());
        }
        let opened = *opened.get_or_insert(record.at.wall_ns);
        each_one(record, seconds(record.at.wall_ns, opened))
    })?;
    if opened.is_none() {
        bail!(
            "journal `{}` has no session {}; `holdpoint sessions list` names those it has",
            args.journal.display(),
            args.session
        );
    }
    Ok(())
}

fn each(
    journal: &Path,
    mut each_one: impl FnMut(&Seen<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = Reader::open(journal)?;
    while let Some(raw) = reader
        .next_record()
        .context("reading stops here; `holdpoint verify` tells more")?
    {
        let frame = frame::decode(raw.bytes)
            .with_context(|| format!("`{}` at byte {}", raw.file, raw.offset))?;
        let entry = frame.entry().ok();
        each_one(&Seen {
            seq: frame.seq,
            session: frame.session.as_ref(),
            at: frame.at,
            entry: entry.as_ref(),
            meta: frame.meta,
            blob: frame.blob,
        })?;
    }
    Ok(())
}

/// One line: also line feeds and tabs become visible.
fn flat(text: &str) -> String {
    escape(text.as_bytes())
        .replace('\n', "\\u{a}")
        .replace('\t', "\\u{9}")
}

/// Text that may have lines of its own. Escapes what could move or hide text
/// and leaves backslashes alone, so that what was escaped before stays as it is.
fn lines(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\\' => "\\".to_owned(),
            c => escape(c.encode_utf8(&mut [0; 4]).as_bytes()),
        })
        .collect()
}

fn seconds(at: u64, since: u64) -> f64 {
    at.saturating_sub(since) as f64 / 1e9
}

fn utc(wall_ns: u64) -> anyhow::Result<String> {
    let seconds = i64::try_from(wall_ns / 1_000_000_000)?;
    Ok(OffsetDateTime::from_unix_timestamp(seconds)?.format(&Rfc3339)?)
}
