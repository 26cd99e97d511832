//! Reconciles three witnesses: the bytes a target was sent, the journal, and what
//! reviewers received.
//!
//! - Every byte sent to the target after login belongs to exactly one record, and
//!   the journal's digest of a command is that of the bytes on the wire.
//! - Every held command that was forwarded has one approval, used once, whose votes
//!   reach the quorum by people who are not behind the request.
//! - What reviewers were shown is what was recorded.
//! - No secret that the test knows is in any log or record.
//!
//! It reads the journal by itself, so that a mistake in the gateway's own
//! reader does not hide here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use holdpoint_core::approval::{Draft, Verdict};
use holdpoint_core::decision::Outcome;
use holdpoint_core::display::unescape;
use holdpoint_core::id::{Digest, SessionId};
use holdpoint_core::record::{CommandEntry, Entry, frame};

use crate::tap::Conversation;
use crate::webhook::Receipt;

pub struct Evidence<'a> {
    pub journal: &'a Path,
    pub conversations: &'a [Conversation],
    pub receipts: &'a [Receipt],
    pub log: &'a str,
    pub secrets: &'a [String],
    /// Checks left out: `all`, `journal`, `bytes`, `approvals`, `shown`, `secrets`.
    pub waived: &'a [&'static str],
}

impl Evidence<'_> {
    fn checks(&self, name: &str) -> bool {
        !self.waived.contains(&"all") && !self.waived.contains(&name)
    }
}

/// One record, as read back.
struct Read {
    session: Option<SessionId>,
    entry: Entry,
    blob: Vec<u8>,
}

/// Panics with what does not fit together.
pub fn reconcile(evidence: &Evidence<'_>) {
    if evidence.checks("secrets") {
        secrets(evidence);
    }
    if !evidence.checks("journal") {
        return;
    }
    let records = read(evidence.journal);
    if evidence.checks("bytes") {
        bytes(&records, evidence.conversations);
    }
    if evidence.checks("approvals") {
        approvals(&records);
    }
    if evidence.checks("shown") {
        shown(&records, evidence.receipts);
    }
}

fn read(journal: &Path) -> Vec<Read> {
    let mut segments: Vec<_> = fs::read_dir(journal)
        .unwrap_or_else(|error| panic!("the oracle cannot read {}: {error}", journal.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    assert!(!segments.is_empty(), "the journal has no segment");
    let mut records = Vec::new();
    for path in segments {
        let bytes = fs::read(&path).unwrap();
        let mut rest = bytes.as_slice();
        while let Ok(Some(length)) = frame::record_len(rest) {
            let (record, tail) = rest.split_at(length);
            let frame =
                frame::decode(record).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            records.push(Read {
                session: frame.session.clone(),
                entry: frame.entry().unwrap(),
                blob: frame.blob.to_vec(),
            });
            rest = tail;
        }
    }
    records
}

/// What the journal says became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Recorded, and no more.
    Open,
    Refused,
    Unknown,
    Done,
}

/// The text and the fate of every command that the journal knows.
pub fn fates(journal: &Path) -> Vec<(String, Fate)> {
    let mut all = BTreeMap::new();
    for record in read(journal) {
        let session = record.session.map(|id| id.to_string()).unwrap_or_default();
        let mut now = |command, fate| {
            if let Some((_, before)) = all.get_mut(&(session.clone(), command)) {
                *before = fate;
            }
        };
        match record.entry {
            Entry::Command(command) => {
                all.insert((session, command.id), (command.text, Fate::Open));
            }
            Entry::Refused { command, .. } => now(command, Fate::Refused),
            Entry::Unknown { command, .. } => now(command, Fate::Unknown),
            Entry::Completed { commands, .. } => {
                commands
                    .iter()
                    .for_each(|command| now(*command, Fate::Done));
            }
            _ => {}
        }
    }
    all.into_values().collect()
}

/// A stretch of bytes that a session's records say went upstream.
enum Stretch<'a> {
    Command {
        size: usize,
        wire: Digest,
        maybe: bool,
        text: &'a str,
    },
    Passed(&'a [u8]),
}

fn bytes(records: &[Read], conversations: &[Conversation]) {
    let mut sessions: BTreeMap<&SessionId, Vec<&Read>> = BTreeMap::new();
    for record in records {
        if let Some(session) = &record.session {
            sessions.entry(session).or_default().push(record);
        }
    }
    let mut plans: Vec<(&SessionId, Vec<Stretch<'_>>)> = sessions
        .iter()
        .map(|(id, records)| (*id, stretches(records)))
        .collect();
    for (number, conversation) in conversations.iter().enumerate() {
        let Some(sent) = after_login(&conversation.from_gateway) else {
            continue;
        };
        if sent.is_empty() {
            continue;
        }
        let found = plans.iter().position(|(_, plan)| explains(plan, sent));
        let Some(at) = found else {
            let tried: Vec<_> = plans
                .iter()
                .map(|(id, plan)| format!("{id}: {}", describe(plan)))
                .collect();
            panic!(
                "bytes sent to the target that no session's records explain (connection {number}): {:?}\nsessions: {tried:#?}",
                String::from_utf8_lossy(sent)
            );
        };
        plans.remove(at);
    }
    // What was recorded as sent was sent.
    for (id, plan) in plans {
        let must = plan.iter().any(|stretch| match stretch {
            Stretch::Command { maybe, .. } => !maybe,
            Stretch::Passed(_) => false,
        });
        assert!(
            !must,
            "session {id} records commands as forwarded that no target was sent: {}",
            describe(&plan)
        );
    }
}

/// In the order of the journal: allowed commands, released ones, passed bytes.
fn stretches<'a>(records: &[&'a Read]) -> Vec<Stretch<'a>> {
    let mut commands = BTreeMap::new();
    let mut plan = Vec::new();
    let refused: BTreeSet<_> = records
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::Refused { command, .. } => Some(*command),
            _ => None,
        })
        .collect();
    let done: BTreeSet<_> = records
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::Completed { commands, .. } => Some(commands.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let stretch = |command: &'a CommandEntry, size: usize| Stretch::Command {
        size,
        wire: command.wire,
        // The session may have ended between the record and the first byte.
        maybe: !done.contains(&command.id),
        text: &command.text,
    };
    for record in records {
        match &record.entry {
            Entry::Command(command) => {
                commands.insert(command.id, (command, record.blob.len()));
                if matches!(command.decision.outcome, Outcome::Allow)
                    && !refused.contains(&command.id)
                {
                    plan.push(stretch(command, record.blob.len()));
                }
            }
            Entry::Forward {
                command, digest, ..
            } => {
                let (command, size) = commands.get(command).expect("a Forward has its Command");
                assert_eq!(
                    command.digest, *digest,
                    "forwarded under another digest than recorded"
                );
                // Withdrawn between the intent's record and the first byte: nothing went.
                if !refused.contains(&command.id) {
                    plan.push(stretch(command, *size));
                }
            }
            Entry::Passed => plan.push(Stretch::Passed(&record.blob)),
            _ => {}
        }
    }
    plan
}

/// Whether the bytes are exactly the plan's, in order, but for stretches that may be missing.
fn explains(plan: &[Stretch<'_>], mut sent: &[u8]) -> bool {
    for stretch in plan {
        match stretch {
            Stretch::Command {
                size, wire, maybe, ..
            } => {
                let fits = sent
                    .get(..*size)
                    .is_some_and(|bytes| Digest::of(bytes) == *wire);
                match (fits, maybe) {
                    (true, _) => sent = &sent[*size..],
                    (false, true) => {}
                    (false, false) => return false,
                }
            }
            Stretch::Passed(bytes) => match sent.strip_prefix(*bytes) {
                Some(rest) => sent = rest,
                // Recorded first; the connection may have ended before it was sent.
                None if sent.is_empty() => {}
                None => return false,
            },
        }
    }
    sent.is_empty()
}

fn describe(plan: &[Stretch<'_>]) -> String {
    let one = |stretch: &Stretch<'_>| match stretch {
        Stretch::Command {
            text, size, maybe, ..
        } => format!("command {text:?} ({size} B, maybe {maybe})"),
        Stretch::Passed(bytes) => format!(
            "passed {} B {:?}",
            bytes.len(),
            String::from_utf8_lossy(bytes)
        ),
    };
    plan.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a gateway sent once it was logged in to PostgreSQL; `None` for a connection
/// that only cancels.
fn after_login(sent: &[u8]) -> Option<&[u8]> {
    let mut rest = sent;
    // Start-up packets have no kind: SSLRequest, CancelRequest, the start-up itself.
    loop {
        let head: [u8; 8] = match rest.get(..8) {
            Some(head) => head.try_into().unwrap(),
            None => return Some(&[]),
        };
        let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let code = u32::from_be_bytes(head[4..].try_into().unwrap());
        rest = rest.get(size..).unwrap_or_default();
        match code {
            80_877_102 => return None,
            80_877_103 => {}
            _ => break,
        }
    }
    while rest.first() == Some(&b'p') {
        let size = u32::from_be_bytes(rest.get(1..5)?.try_into().unwrap()) as usize;
        rest = rest.get(1 + size..).unwrap_or_default();
    }
    Some(rest)
}

fn approvals(records: &[Read]) {
    let mut holds: BTreeMap<String, &Draft> = BTreeMap::new();
    let mut yes: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    let mut settled: BTreeMap<String, String> = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut broken = BTreeSet::new();
    let mut claimed = BTreeSet::new();
    let mut elsewhere = BTreeMap::new();
    let (mut singles, mut turns) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        match &record.entry {
            Entry::Hold(draft) => {
                holds.insert(draft.id.to_string(), draft);
            }
            Entry::Vote {
                vote,
                refused: None,
            } => {
                let id = vote.approval.to_string();
                let draft = holds.get(&id).expect("a vote has its hold");
                assert_eq!(
                    vote.digest, draft.digest,
                    "a vote for another digest counted"
                );
                assert!(!vote.reviewer.agent, "an agent's vote counted");
                let behind = draft
                    .principal
                    .behind()
                    .any(|one| *one == vote.reviewer.identity || vote.reviewer.also.contains(one));
                assert!(
                    !behind,
                    "{:?} voted on their own request {id}",
                    vote.reviewer.identity
                );
                if vote.verdict == Verdict::Approve {
                    let who = &vote.reviewer.identity;
                    yes.entry(id)
                        .or_default()
                        .insert((who.issuer.clone(), who.subject.clone()));
                }
            }
            Entry::Settled {
                approval, state, ..
            } => {
                let id = approval.to_string();
                if state == "approved" && !broken.contains(&id) {
                    let have = yes.get(&id).map_or(0, BTreeSet::len);
                    let need = holds
                        .get(&id)
                        .expect("settled without a hold")
                        .hold
                        .people() as usize;
                    assert!(have >= need, "{id} was approved by {have} of {need}");
                }
                settled.insert(id, state.clone());
            }
            Entry::BreakGlass {
                glass,
                refused: None,
            } => {
                let id = glass.approval.to_string();
                let draft = holds.get(&id).expect("a broken glass has its hold");
                let mut sets = draft.hold.break_glass.iter();
                assert!(!glass.by.agent && sets.any(|set| glass.by.is_in(set)));
                broken.insert(id);
            }
            // Another node's reviewers: its own journal is reconciled with them.
            Entry::Taken(taken) => {
                let id = taken.word.approval.to_string();
                assert!(!holds.contains_key(&id), "{id} is our own");
                let new = match taken.word.window {
                    Some(number) => {
                        claimed.insert((record.session.clone(), taken.word.command));
                        turns.insert((id.clone(), number))
                    }
                    None => singles.insert(id.clone()),
                };
                assert!(new, "{id} was taken over twice");
                elsewhere.insert(id.clone(), taken.word.digest);
                settled.insert(id, "approved".to_owned());
            }
            Entry::Given { word } => {
                let id = word.approval.to_string();
                assert_eq!(
                    settled.get(&id).map(String::as_str),
                    Some("approved"),
                    "{id} was given away and not approved"
                );
                let turn = word.window.is_some();
                assert!(
                    turn || used.insert(id.clone()),
                    "{id} was used and given away"
                );
            }
            Entry::Claimed { command, .. } => {
                let new = claimed.insert((record.session.clone(), *command));
                assert!(new, "command {command} claimed a window twice");
            }
            Entry::Forward {
                approval,
                digest,
                command,
            } => {
                let id = approval.to_string();
                let own = holds.get(&id).map(|draft| draft.digest);
                assert_eq!(
                    own.or_else(|| elsewhere.get(&id).copied()),
                    Some(*digest),
                    "{id} is for another command"
                );
                assert_eq!(
                    settled.get(&id).map(String::as_str),
                    Some("approved"),
                    "{id} was not approved"
                );
                // Each further use of a window has its own claim.
                let turn = claimed.remove(&(record.session.clone(), *command));
                assert!(turn || used.insert(id.clone()), "{id} was used twice");
            }
            _ => {}
        }
    }
    // A command that had to be held went forward only by way of a Forward.
    for record in records {
        if let Entry::Command(command) = &record.entry
            && !matches!(command.decision.outcome, Outcome::Allow)
        {
            let completed = records.iter().any(|other| {
                other.session == record.session
                    && matches!(&other.entry, Entry::Completed { commands, .. } if commands.contains(&command.id))
            });
            let forwarded = records.iter().any(|other| {
                other.session == record.session
                    && matches!(&other.entry, Entry::Forward { command: id, .. } if *id == command.id)
            });
            assert!(
                !completed || forwarded,
                "`{}` ran without an approval",
                command.text
            );
        }
    }
}

fn shown(records: &[Read], receipts: &[Receipt]) {
    let commands: BTreeMap<_, _> = records
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::Command(command) => Some(((record.session.clone(), command.id), command)),
            _ => None,
        })
        .collect();
    let mut drafts = BTreeMap::new();
    for record in records {
        if let Entry::Hold(draft) = &record.entry {
            let command = commands.get(&(Some(draft.session.clone()), draft.command));
            let command = command.expect("a hold has its command");
            assert_eq!(
                *draft.shown.text, *command.text,
                "shown other text than recorded"
            );
            assert!(
                unescape(&draft.shown.text).is_some(),
                "what was shown cannot be decoded"
            );
            drafts.insert(draft.id.to_string(), draft);
        }
    }
    for receipt in receipts {
        let view = &receipt.body["approval"];
        let Some(id) = view["id"].as_str() else {
            continue;
        };
        let draft = drafts
            .get(id)
            .unwrap_or_else(|| panic!("reviewers were told of {id}, which no record names"));
        assert_eq!(
            view["shown"]["text"].as_str(),
            Some(&*draft.shown.text),
            "{id}"
        );
        assert_eq!(
            view["digest"].as_str(),
            Some(draft.digest.to_string().as_str()),
            "{id}"
        );
    }
}

fn secrets(evidence: &Evidence<'_>) {
    let mut places = vec![("the log".to_owned(), evidence.log.as_bytes().to_vec())];
    for entry in fs::read_dir(evidence.journal)
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Ok(bytes) = fs::read(entry.path()) {
            places.push((entry.path().display().to_string(), bytes));
        }
    }
    for secret in evidence.secrets {
        // Short ones would be found by chance.
        if secret.len() < 8 {
            continue;
        }
        for (place, bytes) in &places {
            let found = contains(bytes, secret.as_bytes());
            assert!(!found, "a secret ({}…) is in {place}", &secret[..6]);
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    // The first byte is searched for quickly; journals are mostly zero.
    let Some((first, rest)) = needle.split_first() else {
        return false;
    };
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|byte| byte == first) {
        if bytes[at + found + 1..].starts_with(rest) {
            return true;
        }
        at += found + 1;
    }
    false
}
