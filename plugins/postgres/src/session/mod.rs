//! One session: login first, then commands.

pub(crate) mod context;
mod decide;
mod foresee;
mod known;
pub(crate) mod names;
pub(crate) mod pending;
mod plan;
mod refuse;
pub(crate) mod rows;
pub(crate) mod typed;
mod undo;
pub(crate) mod upstream;

#[cfg(test)]
mod tests;

use holdpoint_plugin::{
    Action, Fault, Frame, IdentityOutcome, Refusal, Session, Setup, Side, Verdict,
};

use crate::login::Login;
use crate::options::Options;
use crate::reply::{self, Severity};
use typed::Typed;

pub struct PostgresSession {
    phase: Phase,
    /// What is wrong with the operator's settings.
    wrong: Option<String>,
}

enum Phase {
    Login(Box<Login>),
    Typed(Box<Typed>),
}

impl Session for PostgresSession {
    fn new(setup: Setup) -> Self {
        let (options, wrong) = match Options::read(&setup.settings) {
            Ok(options) => (options, None),
            Err(wrong) => (Options::default(), Some(wrong)),
        };
        let login = Login::new(options, setup.client_tls, setup.entropy);
        Self {
            phase: Phase::Login(Box::new(login)),
            wrong,
        }
    }

    /// The server speaks second; this is where the settings are found wanting.
    fn open(&mut self) -> Result<Vec<Action>, Fault> {
        match self.wrong.take() {
            Some(message) => Err(Fault { message }),
            None => Ok(Vec::new()),
        }
    }

    fn on_tls(&mut self, origin: Side) -> Result<Vec<Action>, Fault> {
        let mut out = Vec::new();
        match &mut self.phase {
            Phase::Login(login) => login.on_tls(origin, &mut out)?,
            Phase::Typed(_) => return Err(out_of_place("TLS")),
        }
        Ok(out)
    }

    fn on_frames(&mut self, origin: Side, frames: Vec<Frame>) -> Result<Vec<Action>, Fault> {
        let mut out = Vec::with_capacity(4);
        let mut frames = frames;
        if let Phase::Login(login) = &mut self.phase {
            let mut rest = frames.into_iter();
            let mut established = None;
            for frame in rest.by_ref() {
                match origin {
                    Side::Client => login.on_client(&frame, &mut out)?,
                    Side::Upstream => established = login.on_upstream(&frame, &mut out)?,
                }
                if established.is_some() {
                    break;
                }
            }
            let Some(established) = established else {
                return Ok(out);
            };
            let typed = Typed::new(established, login.entropy());
            self.phase = Phase::Typed(Box::new(typed));
            frames = rest.collect();
            if frames.is_empty() {
                return Ok(out);
            }
        }
        if let Phase::Typed(typed) = &mut self.phase {
            typed.watch(origin, &frames);
            match origin {
                Side::Client => typed.on_client(frames, &mut out),
                Side::Upstream => typed.on_upstream(frames, &mut out)?,
            }
            typed.guard_rows(&mut out);
            typed.foresee(origin, &mut out);
        }
        Ok(out)
    }

    fn on_identity(&mut self, outcome: IdentityOutcome) -> Result<Vec<Action>, Fault> {
        let mut out = Vec::new();
        match &mut self.phase {
            Phase::Login(login) => login.on_identity(outcome, &mut out)?,
            Phase::Typed(_) => return Err(out_of_place("an identity")),
        }
        Ok(out)
    }

    fn on_verdict(&mut self, verdict: Verdict) -> Result<Vec<Action>, Fault> {
        let mut out = Vec::new();
        match &mut self.phase {
            Phase::Login(_) => return Err(out_of_place("a verdict")),
            Phase::Typed(typed) => {
                typed.on_verdict(verdict, &mut out)?;
                typed.guard_rows(&mut out);
            }
        }
        Ok(out)
    }

    fn notice(&self, text: &str) -> Vec<u8> {
        reply::notice(text)
    }

    fn terminate(&self, refusal: &Refusal) -> Vec<u8> {
        let mut out = Vec::new();
        reply::refusal(&mut out, Severity::Fatal, refusal);
        out
    }
}

fn out_of_place(what: &str) -> Fault {
    Fault {
        message: format!("{what} has no place in this phase of the session"),
    }
}
