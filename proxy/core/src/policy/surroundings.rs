//! Words of rules that nothing around them can ever meet, and times that are never given.
//!
//! A key that is misspelt is a mistake; a word may belong to another gateway that shares the file. But
//! a rule with a word that nothing here has does nothing, and one that was to deny
//! or to mask protects nothing, so it is said.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Policy;
use super::glob::Glob;
use super::hold::DEFAULT_EXPIRY;
use crate::decision::Outcome;
use crate::source::Span;

/// How a command touches an object.
const ACCESS: [&str; 5] = ["read", "write", "lock", "define", "execute"];

/// What a gateway has.
#[derive(Debug, Default)]
pub struct Surroundings<'a> {
    pub targets: BTreeSet<&'a str>,
    /// Labels of targets.
    pub tags: BTreeSet<&'a str>,
    /// Names of plugins.
    pub protocols: BTreeSet<&'a str>,
    /// All that the plugins tell apart.
    pub classes: BTreeSet<&'a str>,
    /// No decision may take longer.
    pub max_hold: Duration,
}

impl Policy {
    /// A sentence for each word by which a rule or mask can match nothing in `here`, and for each
    /// time that it gives to decide and that nobody gets.
    pub fn unmet(&self, here: &Surroundings<'_>) -> Vec<String> {
        let mut unmet = Vec::new();
        let mut say = |id: &str, kind: &str, word: &str, known: &BTreeSet<&str>| {
            let known: Vec<_> = known.iter().map(|word| format!("`{word}`")).collect();
            let known = match known.as_slice() {
                [] => "there is none".to_owned(),
                all => format!("there is {}", all.join(", ")),
            };
            unmet.push(format!(
                "`{id}` names {kind} `{word}`, which nothing here has, and cannot match by it: {known}"
            ));
        };
        let access = BTreeSet::from(ACCESS);
        for file in &self.files {
            for rule in &file.rules {
                let matcher = &rule.matcher;
                let words = [
                    ("tag", &matcher.tags, &here.tags),
                    ("protocol", &matcher.protocols, &here.protocols),
                    ("class", &matcher.classes, &here.classes),
                    ("access", &matcher.access, &access),
                ];
                for (kind, words, known) in words {
                    for word in words.iter().flatten() {
                        if !known.contains(word.as_str()) {
                            say(&rule.id, kind, word, known);
                        }
                    }
                }
                for target in strangers(matcher.targets.as_deref(), &here.targets) {
                    say(&rule.id, "target", target, &here.targets);
                }
            }
            for mask in &file.masks {
                for target in strangers(mask.targets.as_deref(), &here.targets) {
                    say(&mask.id, "target", target, &here.targets);
                }
            }
        }
        unmet.extend(self.cut_short(here.max_hold));
        unmet
    }

    fn cut_short(&self, max_hold: Duration) -> impl Iterator<Item = String> {
        let outcomes = self.files.iter().flat_map(|file| {
            let rules = file.rules.iter().map(|rule| (&rule.id, &rule.outcome));
            let masks = file.masks.iter().map(|mask| (&mask.id, &mask.otherwise));
            rules.chain(masks)
        });
        outcomes.filter_map(move |(id, outcome)| match outcome {
            // What was not asked for is not missed.
            Outcome::Hold(hold) if hold.expires_in > max_hold && hold.expires_in != DEFAULT_EXPIRY => {
                Some(format!(
                    "`{id}` gives {} to decide, of which {} are left: `max_hold` of `[hold]` allows no more",
                    Span(hold.expires_in),
                    Span(max_hold)
                ))
            }
            _ => None,
        })
    }
}

/// Patterns that fit none of the names.
fn strangers<'p>(
    patterns: Option<&'p [Glob]>,
    names: &BTreeSet<&str>,
) -> impl Iterator<Item = &'p str> {
    let fits_none = |pattern: &&Glob| !names.iter().any(|name| pattern.fits(name));
    let patterns = patterns.unwrap_or_default().iter();
    patterns.filter(fits_none).map(Glob::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RuleFile;

    #[test]
    fn words_that_nothing_has_are_told() {
        let here = Surroundings {
            targets: BTreeSet::from(["shop", "hr"]),
            tags: BTreeSet::from(["prod"]),
            protocols: BTreeSet::from(["postgres"]),
            classes: BTreeSet::from(["read", "write"]),
            max_hold: Duration::from_secs(1800),
        };
        let unmet = |name: &str, text: String| {
            let name = name.to_owned();
            let file = RuleFile { name, text };
            Policy::compile(&[file], &Default::default())
                .unwrap()
                .unmet(&here)
        };
        let rules = |with: &str| {
            let text = format!("[[rule]]\nname = \"x\"\nmatch = {{ {with} }}\ndeny = \"no\"\n");
            unmet("p", text)
        };
        for (with, word) in [
            ("targets = [\"shpo\"]", "target `shpo`"),
            ("targets = [\"shop\", \"x*\"]", "target `x*`"),
            ("tags = [\"prdo\"]", "tag `prdo`"),
            ("protocols = [\"postgresql\"]", "protocol `postgresql`"),
            ("classes = [\"wirte\"]", "class `wirte`"),
            ("access = [\"wrte\"]", "access `wrte`"),
        ] {
            let unmet = rules(with);
            assert_eq!(unmet.len(), 1, "{with}: {unmet:?}");
            assert!(
                unmet[0].contains("`p:x`") && unmet[0].contains(word),
                "{unmet:?}"
            );
        }
        let met = "targets = [\"s*\"], tags = [\"prod\"], protocols = [\"postgres\"], \
                   classes = [\"read\"], access = [\"lock\"]";
        assert_eq!(rules(met), [""; 0]);
        let hold = |expires_in: &str| {
            let text = format!(
                "[[rule]]\nname = \"x\"\nhold = {{ reviewers = [\"group:a\"], expires_in = \"{expires_in}\" }}\n\
                 [[mask]]\nname = \"y\"\ncolumns = [\"ssn\"]\nhold = {{ reviewers = [\"group:a\"], expires_in = \"{expires_in}\" }}\n"
            );
            unmet("p", text)
        };
        let cut = hold("31m");
        assert!(
            cut.len() == 2
                && cut[0].contains("`p:x`")
                && cut[1].contains("`p:y`")
                && cut[1].contains("31m"),
            "{cut:?}"
        );
        assert_eq!(hold("30m"), [""; 0]);
        let mask = "[[mask]]\nname = \"y\"\ntargets = [\"shpo\"]\ncolumns = [\"ssn\"]\n";
        let unmet = unmet("m", mask.to_owned());
        assert!(unmet.len() == 1 && unmet[0].contains("`m:y`"), "{unmet:?}");
    }
}
