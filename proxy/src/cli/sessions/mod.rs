//! `holdpoint sessions`: what was done and what is going on, read from the journal, and
//! (`kill`) the end of a live session, through the gateway.
//!
//! Everything that an agent, a target or a reviewer chose is escaped before it
//! reaches a terminal.

mod export;
mod kill;
mod live;
mod tail;

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use holdpoint_core::id::SessionId;
use serde::Serialize;

use crate::recorder::Reader;
use crate::telling::{self, Seen, Tone, flat, lines, summaries, told, utc};

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
    /// Live sessions of all nodes, as the gateway says; for reviewers.
    Live(live::LiveArgs),
    /// End a live session, at whichever node; for reviewers.
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
            Self::Live(args) => return args.run(),
            Self::Kill(args) => return args.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(out: &mut impl Write, args: &ListArgs) -> anyhow::Result<()> {
    let all = summaries(Reader::open(&args.journal)?)?;
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
        if let Some((tone, head, body)) = told(entry, record.blob) {
            writeln!(out, "{since:>+10.3}s  {}", paint.with(tone, &head))?;
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
    fn with(&self, tone: Tone, text: &str) -> String {
        let colour = match tone {
            _ if !self.0 => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Head => "1",
            Tone::Good => "32",
            Tone::Waits => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }
}

/// The records of a session and of its approvals.
fn of_session(
    args: &ShowArgs,
    each_one: impl FnMut(&Seen<'_>, f64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if !telling::of_session(Reader::open(&args.journal)?, &args.session, each_one)? {
        bail!(
            "journal `{}` has no session {}; `holdpoint sessions list` names those it has",
            args.journal.display(),
            args.session
        );
    }
    Ok(())
}

/// Every record.
fn each(
    journal: &Path,
    each_one: impl FnMut(&Seen<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    telling::each(Reader::open(journal)?, each_one)
}
