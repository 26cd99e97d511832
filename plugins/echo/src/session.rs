//! One connection: TLS, the token, login at the target, then lines.
//!
//! Answers come in the order of the commands. A refusal therefore waits until
//! the target has answered what went before it, and while it waits nothing
//! later is submitted.

use std::collections::VecDeque;

use holdpoint_plugin::{
    Action, Completion, CredentialFrame, CredentialSlot, Fault, Frame, IdentityOutcome, Recall,
    Refusal, RefusalKind, Session, Setup, Side, Submission, Verdict, auth,
};

use crate::{classify, reply};

pub(crate) struct EchoSession {
    greeting: Option<String>,
    state: State,
    /// Lines that were shown and not yet submitted.
    queue: VecDeque<Frame>,
    /// A submission is with the host; it shows no client line until the verdict.
    judged: bool,
    /// Commands that went forward and have no answer yet.
    unanswered: u32,
    /// Says no to the command after those.
    refused: Option<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// In clear: only `starttls` is understood.
    Clear,
    Handshake,
    /// The next line is the token, and goes to the host alone.
    Token,
    /// The target has been sent our account.
    Login {
        subject: String,
    },
    Ready,
    Over,
}

impl Session for EchoSession {
    fn new(setup: Setup) -> Self {
        let greeting = setup
            .settings
            .into_iter()
            .find(|(name, _)| name == "greeting");
        Self {
            greeting: greeting.map(|(_, text)| text),
            state: if setup.client_tls {
                State::Token
            } else {
                State::Clear
            },
            queue: VecDeque::new(),
            judged: false,
            unanswered: 0,
            refused: None,
        }
    }

    /// Only for protocols in which the server speaks first, or, as here when TLS
    /// is already there, when the very first frame is the token.
    fn open(&mut self) -> Result<Vec<Action>, Fault> {
        let greeting = self
            .greeting
            .take()
            .map(|text| Action::ToClient(reply::notice(&text)));
        let mut out: Vec<Action> = greeting.into_iter().collect();
        if self.state == State::Token {
            out.push(take_token());
        }
        Ok(out)
    }

    fn on_tls(&mut self, origin: Side) -> Result<Vec<Action>, Fault> {
        match (origin, &self.state) {
            (Side::Client, State::Handshake) => {
                self.state = State::Token;
                Ok(vec![take_token()])
            }
            _ => Err(fault("TLS began where it was not asked for")),
        }
    }

    fn on_frames(&mut self, origin: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
        let mut out = Vec::new();
        match origin {
            Side::Client if self.state == State::Ready => self.queue.extend(frames),
            Side::Client => self.hello(&frames, &mut out),
            Side::Upstream => {
                for frame in frames {
                    self.answer(&frame, &mut out)?;
                }
            }
        }
        self.advance(&mut out);
        Ok(out)
    }

    fn on_identity(&mut self, outcome: IdentityOutcome) -> Result<Vec<Action>, Fault> {
        if self.state != State::Token {
            return Err(fault("an identity came that was not asked for"));
        }
        let identity = match outcome {
            IdentityOutcome::Accepted(identity) => identity,
            IdentityOutcome::Refused(refusal) => return Ok(self.end(&refusal)),
        };
        // The target is dialled only now that somebody is known.
        let mut out = vec![Action::Connect];
        let account = auth::username();
        if account.is_empty() {
            self.ready(&identity.subject, &mut out);
        } else {
            // The host writes the password between the two; it never comes here.
            out.push(Action::GiveCredential(CredentialFrame {
                before: format!("login {account} ").into_bytes(),
                after: b"\n".to_vec(),
                length: None,
            }));
            self.state = State::Login {
                subject: identity.subject,
            };
        }
        Ok(out)
    }

    fn on_verdict(&mut self, verdict: Verdict) -> Result<Vec<Action>, Fault> {
        if !std::mem::take(&mut self.judged) {
            return Err(fault("a verdict came without a command"));
        }
        match verdict {
            // The host has sent the line already: a plugin never sends commands.
            Verdict::Forwarded => self.unanswered += 1,
            Verdict::Refused(refusal) => self.refused = Some(refusal),
        }
        let mut out = Vec::new();
        self.advance(&mut out);
        Ok(out)
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        reply::notice(text)
    }

    fn terminate(&self, refusal: &Refusal) -> Vec<u8> {
        reply::refusal(refusal)
    }
}

impl EchoSession {
    /// Before TLS.
    fn hello(&mut self, frames: &[Frame], out: &mut Vec<Action>) {
        for frame in frames {
            out.push(Action::Drop(frame.seq));
        }
        match (&self.state, frames) {
            (State::Clear, [frame]) if frame.body == b"starttls\n" => {
                out.extend([
                    Action::ToClient(reply::ok("tls")),
                    Action::StartTls(Side::Client),
                ]);
                self.state = State::Handshake;
            }
            (State::Over, _) => {}
            _ => out.extend(self.end(&Refusal {
                kind: RefusalKind::Malformed,
                code: "HP-TLS-REQUIRED".to_owned(),
                message: "nothing is accepted in clear".to_owned(),
                detail: None,
                hint: Some("send `starttls` and wait for the answer".to_owned()),
            })),
        }
    }

    /// A line of the target.
    fn answer(&mut self, frame: &Frame, out: &mut Vec<Action>) -> Result<(), Fault> {
        let failed = !frame.body.starts_with(b"ok");
        match &self.state {
            State::Login { subject } => {
                let subject = subject.clone();
                out.push(Action::Drop(frame.seq));
                if failed {
                    out.extend(self.end(&Refusal {
                        kind: RefusalKind::Unavailable,
                        code: "HP-UPSTREAM".to_owned(),
                        message: "the target did not accept the gateway's account".to_owned(),
                        detail: None,
                        hint: Some("tell the operator of this gateway".to_owned()),
                    }));
                } else {
                    self.ready(&subject, out);
                }
            }
            State::Ready if self.unanswered > 0 => {
                self.unanswered -= 1;
                let word = frame
                    .body
                    .split(|b| b.is_ascii_whitespace())
                    .next()
                    .unwrap_or_default();
                out.push(Action::Pass(frame.seq));
                out.push(Action::Completed(Completion {
                    commands: 1,
                    // The target's own word goes into the record, cut to a sane length.
                    status: String::from_utf8_lossy(word).chars().take(32).collect(),
                    failed,
                    rows: None,
                }));
            }
            State::Over => out.push(Action::Drop(frame.seq)),
            _ => return Err(fault("the target answered what it was not asked")),
        }
        Ok(())
    }

    fn ready(&mut self, subject: &str, out: &mut Vec<Action>) {
        out.extend([Action::ToClient(reply::ok(subject)), Action::Ready]);
        self.state = State::Ready;
    }

    /// Does whatever can be done now: say no, or submit the next line.
    fn advance(&mut self, out: &mut Vec<Action>) {
        if self.state != State::Ready || self.judged {
            return;
        }
        if self.unanswered == 0
            && let Some(refusal) = self.refused.take()
        {
            out.push(Action::ToClient(reply::refusal(&refusal)));
        }
        if self.refused.is_some() {
            return;
        }
        if let Some(frame) = self.queue.pop_front() {
            let line = frame.body.strip_suffix(b"\n").unwrap_or(&frame.body);
            self.judged = true;
            out.push(Action::Submit(Submission {
                first: frame.seq,
                last: frame.seq,
                command: classify::command(line),
                // We count what is on its way, so forwards matter too.
                notify: true,
                undo: false,
                recall: Recall::No,
            }));
        }
    }

    fn end(&mut self, refusal: &Refusal) -> Vec<Action> {
        self.state = State::Over;
        vec![Action::ToClient(reply::refusal(refusal)), Action::Close]
    }
}

/// `token ` is six bytes; what follows in the line is the host's alone.
fn take_token() -> Action {
    Action::TakeCredential(CredentialSlot {
        kind: None,
        skip: 6,
        nul_terminated: false,
    })
}

fn fault(message: &str) -> Fault {
    Fault {
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
