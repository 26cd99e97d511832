//! `holdpoint sessions live`: what is connected now, at all nodes, as the gateway says.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use crate::api::SessionsListed;
use crate::cli::approvals::{login_or, safe};
use crate::cli::client::{Client, ServerArgs};
use crate::cli::login::Purpose;
use crate::cli::runtime;

#[derive(Debug, Args)]
pub(in crate::cli) struct LiveArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl LiveArgs {
    /// Exit code 1 where a node did not answer: the list is not whole.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        login_or(self.list())
    }

    fn list(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server, Purpose::Review)?;
        let listed: SessionsListed = runtime()?.block_on(client.get("/v1/sessions"))?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &listed.sessions)?;
            writeln!(out)?;
        } else {
            for one in &listed.sessions {
                writeln!(
                    out,
                    "{}  {}  {} -> {}  {} command(s)  from {}{}",
                    safe(&one.id),
                    safe(&one.opened_at),
                    safe(&one.principal.label),
                    safe(&one.target),
                    one.commands,
                    safe(&one.source),
                    match &one.node {
                        Some(node) => format!("  at node {}", safe(node)),
                        None => String::new(),
                    }
                )?;
            }
        }
        for node in &listed.missing {
            eprintln!(
                "warning: node {} did not answer: its sessions are missing",
                safe(node)
            );
        }
        Ok(if listed.missing.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
