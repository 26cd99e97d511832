//! `holdpoint sessions kill`: ends a live session through the gateway.

use std::process::ExitCode;

use clap::Args;
use holdpoint_core::id::SessionId;

use crate::api::Killed;
use crate::cli::approvals::login_or;
use crate::cli::client::{Client, ServerArgs};
use crate::cli::login::Purpose;
use crate::cli::runtime;

#[derive(Debug, Args)]
pub(in crate::cli) struct KillArgs {
    /// The session's id, `s-…`.
    session: SessionId,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl KillArgs {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        login_or(self.kill())
    }

    fn kill(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server, Purpose::Review)?;
        let path = format!("/v1/sessions/{}/kill", self.session);
        let killed: Killed = runtime()?.block_on(client.post(&path, &()))?;
        if self.json {
            println!("{}", serde_json::to_string(&killed)?);
        } else {
            println!("{}: its end was asked for", self.session);
        }
        Ok(ExitCode::SUCCESS)
    }
}
