//! `COMMIT` in a transaction that failed here.
//!
//! A server ends such a transaction, rolls it back and says so: `ROLLBACK`. Here the
//! target's own is healthy, and to pass the client's COMMIT would commit what it did
//! before the refusal. So the target is sent, in the COMMIT's place, the one message
//! that the descriptor declares (`ROLLBACK`), as a command of its own with a record
//! and a permit, and the client hears the target's answer to that.
//!
//! Only a COMMIT that is alone in its Query or its unit is answered so. In company it
//! is refused like anything else in a failed transaction.

use std::rc::Rc;

use holdpoint_plugin::Action;

use super::decide::Proposal;
use super::known::Told;
use super::pending::{Item, Undo};
use super::plan::Plan;
use super::typed::{Ending, Typed};
use crate::adapter;
use crate::classify::{Act, Analysis};
use crate::describe::UNDO;
use crate::extended::Message;
use crate::frame::Space;
use crate::reply;

/// Whether a text is a COMMIT and nothing else. `AND CHAIN` would begin anew.
pub(super) fn ends(analysis: &Analysis) -> bool {
    match analysis.statements.as_slice() {
        [only] => only.act == Act::Commit { chain: false } && analysis.reject.is_none(),
        _ => false,
    }
}

/// A unit that runs one statement once: Parse, or not; Bind; Describe, or not; Execute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alone {
    parsed: bool,
    described: bool,
}

pub(super) fn alone(unit: &[(u64, Message)]) -> Option<Alone> {
    let (parsed, rest) = match unit {
        [(_, Message::Parse { .. }), rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (bind, described, run) = match rest {
        [(_, bind), (_, run)] => (bind, None, run),
        [
            (_, bind),
            (_, Message::Describe(Space::Portal, name)),
            (_, run),
        ] => (bind, Some(name), run),
        _ => return None,
    };
    match (bind, run) {
        (Message::Bind { portal, values, .. }, Message::Execute { portal: ran, .. }) => {
            let same = portal == ran && described.is_none_or(|name| name == portal);
            (same && values.is_empty()).then_some(Alone {
                parsed,
                described: described.is_some(),
            })
        }
        _ => None,
    }
}

/// Whether what such a unit runs is a COMMIT, and what it parses is that.
pub(super) fn commits(plan: &Plan) -> bool {
    let [event] = plan.events.as_slice() else {
        return false;
    };
    event.portal.statement.as_ref().is_some_and(|run| {
        run.part.is_none()
            && ends(&run.analysis)
            && plan.prepared.iter().all(|parsed| Rc::ptr_eq(parsed, run))
    })
}

impl Typed {
    /// Has the target give its transaction up in the place of the frames `first` to `last`.
    pub(super) fn give_up(
        &mut self,
        (first, last): (u64, u64),
        sync: Option<u64>,
        before: Vec<u8>,
        ending: Ending,
        out: &mut Vec<Action>,
    ) {
        let analysis = self.classifier.classify(UNDO.as_bytes());
        let mut command = adapter::blank(self.context_now(), true);
        command.text = UNDO.as_bytes().to_vec();
        command.canonical = Some(b"U".to_vec());
        let nothing = |_, _: &[u8]| None;
        let mut operations = adapter::all_operations(&analysis.statements, &nothing, &mut command);
        for operation in &mut operations {
            let fact = ("in_place_of".to_owned(), "commit".to_owned());
            operation.facts.push(fact);
        }
        self.may_undo = false;
        let group = self.group;
        self.group.exits = true;
        self.pending.push(Item::Query {
            analysis,
            text: Rc::clone(&self.nothing),
            done: 0,
        });
        let synced = sync.is_some();
        self.end_group(true, 1);
        self.pending.undoes(Undo { before, synced });
        let proposal = Proposal {
            before: group,
            items: 2,
            ending,
            sync,
            undo: true,
        };
        let told = Told::only(operations);
        self.propose(proposal, (first, last), command, told, out);
    }

    /// The same for a unit. A statement that it parses is parsed: drivers keep it.
    pub(super) fn give_up_unit(
        &mut self,
        seqs: &[u64],
        sync: u64,
        alone: Alone,
        plan: Plan,
        out: &mut Vec<Action>,
    ) {
        let mut before = Vec::new();
        reply::bind_complete(&mut before);
        if alone.described {
            reply::no_data(&mut before);
        }
        let (parse, rest) = seqs.split_at(usize::from(alone.parsed));
        let (Some(first), Some(last)) = (rest.first().copied(), rest.last().copied()) else {
            return;
        };
        let ending = Ending::Sync(sync);
        if parse.is_empty() {
            self.give_up((first, sync), None, before, ending, out);
            return;
        }
        out.extend(parse.iter().map(|seq| Action::Pass(*seq)));
        for item in plan.items {
            if matches!(item, Item::Parse(..)) {
                self.pending.push(item);
            }
        }
        self.group.open = true;
        self.give_up((first, last), Some(sync), before, ending, out);
    }
}
