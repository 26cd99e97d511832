//! From rule files to rules that can be evaluated. All mistakes are found, each with its place.

use std::collections::BTreeMap;

use regex::bytes::RegexBuilder;

use super::cel::When;
use super::glob::{Glob, ObjectGlob};
use super::mask::{self, Mask};
use super::matcher::{Matcher, Sense};
use super::{RuleFile, raw, who};
use crate::command::Confidence;
use crate::decision::Outcome;
use crate::principal::Kind;
use crate::source::{At, Problem, Problems, Source};

/// Told to an agent whose statement would show what is protected.
const UNMASKABLE: &str = "a protected column can only be shown masked: select it by its own name as an \
     output column, and use it nowhere else in the statement";

#[derive(Debug)]
pub(super) struct File {
    pub(super) rules: Vec<Rule>,
    pub(super) masks: Vec<Mask>,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// `file:rule`.
    pub(super) id: String,
    pub(super) monitor: bool,
    pub(super) matcher: Matcher,
    pub(super) outcome: Outcome,
}

pub(super) struct Compiled {
    pub(super) files: Vec<File>,
    pub(super) warnings: Vec<String>,
    pub(super) lists: Vec<Listed>,
}

/// A list of who is on call that a rule asks, and what is to be said where there is none.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) missing: Problem,
}

pub(super) fn compile(
    files: &[RuleFile],
    issuers: &BTreeMap<String, String>,
) -> Result<Compiled, Problems> {
    let mut problems = Problems::default();
    let mut compiled = Compiled {
        files: Vec::new(),
        warnings: Vec::new(),
        lists: Vec::new(),
    };
    for (n, file) in files.iter().enumerate() {
        let name = format!("{}.toml", file.name);
        let (source, raw) = match Source::read::<raw::File>(&name, &file.text) {
            Ok(read) => read,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        if files[..n].iter().any(|other| other.name == file.name) {
            let message = format!("two rule files are called `{}`", file.name);
            problems.push(source.problem(&At::root(), message));
        }
        let mut compiler = Compiler {
            file: &file.name,
            source: &source,
            issuers,
            problems: &mut problems,
            warnings: &mut compiled.warnings,
            lists: &mut compiled.lists,
        };
        let masks = compiler.masks(&raw.mask);
        let rules = compiler.rules(raw);
        compiled.files.push(File { rules, masks });
    }
    problems.or(compiled)
}

pub(super) struct Compiler<'a> {
    file: &'a str,
    source: &'a Source<'a>,
    pub(super) issuers: &'a BTreeMap<String, String>,
    problems: &'a mut Problems,
    warnings: &'a mut Vec<String>,
    lists: &'a mut Vec<Listed>,
}

impl Compiler<'_> {
    pub(super) fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    pub(super) fn asks_list(&mut self, at: &At, name: &str) {
        let message = format!("there is no `[review.oncall.{name}]` in the configuration");
        self.lists.push(Listed {
            name: name.to_owned(),
            missing: self.source.problem(at, message),
        });
    }

    pub(super) fn fault(&mut self, at: &At, message: impl Into<String>, help: &str) {
        let problem = self.source.problem(at, message);
        self.problems.push(if help.is_empty() {
            problem
        } else {
            problem.help(help)
        });
    }

    fn rules(&mut self, raw: raw::File) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        if raw.rule.is_empty() && raw.mask.is_empty() {
            self.warnings.push(format!("`{}` has no rules", self.file));
        }
        for (n, rule) in raw.rule.into_iter().enumerate() {
            let at = At::root().key("rule").index(n);
            let taken = |id: &str| {
                let names = raw.mask.iter().map(|mask| &mask.name);
                rules.iter().any(|other| other.id == id)
                    || names.into_iter().any(|m| *m == rule.name)
            };
            let id = self.id(&at, &rule.name, taken);
            if let Some(rule) = self.rule(&at, id, raw.mode, rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// `file:name`, which records tell apart.
    fn id(&mut self, at: &At, name: &str, taken: impl Fn(&str) -> bool) -> String {
        let id = format!("{}:{name}", self.file);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(fits) {
            let message = "a rule's name has letters, digits, `-`, `_` or `.`";
            self.fault(&at.key("name"), message, "");
        }
        if taken(&id) {
            let message = format!("there are two rules `{name}` in this file");
            self.fault(
                &at.key("name"),
                message,
                "records name rules, so each needs a name of its own",
            );
        }
        id
    }

    fn masks(&mut self, raw: &[raw::Mask]) -> Vec<Mask> {
        let mut masks: Vec<Mask> = Vec::new();
        for (n, raw) in raw.iter().enumerate() {
            let at = At::root().key("mask").index(n);
            let id = self.id(&at, &raw.name, |id| {
                masks.iter().any(|other| other.id == id)
            });
            if raw.columns.is_empty() {
                self.fault(&at.key("columns"), "an empty list protects nothing", "");
            }
            if raw.targets.as_ref().is_some_and(Vec::is_empty) {
                let help = "remove it to protect the columns at every target";
                self.fault(&at.key("targets"), "an empty list matches nothing", help);
            }
            for (n, pattern) in raw.columns.iter().enumerate() {
                if let Err(message) = mask::check(pattern) {
                    let help = "a name with a dot in it is matched by a `*` in its place";
                    self.fault(&at.key("columns").index(n), message, help);
                }
            }
            if raw.hold.is_some() && raw.deny.is_some() {
                let message = "what cannot be masked is either held or refused";
                self.fault(&at.key("deny"), message, "keep one of the two");
            }
            let otherwise = match &raw.hold {
                Some(hold) => self.hold(&at.key("hold"), &id, hold),
                None => Outcome::Deny {
                    message: Some(
                        raw.deny
                            .as_ref()
                            .and_then(|deny| deny.message.clone())
                            .filter(|message| !message.trim().is_empty())
                            .unwrap_or_else(|| UNMASKABLE.to_owned()),
                    ),
                },
            };
            masks.push(Mask {
                id,
                targets: raw
                    .targets
                    .as_ref()
                    .map(|list| list.iter().map(|pattern| Glob::new(pattern)).collect()),
                columns: raw.columns.clone(),
                otherwise,
            });
        }
        masks
    }

    fn rule(&mut self, at: &At, id: String, mode: raw::Mode, raw: raw::Rule) -> Option<Rule> {
        let monitor = mode == raw::Mode::Monitor || raw.mode == raw::Mode::Monitor;
        let danger = raw.danger_allow_unknown;
        let outcome = self.outcome(at, &id, &raw)?;
        let sense = match outcome {
            Outcome::Allow => Sense::Loosen,
            Outcome::Hold(_) => Sense::Tighten { deny: false },
            Outcome::Deny { .. } => Sense::Tighten { deny: true },
        };
        if danger && sense != Sense::Loosen {
            self.fault(
                &at.key("danger_allow_unknown"),
                "only a rule that allows can have this",
                "",
            );
        }
        let confidence = raw.matches.confidence;
        if sense == Sense::Loosen && confidence == Some(raw::Confidence::Unknown) && !danger {
            self.fault(
                &at.key("match").key("confidence"),
                "a rule that allows what nobody could prove",
                "hold it, or say `danger_allow_unknown = true` on the rule",
            );
        }
        let when = raw
            .when
            .as_deref()
            .and_then(|text| match When::compile(text) {
                Ok(when) => Some(when),
                Err(message) => {
                    self.fault(&at.key("when"), message, "");
                    None
                }
            });
        let matcher = self.matcher(&at.key("match"), raw.matches, sense, danger, when);
        Some(Rule {
            id,
            monitor,
            matcher,
            outcome,
        })
    }

    fn outcome(&mut self, at: &At, id: &str, raw: &raw::Rule) -> Option<Outcome> {
        let given = [
            ("allow", raw.allow.is_some()),
            ("deny", raw.deny.is_some()),
            ("hold", raw.hold.is_some()),
        ];
        let given: Vec<&str> = given
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(key, _)| key)
            .collect();
        match given.as_slice() {
            [] => {
                let help = "add one of `allow = true`, `deny = \"message\"`, `hold = { reviewers = [\"group:…\"] }`";
                let problem = self
                    .source
                    .problem(at, format!("rule `{}` has no outcome", raw.name));
                self.problems.push(problem.help(help));
                return None;
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!(
                    "rule `{}` has two outcomes, `{first}` and `{second}`",
                    raw.name
                );
                let problem = self.source.problem_of_key(&at.key(second), message);
                self.problems
                    .push(problem.help("make it two rules, or keep one outcome"));
                return None;
            }
        }
        if let Some(hold) = &raw.hold {
            return Some(self.hold(&at.key("hold"), id, hold));
        }
        if let Some(deny) = &raw.deny {
            return Some(Outcome::Deny {
                message: deny
                    .message
                    .clone()
                    .filter(|message| !message.trim().is_empty()),
            });
        }
        if raw.allow == Some(false) {
            self.fault(
                &at.key("allow"),
                "`allow` can only be true",
                "write `deny = \"message\"`",
            );
            return None;
        }
        Some(Outcome::Allow)
    }

    fn matcher(
        &mut self,
        at: &At,
        raw: raw::Match,
        sense: Sense,
        allow_unknown: bool,
        when: Option<When>,
    ) -> Matcher {
        let lists: [(&str, bool); 12] = [
            ("targets", raw.targets.as_ref().is_some_and(Vec::is_empty)),
            ("tags", raw.tags.as_ref().is_some_and(Vec::is_empty)),
            ("groups", raw.groups.as_ref().is_some_and(Vec::is_empty)),
            (
                "principals",
                raw.principals.as_ref().is_some_and(Vec::is_empty),
            ),
            ("kinds", raw.kinds.as_ref().is_some_and(Vec::is_empty)),
            (
                "protocols",
                raw.protocols.as_ref().is_some_and(Vec::is_empty),
            ),
            ("classes", raw.classes.as_ref().is_some_and(Vec::is_empty)),
            ("objects", raw.objects.as_ref().is_some_and(Vec::is_empty)),
            ("access", raw.access.as_ref().is_some_and(Vec::is_empty)),
            // To allow, an empty list has a meaning: none at all.
            (
                "effects",
                sense != Sense::Loosen && raw.effects.as_ref().is_some_and(Vec::is_empty),
            ),
            (
                "functions",
                sense != Sense::Loosen && raw.functions.as_ref().is_some_and(Vec::is_empty),
            ),
            ("text", raw.text.as_ref().is_some_and(String::is_empty)),
        ];
        for (key, empty) in lists {
            if empty {
                self.fault(
                    &at.key(key),
                    "an empty list matches nothing",
                    "remove it to match everything",
                );
            }
        }
        let mut principals = raw.principals.as_ref().map(|_| Vec::new());
        for (n, text) in raw.principals.iter().flatten().enumerate() {
            match who::person(text, self.issuers) {
                Ok(identity) => principals.get_or_insert_default().push(identity),
                Err(message) => self.fault(&at.key("principals").index(n), message, ""),
            }
        }
        let text = raw.text.as_deref().and_then(|pattern| {
            // Over bytes: a text need not be UTF-8 for a rule to see it.
            match RegexBuilder::new(pattern).build() {
                Ok(regex) => Some(regex),
                Err(error) => {
                    let error = error.to_string();
                    let last = error.lines().last().unwrap_or_default();
                    let why = last.strip_prefix("error: ").unwrap_or(last);
                    self.fault(&at.key("text"), format!("no regular expression: {why}"), "");
                    None
                }
            }
        });
        let globs = |list: Vec<String>| list.iter().map(|pattern| Glob::new(pattern)).collect();
        Matcher {
            sense,
            allow_unknown,
            targets: raw.targets.map(globs),
            tags: raw.tags,
            groups: raw.groups,
            principals,
            kinds: raw.kinds.map(|kinds| {
                let kind = |kind: raw::Kind| match kind {
                    raw::Kind::Agent => Kind::Agent,
                    raw::Kind::Person => Kind::Person,
                };
                kinds.into_iter().map(kind).collect()
            }),
            protocols: raw.protocols,
            classes: raw.classes,
            effects: raw.effects,
            objects: raw.objects.map(|list| {
                list.iter()
                    .map(|pattern| ObjectGlob::new(pattern))
                    .collect()
            }),
            access: raw.access,
            functions: raw.functions.map(globs),
            confidence: raw.confidence.map(|confidence| match confidence {
                raw::Confidence::Proven => Confidence::Proven,
                raw::Confidence::Unknown => Confidence::Unknown,
            }),
            text,
            when,
        }
    }
}
