//! Writes statements by `grammar.txt`.
//!
//! The same seed gives the same statements everywhere, so the corpus in
//! `tests/data` can be made again; the test `the_corpus_is_what_the_grammar_makes`
//! holds the two together.

use std::collections::{BTreeMap, BTreeSet};

use crate::random::Random;

enum Part {
    Text(String),
    Name(String),
    /// One of these, or with `true` none of them either.
    OneOf(Vec<Vec<Part>>, bool),
}

pub(crate) struct Grammar(BTreeMap<String, Vec<Vec<Part>>>);

/// Names nest this deep before only the shortest production is taken.
const DEPTH: usize = 5;
/// Longer ones are left out: the corpus is to be read.
const MAX_LENGTH: usize = 400;

impl Grammar {
    pub(crate) fn read() -> Self {
        let mut rules: BTreeMap<String, Vec<Vec<Part>>> = BTreeMap::new();
        for line in include_str!("grammar.txt").lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, production) = line.split_once(" = ").unwrap();
            let mut rest = production.chars().peekable();
            let mut parts = sequence(&mut rest);
            assert!(rest.next().is_none(), "left over in {line}");
            assert_eq!(parts.len(), 1, "`|` outside of a choice in {line}");
            rules.entry(name.to_owned()).or_default().append(&mut parts);
        }
        Self(rules)
    }

    /// `count` statements, each once: every kind in turn.
    pub(crate) fn statements(&self, seed: u64, count: usize) -> Vec<String> {
        let mut random = Random::new(seed);
        let kinds = &self.0["statement"];
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        // Kinds with few forms run dry; the others go on.
        for turn in 0.. {
            if all.len() == count {
                break;
            }
            let mut out = String::new();
            self.parts(&kinds[turn % kinds.len()], 0, &mut random, &mut out);
            let text = out.split_whitespace().collect::<Vec<_>>().join(" ");
            if text.len() <= MAX_LENGTH && seen.insert(text.clone()) {
                all.push(text);
            }
        }
        all
    }

    fn parts(&self, parts: &[Part], depth: usize, random: &mut Random, out: &mut String) {
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name) => {
                    let rules = self.0.get(name).unwrap_or_else(|| panic!("no rule {name}"));
                    let rule = if depth >= DEPTH {
                        0
                    } else {
                        random.below(rules.len())
                    };
                    self.parts(&rules[rule], depth + 1, random, out);
                }
                Part::OneOf(choices, maybe) => {
                    let choice = random.below(choices.len() + usize::from(*maybe) * 2);
                    if let Some(choice) = choices.get(choice) {
                        self.parts(choice, depth, random, out);
                    }
                }
            }
        }
    }
}

/// Alternatives up to the end of a choice, or to that of the line.
fn sequence(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Vec<Part>> {
    let mut alternatives = vec![Vec::new()];
    let mut text = String::new();
    loop {
        let next = rest.peek().copied();
        let special = matches!(next, None | Some('|' | '{' | '«' | '⟦' | '»' | '⟧'));
        if special && !text.is_empty() {
            let part = Part::Text(std::mem::take(&mut text));
            alternatives.last_mut().unwrap().push(part);
        }
        match next {
            None | Some('»' | '⟧') => return alternatives,
            _ => rest.next(),
        };
        match next.unwrap() {
            '|' => alternatives.push(Vec::new()),
            '{' => {
                let name = rest.by_ref().take_while(|c| *c != '}').collect();
                alternatives.last_mut().unwrap().push(Part::Name(name));
            }
            open @ ('«' | '⟦') => {
                let choices = sequence(rest);
                rest.next();
                alternatives
                    .last_mut()
                    .unwrap()
                    .push(Part::OneOf(choices, open == '⟦'));
            }
            '\\' if matches!(rest.peek(), Some('|' | '{' | '}' | '\\')) => {
                text.extend(rest.next());
            }
            plain => text.push(plain),
        }
    }
}
