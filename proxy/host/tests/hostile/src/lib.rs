//! A plugin that misbehaves in the way its setting `do` names, at its first
//! frame, to test that the host stands it.

#![allow(clippy::panic, reason = "this is what it is for")]

use holdpoint_plugin::{
    Action, Command, Descriptor, Fault, Frame, IdentityOutcome, Layout, Refusal, Session, Setup,
    Side, Verdict, auth, log,
};

struct Hostile {
    deed: String,
}

impl Session for Hostile {
    fn new(setup: Setup) -> Self {
        let deed = setup.settings.into_iter().find(|(name, _)| name == "do");
        Self {
            deed: deed.map(|(_, deed)| deed).unwrap_or_default(),
        }
    }

    fn on_frames(&mut self, _: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
        let mut out: Vec<Action> = frames.iter().map(|frame| Action::Drop(frame.seq)).collect();
        match self.deed.as_str() {
            "trap" => panic!("told to"),
            "loop" => spin(),
            "eat" => eat(),
            "flood" => out.push(Action::ToClient(vec![b'x'; 32 << 20])),
            "chatter" => out.extend((0..10_000).map(|_| Action::Connect)),
            "lie" => out.push(Action::Pass(99)),
            "fault" => {
                return Err(Fault {
                    message: "enough".to_owned(),
                });
            }
            "log" => (0..10_000).for_each(|_| log::info("again")),
            "logins" => (0..10).for_each(|_| drop(auth::Exchange::new("md5"))),
            "login" => {
                let mut exchange = auth::Exchange::new("md5");
                let answer = exchange
                    .step(b"salt")
                    .unwrap_or_else(|error| format!("{error:?}").into_bytes());
                out.push(Action::ToUpstream(
                    [auth::username().into_bytes(), answer].concat(),
                ));
            }
            _ => {}
        }
        Ok(out)
    }

    fn on_identity(&mut self, _: IdentityOutcome) -> Result<Vec<Action>, Fault> {
        Ok(Vec::new())
    }

    fn on_verdict(&mut self, _: Verdict) -> Result<Vec<Action>, Fault> {
        Ok(Vec::new())
    }

    fn terminate(&self, refusal: &Refusal) -> Vec<u8> {
        refusal.code.clone().into_bytes()
    }
}

fn spin() {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn eat() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&hoard);
    }
}

fn describe() -> Descriptor {
    Descriptor {
        name: "hostile".to_owned(),
        version: "1".to_owned(),
        default_port: None,
        direct_tls_alpn: None,
        client_layout: Layout::Raw,
        upstream_layout: Layout::Raw,
        subscriptions: Vec::new(),
        classes: Vec::new(),
        undo: None,
    }
}

fn classify(_: Vec<(String, Vec<u8>)>) -> Result<Command, String> {
    spin();
    Err("never".to_owned())
}

holdpoint_plugin::stream_plugin! { describe: describe, session: Hostile, classify: classify }
