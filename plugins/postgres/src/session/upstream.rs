//! The session after login, the target's side: what its answers settle.
//!
//! Answers are released unchanged. The one exception is the transaction status
//! of a transaction that failed here and not at the target.

use holdpoint_plugin::{Action, Completion, Fault, Frame};

use super::names::{Change, Definition, Prepared};
use super::pending::{End, Item};
use super::typed::{Copying, Skip, Typed, Wait, protocol};
use crate::adapter;
use crate::classify::Act;
use crate::frame::{self, Space};
use crate::login;
use crate::reply::{self, ServerError};

/// How the commands of the current group went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The tags of the statements that completed.
    status: String,
    rows: Option<u64>,
    failed: bool,
    /// Simple Queries that the server has skipped, on its way to a Sync.
    pub(super) skipped: u32,
}

/// What a ReadyForQuery comes to.
struct Ready {
    /// The target's transaction status, and the one that is shown.
    status: u8,
    shown: u8,
    /// A refusal that comes before it.
    untold: Option<Vec<u8>>,
    /// The client waits for another one.
    silent: bool,
}

/// Longest list of tags in a record; a thousand statements need no thousand tags.
const MAX_STATUS: usize = 256;

fn fault(message: &str) -> Fault {
    Fault {
        message: message.to_owned(),
    }
}

impl Typed {
    pub(crate) fn on_upstream(
        &mut self,
        frames: Vec<Frame>,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        // One `pass` releases all that came before it.
        let mut release = None;
        for frame in frames {
            if self.closed {
                break;
            }
            match frame.kind {
                Some(b'Z') => {
                    let Ready {
                        status,
                        shown,
                        untold,
                        silent,
                    } = self.ready(&frame.body, out)?;
                    if silent {
                        out.extend(release.take().map(Action::Pass));
                        out.push(Action::Drop(frame.seq));
                    } else if status == shown && untold.is_none() {
                        release = Some(frame.seq);
                    } else {
                        out.extend(release.take().map(Action::Pass));
                        let mut ready = untold.unwrap_or_default();
                        reply::ready(&mut ready, shown);
                        out.extend([Action::Drop(frame.seq), Action::ToClient(ready)]);
                    }
                    continue;
                }
                Some(b'S') => {
                    if let Some(refusal) = self.parameter(&frame.body)? {
                        out.extend(release.take().map(Action::Pass));
                        out.push(Action::Drop(frame.seq));
                        self.fatal(&refusal, out);
                        break;
                    }
                }
                Some(kind) => {
                    if kind == b'C'
                        && let Some(before) = self.pending.before_tag()
                    {
                        out.extend(release.take().map(Action::Pass));
                        out.push(Action::ToClient(before));
                    }
                    self.answer(kind, &frame.body, out)?;
                    if kind == b'E'
                        && self.classifier.protects()
                        && let Some(kept) = reply::without_values(&frame.body)
                    {
                        out.extend(release.take().map(Action::Pass));
                        out.extend([Action::Drop(frame.seq), Action::ToClient(kept)]);
                        continue;
                    }
                }
                None => return Err(fault("the target sent a frame without a kind")),
            }
            release = Some(frame.seq);
        }
        out.extend(release.map(Action::Pass));
        // A refusal that waited for these answers comes right behind them: as long
        // as it waits, nothing later is sent that could be answered in between.
        self.advance(out);
        Ok(())
    }

    fn answer(&mut self, kind: u8, body: &[u8], out: &mut Vec<Action>) -> Result<(), Fault> {
        let expected = |reached: Option<usize>| {
            reached.ok_or_else(|| fault("the target answered what it was not asked"))
        };
        match kind {
            b'E' => return self.error(body),
            b'1' => {
                let reach = self.pending.reach(|item| matches!(item, Item::Parse(..)));
                self.settle(expected(reach)? + 1);
            }
            // Shown only after a Flush, and for groups that were sent before it
            // no longer needed.
            b'2' => self.settle_if(|item| matches!(item, Item::Bind(..))),
            b'3' => self.settle_if(|item| matches!(item, Item::Close(..))),
            b'T' => {
                self.described(body)?;
                self.settle_if(|item| matches!(item, Item::Describe(_)));
            }
            b'n' => self.settle_if(|item| matches!(item, Item::Describe(_))),
            b'C' | b'I' | b's' => {
                let reach = self.pending.reach(runs);
                self.settle(expected(reach)?);
                self.completed(kind, body);
            }
            b'G' => {
                let reach = self.pending.reach(runs);
                self.settle(expected(reach)?);
                self.copy_in(out)?;
            }
            _ => {
                return Err(fault(
                    "the target sent a message that has no place in a session",
                ));
            }
        }
        Ok(())
    }

    fn settle_if(&mut self, answers: impl Fn(&Item) -> bool) {
        if let Some(reach) = self.pending.reach(answers) {
            self.settle(reach + 1);
        }
    }

    /// The first `count` items have succeeded.
    fn settle(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(item) = self.pending.pop() {
                let (names, under) = (&mut self.names, self.context.settings());
                item.changes(|change| names.apply(change, &under));
            }
        }
    }

    /// One statement is done, or (`s`) stopped at its row limit.
    fn completed(&mut self, kind: u8, body: &[u8]) {
        self.fields = None;
        if kind == b'C' {
            let tag = body.strip_suffix(b"\0").unwrap_or(body);
            self.outcome.tag(&String::from_utf8_lossy(tag));
        }
        match self.pending.front_mut() {
            Some(Item::Query {
                analysis,
                text,
                done,
            }) => {
                let (analysis, text, part) = (analysis.clone(), text.clone(), *done);
                *done += 1;
                let (names, under) = (&mut self.names, self.context.settings());
                let apply = |change| names.apply(change, &under);
                super::names::changes(&analysis, part, &text, apply);
                if let Some(statement) = analysis.statements.get(part) {
                    self.ran(statement, Some(&text));
                }
            }
            Some(Item::Run(_)) => {
                let Some(Item::Run(portal)) = self.pending.pop() else {
                    return;
                };
                let Some(prepared) = portal.as_ref().and_then(|p| p.statement.clone()) else {
                    self.names.apply(Change::Forget, &self.context.settings());
                    self.context.unrepeatable();
                    return;
                };
                if self.copy == Copying::Ended {
                    self.copy = Copying::No;
                }
                let item = Item::Run(portal.clone());
                let (names, under) = (&mut self.names, self.context.settings());
                item.changes(|change| names.apply(change, &under));
                let values = portal.is_some_and(|portal| !portal.parameters.is_empty());
                for statement in prepared.statements() {
                    self.ran(statement, (!values).then_some(&prepared.text));
                }
            }
            _ => {}
        }
    }

    /// What a statement that has run did to the session. `text` is absent where
    /// it does not say all.
    fn ran(&mut self, statement: &crate::classify::Statement, text: Option<&[u8]>) {
        match &statement.act {
            Act::Begin => self.status = b'T',
            Act::Commit { chain } | Act::Rollback { chain } => {
                if statement.act == (Act::Commit { chain: *chain }) && self.status != b'E' {
                    self.context.committed();
                } else {
                    self.context.rolled_back();
                }
                // A chain keeps none of them either.
                self.context.end_transaction();
                self.status = if *chain { b'T' } else { b'I' };
            }
            Act::RollbackTo => self.context.rolled_back(),
            Act::Set { name, value, local } => self.context.changed(name, value, *local),
            Act::DiscardAll => self.context.reset(),
            _ => {}
        }
        if self.may_have_changed(statement) {
            match text {
                Some(text) => {
                    self.context
                        .changed("after", &String::from_utf8_lossy(text), false);
                }
                None => self.context.unrepeatable(),
            }
        }
    }

    /// Whether a statement that has run may have changed the session in a way that nothing
    /// tells. What a name stands for is judged in its place.
    fn may_have_changed(&self, statement: &crate::classify::Statement) -> bool {
        let (space, name) = match &statement.act {
            Act::Execute { name } => (Space::Statement, name.as_bytes()),
            Act::Fetch { name } => (Space::Portal, name.as_bytes()),
            _ => return adapter::may_change_session(statement),
        };
        let known = self.names.get(space, name);
        let prepared = match known.filter(|_| self.names.tells_apart(name)) {
            Some(Definition::Statement(prepared)) => Some(prepared),
            Some(Definition::Portal(portal)) => portal.statement.clone(),
            None => None,
        };
        let tells = |prepared: &Prepared| {
            let mut inner = prepared.statements().iter();
            adapter::is_plain(prepared) && !inner.any(|one| adapter::may_change_session(one))
        };
        // Its arguments may call functions.
        !statement.unknown_functions.is_empty() || !prepared.is_some_and(|one| tells(&one))
    }

    fn copy_in(&mut self, out: &mut Vec<Action>) -> Result<(), Fault> {
        if self.pending.has_more_than_copy() {
            // The server ignores a Sync amid the data and fails at a command: which
            // answer is for what would be a guess from here on.
            return Err(fault(
                "a COPY asks for data, and other messages were sent behind it",
            ));
        }
        self.copy = match self.pending.front_mut() {
            Some(Item::Run(_)) => Copying::Extended,
            _ => Copying::Simple,
        };
        out.push(Action::Subscribe(frame::client_commands(true)));
        if matches!(self.wait, Wait::Drain) {
            self.wait = Wait::Nothing;
        }
        Ok(())
    }

    /// The server skips the rest: of the text where a simple Query failed, and else
    /// all up to a Sync, simple Queries among it. Whatever may come before a Query
    /// without a Sync has its answers shown, so the first item is the one that failed.
    fn error(&mut self, body: &[u8]) -> Result<(), Fault> {
        self.fields = None;
        let error = ServerError::read(body);
        if self.pending.is_empty() {
            // A server that goes on skips to a Sync now, and nothing here would know.
            return match error.ends_session() {
                true => Ok(()),
                false => Err(fault("the target failed what it was not asked")),
            };
        }
        self.outcome.failed = true;
        self.outcome.status = error.status();
        let to_sync = !matches!(self.pending.front_mut(), Some(Item::Query { .. }));
        let mut first = true;
        loop {
            match self.pending.front_mut() {
                // With nothing before it, what failed is the end itself.
                Some(Item::End(end)) if first || !(to_sync && end.query) => return Ok(()),
                // Sent by a Flush: its Sync is still to come.
                None => break,
                Some(_) => {}
            }
            first = false;
            match self.pending.pop() {
                Some(Item::End(end)) => self.outcome.skipped += end.commands,
                // Made, not made, or replaced: nobody can tell.
                Some(Item::Bind(name, _)) => self.names.apply(
                    Change::Remove(Space::Portal, name),
                    &self.context.settings(),
                ),
                Some(item @ (Item::Query { .. } | Item::Run(_))) => {
                    let (names, under) = (&mut self.names, self.context.settings());
                    item.changes(|change| {
                        if matches!(change, Change::Forget) {
                            names.apply(change, &under);
                        }
                    });
                }
                _ => {}
            }
        }
        self.skip = Some(Skip::Pass);
        Ok(())
    }

    /// ReadyForQuery: what it settles.
    fn ready(&mut self, body: &[u8], out: &mut Vec<Action>) -> Result<Ready, Fault> {
        let status = match body {
            [status @ (b'I' | b'T' | b'E')] => *status,
            _ => return Err(fault("the target's transaction status makes no sense")),
        };
        self.fields = None;
        let failed = self.outcome.failed;
        let mut end = self.end_group_answered()?;
        let synced = end.undo.as_ref().is_some_and(|undo| undo.synced);
        end.commands += std::mem::take(&mut self.outcome.skipped);
        if end.commands > 0 {
            let outcome = &mut self.outcome;
            out.push(Action::Completed(Completion {
                commands: end.commands,
                status: std::mem::take(&mut outcome.status),
                failed,
                rows: outcome.rows.take(),
            }));
        }
        self.outcome.clear();
        if end.query {
            self.names.drop_unnamed();
        }
        if self.copy != Copying::No {
            self.copy = Copying::No;
            out.push(Action::Subscribe(frame::client_commands(false)));
        }
        if self.every_reply
            && !self.classifier.protects()
            && !self.group.open
            && !self.pending.groups()
        {
            self.every_reply = false;
            out.push(Action::Subscribe(frame::upstream_replies(false)));
        }
        self.status = status;
        match status {
            b'T' => {
                let left = end.exits && !failed;
                self.failed_here = end.denied || self.failed_here && !left;
            }
            // The server says itself that the transaction is over, or failed.
            _ => self.failed_here = false,
        }
        if status == b'I' {
            if failed {
                self.context.rolled_back();
            } else {
                self.context.committed();
            }
            self.names.end_transaction();
            self.context.end_transaction();
        }
        Ok(Ready {
            status,
            shown: self.shown_status(),
            // Where the target failed the group earlier, the client has its error.
            untold: end.untold.filter(|_| !failed),
            silent: synced && !failed,
        })
    }

    /// Takes the first group off, which is answered in full.
    fn end_group_answered(&mut self) -> Result<End, Fault> {
        while let Some(item) = self.pending.pop() {
            match item {
                Item::End(end) => return Ok(end),
                Item::Parse(..) | Item::Run(_) if !self.outcome.failed => {
                    return Err(fault("the target answered less than it was asked"));
                }
                item @ (Item::Bind(..) | Item::Close(..)) if !self.outcome.failed => {
                    let (names, under) = (&mut self.names, self.context.settings());
                    item.changes(|change| names.apply(change, &under));
                }
                // More statements than tags: the text was not what it seemed.
                Item::Query { analysis, done, .. } if done != analysis.statements.len() => {
                    self.names.apply(Change::Forget, &self.context.settings());
                }
                _ => {}
            }
        }
        Err(fault("the target answered what it was not asked"))
    }

    /// A changed parameter: `Some` where it ends the session.
    fn parameter(&mut self, body: &[u8]) -> Result<Option<holdpoint_plugin::Refusal>, Fault> {
        let (name, value) = login::parameter_status(body)?;
        if let Some(refusal) = login::unpinned(&name, &value) {
            return Ok(Some(refusal));
        }
        if matches!(name.as_str(), "session_authorization" | "is_superuser")
            && !self.identity_asked
            && self
                .reported
                .get(&name)
                .is_some_and(|before| *before != value)
        {
            let mut refusal = protocol("the target changed who the session runs as, unasked");
            refusal.hint = Some("connect again; tell the operator of this gateway".to_owned());
            return Ok(Some(refusal));
        }
        // Only known names are kept: a target cannot fill memory with new ones.
        if let Some(known) = self.reported.get_mut(&name) {
            *known = value;
        }
        Ok(None)
    }
}

impl Outcome {
    fn tag(&mut self, tag: &str) {
        if self.failed {
            return;
        }
        if let Some(rows) = reply::rows(tag) {
            self.rows = Some(self.rows.unwrap_or(0).saturating_add(rows));
        }
        if self.status.is_empty() {
            tag.chars()
                .take(MAX_STATUS)
                .collect::<String>()
                .clone_into(&mut self.status);
        } else if self.status.len() + tag.len() < MAX_STATUS {
            self.status.push_str("; ");
            self.status.push_str(tag);
        }
    }

    /// Nothing of what was answered is still to count.
    pub(super) fn is_clear(&self) -> bool {
        self.status.is_empty() && self.rows.is_none() && !self.failed && self.skipped == 0
    }

    fn clear(&mut self) {
        self.status.clear();
        self.rows = None;
        self.failed = false;
    }
}

/// Whether an item is answered by a tag.
fn runs(item: &Item) -> bool {
    matches!(item, Item::Run(_) | Item::Query { .. })
}
