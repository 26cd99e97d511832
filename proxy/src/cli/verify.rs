//! `holdpoint verify`: is this journal what was written?

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdpoint_core::display::{escape, escape_line};
use holdpoint_core::record::verify::{Finding, Report};

use crate::recorder::{check_journal, read_verifier};

/// Records between two looks at the clock of the progress line.
const PROGRESS_EVERY: u64 = 20_000;

/// Checks a journal against its checkpoints; needs no running gateway.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The journal's directory.
    pub journal: PathBuf,
    /// The public key or a file that holds it; the journal's own `journal.pub` otherwise.
    #[arg(long, value_name = "KEY|FILE")]
    pub key: Option<String>,
    /// A checkpoint that was kept elsewhere; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was checked and what came of it.
#[derive(Debug, serde::Serialize)]
struct Output<'a> {
    journal: &'a Path,
    key: String,
    /// A gateway was writing meanwhile; what it had not finished was left out.
    live: bool,
    #[serde(flatten)]
    report: &'a Report,
}

impl VerifyArgs {
    /// Exit code 1 if anything is wrong.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let key = read_verifier(self.key.as_deref(), &self.journal)?;
        let terminal = io::stderr().is_terminal() && !self.json;
        let mut shown = false;
        let (report, live) = check_journal(&self.journal, &key, &self.checkpoint, |now| {
            if terminal && now.records.is_multiple_of(PROGRESS_EVERY) {
                shown = true;
                eprint!("\r{} MB of at most {} MB", now.bytes >> 20, now.total >> 20);
            }
        })?;
        if shown {
            eprint!("\r{:40}\r", "");
        }
        let mut out = io::stdout().lock();
        if self.json {
            let output = Output {
                journal: &self.journal,
                key: key.to_string(),
                live,
                report: &report,
            };
            serde_json::to_writer_pretty(&mut out, &output)?;
            writeln!(out)?;
        } else {
            print(&mut out, self, &report, live)?;
        }
        Ok(if report.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn print(out: &mut impl Write, args: &VerifyArgs, report: &Report, live: bool) -> io::Result<()> {
    let counts = &report.counts;
    writeln!(
        out,
        "{}: {} records, {} sessions, {} commands ({} held, {} forwarded under an approval), {} votes",
        args.journal.display(),
        counts.records,
        counts.sessions,
        counts.commands,
        counts.held,
        counts.approved,
        counts.votes,
    )?;
    writeln!(
        out,
        "checked: every record's checksum, place and chain; every session's beginning, end and count; {} checkpoint(s); every forward against its votes",
        counts.checkpoints
    )?;
    writeln!(
        out,
        "head: {} records, root {}",
        counts.records, report.root
    )?;
    if args.key.is_none() {
        writeln!(
            out,
            "note: the key was taken from the journal itself; give one that you kept with --key"
        )?;
    }
    if args.checkpoint.is_empty() {
        writeln!(
            out,
            "note: give a checkpoint that you kept with --checkpoint; without one, whoever holds the node's key could have rewritten everything"
        )?;
    }
    if live {
        writeln!(
            out,
            "note: a gateway is writing to this journal; checked up to now"
        )?;
    }
    if report.uncovered > 0 {
        let uncovered = report.uncovered;
        writeln!(
            out,
            "note: no checkpoint covers the last {uncovered} record(s) yet"
        )?;
    }
    if !report.open.is_empty() {
        writeln!(out, "open: {} session(s)", report.open.len())?;
    }
    for alarm in &report.unknown {
        let session = alarm.session.as_ref().map_or("-", |id| id.as_str());
        writeln!(
            out,
            "unknown: record {}: command {} of session {session} may have run; nobody saw its end",
            alarm.seq, alarm.command
        )?;
    }
    for glass in &report.unreviewed {
        writeln!(
            out,
            "open: record {}: `{}` broke the glass of approval {}, and nobody has reviewed it: {}",
            glass.seq,
            escape(glass.by.as_bytes()),
            glass.approval,
            escape_line(glass.reason.as_bytes())
        )?;
    }
    let hidden = report.unreviewed_count - report.unreviewed.len() as u64;
    if hidden > 0 {
        writeln!(out, "open: and {hidden} more to review")?;
    }
    for taken in &report.taken {
        writeln!(
            out,
            "note: record {}: approval {} is of node `{}`, whose journal has its votes, under key {}",
            taken.seq,
            taken.approval,
            escape_line(taken.from.as_bytes()),
            escape_line(taken.key.as_bytes())
        )?;
    }
    let hidden = report.taken_count - report.taken.len() as u64;
    if hidden > 0 {
        writeln!(out, "note: and {hidden} more of other nodes")?;
    }
    for finding in &report.notes {
        line(out, "note", finding)?;
    }
    let hidden = report.note_count - report.notes.len() as u64;
    if hidden > 0 {
        writeln!(
            out,
            "note: and {hidden} more of what a crash or a full disk left out"
        )?;
    }
    for finding in &report.warnings {
        line(out, "warning", finding)?;
    }
    for finding in &report.errors {
        line(out, "error", finding)?;
    }
    let hidden = report.error_count - report.errors.len() as u64;
    if hidden > 0 {
        writeln!(out, "error: and {hidden} more")?;
    }
    if report.ok {
        writeln!(out, "ok")
    } else {
        writeln!(
            out,
            "this journal is not what was written: {} error(s), the first one above names the first bad record",
            report.error_count
        )
    }
}

fn line(out: &mut impl Write, level: &str, finding: &Finding) -> io::Result<()> {
    write!(out, "{level}: ")?;
    if let Some(seq) = finding.seq {
        write!(out, "record {seq}: ")?;
    }
    write!(out, "{}", escape(finding.message.as_bytes()))?;
    if let Some(session) = &finding.session {
        write!(out, " (session {session})")?;
    }
    if let Some(place) = &finding.place {
        write!(
            out,
            " [{} at byte {}]",
            escape(place.file.as_bytes()),
            place.offset
        )?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use holdpoint_core::record::verify::{Kind, Place, Verifier};

    use super::*;

    #[test]
    fn what_is_not_in_the_journal_is_told_with_its_place() {
        let mut report = Verifier::new(Vec::new()).finish();
        let finding = |message: &str| Finding {
            kind: Kind::Gap,
            message: message.to_owned(),
            place: Some(Place {
                file: "00000001.seg".to_owned(),
                offset: 700,
            }),
            seq: Some(4),
            session: None,
        };
        report
            .warnings
            .push(finding("a loss was accepted: 3 record(s)"));
        report.notes.push(finding("the record is cut off"));
        report.note_count = 3;
        let args = VerifyArgs {
            journal: "journal".into(),
            key: None,
            checkpoint: Vec::new(),
            json: false,
        };
        let mut out = Vec::new();
        print(&mut out, &args, &report, false).unwrap();
        let told = String::from_utf8(out).unwrap();
        for line in [
            "warning: record 4: a loss was accepted: 3 record(s) [00000001.seg at byte 700]\n",
            "note: record 4: the record is cut off [00000001.seg at byte 700]\n",
            "note: and 2 more of what a crash",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }
}
