//! What the host was told of statements, so that it need not be told again.
//!
//! A program runs few statements again and again. What one does is said once and then
//! called by a number: the words of a statement cost more at the plugin's border than
//! all else that is said of a command.

use std::rc::Rc;

use holdpoint_plugin::{Operation, Recall};

use crate::adapter;
use crate::classify::{Act, Statement};

/// Numbers in use; the host would keep twice as many.
const MOST: u8 = 32;
/// Bytes of words that are worth keeping. The rest is told each time.
const MOST_WORDS: usize = 4 << 10;
/// Statements of one command that are worth keeping.
const MOST_STATEMENTS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Known {
    /// The place of an entry is its number.
    entries: Vec<Entry>,
    /// The number that is given next.
    next: u8,
}

#[derive(Debug)]
struct Entry {
    /// Kept alive by being here, so that none of their places is used anew.
    statements: Vec<Rc<Statement>>,
    harmless: bool,
}

/// What the host is told of a command's operations.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) operations: Vec<Operation>,
    pub(super) recall: Recall,
    /// Nothing in it changes what a rollback would undo.
    pub(super) harmless: bool,
}

impl Told {
    /// In words, this once.
    pub(super) fn only(operations: Vec<Operation>) -> Self {
        Self {
            harmless: adapter::harmless(&operations),
            operations,
            recall: Recall::No,
        }
    }
}

impl Known {
    /// What these statements do, in words or by its number. `tell` finds the words.
    ///
    /// A statement that uses a name does what the name stands for, which changes: its
    /// words are told each time.
    pub(super) fn tell<'s>(
        &mut self,
        statements: impl Iterator<Item = &'s Rc<Statement>> + Clone,
        tell: impl FnOnce() -> Vec<Operation>,
    ) -> Told {
        let same = |entry: &Entry| {
            let kept = entry.statements.iter();
            entry.statements.len() == statements.clone().count()
                && kept.zip(statements.clone()).all(|(a, b)| Rc::ptr_eq(a, b))
        };
        if let Some(at) = self.entries.iter().position(same)
            && let Ok(number) = u8::try_from(at)
        {
            return Told {
                operations: Vec::new(),
                recall: Recall::Kept(number),
                harmless: self.entries[at].harmless,
            };
        }
        let mut told = Told::only(tell());
        told.recall = self.keep(statements, &told);
        told
    }

    fn keep<'s>(
        &mut self,
        statements: impl Iterator<Item = &'s Rc<Statement>> + Clone,
        told: &Told,
    ) -> Recall {
        let uses_name = |statement: &Rc<Statement>| {
            matches!(statement.act, Act::Execute { .. } | Act::Fetch { .. })
        };
        if told.operations.is_empty()
            || statements.clone().nth(MOST_STATEMENTS).is_some()
            || statements.clone().any(uses_name)
            || told.operations.iter().map(adapter::words).sum::<usize>() > MOST_WORDS
        {
            return Recall::No;
        }
        let entry = Entry {
            statements: statements.cloned().collect(),
            harmless: told.harmless,
        };
        let number = self.next;
        self.next = (number + 1) % MOST;
        match self.entries.get_mut(usize::from(number)) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        Recall::Keep(number)
    }
}
