//! The session after login: what becomes of a unit or a simple Query that is complete.
//!
//! Names are looked up as they will be when it runs, with the answers that are still to
//! come. What runs nothing is passed, what does is proposed as a command.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::rc::Rc;

use holdpoint_plugin::{Action, Command, Frame, Submission};

use super::context::Settings;
use super::known::Told;
use super::names::{Definition, Prepared};
use super::pending::{End, Item, Outlook};
use super::plan::{First, Plan, plan};
use super::typed::{Ending, Group, Proposed, Typed, Wait, protocol};
use super::undo;
use crate::adapter;
use crate::classify::{Act, Statement};
use crate::extended::{self, Message};
use crate::frame::{self, Space};

/// How a command comes to be proposed.
pub(super) struct Proposal {
    /// The group as it was without it.
    pub(super) before: Group,
    /// How many of the newest pending items are its own.
    pub(super) items: usize,
    pub(super) ending: Ending,
    /// The Sync behind it, where it is kept back.
    pub(super) sync: Option<u64>,
    pub(super) undo: bool,
}

impl Typed {
    /// Whether an earlier group may still change what these statements name.
    pub(super) fn names_unsettled(&self, statements: &[Rc<Statement>]) -> bool {
        statements.iter().any(|statement| match &statement.act {
            Act::Execute { name } => self.unsettled(Space::Statement, name.as_bytes()),
            Act::Fetch { name } => self.unsettled(Space::Portal, name.as_bytes()),
            _ => false,
        })
    }

    fn unsettled(&self, space: Space, name: &[u8]) -> bool {
        matches!(self.pending.outlook(space, name), Outlook::Unsettled)
    }

    /// A name's meaning at the end of `local`, which stands for the unit so far.
    pub(super) fn find(&self, local: &[Item], space: Space, name: &[u8]) -> Option<Definition> {
        if !self.names.tells_apart(name) {
            return None;
        }
        for item in local.iter().rev() {
            let mut said = None;
            item.changes(|change| {
                if let Some(about) = change.about(space, name) {
                    said = Some(about);
                }
            });
            if let Some(about) = said {
                return about;
            }
        }
        match self.pending.outlook(space, name) {
            Outlook::Settled => self.names.get(space, name),
            Outlook::Set(definition) => definition,
            Outlook::Unsettled => None,
        }
    }

    /// Whether an earlier, unanswered group sets what gives text its meaning: if it fails, it
    /// has not.
    pub(super) fn settings_unsettled(&self) -> bool {
        self.pending.groups() && self.pending.iter().flat_map(Item::acts).any(is_set)
    }

    /// Whether a unit uses a name that an earlier, unanswered group may change.
    fn unit_unsettled(&self) -> bool {
        if !self.pending.groups() {
            return false;
        }
        let mut made: Vec<(Space, &[u8])> = Vec::new();
        for (_, message) in &self.unit {
            let used = match message {
                Message::Bind { statement, .. } => Some((Space::Statement, statement.as_slice())),
                Message::Execute { portal, .. } => Some((Space::Portal, portal.as_slice())),
                _ => None,
            };
            if let Some((space, name)) = used
                && !made.contains(&(space, name))
                && self.unsettled(space, name)
            {
                return true;
            }
            match message {
                Message::Parse { name, prepared } => {
                    made.push((Space::Statement, name));
                    if self.names_unsettled(&prepared.analysis.statements) {
                        return true;
                    }
                }
                Message::Bind { portal, .. } => made.push((Space::Portal, portal)),
                _ => {}
            }
        }
        false
    }

    /// Decides the collected unit.
    pub(super) fn decide(&mut self, ending: Ending, out: &mut Vec<Action>) {
        if self.skip.is_some() {
            // The target failed the group meanwhile and skips to its Sync.
            self.drop_unit(out);
            match ending {
                Ending::Sync(seq) => self.pass_sync(seq, out),
                Ending::Flush(seq) => out.push(Action::Drop(seq)),
                _ => {}
            }
            return;
        }
        let takes_data = !self.unit.is_empty() && self.pending.may_take_data();
        if takes_data && self.copies() {
            let refusal = protocol("a new command inside the data of a COPY");
            self.fatal(&refusal, out);
            return;
        }
        if self.failed_here && !self.pending.is_empty() || takes_data {
            if self.drain(out) {
                (self.wait, self.ending) = (Wait::Drain, Some(ending));
            }
            return;
        }
        if self.unit_unsettled() || self.settings_unsettled() {
            (self.wait, self.ending) = (Wait::Settle, Some(ending));
            return;
        }
        let unit = std::mem::take(&mut self.unit);
        self.unit_bytes = 0;
        let runs = unit.iter().any(|(_, message)| message.runs());
        let seqs: Vec<u64> = unit.iter().map(|(seq, _)| *seq).collect();
        let alone = undo::alone(&unit);
        let plan = plan(unit, |local, space, name| self.find(local, space, name));
        if self.failed_here
            && let Some(first) = plan.first
            && first != First::Exit
            // A server prepares in a failed transaction what could end it.
            && (runs || first != First::Commit)
        {
            let commit =
                alone.filter(|_| self.may_undo && !self.group.open && undo::commits(&plan));
            if let (Some(alone), Ending::Sync(sync)) = (commit, ending) {
                self.give_up_unit(&seqs, sync, alone, plan, out);
                return;
            }
            self.answer_aborted(&seqs, ending, first == First::Commit, out);
            return;
        }
        if !runs {
            self.pass_unit(&seqs, plan, ending, out);
            return;
        }
        let mut command = extended::command(
            &plan.events,
            &plan.prepared,
            self.context_now(),
            self.in_transaction(),
        );
        let mut known = std::mem::take(&mut self.known);
        let lookup = |at, space, name: &[u8]| {
            self.find(plan.items.get(..at).unwrap_or_default(), space, name)
        };
        let mut tell = || extended::operations(&plan.events, &lookup, &mut command);
        let told = match extended::statements(&plan.events) {
            Some(statements) => known.tell(statements, tell),
            None => Told::only(tell()),
        };
        self.known = known;
        self.tell_reading(&plan, &mut command);
        if command.reject.is_none() {
            command.reject = self.undescribed(&plan);
        }
        let asks = plan.items.iter().any(Item::asks_for_data);
        match ending {
            // Whether the server reads a Sync, or ignores it amid the data, hangs on how
            // the COPY goes. It says so without one.
            Ending::Sync(seq) if asks => {
                self.queue.push_front(Frame {
                    seq,
                    kind: Some(b'S'),
                    body: Vec::new(),
                });
                self.submit_unit(&seqs, plan, Ending::Full, command, told, out);
            }
            _ => self.submit_unit(&seqs, plan, ending, command, told, out),
        }
    }

    fn pass_unit(&mut self, seqs: &[u64], plan: Plan, ending: Ending, out: &mut Vec<Action>) {
        self.show_every_reply(ending, out);
        out.extend(seqs.iter().map(|seq| Action::Pass(*seq)));
        self.group.open |= !seqs.is_empty();
        self.group.flushed = matches!(ending, Ending::Flush(_));
        for item in plan.items {
            self.pending.push(item);
        }
        match ending {
            Ending::Sync(seq) => self.pass_sync(seq, out),
            Ending::Flush(seq) => out.push(Action::Pass(seq)),
            _ => {}
        }
    }

    fn submit_unit(
        &mut self,
        seqs: &[u64],
        plan: Plan,
        ending: Ending,
        command: Command,
        told: Told,
        out: &mut Vec<Action>,
    ) {
        let (Some(first), Some(last)) = (seqs.first().copied(), seqs.last().copied()) else {
            return;
        };
        self.show_every_reply(ending, out);
        let before = self.group;
        self.group.exits |= plan.first == Some(First::Exit);
        self.group.effects |= !told.harmless;
        let mut items = plan.items.len();
        for item in plan.items {
            self.pending.push(item);
        }
        let (last, sync) = match ending {
            Ending::Sync(seq) if before.open => (last, Some(seq)),
            Ending::Sync(seq) | Ending::Flush(seq) => (seq, None),
            _ => (last, None),
        };
        if matches!(ending, Ending::Sync(_)) && sync.is_none() {
            self.end_group(false, 1);
            items += 1;
        } else {
            self.group.open = true;
            self.group.flushed = matches!(ending, Ending::Flush(_));
            self.group.commands += 1;
        }
        let proposal = Proposal {
            before,
            items,
            ending,
            sync,
            undo: false,
        };
        self.propose(proposal, (first, last), command, told, out);
    }

    /// Puts a command, whose `pending` items are there already, before the host.
    pub(super) fn propose(
        &mut self,
        proposal: Proposal,
        (first, last): (u64, u64),
        command: Command,
        told: Told,
        out: &mut Vec<Action>,
    ) {
        let Proposal {
            before,
            items,
            ending,
            sync,
            undo,
        } = proposal;
        let skip = self.pending.len().saturating_sub(items);
        let pending = &self.pending;
        self.identity_asked |= pending.iter().skip(skip).any(Item::may_change_identity);
        let notify = sync.is_some() || !self.queue.is_empty();
        self.wait = Wait::Verdict(Proposed {
            items,
            before,
            ending,
            sync,
            notify,
        });
        out.push(Action::Submit(Submission {
            first,
            last,
            command: Command {
                operations: told.operations,
                ..command
            },
            notify,
            undo,
            recall: told.recall,
        }));
    }

    /// Closes the group with `commands` more commands than it had.
    pub(super) fn end_group(&mut self, query: bool, commands: u32) {
        let group = std::mem::take(&mut self.group);
        self.pending.push(Item::End(End {
            commands: group.commands + commands,
            denied: group.denied,
            exits: group.exits,
            query,
            untold: self.untold.take(),
            undo: None,
        }));
    }

    pub(super) fn pass_sync(&mut self, seq: u64, out: &mut Vec<Action>) {
        out.push(Action::Pass(seq));
        self.skip = None;
        self.end_group(false, 0);
    }

    /// A Flush is answered without an end that could be counted, so every answer is.
    fn show_every_reply(&mut self, ending: Ending, out: &mut Vec<Action>) {
        if !matches!(ending, Ending::Sync(_)) && !self.every_reply {
            self.every_reply = true;
            out.push(Action::Subscribe(frame::upstream_replies(true)));
        }
    }

    /// Whether a command that is sent now would run inside a transaction block.
    pub(super) fn in_transaction(&self) -> bool {
        let mut inside = self.status != b'I';
        for act in self.pending.iter().flat_map(Item::acts) {
            match act {
                Act::Begin => inside = true,
                Act::Commit { chain } | Act::Rollback { chain } => inside = *chain,
                _ => {}
            }
        }
        inside
    }

    /// Adds to a command what was set when the server read it, where that is not what is set
    /// now: it reads literals when it prepares, and values when it binds.
    pub(super) fn tell_reading(&self, plan: &Plan, command: &mut Command) {
        for event in &plan.events {
            let prepared = event.portal.statement.as_deref();
            self.tell_under(prepared.map(|prepared| &prepared.under), command);
            self.tell_under(Some(&event.portal.under), command);
            let before = plan.items.get(..event.at).unwrap_or_default();
            let statements = prepared.map(Prepared::statements).unwrap_or_default();
            self.tell_named(statements, before, command);
        }
        let sets = plan.items.iter().flat_map(Item::acts).any(is_set);
        if sets && plan.events.len() > 1 {
            // The texts are in the digest, and the order in which they run; not when they are read.
            command.context.push(("read at".to_owned(), reading(plan)));
        }
    }

    /// The same of what the statements name.
    pub(super) fn tell_named(
        &self,
        statements: &[Rc<Statement>],
        before: &[Item],
        command: &mut Command,
    ) {
        for statement in statements {
            let found = match &statement.act {
                Act::Execute { name } => self.find(before, Space::Statement, name.as_bytes()),
                Act::Fetch { name } => self.find(before, Space::Portal, name.as_bytes()),
                _ => None,
            };
            match found {
                Some(Definition::Statement(prepared)) => {
                    self.tell_under(Some(&prepared.under), command);
                }
                Some(Definition::Portal(portal)) => self.tell_under(Some(&portal.under), command),
                None => {}
            }
        }
    }

    fn tell_under(&self, under: Option<&OnceCell<Settings>>, command: &mut Command) {
        let Some(under) = under else {
            return;
        };
        let changing = self.pending.iter().flat_map(Item::acts).any(is_set);
        let then = match under.get() {
            Some(then) if !changing && *then == self.context.settings() => return,
            Some(then) => format!("{then:?}"),
            None if !changing => return,
            // Before or behind what the group sets.
            None => self.context.unanswered(),
        };
        let entry = ("read under".to_owned(), then);
        if !command.context.contains(&entry) {
            command.context.push(entry);
        }
    }

    /// The context, and what unanswered commands will have added to it.
    pub(super) fn context_now(&self) -> Vec<(String, String)> {
        let mut entries = self.context.entries();
        for item in self.pending.iter() {
            for statement in item.statements() {
                if let Act::Set { name, value, .. } = &statement.act {
                    entries.push((name.clone(), value.clone()));
                }
                if adapter::may_change_session(statement) {
                    // What it does to the session is known to none but this one.
                    entries.push(("after".to_owned(), self.context.unanswered()));
                }
            }
        }
        entries
    }
}

/// Whether it sets what gives text its meaning.
fn is_set(act: &Act) -> bool {
    matches!(act, Act::Set { .. } | Act::DiscardAll)
}

/// For each run of a unit, where among the unit's messages it is prepared, bound and run; `-`
/// where it was before.
fn reading(plan: &Plan) -> String {
    let mut places = String::new();
    for event in &plan.events {
        let parsed = plan
            .items
            .iter()
            .position(|item| match (item, &event.portal.statement) {
                (Item::Parse(_, made), Some(run)) => Rc::ptr_eq(made, run),
                _ => false,
            });
        let bound = plan.items.iter().position(
            |item| matches!(item, Item::Bind(_, made) if Rc::ptr_eq(made, &event.portal)),
        );
        let place = |at: Option<usize>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let _ = write!(
            places,
            "{}, {}, {}; ",
            place(parsed),
            place(bound),
            event.at
        );
    }
    places
}
