//! Whether one rule matches one operation.
//!
//! What a match means depends on the outcome. A `deny` or `hold` rule matches
//! when *any* object, effect or function fits, an `allow` rule only when *all* do:
//! a join with one table that is not listed is not allowed by a rule about the others.
//!
//! An operation whose confidence is unknown is matched by few rules: by those
//! that say `confidence = "unknown"`, by `hold` and `deny` rules that look at nothing but who and
//! where, and by `deny` rules whose facts fit as far as they were reported. A rule that allows needs
//! `danger_allow_unknown` on top.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::Ask;
use super::cel::When;
use super::glob::{Glob, ObjectGlob};
use crate::command::{Confidence, Operation};
use crate::principal::{Identity, Kind};

/// How strict a match has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sense {
    /// All that the operation touches must be listed.
    Loosen,
    /// One that is listed is enough.
    Tighten { deny: bool },
}

#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) sense: Sense,
    pub(super) allow_unknown: bool,
    pub(super) targets: Option<Vec<Glob>>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) principals: Option<Vec<Identity>>,
    pub(super) kinds: Option<Vec<Kind>>,
    pub(super) protocols: Option<Vec<String>>,
    pub(super) classes: Option<Vec<String>>,
    pub(super) effects: Option<Vec<String>>,
    pub(super) objects: Option<Vec<ObjectGlob>>,
    pub(super) access: Option<Vec<String>>,
    pub(super) functions: Option<Vec<Glob>>,
    pub(super) confidence: Option<Confidence>,
    pub(super) text: Option<Regex>,
    pub(super) when: Option<When>,
}

/// What a rule says of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    /// Which part does not fit.
    No(Cow<'static, str>),
    /// Why it cannot be told.
    Unknown(String),
}

fn no(why: &'static str) -> Fit {
    Fit::No(Cow::Borrowed(why))
}

fn listed(list: &[String], word: &str) -> bool {
    list.iter().any(|have| have == word)
}

impl Matcher {
    /// Looks at what a parser has found, not at who and where alone.
    pub(super) fn looks_at_facts(&self) -> bool {
        self.classes.is_some()
            || self.effects.is_some()
            || self.objects.is_some()
            || self.access.is_some()
            || self.functions.is_some()
            || self.confidence.is_some()
            || self.when.as_ref().is_some_and(When::looks_at_facts)
    }

    pub(super) fn fit(&self, ask: &Ask<'_>, operation: &Operation) -> Fit {
        if let Some(fit) = self.misfit_of_place(ask) {
            return fit;
        }
        if let Some(wanted) = self.confidence
            && wanted != operation.confidence
        {
            return no("`confidence` differs");
        }
        if operation.confidence == Confidence::Unknown
            && let Some(fit) = self.misfit_of_unknown()
        {
            return fit;
        }
        if let Some(fit) = self.misfit_of_facts(operation) {
            return fit;
        }
        if self
            .text
            .as_ref()
            .is_some_and(|text| !self.finds(text, ask))
        {
            return no("`text` is not found");
        }
        match &self.when {
            None => Fit::Yes,
            Some(when) => match when.holds(ask, operation) {
                Ok(true) => Fit::Yes,
                Ok(false) => no("`when` is false"),
                Err(why) => Fit::Unknown(why),
            },
        }
    }

    /// To tighten, what a name in the command stands for counts as its text does.
    fn finds(&self, text: &Regex, ask: &Ask<'_>) -> bool {
        let named = |(name, value): &(String, String)| {
            let stands_for = ["statement ", "cursor "]
                .iter()
                .any(|kind| name.starts_with(kind));
            stands_for && text.is_match(value.as_bytes())
        };
        text.is_match(&ask.command.text)
            || self.sense != Sense::Loosen && ask.command.context.iter().any(named)
    }

    fn misfit_of_place(&self, ask: &Ask<'_>) -> Option<Fit> {
        let principal = ask.principal;
        if self
            .protocols
            .as_ref()
            .is_some_and(|list| !listed(list, ask.protocol))
        {
            return Some(no("`protocols` has another"));
        }
        if self
            .targets
            .as_ref()
            .is_some_and(|list| !list.iter().any(|glob| glob.fits(ask.target)))
        {
            return Some(no("`targets` has others"));
        }
        if self
            .tags
            .as_ref()
            .is_some_and(|list| !ask.tags.iter().any(|tag| listed(list, tag)))
        {
            return Some(no("the target has none of the `tags`"));
        }
        if self
            .kinds
            .as_ref()
            .is_some_and(|list| !list.contains(&principal.kind))
        {
            return Some(no("`kinds` has another"));
        }
        if self
            .groups
            .as_ref()
            .is_some_and(|list| !list.iter().any(|group| principal.in_group(group)))
        {
            return Some(no("the principal is in none of the `groups`"));
        }
        if self
            .principals
            .as_ref()
            .is_some_and(|list| !list.contains(&principal.identity))
        {
            return Some(no("`principals` has others"));
        }
        None
    }

    fn misfit_of_unknown(&self) -> Option<Fit> {
        let explicit = self.confidence == Some(Confidence::Unknown);
        match self.sense {
            Sense::Loosen if !self.allow_unknown => Some(no(
                "the operation is unknown, and the rule has no `danger_allow_unknown`",
            )),
            Sense::Loosen | Sense::Tighten { deny: true } => None,
            Sense::Tighten { deny: false } if explicit || !self.looks_at_facts() => None,
            Sense::Tighten { deny: false } => Some(no(
                "the operation is unknown, and the rule does not say `confidence = \"unknown\"`",
            )),
        }
    }

    fn misfit_of_facts(&self, operation: &Operation) -> Option<Fit> {
        let loosen = self.sense == Sense::Loosen;
        if self
            .classes
            .as_ref()
            .is_some_and(|list| !listed(list, &operation.class))
        {
            return Some(no("`classes` has others"));
        }
        if let Some(list) = &self.effects {
            let fits = |effect: &String| list.contains(effect);
            if loosen && !operation.effects.iter().all(fits) {
                return Some(no("it has effects that `effects` does not list"));
            }
            if !loosen && !operation.effects.iter().any(fits) {
                return Some(no("it has none of the `effects`"));
            }
        }
        if let Some(list) = &self.functions {
            let fits = |name: &String| list.iter().any(|glob| glob.fits_function(name, loosen));
            let mut names = operation
                .functions
                .iter()
                .chain(&operation.unknown_functions);
            if loosen && !names.all(fits) {
                return Some(no("it calls functions that `functions` does not list"));
            } else if !loosen && !names.any(fits) {
                return Some(no("it calls none of the `functions`"));
            }
        }
        if self.objects.is_some() || self.access.is_some() {
            let fits = |object: &crate::command::Object| {
                let access = self
                    .access
                    .as_ref()
                    .is_none_or(|list| listed(list, &object.access));
                let object = self
                    .objects
                    .as_ref()
                    .is_none_or(|list| list.iter().any(|glob| glob.fits(object, loosen)));
                access && object
            };
            let objects = &operation.objects;
            if loosen && (objects.is_empty() || !objects.iter().all(fits)) {
                return Some(no(
                    "it touches what `objects` and `access` do not list, or nothing",
                ));
            }
            if !loosen && !objects.iter().any(fits) {
                return Some(no("it touches nothing that `objects` and `access` list"));
            }
        }
        None
    }
}
