//! `holdpoint sessions export`: records as JSON lines, for other programs.
//!
//! Bytes of the wire are text (`body`) where they are UTF-8, base64 (`body_b64`) where
//! they are not. Without a session every record is written, those of no session too. Nothing is
//! verified here; `holdpoint verify` does that.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use holdpoint_core::id::SessionId;
use serde::Serialize;

use super::{Seen, ShowArgs, each, of_session, utc};

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The journal's directory.
    journal: PathBuf,
    /// Only this session, with what concerns its approvals.
    session: Option<SessionId>,
    /// Write to a new file, which nobody else may read.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    at: String,
    wall_ns: u64,
    session: Option<&'a SessionId>,
    entry: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_b64: Option<String>,
}

impl ExportArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match &self.output {
            None => self.write(&mut BufWriter::new(io::stdout().lock())),
            Some(path) => {
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .with_context(|| format!("cannot make `{}`", path.display()))?;
                let mut out = BufWriter::new(file);
                self.write(&mut out)?;
                out.into_inner()
                    .map_err(io::IntoInnerError::into_error)?
                    .sync_all()?;
                Ok(())
            }
        }
    }

    fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        match &self.session {
            None => each(&self.journal, |record| line(out, record))?,
            Some(session) => {
                let args = ShowArgs {
                    journal: self.journal.clone(),
                    session: session.clone(),
                    json: true,
                };
                of_session(&args, |record, _| line(out, record))?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

fn line(out: &mut impl Write, record: &Seen<'_>) -> anyhow::Result<()> {
    let (body, body_b64) = match std::str::from_utf8(record.blob) {
        Ok("") => (None, None),
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(record.blob))),
    };
    let line = Line {
        seq: record.seq,
        at: utc(record.at.wall_ns)?,
        wall_ns: record.at.wall_ns,
        session: record.session,
        entry: serde_json::from_slice(record.meta)
            .with_context(|| format!("record {} is no JSON", record.seq))?,
        body,
        body_b64,
    };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)?;
    Ok(())
}
