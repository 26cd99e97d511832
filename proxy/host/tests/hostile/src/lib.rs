//! A plugin that misbehaves in the way its setting `do` names, at its first
//! frame, to test that the host stands it.

#![allow(clippy::panic, reason = "this is what it is for")]

use holdpoint_plugin::{
    Action, Command, Completion, Confidence, Descriptor, Fault, Forecast, Frame, IdentityOutcome,
    Layout, Operation, Pattern, Piece, Recall, Refusal, Session, Setup, Side, Submission, Verdict,
    auth, log,
};

struct Hostile {
    deed: String,
    /// Frames of the client that it was told of.
    asked: usize,
}

impl Session for Hostile {
    fn new(setup: Setup) -> Self {
        let deed = setup.settings.into_iter().find(|(name, _)| name == "do");
        Self {
            deed: deed.map(|(_, deed)| deed).unwrap_or_default(),
            asked: 0,
        }
    }

    fn on_frames(&mut self, side: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
        if self.deed.starts_with("foretell") {
            let frames = frames.iter();
            return Ok(frames
                .flat_map(|frame| self.foretell(side, frame))
                .collect());
        }
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

impl Hostile {
    /// Each frame of the client is a command; the first answer foretells the next of them.
    fn foretell(&mut self, side: Side, frame: &Frame) -> Vec<Action> {
        if side == Side::Client {
            self.asked += 1;
            let again = self.asked > 1;
            assert!(!again || self.deed != "foretell and trap", "told to");
            let text = match self.deed.as_str() {
                "foretell falsely" if again => b"something else".to_vec(),
                _ => frame.body.clone(),
            };
            return vec![Action::Submit(Submission {
                first: frame.seq,
                last: frame.seq,
                command: command(text, if again { Vec::new() } else { vec![reads()] }),
                notify: false,
                undo: false,
                recall: if again {
                    Recall::Kept(0)
                } else {
                    Recall::Keep(0)
                },
            })];
        }
        let exactly = |body: &[u8]| {
            vec![Pattern {
                kind: None,
                body: vec![Piece::Exactly(body.to_vec())],
            }]
        };
        vec![
            Action::Completed(Completion {
                commands: 1,
                status: format!("{} asked", self.asked),
                failed: false,
                rows: None,
            }),
            Action::Pass(frame.seq),
            Action::Forecast(Forecast {
                number: 3,
                asked: exactly(b"go"),
                command: command(Vec::new(), Vec::new()),
                kept: 0,
                text_is_body: true,
                answered: exactly(b"done"),
                status: 0,
            }),
            Action::Expect(vec![3]),
        ]
    }
}

fn command(text: Vec<u8>, operations: Vec<Operation>) -> Command {
    Command {
        operations,
        text,
        parameters: Vec::new(),
        secrets: Vec::new(),
        context: Vec::new(),
        in_transaction: false,
        canonical: None,
        reject: None,
    }
}

fn reads() -> Operation {
    Operation {
        class: "read".to_owned(),
        effects: Vec::new(),
        objects: Vec::new(),
        functions: Vec::new(),
        unknown_functions: Vec::new(),
        confidence: Confidence::Proven,
        housekeeping: false,
        facts: Vec::new(),
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
