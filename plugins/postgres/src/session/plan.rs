//! What a unit of the extended protocol means before it is decided.

use std::cell::OnceCell;
use std::rc::Rc;

use super::names::{Definition, Portal, Prepared};
use super::pending::Item;
use crate::classify::{Act, Statement};
use crate::extended::{self, Event, Message};
use crate::frame::Space;

/// What a unit runs first, for a transaction that failed here; or `Other` where it
/// prepares what a failed transaction does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// `ROLLBACK` or `ROLLBACK TO`.
    Exit,
    Commit,
    Other,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) events: Vec<Event>,
    pub(super) prepared: Vec<Rc<Prepared>>,
    pub(super) first: Option<First>,
}

/// What the unit's messages mean, each in the light of those before it.
pub(super) fn plan(
    unit: Vec<(u64, Message)>,
    find: impl Fn(&[Item], Space, &[u8]) -> Option<Definition>,
) -> Plan {
    let mut plan = Plan::default();
    for (_, message) in unit {
        let item = match message {
            Message::Parse { name, prepared } => {
                plan.prepares(Some(prepared.statements()));
                plan.prepared.push(Rc::clone(&prepared));
                Item::Parse(name, prepared)
            }
            Message::Bind {
                portal,
                statement,
                values,
                results,
            } => {
                let found = find(&plan.items, Space::Statement, &statement);
                let found = match found {
                    Some(Definition::Statement(prepared)) => Some(prepared),
                    _ => None,
                };
                plan.prepares(found.as_deref().map(Prepared::statements));
                let parameters = extended::typed(values, found.as_deref());
                let bound = Rc::new(Portal {
                    statement: found,
                    parameters,
                    results,
                    hold: false,
                    under: OnceCell::new(),
                });
                plan.events.push(Event {
                    portal: Rc::clone(&bound),
                    name: statement,
                    rows: None,
                    at: plan.items.len(),
                });
                Item::Bind(portal, bound)
            }
            Message::Describe(space, name) => {
                let found = match find(&plan.items, space, &name) {
                    Some(Definition::Statement(prepared)) => Some(prepared),
                    Some(Definition::Portal(portal)) => portal.statement.clone(),
                    None => None,
                };
                plan.prepares(found.as_deref().map(Prepared::statements));
                Item::Describe(found)
            }
            Message::Close(space, name) => Item::Close(space, name),
            Message::Execute { portal, rows } => {
                let found = find(&plan.items, Space::Portal, &portal);
                let found = match found {
                    Some(Definition::Portal(portal)) => Some(portal),
                    _ => None,
                };
                let statement = found
                    .as_ref()
                    .and_then(|portal| portal.statement.as_deref());
                plan.runs(statement);
                plan.run(found, portal, rows)
            }
        };
        plan.items.push(item);
    }
    plan
}

impl Plan {
    fn prepares(&mut self, statements: Option<&[Rc<Statement>]>) {
        let ends = |act: &Act| {
            matches!(
                act,
                Act::Rollback { .. } | Act::RollbackTo | Act::Commit { .. }
            )
        };
        if !statements.is_some_and(|all| all.iter().all(|one| ends(&one.act))) {
            self.first.get_or_insert(First::Other);
        }
    }

    fn runs(&mut self, prepared: Option<&Prepared>) {
        let act = prepared
            .filter(|prepared| prepared.part.is_none())
            .and_then(|prepared| prepared.statements().first())
            .map(|statement| &statement.act);
        self.first.get_or_insert(match act {
            Some(Act::Rollback { .. } | Act::RollbackTo) => First::Exit,
            Some(Act::Commit { .. }) => First::Commit,
            _ => First::Other,
        });
    }

    /// A portal that was bound in this unit is judged where it runs, not twice.
    fn run(&mut self, found: Option<Rc<Portal>>, name: Vec<u8>, rows: u32) -> Item {
        let portal = found.clone().unwrap_or_default();
        let bound = self
            .events
            .iter()
            .rposition(|event| event.rows.is_none() && Rc::ptr_eq(&event.portal, &portal));
        let name = match bound {
            Some(index) => self.events.remove(index).name,
            None => name,
        };
        self.events.push(Event {
            portal,
            name,
            rows: Some(rows),
            at: self.items.len(),
        });
        Item::Run(found)
    }
}
