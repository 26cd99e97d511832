//! `holdpoint wait`: the agent's loop around a held command.
//!
//! Exit codes: 0 approved, 4 still pending, 5 denied (or revoked), 6 expired
//! (withdrawn or orphaned too: ask again), 3 login needed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use holdpoint_core::display::escape_line;
use holdpoint_core::id::ApprovalId;

use super::approvals::login_or;
use super::client::{Client, ServerArgs};
use super::login::Purpose;
use super::rules::say_why_once;
use crate::api::Status;

/// One call waits no longer; the gateway's own limit is a little higher.
const CALL: Duration = Duration::from_secs(50);

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// The approval that the refusal named, such as `hp-0123456789BC`
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// How long to wait: `100s`, `5m`, `1h`
    #[arg(long, value_name = "TIME", default_value = "100s", value_parser = duration)]
    timeout: Duration,
    /// Say why the command is to run, first; for rules that ask
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl WaitArgs {
    /// # Errors
    /// The gateway cannot be asked, or there is no such approval of the caller's.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        login_or(runtime.block_on(self.wait()))
    }

    async fn wait(&self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.server, Purpose::Connect)?;
        if let Some(text) = &self.because {
            say_why_once(&client, &self.id, text).await?;
        }
        let end = Instant::now() + self.timeout;
        let status = loop {
            let left = end.saturating_duration_since(Instant::now()).min(CALL);
            let path = format!("/v1/approvals/{}/wait?timeout={}", self.id, left.as_secs());
            let status: Status = client.get_slow(&path, left).await?;
            if status.state != "pending" || end <= Instant::now() + Duration::from_secs(1) {
                break status;
            }
        };
        let (code, next) = verdict(&status);
        if self.json {
            println!("{}", serde_json::to_string(&status)?);
        } else {
            println!("{}: {}", self.id, escape_line(status.state.as_bytes()));
            eprintln!("{next}");
        }
        Ok(ExitCode::from(code))
    }
}

fn verdict(status: &Status) -> (u8, String) {
    match status.state.as_str() {
        "approved" => {
            let until = status.usable_until.as_deref().unwrap_or(&status.expires_at);
            (
                0,
                format!("send exactly the same command again; it passes once, until {until}"),
            )
        }
        "used" => (
            0,
            "it was used already: the command was sent on once".to_owned(),
        ),
        "pending" if status.to_justify => (
            4,
            format!(
                "nobody can approve it before you say why: `holdpoint wait {} --because \"REASON\"`",
                status.id
            ),
        ),
        "pending" => (
            4,
            format!(
                "nobody has decided yet; the time ends at {}",
                status.expires_at
            ),
        ),
        "denied" => {
            let reason = status.reason.as_deref().unwrap_or("no reason given");
            (
                5,
                format!(
                    "denied: {}; do something else",
                    escape_line(reason.as_bytes())
                ),
            )
        }
        "revoked" => (5, "access was revoked: ask an operator".to_owned()),
        _ => (
            6,
            "over without a decision; send the command again to ask anew".to_owned(),
        ),
    }
}

/// A whole number and `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as `100s` or `5m`");
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let all = number
        .checked_mul(seconds)
        .filter(|all| *all <= 7 * 86_400)
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_exit_code() {
        let code = |state: &str| {
            let status = Status {
                id: "hp-000000000000".to_owned(),
                state: state.to_owned(),
                reason: None,
                to_justify: false,
                expires_at: String::new(),
                usable_until: None,
            };
            verdict(&status).0
        };
        let states = [
            "approved", "used", "pending", "denied", "revoked", "expired", "orphaned",
        ];
        assert_eq!(states.map(code), [0, 0, 4, 5, 5, 6, 6]);
    }

    #[test]
    fn a_time_has_a_unit_and_an_end() {
        assert_eq!(duration("100s"), Ok(Duration::from_secs(100)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "s", "5 m", "-1s", "1d", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
