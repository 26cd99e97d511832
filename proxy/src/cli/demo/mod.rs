//! `holdpoint demo`: the whole product on loopback, in a directory of its own.
//!
//! A real PostgreSQL, the gateway as its own process with the development
//! issuer, and a receiver of the webhooks that reviewers get. Prints what to
//! type; with `--auto` it plays agent and reviewer itself and fails if any
//! step is not as promised.

mod auto;
mod files;
mod gateway;
mod ports;
mod postgres;
mod receiver;
mod redis;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Outcome;
use super::style::Style;
use files::Files;
use gateway::Gateway;
use postgres::Postgres;
use receiver::Receiver;
use redis::Redis;

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Play agent and reviewer, check each step, and exit non-zero if one fails
    #[arg(long)]
    auto: bool,
    /// Use and keep this directory (default: a temporary one, removed at the end)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Gateways that share a Redis: what one holds is approved through the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    nodes: u8,
}

impl DemoArgs {
    pub(crate) fn run(self) -> Outcome {
        let runtime = super::runtime()?;
        runtime.block_on(self.play())
    }

    async fn play(self) -> Outcome {
        let style = Style::stdout();
        let place = Place::new(self.dir.as_deref())?;
        say("starting PostgreSQL, the gateway and the development issuer …");
        let postgres = Postgres::start(place.path())?;
        let receiver = Receiver::start().await?;
        let redis = match self.nodes {
            1 => None,
            _ => Some(Redis::start(place.path())?),
        };
        let mut all = Files::write(place.path(), &postgres, &receiver, redis.as_ref())?;
        let files = all.remove(0);
        let other = all.pop();
        let mut gateway = Gateway::start(&files).await?;
        Gateway::tokens(&files).await?;
        let mut second = match &other {
            Some(files) => Some(Gateway::start(files).await?),
            None => None,
        };

        let passed = if self.auto {
            auto::play(
                &files,
                other.as_ref(),
                &postgres,
                &receiver,
                &mut gateway,
                style,
            )
            .await
        } else {
            print_help(&files, other.as_ref(), &place, style);
            receiver.print_as_they_come(style);
            wait_for_interrupt(&mut gateway).await
        };
        // In order: sessions end before their target does.
        let mut stopped = gateway.stop().await;
        if let Some(second) = &mut second {
            stopped = stopped.and(second.stop().await);
        }
        drop((postgres, redis));
        match (passed, stopped) {
            (Ok(()), Ok(())) => {}
            (Err(error), _) | (_, Err(error)) => {
                for files in [Some(&files), other.as_ref()].into_iter().flatten() {
                    if let Some(log) = tail(&files.gateway_log) {
                        eprintln!("the end of the gateway's log:\n{log}");
                    }
                }
                return Err(error);
            }
        }
        if place.kept {
            say(&format!(
                "kept: {} (the journal is {})",
                place.path().display(),
                files.journal.display()
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn wait_for_interrupt(gateway: &mut Gateway) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        status = gateway.ended() => bail!("the gateway ended by itself: {status}"),
    }
    say("stopping …");
    Ok(())
}

fn print_help(files: &Files, other: Option<&Files>, place: &Place, style: Style) {
    let holdpoint = files.program.display();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "
{ready}

{one}
  export HOLDPOINT_SERVER={server} HOLDPOINT_CA={ca}
  export HOLDPOINT_TOKEN_FILE={agent}
  {holdpoint} psql shop -- -c 'SELECT * FROM invoices'
  {holdpoint} psql shop -- -c 'DROP TABLE invoices'

  The first is a read and passes. The second waits on its open connection.

{two}
  export HOLDPOINT_SERVER={server}
  export HOLDPOINT_TOKEN_FILE={token}
  {holdpoint} approvals list
  {holdpoint} approvals approve ID      # or: approvals deny ID --reason 'not today'

{three}
  {holdpoint} sessions list {journal}
  {holdpoint} verify {journal}

Directory: {dir}{kept}
Webhooks to reviewers are printed here as they come. Ctrl-C ends the demo.",
        ready = style.bold("Ready."),
        one = style.bold("In one terminal, as the agent:"),
        two = style.bold("In a second terminal, as the reviewer:"),
        three = style.bold("What was recorded:"),
        server = files.admin_url(),
        ca = files.ca.display(),
        agent = files.agent_token.display(),
        token = files.reviewer_token.display(),
        journal = files.journal.display(),
        dir = place.path().display(),
        kept = if place.kept {
            ""
        } else {
            " (removed at the end; --dir keeps it)"
        },
    );
    if let Some(other) = other {
        let _ = writeln!(
            out,
            "
{two}
  export HOLDPOINT_SERVER={server}
  export HOLDPOINT_TOKEN_FILE={token}
  {holdpoint} approvals list
The first node holds the command, and the vote goes to it; each has its own journal.",
            two = style
                .bold("Or as the reviewer at the second node, which shows and decides the same:"),
            server = other.admin_url(),
            token = other.reviewer_token.display(),
        );
    }
    if !std::io::stdout().is_terminal() {
        let _ = out.flush();
    }
}

fn say(text: &str) {
    eprintln!("demo: {text}");
}

fn tail(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(30);
    Some(lines[from..].join("\n"))
}

/// The demo's directory.
struct Place {
    path: PathBuf,
    kept: bool,
}

impl Place {
    fn new(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let (path, kept) = match wanted {
            Some(dir) => {
                let path = std::path::absolute(dir)?;
                if path
                    .read_dir()
                    .is_ok_and(|mut entries| entries.next().is_some())
                {
                    bail!(
                        "`{}` is not empty: name a directory that is, or one that does not exist",
                        path.display()
                    );
                }
                (path, true)
            }
            None => {
                let mut random = [0; 6];
                getrandom::fill(&mut random).context("no randomness")?;
                (
                    std::env::temp_dir().join(format!("holdpoint-demo-{}", hex::encode(random))),
                    false,
                )
            }
        };
        // PostgreSQL runs as another user when we are root and must pass through.
        fs::DirBuilder::new()
            .mode(0o711)
            .recursive(true)
            .create(&path)
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        Ok(Self { path, kept })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
