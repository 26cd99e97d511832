//! What the target still owes an answer for.
//!
//! Messages between two Syncs form a *group*: the server answers them in order,
//! skips the rest after an error, and ends with ReadyForQuery. Only some answers
//! are shown to the plugin, so an answer settles all that came before it.

use std::collections::VecDeque;
use std::rc::Rc;

use super::names::{Change, Definition, Portal, Prepared, changes};
use crate::adapter;
use crate::classify::{Act, Analysis, Class, Statement};
use crate::frame::Space;

/// A message that was sent on, or is about to be.
#[derive(Debug)]
pub(crate) enum Item {
    Parse(Vec<u8>, Rc<Prepared>),
    Bind(Vec<u8>, Rc<Portal>),
    /// The statement whose rows are described, where it is known.
    Describe(Option<Rc<Prepared>>),
    Close(Space, Vec<u8>),
    /// Execute; absent where the portal is unknown.
    Run(Option<Rc<Portal>>),
    /// The statements of a simple Query, and how many have completed.
    Query {
        analysis: Rc<Analysis>,
        text: Rc<[u8]>,
        done: usize,
    },
    /// Sync, or the end of a simple Query: ReadyForQuery follows.
    End(End),
}

/// How a group ends.
#[derive(Debug, Default, Clone)]
pub(crate) struct End {
    /// Submitted commands that complete with it.
    pub(crate) commands: u32,
    /// A command of the group was refused.
    pub(crate) denied: bool,
    /// The group leaves a failed transaction.
    pub(crate) exits: bool,
    pub(crate) query: bool,
    /// The refusal, where the client is to hear it behind the group's other answers.
    pub(crate) untold: Option<Vec<u8>>,
    /// The group gives a transaction up in the place of the client's COMMIT.
    pub(crate) undo: Option<Undo>,
}

/// What the client is to hear of a `COMMIT` that it sent in a failed transaction,
/// beside what the target says of the `ROLLBACK` that it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Undo {
    /// Answers that come before the tag.
    pub(crate) before: Vec<u8>,
    /// The client's own Sync follows, and its ReadyForQuery is the one that is shown.
    pub(crate) synced: bool,
}

impl Item {
    /// Calls `each` with what the item does to the names once it has run.
    pub(crate) fn changes(&self, mut each: impl FnMut(Change)) {
        match self {
            Self::Parse(name, prepared) => {
                each(Change::Define(
                    name.clone(),
                    Definition::Statement(Rc::clone(prepared)),
                ));
            }
            Self::Bind(name, portal) => {
                each(Change::Define(
                    name.clone(),
                    Definition::Portal(Rc::clone(portal)),
                ));
            }
            Self::Close(space, name) => each(Change::Remove(*space, name.clone())),
            Self::Run(Some(portal)) => match &portal.statement {
                // What runs is the query inside of a PREPARE or DECLARE, which was
                // carried out before and is not again.
                Some(run) if run.part.is_some() => {}
                Some(run) => (0..run.analysis.statements.len())
                    .for_each(|part| changes(&run.analysis, part, &run.text, &mut each)),
                None => each(Change::Forget),
            },
            Self::Run(None) => each(Change::Forget),
            Self::Query {
                analysis,
                text,
                done,
            } => {
                for part in *done..analysis.statements.len() {
                    changes(analysis, part, text, &mut each);
                }
            }
            Self::Describe(_) | Self::End(_) => {}
        }
    }

    /// The statements that it runs and that have not completed.
    pub(crate) fn statements(&self) -> &[Rc<Statement>] {
        let statements = match self {
            Self::Query { analysis, done, .. } => analysis.statements.get(*done..),
            Self::Run(Some(portal)) => portal.statement.as_deref().map(Prepared::statements),
            _ => None,
        };
        statements.unwrap_or_default()
    }

    pub(crate) fn acts(&self) -> impl Iterator<Item = &Act> {
        self.statements().iter().map(|statement| &statement.act)
    }

    /// Whether the target may report another role or authorization afterwards.
    pub(crate) fn may_change_identity(&self) -> bool {
        matches!(self, Self::Run(None))
            || self.statements().iter().any(|statement| {
                adapter::may_change_session(statement)
                    || matches!(statement.act, Act::Set { .. } | Act::DiscardAll)
            })
    }

    /// Whether a `COPY … FROM STDIN` may be in it, done or not.
    fn may_take_data(&self) -> bool {
        let takes = |statement: &Rc<Statement>| {
            statement.class == Class::CopyIn || statement.act == Act::Unreadable
        };
        match self {
            Self::Query { analysis, .. } => analysis.statements.iter().any(takes),
            Self::Run(Some(portal)) => match &portal.statement {
                Some(run) => run.statements().iter().any(takes),
                None => true,
            },
            Self::Run(None) => true,
            _ => false,
        }
    }

    /// Whether it is, or holds, a `COPY … FROM STDIN`, which asks for its data or fails,
    /// and says either at once.
    pub(crate) fn asks_for_data(&self) -> bool {
        let asks = |statement: &Rc<Statement>| {
            let elsewhere = |effect: &&str| matches!(*effect, "server_file" | "server_program");
            statement.class == Class::CopyIn && !statement.effects.iter().any(elsewhere)
        };
        match self {
            Self::Query { analysis, .. } => analysis.statements.iter().any(asks),
            Self::Run(Some(portal)) => portal
                .statement
                .as_ref()
                .is_some_and(|run| run.statements().iter().any(asks)),
            _ => false,
        }
    }

    /// Whether the server's answer to it is one that is always shown.
    fn answered_visibly(&self) -> bool {
        matches!(self, Self::Parse(..) | Self::Run(_) | Self::Query { .. })
    }
}

/// Where a name's meaning comes from while answers are outstanding.
pub(crate) enum Outlook {
    /// Nothing outstanding touches it.
    Settled,
    /// Set earlier in the same group; an error would skip its use as well.
    Set(Option<Definition>),
    /// An earlier group may or may not change it.
    Unsettled,
}

#[derive(Debug, Default)]
pub(crate) struct Pending {
    items: VecDeque<Item>,
    ends: usize,
    /// Items in which a COPY may ask for data: it takes whatever comes next for that.
    copies: usize,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a whole group is unanswered.
    pub(crate) fn groups(&self) -> bool {
        self.ends > 0
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.ends += usize::from(matches!(item, Item::End(_)));
        self.copies += usize::from(item.may_take_data());
        self.items.push_back(item);
    }

    /// Takes back the last `count` items, which were never sent; false where they were
    /// not there any more.
    pub(crate) fn retract(&mut self, count: usize) -> bool {
        (0..count).all(|_| {
            let item = self.items.pop_back();
            self.gone(item).is_some()
        })
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        self.gone(item)
    }

    fn gone(&mut self, item: Option<Item>) -> Option<Item> {
        self.ends -= usize::from(matches!(item, Some(Item::End(_))));
        self.copies -= usize::from(item.as_ref().is_some_and(Item::may_take_data));
        item
    }

    /// Whether the target may take what is sent next for the data of a COPY.
    pub(crate) fn may_take_data(&self) -> bool {
        self.copies > 0
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Item> {
        self.items.front_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }

    /// How many items an answer of one kind settles before the item it is for,
    /// which lies in the first group; `None` where there is no such item.
    pub(crate) fn reach(&self, answers: impl Fn(&Item) -> bool) -> Option<usize> {
        for (index, item) in self.items.iter().enumerate() {
            if answers(item) {
                return Some(index);
            }
            if item.answered_visibly() || matches!(item, Item::End(_)) {
                return None;
            }
        }
        None
    }

    /// The last group, which has just ended, gives a transaction up.
    pub(crate) fn undoes(&mut self, undo: Undo) {
        if let Some(Item::End(end)) = self.items.back_mut() {
            end.undo = Some(undo);
        }
    }

    /// What the client hears before the tag of the statement that runs now.
    pub(crate) fn before_tag(&mut self) -> Option<Vec<u8>> {
        match (self.items.front(), self.items.get(1)) {
            (Some(Item::Query { .. }), Some(Item::End(end))) => {
                end.undo.as_ref().map(|undo| undo.before.clone())
            }
            _ => None,
        }
        .filter(|before| !before.is_empty())
    }

    /// A COPY asks for data. Whether anything else was sent behind it, which the server
    /// would have taken for that.
    pub(crate) fn has_more_than_copy(&self) -> bool {
        let mut items = self.items.iter();
        let alone = match items.next() {
            Some(Item::Run(_)) => true,
            Some(Item::Query { .. }) => matches!(items.next(), Some(Item::End(_))),
            _ => false,
        };
        !alone || items.next().is_some()
    }

    pub(crate) fn outlook(&self, space: Space, name: &[u8]) -> Outlook {
        let mut same_group = true;
        for item in self.items.iter().rev() {
            if matches!(item, Item::End(_)) {
                same_group = false;
                continue;
            }
            let mut said = None;
            item.changes(|change| {
                if let Some(about) = change.about(space, name) {
                    said = Some(about);
                }
            });
            match said {
                Some(about) if same_group => return Outlook::Set(about),
                Some(_) => return Outlook::Unsettled,
                None => {}
            }
        }
        Outlook::Settled
    }
}
