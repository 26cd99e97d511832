//! What fuzzers call: one function for each way bytes come in. Shared by
//! `tests/fuzzing`, which `make test` runs for some seconds on seeds, and by the
//! targets in `fuzz/`, which cargo-fuzz runs for as long as one likes.

use std::collections::BTreeMap;

use holdpoint_plugin::testing::{Scripted, set_login};
use holdpoint_plugin::{
    Action, Frame, Identity, IdentityOutcome, Refusal, RefusalKind, Session, Setup, Side, Verdict,
};
use holdpoint_plugin_postgres::{
    PostgresSession, classify, fuzz_client, fuzz_startup, fuzz_upstream,
};

/// Any text gets a class, and secrets lie within it.
pub(crate) fn classifier(bytes: &[u8]) {
    let Ok(command) = classify(vec![("sql".to_owned(), bytes.to_vec())]) else {
        panic!("a text got no answer");
    };
    for span in &command.secrets {
        assert!(span.start <= span.end && span.end as usize <= bytes.len());
    }
}

/// Bodies of the client's messages.
pub(crate) fn downstream_frames(bytes: &[u8]) {
    fuzz_startup(bytes);
    fuzz_client(bytes);
}

/// Bodies of the target's messages.
pub(crate) fn upstream_frames(bytes: &[u8]) {
    fuzz_upstream(bytes);
}

/// A client that sends anything, to a session that is logged in.
pub(crate) fn downstream_session(bytes: &[u8]) {
    session(bytes, |byte| byte < 224);
}

/// A target that answers anything.
pub(crate) fn upstream_session(bytes: &[u8]) {
    session(bytes, |byte| byte < 64);
}

/// Plays events that the bytes spell: a choice, a kind, a length, a body. The
/// session may end at any of them; it may never panic, nor ask the host for what the
/// host would end it for.
fn session(mut bytes: &[u8], client: impl Fn(u8) -> bool) {
    let Some(mut game) = Game::logged_in(bytes.first().is_some_and(|byte| byte % 8 == 0)) else {
        panic!("an ordinary login failed");
    };
    while let [choice, kind, length, rest @ ..] = bytes {
        let (body, left) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = left;
        // Kinds that the protocol has, mostly.
        let pick = |kinds: &[u8]| kinds.get(usize::from(*kind)).copied().unwrap_or(*kind);
        let alive = match choice % 16 {
            0 => game.verdict(true),
            1 => game.verdict(false),
            _ if client(*choice) => game.frame(Side::Client, pick(b"QPBEDCSHdcfFXp"), body),
            _ => game.frame(Side::Upstream, pick(b"RSKZTDCEN123nstGHWAvIV"), body),
        };
        if !alive {
            break;
        }
    }
    let _ = game.session.notice("held");
    let _ = game.session.terminate(&refusal());
}

struct Game {
    session: PostgresSession,
    seq: u64,
    /// Frames that were shown and not decided about.
    held: BTreeMap<u64, (Side, Option<u8>)>,
    /// A command is undecided; true where the session wants to hear of a forward.
    asked: Option<bool>,
    ready: bool,
    closed: bool,
}

impl Game {
    /// `None`: the session did not take an ordinary login.
    fn logged_in(tls: bool) -> Option<Self> {
        set_login(Scripted {
            username: "app".to_owned(),
            answers: Vec::new(),
        });
        let mut game = Self {
            session: PostgresSession::new(Setup {
                settings: vec![("upstream_tls".to_owned(), "off".to_owned())],
                client_tls: true,
                entropy: (0..32).collect(),
            }),
            seq: 0,
            held: BTreeMap::new(),
            asked: None,
            ready: false,
            closed: false,
        };
        game.session.open().ok()?;
        let startup = b"\0\x03\0\0user\0agent\0database\0shop\0\0";
        game.show(Side::Client, None, startup)?;
        let identity = Identity {
            subject: "agent".to_owned(),
            label: "agent".to_owned(),
            groups: Vec::new(),
        };
        let outcome = IdentityOutcome::Accepted(identity);
        let actions = game.session.on_identity(outcome).ok()?;
        game.act(actions);
        let answers: [(u8, &[u8]); 7] = [
            (b'R', &[0; 4]),
            (b'S', b"client_encoding\0UTF8\0"),
            (b'S', b"standard_conforming_strings\0on\0"),
            (b'S', b"is_superuser\0off\0"),
            (b'S', b"session_authorization\0app\0"),
            (b'K', b"\0\0\0\x07\0\0\0\x09"),
            (b'Z', b"I"),
        ];
        // Some runs break off before the login is over.
        let told = if tls { 3 } else { answers.len() };
        for (kind, body) in answers.into_iter().take(told) {
            game.show(Side::Upstream, Some(kind), body)?;
        }
        Some(game)
    }

    fn show(&mut self, side: Side, kind: Option<u8>, body: &[u8]) -> Option<()> {
        self.seq += 1;
        self.held.insert(self.seq, (side, kind));
        let frame = Frame {
            seq: self.seq,
            kind,
            body: body.to_vec(),
        };
        let actions = self.session.on_frames(side, vec![frame]).ok()?;
        self.act(actions);
        (!self.closed).then_some(())
    }

    /// A client is not read while its command is undecided: it goes forward then, and
    /// so does the next one, where the session had kept it back.
    fn frame(&mut self, side: Side, kind: u8, body: &[u8]) -> bool {
        while side == Side::Client && self.asked.is_some() {
            if !self.verdict(true) {
                return false;
            }
        }
        self.show(side, Some(kind), body).is_some()
    }

    fn verdict(&mut self, forward: bool) -> bool {
        let Some(notify) = self.asked.take() else {
            return true;
        };
        let verdict = match forward {
            true if !notify => return true,
            true => Verdict::Forwarded,
            false => Verdict::Refused(refusal()),
        };
        let Ok(actions) = self.session.on_verdict(verdict) else {
            return false;
        };
        self.act(actions);
        !self.closed
    }

    /// What the host would do, and what it would not stand.
    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.closed, "asked for more after `close`");
            match action {
                Action::Pass(seq) => match self.held.remove(&seq) {
                    Some((Side::Upstream, _)) => {
                        self.held
                            .retain(|held, (side, _)| *held > seq || *side == Side::Client);
                    }
                    Some((_, kind)) => {
                        let judged = kind.is_some_and(|kind| b"QEF".contains(&kind));
                        assert!(!judged, "a judged frame was passed");
                        let ahead = self
                            .held
                            .range(..seq)
                            .any(|(_, held)| held.0 == Side::Client);
                        assert!(!ahead, "a frame overtook another one");
                    }
                    None => panic!("frame {seq} is not there to be passed"),
                },
                Action::Drop(seq) => {
                    assert!(self.held.remove(&seq).is_some(), "frame {seq} is not there");
                }
                Action::Submit(submission) => {
                    assert!(self.asked.is_none() && self.ready, "no command may be here");
                    let (first, last) = (submission.first, submission.last);
                    let ahead = self
                        .held
                        .range(..first)
                        .any(|(_, held)| held.0 == Side::Client);
                    assert!(!ahead, "a command overtook a frame");
                    for seq in [first, last] {
                        let held = self.held.get(&seq);
                        assert!(held.is_some_and(|held| held.0 == Side::Client), "{seq}");
                    }
                    self.held
                        .retain(|seq, (side, _)| *side == Side::Upstream || *seq > last);
                    self.asked = Some(submission.notify);
                }
                Action::ToUpstream(_) => assert!(!self.ready, "it wrote to the target"),
                Action::Ready => self.ready = true,
                Action::Close => self.closed = true,
                _ => {}
            }
        }
    }
}

fn refusal() -> Refusal {
    Refusal {
        kind: RefusalKind::Denied,
        code: "HP-DENIED".to_owned(),
        message: "denied".to_owned(),
        detail: None,
        hint: None,
    }
}
