//! `holdpoint psql`: the real psql, told where the gateway is and given a token.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::runtime::Runtime;

use super::approvals::login_or;
use super::client::{Client, ServerArgs};
use super::login::Purpose;
use super::{Outcome, runtime};

#[derive(Args)]
pub(crate) struct PsqlArgs {
    /// The target, as the gateway calls it
    target: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Database to name in the connection (default: the target's)
    #[arg(long)]
    database: Option<String>,
    /// Print the settings instead of running psql; the token is left out
    #[arg(long)]
    print: bool,
    /// Arguments for psql itself
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

impl PsqlArgs {
    pub(crate) fn run(self) -> Outcome {
        login_or(self.exec())
    }

    fn exec(self) -> Outcome {
        let runtime = runtime()?;
        let (client, mut settings) = settings(&runtime, &self.server, &self.target, self.database)?;
        settings.push(("PGAPPNAME", "holdpoint psql".to_owned()));
        if self.print {
            for (name, value) in settings {
                println!("{name}={value}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let program = find_psql().context(
            "`psql` is not on PATH: install PostgreSQL's client (Debian: postgresql-client)",
        )?;
        // In the environment, where `ps` does not show it; psql reads it there.
        let mut command = Command::new(program);
        command
            .args(&self.args)
            .envs(settings)
            .env("PGPASSWORD", runtime.block_on(client.token())?);
        for foreign in [
            "PGSERVICE",
            "PGPASSFILE",
            "PGHOSTADDR",
            "PGOPTIONS",
            "PGREQUIREAUTH",
        ] {
            command.env_remove(foreign);
        }
        Err(anyhow::Error::new(command.exec()).context("cannot run psql"))
    }
}

/// How libpq reaches a target, without the token; and the gateway that said so.
pub(super) fn settings(
    runtime: &Runtime,
    server: &ServerArgs,
    target: &str,
    database: Option<String>,
) -> anyhow::Result<(Client, Vec<(&'static str, String)>)> {
    let client = Client::new(server, Purpose::Connect)?;
    let place = runtime.block_on(client.target(target))?;
    if place.protocol != "postgres" {
        bail!(
            "target `{target}` speaks {}, not PostgreSQL",
            place.protocol
        );
    }
    let ca = match &server.ca {
        Some(path) => std::path::absolute(path)?.display().to_string(),
        None => "system".to_owned(),
    };
    let settings = vec![
        ("PGHOST", place.host),
        ("PGPORT", place.port.to_string()),
        ("PGUSER", "agent".to_owned()),
        ("PGDATABASE", database.unwrap_or_else(|| target.to_owned())),
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGSSLROOTCERT", ca),
    ];
    Ok((client, settings))
}

fn find_psql() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join("psql"))
        .find(|path| path.is_file())
}
