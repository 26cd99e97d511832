//! What people read, before a channel adds its markup: a title, facts, the command whole.
//!
//! Every text here has been through [`holdpoint_core::display`], so that nothing in it is invisible
//! or moved and all of it can be read back. A channel escapes its own markup on top of that, without
//! losing anything either.

use std::fmt::Write as _;

use holdpoint_core::display::{visible, visible_line};

use super::{Message, Notice};
use crate::approvals::{IdentityView, View};

pub(crate) struct Card<'a> {
    pub(crate) message: Message,
    pub(crate) view: &'a View,
    /// The console's page.
    pub(crate) link: Option<String>,
}

impl<'a> Card<'a> {
    pub(crate) fn of(notice: &'a Notice, public_url: Option<&str>) -> Self {
        Self::new(notice.message, notice.view(), public_url)
    }

    pub(crate) fn new(message: Message, view: &'a View, public_url: Option<&str>) -> Self {
        Self {
            message,
            view,
            link: public_url.map(|base| link(base, &view.id)),
        }
    }

    /// Words of ours alone.
    pub(crate) fn headline(&self) -> &'static str {
        match (self.message, self.view.state.as_str()) {
            (Message::Pending, _) => "Approval needed",
            (Message::Left, _) => "Approval still needed: the client left and may come back",
            (Message::Step, _) => "Approval needed: the next step",
            (Message::Escalated, _) => "Approval still needed: more people may decide",
            (Message::Justified, _) => "Approval needed: the reason was given",
            (Message::BrokenGlass, _) => "ALARM: a command goes without its reviewers",
            (Message::Reviewed, _) => "Looked into: the command that went without its reviewers",
            (Message::Used, _) => "Approved and sent",
            (Message::UsedLater, _) => "Approved and sent: the client came back for it",
            (Message::Settled, "approved") => "Approved",
            (Message::Settled, "used") => "Approved and sent",
            (Message::Settled, "denied") => "Denied",
            (Message::Settled, "expired") => "Expired: not decided or not used in time",
            (Message::Settled, "withdrawn") => "Withdrawn: the client left",
            (Message::Settled, "revoked") => "Revoked: the identity may not act any more",
            (Message::Settled, "orphaned") => "Over: the gateway stopped, nothing was sent",
            (Message::Settled, _) => "Over",
        }
    }

    /// On one line: what, where, by whom.
    pub(crate) fn title(&self) -> String {
        let view = self.view;
        visible_line(&format!(
            "{} on {} by {}",
            view.shown.class, view.target, view.principal.label
        ))
    }

    /// Name and value, each on one line.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let view = self.view;
        let mut facts = vec![("Target", view.target.clone()), ("Class", class(view))];
        let mut who = format!("{} ({})", view.principal.label, view.principal.kind);
        let behind = match view.principal.actors.as_slice() {
            [] => names(&view.principal.owners),
            _ => names(&view.principal.actors),
        };
        if !behind.is_empty() {
            who = format!("{who} for {behind}");
        }
        facts.push(("Who", who));
        if !view.shown.objects.is_empty() {
            facts.push(("Objects", view.shown.objects.join(", ")));
        }
        if !view.shown.effects.is_empty() {
            facts.push(("Effects", view.shown.effects.join(", ")));
        }
        if view.shown.in_transaction {
            facts.push(("Transaction", "inside an open one".to_owned()));
        }
        facts.push(("Rule", view.rule.clone()));
        if let Some(reason) = &view.reason {
            facts.push(("Reason", reason.clone()));
        }
        if let Some(glass) = &view.glass {
            facts.push(("Let go by", glass.label.clone()));
            facts.push(("In their words", glass.reason.clone()));
        }
        match &view.justification {
            Some(why) => facts.push(("The requester says", why.clone())),
            None if view.justify && self.message.asks() => {
                let text = "nothing yet: it cannot be approved before that";
                facts.push(("The requester says", text.to_owned()));
            }
            None => {}
        }
        if view.steps.len() > 1 && self.message.asks() {
            facts.push(("Step", format!("{} of {}", view.step, view.steps.len())));
        }
        if let Some(takes) = takes(view).filter(|_| self.message.asks()) {
            facts.push(("Approving takes", takes));
        }
        if self.message.asks() {
            facts.push(("Reviewers", view.reviewers.join(", ")));
            facts.push(("Expires", view.expires_at.clone()));
            if view.waiting == 0 {
                let text = "the client has left; approved, the identical command passes once when it is asked for again";
                facts.push(("Waits", text.to_owned()));
            }
        }
        if view.quorum > 1 || view.approvals > 0 {
            let votes = view.votes.iter().map(|vote| {
                let done = match vote.decision.as_str() {
                    "approve" => "approved",
                    _ => "denied",
                };
                format!("{} {done} ({})", vote.label, vote.channel)
            });
            let votes: Vec<_> = votes.collect();
            let mut text = format!("{} of {}", view.approvals, view.quorum);
            if !votes.is_empty() {
                text = format!("{text}: {}", votes.join(", "));
            }
            facts.push(("Approvals", text));
        }
        if let Some(denial) = &view.denial {
            facts.push(("Denied by", denial.label.clone()));
            facts.push(("Because", denial.reason.clone()));
        }
        facts
            .into_iter()
            .map(|(name, value)| (name, visible_line(&value)))
            .collect()
    }

    /// The command's text, with lines of its own.
    pub(crate) fn command(&self) -> String {
        visible(&self.view.shown.text)
    }

    /// Parameters and settings that the command depends on, one a line; empty without.
    pub(crate) fn values(&self) -> String {
        let shown = &self.view.shown;
        let parameters = shown.parameters.iter().map(|line| visible_line(line));
        let settings = shown.context.iter().map(|pair| {
            let pair: Vec<_> = pair.iter().map(|part| visible_line(part)).collect();
            format!("setting {}", pair.join(" = "))
        });
        let lines: Vec<_> = parameters.chain(settings).collect();
        lines.join("\n")
    }

    /// What stands in place of a command that a channel has no room for: never a part of it.
    pub(crate) fn too_long(&self) -> String {
        let shown = &self.view.shown;
        format!(
            "The command is too long to be shown here: {} lines, {} bytes, {} parameters. \
             Open it to read all of it before you decide.",
            shown.text.lines().count(),
            shown.text.len(),
            shown.parameters.len()
        )
    }

    /// What ties the message to the record.
    pub(crate) fn evidence(&self) -> String {
        let view = self.view;
        format!(
            "{} · digest {} · journal {} {}",
            view.id, view.digest, view.journal.size, view.journal.root8
        )
    }
}

/// Escapes further characters, those at the byte offsets that `which` names, of a text that was escaped
/// before: [`holdpoint_core::display::unescape`] still gives back what it was.
pub(crate) fn escape_more(text: &str, which: impl Fn(usize) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\\' {
            if which(at) {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            } else {
                out.push(c);
            }
            continue;
        }
        out.push(c);
        match chars.peek().copied() {
            Some((_, next @ ('\\' | 'x' | 'u'))) => {
                out.push(next);
                chars.next();
            }
            // One that means itself must not become the start of what follows it.
            Some((next, _)) if which(next) => out.push('\\'),
            _ => {}
        }
    }
    out
}

/// The page on which an approval is decided.
pub(crate) fn link(base: &str, id: &str) -> String {
    format!("{}/console/approvals/{id}", base.trim_end_matches('/'))
}

fn class(view: &View) -> String {
    if view.shown.proven {
        view.shown.class.clone()
    } else {
        format!("{}, not proven", view.shown.class)
    }
}

/// What a reviewer has to do first.
fn takes(view: &View) -> Option<String> {
    match (&view.step_up, view.webauthn) {
        (None, false) => None,
        (Some(max), false) => Some(format!("a sign-in of the last {max}")),
        (None, true) => Some("your security key, in the console".to_owned()),
        (Some(max), true) => Some(format!(
            "a sign-in of the last {max} and your security key, in the console"
        )),
    }
}

fn names(people: &[IdentityView]) -> String {
    let names: Vec<_> = people.iter().map(|one| one.subject.clone()).collect();
    names.join(", ")
}
