//! `holdpoint revoke`: lets somebody in no more, at all nodes.

use std::process::ExitCode;

use clap::Args;

use super::approvals::{login_or, safe};
use super::client::{Client, ServerArgs};
use super::login::Purpose;
use super::runtime;
use crate::api::{Revoke, Revoked};

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The URL of the issuer, as in the tokens
    issuer: String,
    /// Who: the `sub` of the tokens
    subject: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RevokeArgs {
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        login_or(self.revoke())
    }

    /// Exit code 1 where it is not in force, or not for good, everywhere that was seen.
    fn revoke(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server, Purpose::Review)?;
        let whom = Revoke {
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
        };
        let done: Revoked = runtime()?.block_on(client.post("/v1/revoke", &whom))?;
        if self.json {
            println!("{}", serde_json::to_string(&done)?);
        } else {
            let told = |sessions, approvals| {
                format!("{sessions} session(s) cut, {approvals} approval(s) ended")
            };
            println!(
                "{}: revoked; {}",
                safe(&self.subject),
                told(done.sessions, done.approvals)
            );
            for node in done.nodes.iter().filter(|node| node.done) {
                println!(
                    "  node {}: {}",
                    safe(&node.node),
                    told(node.sessions, node.approvals)
                );
            }
        }
        let mut whole = true;
        let there = done.nodes.iter().filter_map(|node| {
            let why = node.warning.as_deref()?;
            Some(format!("node {}: {why}", node.node))
        });
        for warning in done.warning.into_iter().chain(there) {
            eprintln!("warning: {}", safe(&warning));
            whole = false;
        }
        Ok(if whole {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
