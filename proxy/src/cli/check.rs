//! `holdpoint check`: open all that the configuration names, bind nothing.
//!
//! Targets are asked what their accounts may do; one that cannot be reached is a warning,
//! since the configuration can be right all the same.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::doctor::account_warnings;
use super::style::Style;
use super::{ConfigArgs, Outcome};
use crate::app;
use crate::cluster;
use crate::recorder::Loss;
use crate::reload::{Candidate, read_config};

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not connect to targets
    #[arg(long)]
    offline: bool,
}

impl CheckArgs {
    pub(crate) fn run(self) -> Outcome {
        let style = Style::stderr();
        let config = read_config(&self.config.config)?;
        let candidate = Candidate::read(&config)?;
        app::examine(&config, Loss::Refuse)?;
        if let Some(store) = &config.store {
            let runtime = super::runtime()?;
            runtime
                .block_on(cluster::check(&config.node, store))
                .context("the store")?;
        }
        println!("{config}");
        let mut warnings = candidate.warnings().to_vec();
        if !self.offline {
            warnings.extend(account_warnings(&config, &candidate.secrets)?);
        }
        for warning in warnings {
            eprintln!("{}: {warning}", style.yellow("warning"));
        }
        eprintln!(
            "{} rules of {} files, version {}; {} plugins, {} certificates, {} secrets",
            style.green("ok:"),
            config.policies.len(),
            candidate.policy.version(),
            candidate.plugins.len(),
            config.listeners.len(),
            candidate.secrets.count(),
        );
        Ok(ExitCode::SUCCESS)
    }
}
