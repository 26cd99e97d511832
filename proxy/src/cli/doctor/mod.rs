//! `holdpoint doctor`: look at everything that the gateway depends on, and say what to mend.
//!
//! Where `check` asks whether the configuration is right, this asks whether the world is:
//! issuers, targets and what the accounts there may do, disk, limits. It changes nothing,
//! and needs no running gateway.

mod account;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use holdpoint_core::config::Config;
use serde::Serialize;

use super::style::Style;
use super::{ConfigArgs, Outcome, runtime};
use crate::identity::Authenticator;
use crate::recorder;
use crate::reload::{Candidate, read_config};
use crate::secrets::Secrets;
use crate::security_keys::SecurityKeys;

/// The one protocol whose accounts we know how to ask about.
const POSTGRES: &str = "postgres";

#[derive(Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warning,
    Failed,
}

/// What was looked at, and what came of it.
#[derive(Debug, Serialize)]
struct Finding {
    /// `configuration`, `issuer NAME`, `target NAME`, `journal`, `limits`, `security keys`.
    what: String,
    state: State,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, says: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state,
            says: says.into(),
            mend: None,
        }
    }

    fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend = Some(how.into());
        self
    }
}

impl DoctorArgs {
    pub(super) fn run(self) -> Outcome {
        let findings = runtime()?.block_on(look(&self.config.config));
        let failed = findings.iter().any(|one| one.state == State::Failed);
        if self.json {
            let all = serde_json::json!({ "healthy": !failed, "findings": findings });
            println!("{all:#}");
        } else {
            print(&findings);
        }
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn print(findings: &[Finding]) {
    let style = Style::stdout();
    for one in findings {
        let state = match one.state {
            State::Ok => style.green("ok     "),
            State::Warning => style.yellow("warning"),
            State::Failed => style.red("failed "),
        };
        println!("{state} {}: {}", style.bold(&one.what), one.says);
        if let Some(mend) = &one.mend {
            println!("        {}", style.dim(format!("→ {mend}")));
        }
    }
    let count = |state| findings.iter().filter(|one| one.state == state).count();
    let (warnings, failures) = (count(State::Warning), count(State::Failed));
    println!("{warnings} to look at, {failures} to mend");
}

async fn look(file: &Path) -> Vec<Finding> {
    let read = read_config(file).and_then(|config| {
        let candidate = Candidate::read(&config)?;
        Ok((config, candidate))
    });
    let (config, candidate) = match read {
        Ok(read) => read,
        Err(error) => {
            let says = format!("{error:#}");
            return vec![Finding::new("configuration", State::Failed, says)];
        }
    };
    let rules = format!(
        "{} targets, {} listeners, rules {}",
        config.targets.len(),
        config.listeners.len(),
        candidate.policy.version()
    );
    let mut findings = vec![Finding::new("configuration", State::Ok, rules)];
    for warning in candidate.warnings() {
        findings.push(Finding::new("configuration", State::Warning, warning));
    }
    findings.extend(issuers(&config).await);
    for (name, target) in &config.targets {
        if target.protocol == POSTGRES {
            findings.extend(accounts(&config, &candidate.secrets, name).await);
        }
    }
    findings.push(journal(&config));
    findings.push(limits(&config));
    findings.extend(security_keys(&config));
    findings
}

async fn issuers(config: &Config) -> Vec<Finding> {
    if config.identity.issuers.is_empty() {
        return Vec::new();
    }
    let authenticator = match Authenticator::new(&config.identity) {
        Ok(authenticator) => authenticator,
        Err(error) => return vec![Finding::new("issuers", State::Failed, error.to_string())],
    };
    let reports = authenticator.warm().await.into_iter();
    let findings = reports.map(|report| {
        let what = format!("issuer {}", report.name);
        match report.keys {
            Ok(keys) => Finding::new(what, State::Ok, format!("{keys} keys for signatures")),
            Err(why) => Finding::new(what, State::Failed, why)
                .mend("until its keys are here, its tokens are refused: check `issuer`, DNS, `ca`"),
        }
    });
    findings.collect()
}

/// What a target's account may do that no agent needs.
async fn accounts(config: &Config, secrets: &Secrets, name: &str) -> Vec<Finding> {
    let Some(target) = config.targets.get(name) else {
        return Vec::new();
    };
    let what = format!("target {name}");
    let password = secrets.get(name);
    match account::excesses(target, password.as_ref()).await {
        Err(error) => {
            let at = format!("{}:{} as `{}`", target.host, target.port, target.user);
            vec![
                Finding::new(
                    what,
                    State::Failed,
                    format!("cannot log in at {at}: {error:#}"),
                )
                .mend("sessions to it fail the same way"),
            ]
        }
        Ok(excesses) if excesses.is_empty() => {
            let says = format!("the account `{}` may do nothing it should not", target.user);
            vec![Finding::new(what, State::Ok, says)]
        }
        Ok(excesses) => excesses
            .into_iter()
            .map(|excess| Finding::new(&*what, State::Warning, excess.says).mend(excess.mend))
            .collect(),
    }
}

/// The same as warnings of `holdpoint check`.
pub(super) fn account_warnings(config: &Config, secrets: &Secrets) -> anyhow::Result<Vec<String>> {
    let runtime = runtime()?;
    let mut warnings = Vec::new();
    for (name, target) in &config.targets {
        if target.protocol == POSTGRES {
            let findings = runtime.block_on(accounts(config, secrets, name));
            let odd = findings.into_iter().filter(|one| one.state != State::Ok);
            warnings.extend(odd.map(|one| format!("{}: {}", one.what, one.says)));
        }
    }
    Ok(warnings)
}

fn journal(config: &Config) -> Finding {
    let dir = &config.journal.dir;
    // Before the first start it is the directory above that will hold it.
    let there = dir.ancestors().find(|dir| dir.is_dir());
    let space = there.and_then(|dir| rustix::fs::statvfs(dir).ok());
    let Some(space) = space else {
        let says = format!("cannot look at `{}`", dir.display());
        return Finding::new("journal", State::Failed, says);
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let mib = free >> 20;
    let who = match recorder::writer_pid(dir) {
        Some(pid) => format!("process {pid} writes to it"),
        None => "nobody writes to it now".to_owned(),
    };
    let says = format!("`{}`, {mib} MiB free, {who}", dir.display());
    if free < config.journal.segment.saturating_mul(2) {
        return Finding::new("journal", State::Failed, says)
            .mend("without space for the next segment every command is refused");
    }
    Finding::new("journal", State::Ok, says)
}

fn security_keys(config: &Config) -> Vec<Finding> {
    let what = "security keys";
    let Some(rp) = &config.review.webauthn else {
        return Vec::new();
    };
    match SecurityKeys::open(&config.state, rp.clone()) {
        Err(error) => vec![Finding::new(what, State::Failed, error.to_string())],
        Ok(keys) => {
            let each = keys.disputed().into_iter().map(|disputed| {
                Finding::new(what, State::Warning, disputed.to_string())
                    .mend("whose it is not removes it in the console, where it was registered")
            });
            each.collect()
        }
    }
}

fn limits(config: &Config) -> Finding {
    let have = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let sessions = config.limits.max_sessions as u64;
    let says = match have {
        None => "no limit of open files".to_owned(),
        Some(have) => format!("{have} open files for at most {sessions} sessions of two each"),
    };
    if have.is_some_and(|have| have < sessions.saturating_mul(2)) {
        return Finding::new("limits", State::Warning, says).mend(
            "raise the hard limit (`LimitNOFILE=` of systemd), or lower `limits.max_sessions`",
        );
    }
    Finding::new("limits", State::Ok, says)
}
