//! What fuzzers call: one function for each way bytes come in. Shared by
//! `tests/fuzzing`, which `make test` runs for some seconds on seeds, and by the
//! targets in `fuzz/`, which cargo-fuzz runs for as long as one likes.

use holdpoint_plugin::testing::{Scripted, set_login};
use holdpoint_plugin::{
    Frame, Identity, IdentityOutcome, Refusal, RefusalKind, Session, Setup, Side, Verdict,
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
/// session may end at any of them, and may never panic.
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
            0 => game.verdict(Verdict::Forwarded),
            1 => game.verdict(Verdict::Refused(refusal())),
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
        game.session.on_identity(outcome).ok()?;
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
        let frame = Frame {
            seq: self.seq,
            kind,
            body: body.to_vec(),
        };
        self.session.on_frames(side, vec![frame]).ok().map(drop)
    }

    fn frame(&mut self, side: Side, kind: u8, body: &[u8]) -> bool {
        self.show(side, Some(kind), body).is_some()
    }

    fn verdict(&mut self, verdict: Verdict) -> bool {
        self.session.on_verdict(verdict).is_ok()
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
