//! The PostgreSQL plugin, but for commands that name a fault: `faulty_trap`,
//! `faulty_loop` and `faulty_eat` are what becomes of it. Everything else is the
//! real plugin's, so that real clients and servers can be used around it.

#![allow(clippy::panic, reason = "this is what it is for")]

use holdpoint_plugin::{
    Action, Fault, Frame, IdentityOutcome, Refusal, Session, Setup, Side, Verdict,
};
use holdpoint_plugin_postgres::{PostgresSession, classify, describe};

struct Faulty(PostgresSession);

impl Session for Faulty {
    fn new(setup: Setup) -> Self {
        Self(PostgresSession::new(setup))
    }

    fn open(&mut self) -> Result<Vec<Action>, Fault> {
        self.0.open()
    }

    fn on_tls(&mut self, origin: Side) -> Result<Vec<Action>, Fault> {
        self.0.on_tls(origin)
    }

    fn on_frames(&mut self, origin: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
        if origin == Side::Client {
            frames.iter().for_each(|frame| misbehave(&frame.body));
        }
        self.0.on_frames(origin, frames)
    }

    fn on_identity(&mut self, outcome: IdentityOutcome) -> Result<Vec<Action>, Fault> {
        self.0.on_identity(outcome)
    }

    fn on_verdict(&mut self, verdict: Verdict) -> Result<Vec<Action>, Fault> {
        self.0.on_verdict(verdict)
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        self.0.notice(text)
    }

    fn terminate(&self, refusal: &Refusal) -> Vec<u8> {
        self.0.terminate(refusal)
    }
}

fn misbehave(body: &[u8]) {
    let names = |fault: &[u8]| body.windows(fault.len()).any(|part| part == fault);
    if names(b"faulty_trap") {
        panic!("told to");
    }
    if names(b"faulty_loop") {
        let mut n = 0u64;
        loop {
            n = std::hint::black_box(n.wrapping_add(1));
        }
    }
    if names(b"faulty_eat") {
        let mut hoard = Vec::new();
        loop {
            hoard.push(vec![1u8; 1 << 20]);
            std::hint::black_box(&hoard);
        }
    }
}

holdpoint_plugin::stream_plugin! { describe: describe, session: Faulty, classify: classify }
