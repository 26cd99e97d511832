//! `holdpoint serve`: run the gateway.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArgs, Outcome};
use crate::app::{App, Startup};
use crate::telemetry;

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,
    /// Start although the journal lacks records that a checkpoint covers; the loss is recorded
    #[arg(long)]
    accept_loss: bool,
    /// Take over from the gateway that runs with the same journal: its sockets now,
    /// its journal once it has drained. No connection is refused or lost
    #[arg(long)]
    upgrade: bool,
}

impl ServeArgs {
    pub(crate) fn run(self) -> Outcome {
        telemetry::init(self.log_json);
        let config = self.config.load()?;
        let startup = Startup {
            accept_loss: self.accept_loss,
            upgrade: self.upgrade,
        };
        App::build(config, &self.config.config, startup)?.run()?;
        Ok(ExitCode::SUCCESS)
    }
}
