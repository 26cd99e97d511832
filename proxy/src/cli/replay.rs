//! `holdpoint policy replay`: what would other rules have said of what was recorded?
//!
//! Each command of a journal is judged again from the facts in its record, at the time it
//! was judged first. No plugin runs: what a newer parser would make of the same bytes is
//! another question. Where a record lacks what the rules look at (a text with secrets in it,
//! the tags of a target in an older record), the answer is *unknown*, never a guess.
//!
//! The journal is verified first, with its own key. If it is damaged that is said, and the
//! exit code is 1: what a damaged journal would have been decided proves nothing.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use holdpoint_core::command::{Command, Parameter};
use holdpoint_core::config::Config;
use holdpoint_core::decision::{Decision, Outcome, Reviewers};
use holdpoint_core::display::{escape_line, unescape};
use holdpoint_core::id::{CommandId, SessionId};
use holdpoint_core::policy::{Ask, Policy};
use holdpoint_core::record::{CommandEntry, Entry, Open, frame};
use serde::Serialize;

use super::style::Style;
use crate::recorder::{Reader, check_journal, read_verifier};
use crate::reload::{read_config, read_rules};

/// Refusals that no rule had a part in.
const BUILT_IN: [&str; 2] = ["token-expired", "rejected"];

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The journal's directory
    journal: PathBuf,
    /// Configuration with the rules to try; also says which issuers and tags there are
    #[arg(short, long, value_name = "FILE", required_unless_present = "policy")]
    config: Option<PathBuf>,
    /// Rule file to try, in place of those of the configuration; may be given again
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Exit with 1 if a decision would change, or if that cannot be told
    #[arg(long)]
    fail_on_drift: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Errors of the journal that are told; `holdpoint verify` tells all.
const MAX_DAMAGE: usize = 10;

/// What there is to say.
#[derive(Debug, Serialize)]
struct Report {
    /// Of the rules that were tried.
    policy: String,
    /// What is wrong with the journal; none if it verifies.
    damage: Vec<String>,
    counts: Counts,
    drift: Vec<Drift>,
    unknown: Vec<Unknown>,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    sessions: u64,
    commands: u64,
    same: u64,
    /// Refused before any rule was asked, so rules change nothing about them.
    before_rules: u64,
    unknown: u64,
    /// Such as `allow → hold`; where only the rule or the terms differ, `hold → hold`.
    drift: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Place {
    session: SessionId,
    /// Of the record in the journal.
    seq: u64,
    command: CommandId,
    principal: String,
    target: String,
    /// One line, escaped.
    text: String,
}

#[derive(Debug, Serialize)]
struct Drift {
    #[serde(flatten)]
    place: Place,
    old: Said,
    new: Said,
}

#[derive(Debug, Serialize)]
struct Said {
    outcome: &'static str,
    rule: String,
    /// Of a hold: how many must approve, who may, how long it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Unknown {
    #[serde(flatten)]
    place: Place,
    why: &'static str,
}

/// What came of one command.
enum Verdict {
    Same,
    BeforeRules,
    Unknown(&'static str),
    Drift(Decision),
}

/// The rules that are tried, and what they are asked with.
struct Trial {
    policy: Policy,
    looks_at_tags: bool,
    looks_at_text: bool,
    /// Tags by target, where a configuration was given.
    tags: Option<HashMap<String, Vec<String>>>,
    owners: Option<HashMap<String, Vec<Reviewers>>>,
}

impl ReplayArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let trial = self.trial()?;
        let mut report = Report {
            policy: trial.policy.version().to_owned(),
            damage: damage(&self.journal),
            counts: Counts::default(),
            drift: Vec::new(),
            unknown: Vec::new(),
        };
        if let Err(error) = self.judge(&trial, &mut report) {
            // What was read before still counts for something.
            report.damage.push(format!("{error:#}"));
        }
        if let Some(session) = &self.session
            && report.counts.sessions == 0
        {
            bail!(
                "journal `{}` has no session {session}",
                self.journal.display()
            );
        }
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report)?;
            writeln!(out)?;
        } else {
            print(&mut out, &report, Style::stdout())?;
        }
        let drifted = !report.drift.is_empty() || !report.unknown.is_empty();
        let failed = !report.damage.is_empty() || (self.fail_on_drift && drifted);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn trial(&self) -> anyhow::Result<Trial> {
        let config: Option<Config> = self.config.as_deref().map(read_config).transpose()?;
        let issuers = config
            .as_ref()
            .map(Config::issuer_names)
            .unwrap_or_default();
        let files = match &config {
            Some(config) if self.policy.is_empty() => config.policies.clone(),
            _ => self.policy.clone(),
        };
        let policy = read_rules(&files, &issuers)?;
        Ok(Trial {
            looks_at_tags: policy.looks_at_tags(),
            looks_at_text: policy.looks_at_text(),
            policy,
            owners: config.as_ref().map(|config| {
                let targets = config.targets.iter();
                let owners = targets.map(|(name, target)| (name.clone(), target.owners.clone()));
                owners.collect()
            }),
            tags: config.map(|config| {
                let tags =
                    |(name, target): (String, holdpoint_core::config::Target)| (name, target.tags);
                config.targets.into_iter().map(tags).collect()
            }),
        })
    }

    fn judge(&self, trial: &Trial, report: &mut Report) -> anyhow::Result<()> {
        let mut sessions: HashMap<SessionId, Open> = HashMap::new();
        let mut reader = Reader::open(&self.journal)?;
        while let Some(raw) = reader.next_record().context("reading stops here")? {
            let frame = frame::decode(raw.bytes)
                .with_context(|| format!("`{}` at byte {}", raw.file, raw.offset))?;
            let Some(id) = &frame.session else {
                continue;
            };
            if self.session.as_ref().is_some_and(|wanted| wanted != id) {
                continue;
            }
            match frame.entry() {
                Ok(Entry::Open(open)) => {
                    report.counts.sessions += 1;
                    sessions.insert(id.clone(), open);
                }
                Ok(Entry::Close(_)) => {
                    sessions.remove(id);
                }
                Ok(Entry::Command(entry)) => {
                    let open = sessions.get(id);
                    let verdict = match open {
                        Some(open) => trial.judge(open, &entry, frame.at.wall_ns / 1_000_000_000),
                        None => Verdict::Unknown("its session's beginning is not in the journal"),
                    };
                    let place = Place {
                        session: id.clone(),
                        seq: frame.seq,
                        command: entry.id,
                        principal: open.map_or_else(String::new, |open| {
                            escape_line(open.principal.label.as_bytes())
                        }),
                        target: open.map_or_else(String::new, |open| open.target.clone()),
                        text: escape_line(entry.text.as_bytes()),
                    };
                    report.add(place, &entry.decision, verdict);
                }
                Ok(_) => {}
                Err(_) => {
                    tracing::debug!(seq = frame.seq, "a newer holdpoint wrote this record");
                }
            }
        }
        Ok(())
    }
}

impl Trial {
    fn judge(&self, open: &Open, entry: &CommandEntry, now: u64) -> Verdict {
        if BUILT_IN.contains(&entry.decision.rule.as_str()) {
            return Verdict::BeforeRules;
        }
        let configured = self.tags.as_ref().and_then(|tags| tags.get(&open.target));
        let tags = configured.or(open.tags.as_ref());
        if self.looks_at_tags && tags.is_none() {
            return Verdict::Unknown("rules look at tags, and its record has none");
        }
        let owners = self.owners.as_ref().and_then(|all| all.get(&open.target));
        if owners.is_none() && !self.policy.asks_owners(&open.target).is_empty() {
            return Verdict::Unknown("rules ask the target's owners: give `--config`");
        }
        let text = unescape(&entry.text);
        if self.looks_at_text && (entry.blob.is_some() || text.is_none()) {
            return Verdict::Unknown("rules look at the text, and secrets in it were not recorded");
        }
        let command = command(entry, text.unwrap_or_default());
        let new = self.policy.decide(&Ask {
            command: &command,
            principal: &open.principal,
            target: &open.target,
            tags: tags.map_or(&[], Vec::as_slice),
            owners: owners.map(Vec::as_slice),
            protocol: &open.plugin.name,
            classes: &[],
            now,
        });
        let old = &entry.decision;
        if new.outcome == old.outcome && new.rule == old.rule {
            Verdict::Same
        } else {
            Verdict::Drift(new)
        }
    }
}

/// As far as rules can look at it.
fn command(entry: &CommandEntry, text: Vec<u8>) -> Command {
    let parameter = |_| Parameter {
        type_name: String::new(),
        binary: false,
        value: None,
    };
    Command {
        operations: entry.operations.clone(),
        text: text.into(),
        // Rules see how many there are.
        parameters: entry.parameters.iter().map(parameter).collect(),
        secrets: Vec::new(),
        context: entry.context.clone(),
        in_transaction: entry.in_transaction,
        canonical: None,
        reject: None,
        wire: Bytes::new(),
    }
}

impl Report {
    fn add(&mut self, place: Place, old: &Decision, verdict: Verdict) {
        self.counts.commands += 1;
        match verdict {
            Verdict::Same => self.counts.same += 1,
            Verdict::BeforeRules => self.counts.before_rules += 1,
            Verdict::Unknown(why) => {
                self.counts.unknown += 1;
                self.unknown.push(Unknown { place, why });
            }
            Verdict::Drift(new) => {
                let (old, new) = (Said::of(old), Said::of(&new));
                let way = format!("{} → {}", old.outcome, new.outcome);
                *self.counts.drift.entry(way).or_default() += 1;
                self.drift.push(Drift { place, old, new });
            }
        }
    }
}

impl Said {
    fn of(decision: &Decision) -> Self {
        let (outcome, hold) = match &decision.outcome {
            Outcome::Allow => ("allow", None),
            Outcome::Deny { .. } => ("deny", None),
            Outcome::Hold(hold) => ("hold", serde_json::to_value(hold).ok()),
        };
        Self {
            outcome,
            rule: decision.rule.clone(),
            hold,
        }
    }
}

/// What `holdpoint verify` finds wrong.
fn damage(journal: &Path) -> Vec<String> {
    let key = match read_verifier(None, journal) {
        Ok(key) => key,
        Err(error) => return vec![format!("it cannot be verified: {error:#}")],
    };
    match check_journal(journal, &key, &[], |_| {}) {
        Ok((report, _)) if report.ok => Vec::new(),
        Ok((report, _)) => {
            let place = |seq: Option<u64>| seq.map(|seq| format!("record {seq}: "));
            let told = report.errors.into_iter().map(|finding| {
                format!(
                    "{}{}",
                    place(finding.seq).unwrap_or_default(),
                    finding.message
                )
            });
            std::iter::once(format!("{} error(s)", report.error_count))
                .chain(told.take(MAX_DAMAGE))
                .collect()
        }
        Err(error) => vec![format!("it cannot be verified: {error:#}")],
    }
}

fn print(out: &mut impl Write, report: &Report, style: Style) -> io::Result<()> {
    for what in &report.damage {
        let what = escape_line(what.as_bytes());
        writeln!(out, "{} {what}", style.red("the journal is damaged:"))?;
    }
    let head = |place: &Place| {
        format!(
            "{} {:>6}  {} -> {}",
            place.session,
            place.seq,
            place.principal,
            escape_line(place.target.as_bytes())
        )
    };
    for drift in &report.drift {
        let (old, new) = (&drift.old, &drift.new);
        let change = format!(
            "{} `{}` → {} `{}`",
            old.outcome, old.rule, new.outcome, new.rule
        );
        let change = match (old.outcome, new.outcome) {
            (_, "allow") => style.green(change),
            (_, "deny") => style.red(change),
            _ => style.yellow(change),
        };
        writeln!(out, "{}  {change}", head(&drift.place))?;
        if old.outcome == new.outcome && old.rule == new.rule {
            writeln!(out, "    the same rule, with other terms")?;
        }
        writeln!(out, "    {}", drift.place.text)?;
    }
    for unknown in &report.unknown {
        let why = style.yellow(format!("unknown: {}", unknown.why));
        writeln!(out, "{}  {why}", head(&unknown.place))?;
        writeln!(out, "    {}", unknown.place.text)?;
    }
    let counts = &report.counts;
    let drift: u64 = counts.drift.values().sum();
    writeln!(
        out,
        "{} command(s) of {} session(s) under rules {}: {} the same, {drift} changed, {} unknown, \
         {} refused before any rule",
        counts.commands,
        counts.sessions,
        report.policy,
        counts.same,
        counts.unknown,
        counts.before_rules,
    )?;
    for (way, count) in &counts.drift {
        writeln!(out, "  {way}: {count}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdpoint_core::command::{Confidence, Operation};
    use holdpoint_core::id::Digest;
    use holdpoint_core::policy::RuleFile;
    use holdpoint_core::record::PluginUsed;

    use super::*;
    use crate::cli::classify::ordinary_agent;

    fn trial(rules: &str) -> Trial {
        let file = RuleFile {
            name: "new".to_owned(),
            text: rules.to_owned(),
        };
        let policy = Policy::compile(&[file], &BTreeMap::new()).unwrap();
        Trial {
            looks_at_tags: policy.looks_at_tags(),
            looks_at_text: policy.looks_at_text(),
            policy,
            owners: None,
            tags: None,
        }
    }

    fn open(tags: Option<&[&str]>) -> Open {
        Open {
            principal: ordinary_agent(),
            target: "shop".to_owned(),
            tags: tags.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect()),
            listener: String::new(),
            source: String::new(),
            tls: true,
            account: String::new(),
            plugin: PluginUsed {
                name: "postgres".to_owned(),
                version: String::new(),
                digest: String::new(),
            },
            entropy: String::new(),
        }
    }

    fn entry(text: &str, blob: Option<&str>, rule: &str) -> CommandEntry {
        CommandEntry {
            id: CommandId(1),
            digest: Digest([0; 32]),
            wire: Digest([0; 32]),
            blob: blob.map(str::to_owned),
            text: text.to_owned(),
            operations: [Operation {
                class: "read".to_owned(),
                effects: Vec::new(),
                objects: Vec::new(),
                functions: Vec::new(),
                unknown_functions: Vec::new(),
                confidence: Confidence::Proven,
                housekeeping: false,
                facts: Vec::new(),
            }]
            .into(),
            class: "read".to_owned(),
            confidence: Confidence::Proven,
            parameters: Vec::new(),
            context: Vec::new(),
            in_transaction: false,
            decision: Decision {
                outcome: Outcome::Allow,
                rule: rule.to_owned(),
                policy: String::new(),
                monitored: Vec::new(),
            },
        }
    }

    fn said(rules: &str, open: &Open, entry: &CommandEntry) -> String {
        match trial(rules).judge(open, entry, 0) {
            Verdict::Same => "same".to_owned(),
            Verdict::BeforeRules => "before rules".to_owned(),
            Verdict::Unknown(why) => format!("unknown: {why}"),
            Verdict::Drift(new) => format!("{} {}", Said::of(&new).outcome, new.rule),
        }
    }

    const READS: &str = "[[rule]]\nname = \"r\"\nmatch = { classes = [\"read\"] }\nallow = true\n";
    const TAGS: &str = "[[rule]]\nname = \"r\"\nmatch = { tags = [\"prod\"] }\nallow = true\n";
    const TEXT: &str = "[[rule]]\nname = \"r\"\nmatch = { text = \"PASSWORD\" }\ndeny = \"no\"\n";

    #[test]
    fn the_same_outcome_by_the_same_rule_is_no_drift_and_another_rule_is() {
        let open = open(None);
        assert_eq!(
            said(READS, &open, &entry("SELECT 1", None, "new:r")),
            "same"
        );
        assert_eq!(
            said(READS, &open, &entry("SELECT 1", None, "old:r")),
            "allow new:r"
        );
        assert_eq!(
            said(TEXT, &open, &entry("SELECT 1", None, "new:r")),
            "deny no-rule"
        );
    }

    #[test]
    fn what_was_refused_before_any_rule_is_not_judged() {
        for rule in BUILT_IN {
            let entry = entry("SELECT 1", None, rule);
            assert_eq!(said(READS, &open(None), &entry), "before rules");
        }
    }

    #[test]
    fn tags_that_were_not_recorded_are_unknown_where_rules_look_at_them() {
        let entry = entry("SELECT 1", None, "new:r");
        assert!(said(TAGS, &open(None), &entry).starts_with("unknown"));
        assert_eq!(said(READS, &open(None), &entry), "same");
        assert_eq!(said(TAGS, &open(Some(&["prod"])), &entry), "same");
        assert_eq!(said(TAGS, &open(Some(&[])), &entry), "deny no-rule");
    }

    #[test]
    fn a_text_with_secrets_is_unknown_where_rules_look_at_it() {
        let starred = entry("ALTER ROLE a PASSWORD '***'", Some("starred"), "new:r");
        assert!(said(TEXT, &open(None), &starred).starts_with("unknown"));
        assert_eq!(said(READS, &open(None), &starred), "same");
        let plain = entry("SELECT 'PASSWORD'", None, "old:r");
        assert_eq!(said(TEXT, &open(None), &plain), "deny new:r");
    }
}
