//! What a session says to its plugin for one command, in the sandbox: the client's burst
//! up to the proposed command, and the target's burst up to its end.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use holdpoint_core::framing::Side;
use holdpoint_core::plugin::{
    Action, AuthError, Exchange, Frame, IdentityOutcome, Setup, UpstreamAuth,
};
use holdpoint_host::{Plugin, Session};

use crate::{STATEMENT, print};

const ROUNDS: u32 = 20_000;

/// A target that trusts asks for nothing.
struct Trusted;

impl UpstreamAuth for Trusted {
    fn username(&self) -> String {
        "app".to_owned()
    }

    fn start(&mut self, _: &str) -> Result<Box<dyn Exchange>, AuthError> {
        Err(AuthError::NoCredential)
    }
}

struct Talk {
    session: Session,
    seq: u64,
}

impl Talk {
    fn told(&mut self, side: Side, messages: &[(u8, Bytes)]) -> anyhow::Result<Vec<Action>> {
        let frames: Vec<Frame> = messages
            .iter()
            .map(|(kind, body)| {
                self.seq += 1;
                Frame {
                    seq: self.seq,
                    kind: (*kind != 0).then_some(*kind),
                    body: body.clone(),
                }
            })
            .collect();
        Ok(self.session.on_frames(side, &frames)?)
    }

    fn logged_in(postgres: &Plugin) -> anyhow::Result<Self> {
        let setup = Setup {
            settings: vec![("upstream_tls".to_owned(), "off".to_owned())],
            client_tls: true,
            entropy: [7; 32],
        };
        let session = postgres.session(setup, Box::new(Trusted))?;
        let mut talk = Self { session, seq: 0 };
        talk.session.open()?;
        let hello = b"\0\x03\0\0user\0agent\0database\0shop\0\0";
        talk.told(Side::Client, &[(0, Bytes::from_static(hello))])?;
        talk.session.on_identity(&IdentityOutcome::Accepted {
            subject: "agent".to_owned(),
            label: "agent".to_owned(),
            groups: Vec::new(),
        })?;
        let ready = talk.told(
            Side::Upstream,
            &[
                message(b'R', b"\0\0\0\0"),
                message(b'S', b"client_encoding\0UTF8\0"),
                message(b'S', b"standard_conforming_strings\0on\0"),
                message(b'K', b"\0\0\0\x07\0\0\0\x09"),
                message(b'Z', b"I"),
            ],
        )?;
        anyhow::ensure!(ready.iter().any(|action| matches!(action, Action::Ready)));
        Ok(talk)
    }
}

fn message(kind: u8, body: &[u8]) -> (u8, Bytes) {
    (kind, Bytes::copy_from_slice(body))
}

pub(crate) fn bursts(postgres: &Plugin) -> anyhow::Result<()> {
    let mut talk = Talk::logged_in(postgres)?;
    let parse = format!("s\0{STATEMENT}\0\0\0");
    talk.told(
        Side::Client,
        &[message(b'P', parse.as_bytes()), message(b'S', b"")],
    )?;
    let parsed = [message(b'1', b""), message(b'Z', b"I")];
    talk.told(Side::Upstream, &parsed)?;
    let prepared = [
        message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x0212\0\x01\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ];
    commands(&mut talk, "a prepared statement", |_| prepared.to_vec())?;
    commands(&mut talk, "a query with another constant", |round| {
        let text = STATEMENT.replace("50000", &format!("{:05}", round % 50_000));
        vec![message(b'Q', format!("{text}\0").as_bytes())]
    })
}

fn commands(
    talk: &mut Talk,
    what: &str,
    asked: impl Fn(u32) -> Vec<(u8, Bytes)>,
) -> anyhow::Result<()> {
    let answered = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")];
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let asked = asked(round);
        let began = Instant::now();
        let proposed = black_box(talk.told(Side::Client, &asked)?);
        there.push(began.elapsed());
        anyhow::ensure!(
            matches!(proposed.as_slice(), [Action::Submit(submission)]
                if submission.command.operations.iter().all(|run| run.class == "read")),
            "not one command that reads: {proposed:?}"
        );
        drop(proposed);
        let began = Instant::now();
        black_box(talk.told(Side::Upstream, &answered)?);
        back.push(began.elapsed());
    }
    print(&format!("{what}, 200 bytes"), "proposed in Wasm", there);
    print(&format!("{what}, answered"), "in Wasm", back);
    Ok(())
}
