//! `holdpoint serve`: run the gateway.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArgs, Outcome};
use crate::app::App;
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
}

impl ServeArgs {
    pub(crate) fn run(self) -> Outcome {
        telemetry::init(self.log_json);
        let config = self.config.load()?;
        App::build(config, &self.config.config, self.accept_loss)?.run()?;
        Ok(ExitCode::SUCCESS)
    }
}
