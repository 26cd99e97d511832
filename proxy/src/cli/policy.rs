//! `holdpoint policy`: how rules change safely.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use holdpoint_core::command::Command;
use holdpoint_core::decision::{Hold, Outcome as Decided, Reviewers};
use holdpoint_core::policy::{Ask, CaseFile, Explanation, Policy, Said, run_cases};
use holdpoint_core::principal::Kind;
use holdpoint_core::source::Span;
use holdpoint_host::Plugin;

use super::classify::ordinary_agent;
use super::replay::ReplayArgs;
use super::style::Style;
use super::{ConfigArgs, Outcome};
use crate::plugins::{configured, shipped};
use crate::reload::{read_rules, read_text};

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run the cases beside the rules
    Test(TestArgs),
    /// Say why a command is decided as it is
    Explain(ExplainArgs),
    /// Judge what was recorded by other rules, and say what would change
    Replay(ReplayArgs),
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Case files (default: all in policies/tests)
    cases: Vec<PathBuf>,
    /// Rule files, in place of those that the case files name
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Print each case
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The command's text, such as a SQL statement
    text: String,
    #[command(flatten)]
    config: ConfigArgs,
    /// Rule file, in place of a configuration; may be given again
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// The protocol plugin, with --policy
    #[arg(long, default_value = "postgres")]
    plugin: String,
    /// A group of whoever asks; may be given again [default: holdpoint-agents]
    #[arg(long)]
    group: Vec<String>,
    /// A person asks, not an agent
    #[arg(long)]
    person: bool,
    /// The target [default: the only one of the configuration]
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// A tag of the target, beside those of the configuration; may be given again
    #[arg(long)]
    tag: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PolicyCommand {
    pub(crate) fn run(self) -> Outcome {
        match self {
            Self::Test(args) => args.run(),
            Self::Explain(args) => args.run(),
            Self::Replay(args) => args.run(),
        }
    }
}

impl TestArgs {
    fn run(self) -> Outcome {
        let style = Style::stdout();
        let cases = if self.cases.is_empty() {
            beside_the_rules()?
        } else {
            self.cases.clone()
        };
        // Loaded when the first case needs one.
        let mut plugins: BTreeMap<String, Plugin> = BTreeMap::new();
        let mut classify =
            |protocol: &str, fields: &[(String, Vec<u8>)]| -> Result<Command, String> {
                if !plugins.contains_key(protocol) {
                    let plugin = shipped(protocol).map_err(|error| error.to_string())?;
                    plugins.insert(protocol.to_owned(), plugin);
                }
                plugins[protocol]
                    .classify(fields)
                    .map_err(|error| error.to_string())
            };
        let (mut passed, mut failed) = (0, 0);
        for path in &cases {
            let file = CaseFile::parse(&read_text(path)?, &path.display().to_string())?;
            let policy = self.rules_for(path, &file)?;
            for result in run_cases(&policy, &file, &mut classify) {
                match result.failure {
                    None => {
                        passed += 1;
                        if self.verbose {
                            println!("{} {}", style.green("ok    "), result.name);
                        }
                    }
                    Some(why) => {
                        failed += 1;
                        println!(
                            "{} {}: {}",
                            style.red("FAILED"),
                            path.display(),
                            result.name
                        );
                        println!("       {why}");
                    }
                }
            }
        }
        println!("{passed} passed, {failed} failed");
        if passed + failed == 0 {
            bail!("no case was found");
        }
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn rules_for(&self, path: &Path, file: &CaseFile) -> anyhow::Result<Policy> {
        let beside = path.parent().unwrap_or(Path::new("."));
        let rules: Vec<_> = if self.policy.is_empty() {
            file.policies.iter().map(|name| beside.join(name)).collect()
        } else {
            self.policy.clone()
        };
        if rules.is_empty() {
            bail!(
                "`{}` names no `policies`, and no --policy was given",
                path.display()
            );
        }
        read_rules(&rules, &BTreeMap::new())
    }
}

fn beside_the_rules() -> anyhow::Result<Vec<PathBuf>> {
    let place = Path::new("policies/tests");
    let entries = place.read_dir().with_context(|| {
        format!(
            "no case file was given, and `{}` cannot be read",
            place.display()
        )
    })?;
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    found.sort();
    Ok(found)
}

/// What a command is judged by.
struct Judged {
    rules: Policy,
    plugin: Plugin,
    target: String,
    tags: Vec<String>,
    /// Of the target, for the plugin.
    settings: BTreeMap<String, String>,
    /// No decision may take longer; absent where no configuration says.
    max_hold: Option<Duration>,
}

impl ExplainArgs {
    /// The rules of `--policy` alone, for a target of any name.
    fn of_files(&self) -> anyhow::Result<Judged> {
        Ok(Judged {
            rules: read_rules(&self.policy, &BTreeMap::new())?,
            plugin: shipped(&self.plugin)?,
            target: self.target.clone().unwrap_or_else(|| "target".to_owned()),
            tags: self.tag.clone(),
            settings: BTreeMap::new(),
            max_hold: None,
        })
    }

    /// What a gateway with the configuration would judge by.
    fn of_config(&self) -> anyhow::Result<Judged> {
        let config = self
            .config
            .load()
            .context("no rules: give a configuration with -c, or rule files with --policy")?;
        let names = || {
            let names: Vec<_> = config.targets.keys().map(String::as_str).collect();
            names.join(", ")
        };
        let found = match &self.target {
            Some(name) => config.targets.get_key_value(name),
            None if config.targets.len() == 1 => config.targets.first_key_value(),
            None => bail!("which target? give one with --target: {}", names()),
        };
        let Some((name, target)) = found else {
            bail!("there is no such target; there is {}", names());
        };
        Ok(Judged {
            rules: read_rules(&config.policies, &config.issuer_names())?,
            plugin: configured(&target.protocol, &config)?,
            target: name.clone(),
            tags: target.tags.iter().chain(&self.tag).cloned().collect(),
            settings: target.settings.clone(),
            max_hold: Some(config.hold.max_hold),
        })
    }

    fn run(self) -> Outcome {
        let judged = if self.policy.is_empty() {
            self.of_config()?
        } else {
            self.of_files()?
        };
        let Judged {
            rules,
            plugin,
            target,
            tags,
            settings,
            max_hold,
        } = &judged;
        let field = if plugin.name() == "postgres" {
            "sql"
        } else {
            "command"
        };
        let mut fields = vec![(field.to_owned(), self.text.into_bytes())];
        fields.extend(rules.protected(target).fields());
        let settings = settings.iter();
        fields.extend(
            settings.map(|(name, value)| (format!("settings.{name}"), value.clone().into_bytes())),
        );
        let command = plugin.classify(&fields)?;
        let mut principal = ordinary_agent();
        if self.person {
            principal.kind = Kind::Person;
        }
        if !self.group.is_empty() {
            principal.groups = self.group;
        }
        let explanation = rules.explain(&Ask {
            command: &command,
            principal: &principal,
            target,
            tags,
            owners: None,
            protocol: plugin.name(),
            classes: &plugin.descriptor().classes,
            now: 0,
        });
        if self.json {
            println!("{}", serde_json::to_string_pretty(&explanation)?);
        } else {
            print(&explanation, &command, *max_hold, Style::stdout());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(explanation: &Explanation, command: &Command, max_hold: Option<Duration>, style: Style) {
    if let Some(reject) = &command.reject {
        println!(
            "{}: the gateway refuses it whatever the rules say: {reject}",
            style.red("rejected")
        );
    }
    for (number, operation) in explanation.operations.iter().enumerate() {
        let housekeeping = if operation.housekeeping {
            ", session set-up"
        } else {
            ""
        };
        println!(
            "{}",
            style.bold(format!(
                "operation {}: {}{housekeeping}",
                number + 1,
                operation.class
            ))
        );
        for file in &operation.files {
            for rule in &file.rules {
                let said = match &rule.said {
                    Said::Matches => style.green("matches".to_owned()),
                    Said::Differs(what) => style.dim(format!("differs: {what}")),
                    Said::Unknown(why) => style.yellow(format!("unknown: {why}")),
                    Said::Housekeeping => style.dim("does not hold session set-up".to_owned()),
                };
                let monitor = if rule.monitor { " (monitor)" } else { "" };
                println!("  {} → {}{monitor}: {said}", rule.rule, rule.outcome);
            }
            if file.decides.is_none() {
                println!("  {}", style.dim("(this file says nothing)"));
            }
        }
    }
    println!(
        "{} {} by `{}`",
        style.bold("decision:"),
        word(explanation),
        explanation.decision.rule
    );
    if let Decided::Hold(hold) = &explanation.decision.outcome {
        for line in terms(hold, max_hold) {
            println!("  {line}");
        }
    }
}

/// Who decides, in which order, and what else a hold says.
fn terms(hold: &Hold, max_hold: Option<Duration>) -> Vec<String> {
    let list = |sets: &[Reviewers]| {
        let sets: Vec<String> = sets.iter().map(reviewers).collect();
        sets.join(", ")
    };
    let mut lines = Vec::new();
    for (number, step) in hold.steps.iter().enumerate() {
        let quorum = step.quorum.max(1);
        lines.push(format!(
            "step {}: {quorum} of {}",
            number + 1,
            list(&step.reviewers)
        ));
        if let Some(more) = &step.escalate {
            let after = Span(more.after);
            lines.push(format!("  after {after} also {}", list(&more.reviewers)));
        }
    }
    let cut = max_hold.filter(|max| *max < hold.expires_in);
    lines.push(match cut {
        None => format!("expires after {}", Span(hold.expires_in)),
        Some(max) => format!(
            "expires after {}: `max_hold` of `[hold]` cuts the rules' {}",
            Span(max),
            Span(hold.expires_in)
        ),
    });
    if hold.justify {
        lines.push("the requester has to say why first".to_owned());
    }
    if !hold.windows.is_empty() {
        let windows: Vec<String> = hold.windows.iter().map(ToString::to_string).collect();
        lines.push(format!("may be approved for {}", windows.join(", ")));
    }
    if let Some(max) = hold.step_up {
        lines.push(format!("who approves has signed in within {}", Span(max)));
    }
    if hold.webauthn {
        lines.push("approvals are signed by the reviewer's security key".to_owned());
    }
    if !hold.break_glass.is_empty() {
        lines.push(format!("glass broken by {}", list(&hold.break_glass)));
    }
    lines
}

fn reviewers(set: &Reviewers) -> String {
    match set {
        Reviewers::Group(group) => format!("group:{group}"),
        Reviewers::Person { issuer, subject } => format!("person:{issuer}|{subject}"),
        Reviewers::Owner => "owner (of the target)".to_owned(),
        Reviewers::OnCall(list) => format!("oncall:{list}"),
    }
}

fn word(explanation: &Explanation) -> &'static str {
    match explanation.decision.outcome {
        Decided::Allow => "allow",
        Decided::Hold(_) => "hold",
        Decided::Deny { .. } => "deny",
    }
}
