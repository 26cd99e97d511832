//! The command line, one file a subcommand.
//!
//! Results go to standard output, everything else to standard error, so that
//! output can be piped. Exit codes: 0 done, 1 failed, 2 usage, 3 login needed,
//! 4 still pending, 5 denied, 6 expired.

mod approvals;
mod check;
mod classify;
mod client;
mod completion;
mod demo;
mod doctor;
mod env;
mod login;
mod policy;
mod psql;
mod replay;
mod revoke;
mod rules;
mod serve;
mod sessions;
mod sse;
mod style;
mod token;
mod verify;
mod wait;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use holdpoint_core::config::Config;

/// What holds for all subcommands.
const HELP: &str = "\
Environment (an option wins over its variable):
  HOLDPOINT_CONFIG                  -c: the configuration of the gateway's own commands
  HOLDPOINT_SERVER, HOLDPOINT_CA    --server and --ca: where reviewers' and agents' commands go
  HOLDPOINT_TOKEN_FILE              a file with the token for them, in place of `holdpoint login`
  HOLDPOINT_TOKEN                   the token itself; others on the machine may see it
  HOLDPOINT_CLIENT_ID, HOLDPOINT_CLIENT_SECRET_FILE
                                    an agent's client, for which `holdpoint token` asks the issuer
  HOLDPOINT_HOME                    where logins are kept
  HOLDPOINT_LOG                     what is logged, such as `info` or `holdpoint=debug`

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a login is needed, 4 still pending, 5 denied, 6 expired.";

/// Puts a person's approval between AI agents and infrastructure.
#[derive(Parser)]
#[command(
    name = "holdpoint",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Try everything on this machine: issuer, PostgreSQL, gateway, reviewer
    Demo(demo::DemoArgs),
    /// Read the configuration and open all that it names; bind nothing
    Check(check::CheckArgs),
    /// Look at all that the gateway depends on, and say what to mend
    Doctor(doctor::DoctorArgs),
    /// Say what commands do: JSON lines in, JSON lines out
    Classify(classify::ClassifyArgs),
    /// Test and explain rules, and replay what was recorded
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Sign in, for the commands that follow
    Login(login::LoginArgs),
    /// Remove the tokens of earlier logins from this machine
    Logout(login::LogoutArgs),
    /// Print an access token
    Token(token::TokenArgs),
    /// Print what a client must know to reach a target, for a shell
    Env(env::EnvArgs),
    /// Run psql against a target
    Psql(psql::PsqlArgs),
    /// Wait until a held command is decided
    Wait(wait::WaitArgs),
    /// List and decide what is held
    #[command(subcommand)]
    Approvals(approvals::ApprovalsCommand),
    /// Follow what is held, and ring when something new waits
    Watch(watch::RingArgs),
    /// Read recorded sessions
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// End somebody's access at all nodes; for reviewers
    Revoke(revoke::RevokeArgs),
    /// Check that a journal is whole and unaltered
    Verify(verify::VerifyArgs),
    /// Print a script that lets a shell complete these commands
    Completion(completion::CompletionArgs),
}

/// Which configuration to read.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "holdpoint.toml",
        env = "HOLDPOINT_CONFIG"
    )]
    pub config: PathBuf,
}

impl ConfigArgs {
    /// # Errors
    /// The file cannot be read, others may write it, or it is wrong; the message
    /// shows the place.
    pub fn load(&self) -> anyhow::Result<Config> {
        load(&self.config)
    }
}

fn load(path: &Path) -> anyhow::Result<Config> {
    crate::reload::read_config(path)
}

/// What a subcommand came to.
pub type Outcome = anyhow::Result<ExitCode>;

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::app::install_crypto();
    let outcome = match cli.command {
        Command::Serve(args) => args.run(),
        Command::Demo(args) => args.run(),
        Command::Check(args) => args.run(),
        Command::Doctor(args) => args.run(),
        Command::Classify(args) => args.run(),
        Command::Policy(command) => command.run(),
        Command::Login(args) => args.run(),
        Command::Logout(args) => args.run(),
        Command::Token(args) => args.run(),
        Command::Env(args) => args.run(),
        Command::Psql(args) => args.run(),
        Command::Wait(args) => args.run(),
        Command::Approvals(command) => command.run(),
        Command::Watch(args) => args.run(),
        Command::Sessions(command) => command.run(),
        Command::Revoke(args) => args.run(),
        Command::Verify(args) => args.run(),
        Command::Completion(args) => args.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // A reader that has enough, such as `head`, is no failure of ours.
            if broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            let text = format!("{error:#}");
            // What shows a place in a file says so itself.
            let word = if text.starts_with("error: ") {
                ""
            } else {
                "error: "
            };
            eprintln!("{word}{text}");
            ExitCode::FAILURE
        }
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref().map(std::io::Error::kind);
        let json = cause
            .downcast_ref()
            .and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(std::io::ErrorKind::BrokenPipe)
    })
}

/// A runtime for subcommands that speak to a server.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
