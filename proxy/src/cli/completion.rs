//! `holdpoint completion`: scripts for shells, made from the commands themselves.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

#[derive(Debug, Args)]
#[command(after_help = "\
bash: holdpoint completion bash > ~/.local/share/bash-completion/completions/holdpoint
zsh:  holdpoint completion zsh > \"${fpath[1]}/_holdpoint\"
fish: holdpoint completion fish > ~/.config/fish/completions/holdpoint.fish")]
pub(super) struct CompletionArgs {
    shell: Shell,
}

impl CompletionArgs {
    /// # Errors
    /// Nobody reads.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "holdpoint", &mut script);
        // Written by us: `generate` itself panics where a pipe is closed.
        std::io::stdout().lock().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
