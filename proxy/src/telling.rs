//! Records told to people: what happened in a session, in words, and which sessions there were.
//!
//! For the command line and the console alike. Everything that an agent, a target or a
//! reviewer chose is escaped here, so that whoever shows it has only its own markup to add.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use holdpoint_core::Now;
use holdpoint_core::approval::Verdict;
use holdpoint_core::decision::Outcome;
use holdpoint_core::display::escape;
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::record::{Entry, Open, frame};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::recorder::Reader;

/// How a line is meant; a terminal and a page have colours of their own for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// A session begins or ends.
    Head,
    Good,
    Waits,
    Bad,
}

/// One line of `sessions list`.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub session: SessionId,
    /// RFC 3339, UTC.
    pub opened: String,
    pub seconds: f64,
    pub principal: String,
    pub subject: String,
    pub target: String,
    pub source: String,
    pub commands: u64,
    pub held: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Why it ended; absent while it is open.
    pub closed: Option<String>,
}

/// Which sessions to tell of; what is empty matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Search {
    /// In a command's text or its parameters, whatever the letter case.
    pub(crate) text: String,
    /// In who connected: label or subject.
    pub(crate) who: String,
    pub(crate) target: String,
    /// Opened on this day or later, `2026-05-01`, UTC.
    pub(crate) from: String,
    /// Opened on this day or before.
    pub(crate) until: String,
}

impl Search {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All but the text, which needs the commands.
    pub(crate) fn fits(&self, who: [&str; 2], target: &str, opened: &str) -> bool {
        // RFC 3339 in UTC: days compare as text.
        let day = opened.get(..10).unwrap_or_default();
        who.iter().any(|one| holds(one, &self.who))
            && holds(target, &self.target)
            && (self.from.is_empty() || day >= self.from.as_str())
            && (self.until.is_empty() || day <= self.until.as_str())
    }
}

fn holds(text: &str, part: &str) -> bool {
    part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
}

/// Reads the sessions of a journal, oldest first.
pub(crate) fn summaries(reader: Reader) -> anyhow::Result<Vec<Summary>> {
    found(reader, &Search::default())
}

/// The sessions that a search finds, oldest first.
pub(crate) fn found(reader: Reader, search: &Search) -> anyhow::Result<Vec<Summary>> {
    let mut with_text: HashSet<SessionId> = HashSet::new();
    let mut all: Vec<(Summary, u64)> = Vec::new();
    let mut by_id: HashMap<SessionId, usize> = HashMap::new();
    each(reader, |seq| {
        let Some(id) = seq.session else { return Ok(()) };
        if let Some(Entry::Open(open)) = seq.entry {
            by_id.insert(id.clone(), all.len());
            all.push((Summary::new(id, open, seq.at)?, seq.at.wall_ns));
        }
        let Some((summary, opened)) = by_id.get(id).and_then(|at| all.get_mut(*at)) else {
            return Ok(());
        };
        summary.seconds = seconds(seq.at.wall_ns, *opened);
        match seq.entry {
            Some(Entry::Command(command)) => {
                summary.commands += 1;
                let mut texts = [&command.text].into_iter().chain(&command.parameters);
                if !search.text.is_empty() && texts.any(|text| holds(text, &search.text)) {
                    with_text.insert(id.clone());
                }
            }
            Some(Entry::Hold(_) | Entry::Joined { .. }) => summary.held += 1,
            Some(Entry::Refused { .. }) => summary.refused += 1,
            Some(Entry::Unknown { .. }) => summary.unknown += 1,
            Some(Entry::Close(close)) => summary.closed = Some(close.reason.clone()),
            _ => {}
        }
        Ok(())
    })?;
    let fits = |one: &Summary| {
        search.fits([&one.principal, &one.subject], &one.target, &one.opened)
            && (search.text.is_empty() || with_text.contains(&one.session))
    };
    let all = all.into_iter().map(|(summary, _)| summary);
    Ok(all.filter(fits).collect())
}

impl Summary {
    fn new(id: &SessionId, open: &Open, at: Now) -> anyhow::Result<Self> {
        Ok(Self {
            session: id.clone(),
            opened: utc(at.wall_ns)?,
            seconds: 0.0,
            principal: open.principal.label.clone(),
            subject: open.principal.identity.subject.clone(),
            target: open.target.clone(),
            source: open.source.clone(),
            commands: 0,
            held: 0,
            refused: 0,
            unknown: 0,
            closed: None,
        })
    }
}

/// Tone, headline and text of one record; `None` for what only machines need.
pub(crate) fn told(entry: &Entry, blob: &[u8]) -> Option<(Tone, String, String)> {
    let none = String::new();
    let told = match entry {
        Entry::Open(open) => (
            Tone::Head,
            format!(
                "{} opens a session on `{}` from {}",
                flat(&open.principal.label),
                flat(&open.target),
                flat(&open.source)
            ),
            none,
        ),
        Entry::Command(command) => {
            let (tone, verdict) = match &command.decision.outcome {
                Outcome::Allow => (Tone::Good, "allowed"),
                Outcome::Hold(_) => (Tone::Waits, "held"),
                Outcome::Deny { .. } => (Tone::Bad, "denied"),
            };
            let head = format!(
                "command {} ({}) {verdict} by `{}`",
                command.id,
                flat(&command.class),
                flat(&command.decision.rule)
            );
            let mut body = command.text.clone();
            for parameter in &command.parameters {
                body.push('\n');
                body.push_str(parameter);
            }
            // Escaped when it was recorded; again, in case the record lies.
            (tone, head, lines(&body))
        }
        Entry::Hold(draft) => (
            Tone::Waits,
            format!(
                "approval {} asked for: {} of the reviewers of `{}`",
                draft.id,
                draft.hold.people(),
                flat(&draft.rule)
            ),
            draft.hold.reason.as_deref().map(lines).unwrap_or_default(),
        ),
        Entry::Joined {
            command,
            approval,
            node,
        } => (
            Tone::Waits,
            match node {
                Some(node) => {
                    format!(
                        "command {command} joins approval {approval} of node {}",
                        flat(node)
                    )
                }
                None => format!("command {command} joins approval {approval}"),
            },
            none,
        ),
        Entry::Notified {
            approval,
            channel,
            accepted,
            ..
        } => {
            let took = if *accepted {
                "was told of"
            } else {
                "could not be told of"
            };
            (
                Tone::Plain,
                format!("`{}` {took} {approval}", flat(channel)),
                none,
            )
        }
        Entry::Vote { vote, refused } => {
            let (tone, verdict) = match vote.verdict {
                Verdict::Approve => (Tone::Good, "approves"),
                Verdict::Deny => (Tone::Bad, "denies"),
            };
            let mut head = format!("{} {verdict} {}", flat(&vote.reviewer.label), vote.approval);
            if let Some(why) = refused {
                head = format!("{head} (not counted: {})", flat(why));
            }
            (
                tone,
                head,
                vote.reason.as_deref().map(lines).unwrap_or_default(),
            )
        }
        Entry::Settled {
            approval,
            state,
            reason,
            ..
        } => {
            let tone = if state == "approved" {
                Tone::Good
            } else {
                Tone::Bad
            };
            let body = reason.as_deref().map(lines).unwrap_or_default();
            (
                tone,
                format!("approval {approval} is {}", flat(state)),
                body,
            )
        }
        Entry::Escalated { approval, step } => (
            Tone::Waits,
            format!("step {step} of {approval} is put before more people"),
            none,
        ),
        Entry::Justified { approval, by, text } => (
            Tone::Plain,
            format!("{} says why for {approval}", flat(&by.subject)),
            lines(text),
        ),
        Entry::BreakGlass { glass, refused } => {
            let mut head = format!(
                "{} breaks the glass of {}",
                flat(&glass.by.label),
                glass.approval
            );
            if let Some(why) = refused {
                head = format!("{head} (not counted: {})", flat(why));
            }
            (Tone::Bad, head, lines(&glass.reason))
        }
        Entry::Reviewed { approval, by, note } => (
            Tone::Good,
            format!("{} has reviewed {approval} afterwards", flat(&by.label)),
            note.as_deref().map(lines).unwrap_or_default(),
        ),
        Entry::Claimed {
            command,
            approval,
            number,
            ..
        } => (
            Tone::Good,
            format!("command {command} uses the window of {approval}, for the {number}. time"),
            none,
        ),
        Entry::WindowEnded { approval, why, .. } => (
            Tone::Plain,
            format!("the window of {approval} is over: {}", flat(why)),
            none,
        ),
        Entry::Given { word } => (
            Tone::Plain,
            match word.window {
                Some(number) => format!(
                    "the {number}. use of the window of {} is given to node {}",
                    word.approval,
                    flat(&word.to)
                ),
                None => format!(
                    "{} is given to node {}: no more to be used here",
                    word.approval,
                    flat(&word.to)
                ),
            },
            none,
        ),
        Entry::Taken(taken) => (
            Tone::Good,
            format!(
                "{}{} of node {} is taken over for command {}",
                match taken.word.window {
                    Some(number) => format!("the {number}. use of the window of "),
                    None => String::new(),
                },
                taken.word.approval,
                flat(&taken.from),
                taken.word.command
            ),
            none,
        ),
        Entry::Forward {
            command, approval, ..
        } => (
            Tone::Good,
            format!("command {command} goes forward under {approval}"),
            none,
        ),
        Entry::Refused { command, denial } => (
            Tone::Bad,
            format!("command {command} was not executed: {}", flat(&denial.code)),
            lines(&denial.message),
        ),
        Entry::Response => (
            Tone::Plain,
            format!("answer, {} bytes", blob.len()),
            escape(blob),
        ),
        Entry::Completed {
            commands,
            status,
            failed,
            rows,
            ..
        } => {
            let ids: Vec<_> = commands.iter().map(ToString::to_string).collect();
            let rows = rows
                .map(|rows| format!(", {rows} row(s)"))
                .unwrap_or_default();
            let tone = if *failed { Tone::Bad } else { Tone::Plain };
            let head = format!("command {} ended: {}{rows}", ids.join(", "), flat(status));
            (tone, head, none)
        }
        Entry::Authored { to } => (
            Tone::Plain,
            format!(
                "the gateway writes {} bytes to the {}",
                blob.len(),
                flat(to)
            ),
            escape(blob),
        ),
        Entry::Plugin { message, .. } => (Tone::Bad, format!("plugin: {}", flat(message)), none),
        Entry::Unknown { command, .. } => (
            Tone::Bad,
            format!("command {command} may have run: its end was never seen"),
            none,
        ),
        Entry::Close(close) => (
            Tone::Head,
            format!(
                "closed ({}), {} command(s)",
                flat(&close.reason),
                close.commands
            ),
            none,
        ),
        Entry::Killed { session, by, node } => (
            Tone::Bad,
            match node {
                None => format!("{} ends session {session}", flat(&by.subject)),
                Some(node) => format!(
                    "{} ends session {session}, asked at node {}",
                    flat(&by.subject),
                    flat(node)
                ),
            },
            none,
        ),
        Entry::Linked {
            channel,
            account,
            by,
            ..
        } => (
            Tone::Plain,
            format!(
                "{} decides as account {} of `{}`",
                flat(&by.subject),
                flat(account),
                flat(channel)
            ),
            none,
        ),
        Entry::KeyAdded { by, name, .. } => (
            Tone::Plain,
            format!(
                "{} registers security key `{}`",
                flat(&by.subject),
                flat(name)
            ),
            none,
        ),
        Entry::KeyRemoved { by, .. } => (
            Tone::Plain,
            format!("{} removes a security key", flat(&by.subject)),
            none,
        ),
        Entry::Passed
        | Entry::Start(_)
        | Entry::Stop { .. }
        | Entry::Reload { .. }
        | Entry::Gap { .. }
        | Entry::Alarm { .. }
        | Entry::Revoked { .. } => return None,
    };
    Some(told)
}

/// One record, read.
pub(crate) struct Seen<'a> {
    pub(crate) seq: u64,
    pub(crate) session: Option<&'a SessionId>,
    pub(crate) at: Now,
    /// `None` for what this version does not know.
    pub(crate) entry: Option<&'a Entry>,
    pub(crate) meta: &'a [u8],
    pub(crate) blob: &'a [u8],
}

/// The records of a session, and those of its approvals wherever they stand. Gives
/// whether there are any.
pub(crate) fn of_session(
    reader: Reader,
    wanted: &SessionId,
    mut each_one: impl FnMut(&Seen<'_>, f64) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut approvals: HashSet<ApprovalId> = HashSet::new();
    let mut opened = None;
    each(reader, |record| {
        let killed = matches!(record.entry,
            Some(Entry::Killed { session, .. }) if session == wanted);
        let own = killed || record.session == Some(wanted);
        if own && let Some(Entry::Hold(draft)) = record.entry {
            approvals.insert(draft.id.clone());
        }
        if own && let Some(Entry::Joined { approval, .. }) = record.entry {
            approvals.insert(approval.clone());
        }
        let about = record.entry.and_then(Entry::approval);
        if !own && !about.is_some_and(|approval| approvals.contains(approval)) {
            return Ok(());
        }
        let opened = *opened.get_or_insert(record.at.wall_ns);
        each_one(record, seconds(record.at.wall_ns, opened))
    })?;
    Ok(opened.is_some())
}

pub(crate) fn each(
    mut reader: Reader,
    mut each_one: impl FnMut(&Seen<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while let Some(raw) = reader
        .next_record()
        .context("reading stops here; `holdpoint verify` tells more")?
    {
        let frame = frame::decode(raw.bytes)
            .with_context(|| format!("`{}` at byte {}", raw.file, raw.offset))?;
        let entry = frame.entry().ok();
        each_one(&Seen {
            seq: frame.seq,
            session: frame.session.as_ref(),
            at: frame.at,
            entry: entry.as_ref(),
            meta: frame.meta,
            blob: frame.blob,
        })?;
    }
    Ok(())
}

/// One line: also line feeds and tabs become visible.
pub(crate) fn flat(text: &str) -> String {
    escape(text.as_bytes())
        .replace('\n', "\\u{a}")
        .replace('\t', "\\u{9}")
}

/// Text that may have lines of its own. Escapes what could move or hide text
/// and leaves backslashes alone, so that what was escaped before stays as it is.
pub(crate) fn lines(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\\' => "\\".to_owned(),
            c => escape(c.encode_utf8(&mut [0; 4]).as_bytes()),
        })
        .collect()
}

pub(crate) fn seconds(at: u64, since: u64) -> f64 {
    at.saturating_sub(since) as f64 / 1e9
}

pub(crate) fn utc(wall_ns: u64) -> anyhow::Result<String> {
    let seconds = i64::try_from(wall_ns / 1_000_000_000)?;
    Ok(OffsetDateTime::from_unix_timestamp(seconds)?.format(&Rfc3339)?)
}
