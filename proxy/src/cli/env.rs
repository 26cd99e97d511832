//! `holdpoint env`: what a client must know to reach a target, for a shell to read.
//!
//! The token is not among it: an environment outlives a token, and every program that is
//! started from it could read it.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use super::approvals::login_or;
use super::client::ServerArgs;
use super::psql::settings;
use super::{Outcome, runtime};

#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    /// The target, as the gateway calls it
    target: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Database to name in the connection (default: the target's)
    #[arg(long)]
    database: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl EnvArgs {
    pub(super) fn run(self) -> Outcome {
        login_or(self.print())
    }

    fn print(self) -> Outcome {
        let settings = settings(&runtime()?, &self.server, &self.target, self.database)?.1;
        if self.json {
            let all: Map<String, Value> = settings
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            println!("{}", Value::Object(all));
            return Ok(ExitCode::SUCCESS);
        }
        for (name, value) in settings {
            println!("export {name}={}", quoted(&value));
        }
        println!("# The password is your token. A client that asks for one gets the output of");
        println!("# `holdpoint token`; for one command: PGPASSWORD=\"$(holdpoint token)\" psql");
        Ok(ExitCode::SUCCESS)
    }
}

/// As one word for a shell, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_word_for_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("$(id)'; rm x"), "'$(id)'\\''; rm x'");
    }
}
