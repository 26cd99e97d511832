//! Login on both sides: the client shows a token, the gateway logs in to the
//! target with an account the client never sees.
//!
//! TLS comes first: nothing is asked for, let alone given, in clear. The client
//! hears that it is in only once the target has accepted the gateway, so a
//! target that is down looks like one that is down.

use std::collections::BTreeMap;

use holdpoint_plugin::auth::{self, Exchange};
use holdpoint_plugin::{
    Action, CancelKey, CredentialFrame, CredentialSlot, Fault, Frame, IdentityOutcome, Layout,
    Refusal, RefusalKind, RowPlan, Side,
};

use crate::classify::{Limits, Protected, gives_meaning};
use crate::frame::{self, Reader};
use crate::options::Options;
use crate::reply::{self, ServerError, Severity};
use crate::session::rows::ROW;
use crate::startup::{self, Packet, Startup};

const SCRAM: &[u8] = b"SCRAM-SHA-256";
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];

/// What the session knows once both sides are logged in.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) user: String,
    pub(crate) database: String,
    /// What the client set at startup that gives later text its meaning.
    pub(crate) settings: Vec<(String, String)>,
    /// What the target reported about itself and the session.
    pub(crate) reported: BTreeMap<String, String>,
    pub(crate) status: u8,
    pub(crate) limits: Limits,
    /// Columns whose values nobody is shown.
    pub(crate) protected: Option<Protected>,
}

pub(crate) struct Login {
    options: Options,
    entropy: Vec<u8>,
    tls: bool,
    gss_refused: bool,
    startup: Startup,
    user: String,
    reported: BTreeMap<String, String>,
    state: State,
}

enum State {
    /// The client's packets without a kind.
    Packet,
    ClientHandshake,
    /// The token is with the host.
    Identity,
    /// One byte will say whether the target speaks TLS.
    TlsAnswer,
    UpstreamHandshake,
    Authenticating(Proof),
    /// Accepted by the target; its settings and key follow.
    Settling,
    Over,
}

/// How far the login at the target is.
enum Proof {
    Unasked,
    /// A password or its hash was sent: the target's word decides.
    Given,
    Scram(Exchange),
    /// The target has proved in turn that it knows the password.
    Verified,
}

/// The gateway or the target cannot serve this login.
fn unavailable(message: &str, hint: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Unavailable,
        code: "HP-UPSTREAM".to_owned(),
        message: message.to_owned(),
        detail: None,
        hint: Some(hint.to_owned()),
    }
}

const TELL_OPERATOR: &str = "tell the operator of this gateway; nothing is wrong on your side";

impl Login {
    pub(crate) fn new(options: Options, client_tls: bool, entropy: Vec<u8>) -> Self {
        Self {
            options,
            tls: client_tls,
            entropy,
            gss_refused: false,
            startup: Startup::default(),
            user: String::new(),
            reported: BTreeMap::new(),
            state: State::Packet,
        }
    }

    pub(crate) fn entropy(&self) -> &[u8] {
        &self.entropy
    }

    /// A frame of the client before login.
    pub(crate) fn on_client(&mut self, frame: &Frame, out: &mut Vec<Action>) -> Result<(), Fault> {
        match self.state {
            State::Packet if frame.kind.is_none() => {
                out.push(Action::Drop(frame.seq));
                self.packet(&frame.body, out);
                Ok(())
            }
            State::Over => {
                out.push(Action::Drop(frame.seq));
                Ok(())
            }
            // psql hangs up to prompt for a password.
            _ if frame.kind == Some(b'X') => {
                out.extend([Action::Drop(frame.seq), Action::Close]);
                self.state = State::Over;
                Ok(())
            }
            _ => Err(fault(
                "the client sent a message before its login was answered",
            )),
        }
    }

    fn packet(&mut self, body: &[u8], out: &mut Vec<Action>) {
        match startup::read(body) {
            Ok(Packet::Ssl) if !self.tls => {
                out.extend([Action::ToClient(b"S".to_vec()), Action::StartTls(Side::Client)]);
                self.state = State::ClientHandshake;
            }
            Ok(Packet::Gss) if !self.tls && !self.gss_refused => {
                out.push(Action::ToClient(b"N".to_vec()));
                self.gss_refused = true;
            }
            Ok(Packet::Ssl | Packet::Gss) => self.refuse(
                "08P01",
                "encryption was already settled",
                "HP-PROTOCOL",
                "connect with a PostgreSQL client",
                out,
            ),
            Ok(Packet::Cancel(key)) => {
                // Over TLS or not: libpq before 17 always cancels in clear, and the
                // key is good for nothing else.
                out.extend([Action::Cancel(key), Action::Close]);
                self.state = State::Over;
            }
            Ok(Packet::Startup(_)) if !self.tls => self.refuse(
                "28000",
                "TLS required: connect with sslmode=verify-full and the gateway's CA as sslrootcert",
                "HP-TLS-REQUIRED",
                "nothing was sent yet; if your client fell back from TLS, its sslmode is too weak",
                out,
            ),
            Ok(Packet::Startup(startup)) => self.ask_password(startup, out),
            Err(error) => self.refuse(
                error.sqlstate(),
                &error.to_string(),
                "HP-STARTUP",
                error.hint(),
                out,
            ),
        }
    }

    fn ask_password(&mut self, startup: Startup, out: &mut Vec<Action>) {
        let mut answer = Vec::new();
        if startup.newer || !startup.unknown_options.is_empty() {
            let unknown: Vec<&str> = startup.unknown_options.iter().map(String::as_str).collect();
            reply::negotiate(&mut answer, &unknown);
        }
        reply::authentication(&mut answer, 3);
        out.extend([
            Action::Reframe((Side::Client, frame::typed_layout())),
            Action::Subscribe(frame::client_password()),
            Action::ToClient(answer),
            Action::TakeCredential(CredentialSlot {
                kind: Some(b'p'),
                skip: 0,
                nul_terminated: true,
            }),
        ]);
        self.startup = startup;
        self.state = State::Identity;
    }

    pub(crate) fn on_identity(
        &mut self,
        outcome: IdentityOutcome,
        out: &mut Vec<Action>,
    ) -> Result<(), Fault> {
        if !matches!(self.state, State::Identity) {
            return Err(fault("a login was answered that was not asked for"));
        }
        if let IdentityOutcome::Refused(refusal) = outcome {
            self.end(&refusal, out);
            return Ok(());
        }
        self.user = auth::username();
        if self.user.is_empty() {
            self.end(
                &unavailable("no account is configured for this target", TELL_OPERATOR),
                out,
            );
            return Ok(());
        }
        out.push(Action::Connect);
        out.push(Action::Subscribe(frame::show_all(Side::Upstream)));
        if self.options.upstream_tls {
            out.push(Action::Reframe((Side::Upstream, Layout::Raw)));
            out.push(Action::ToUpstream(SSL_REQUEST.to_vec()));
            self.state = State::TlsAnswer;
        } else {
            self.log_in(out);
        }
        Ok(())
    }

    pub(crate) fn on_tls(&mut self, side: Side, out: &mut Vec<Action>) -> Result<(), Fault> {
        match (&self.state, side) {
            (State::ClientHandshake, Side::Client) => {
                self.tls = true;
                self.state = State::Packet;
                Ok(())
            }
            (State::UpstreamHandshake, Side::Upstream) => {
                self.log_in(out);
                Ok(())
            }
            _ => Err(fault("TLS began on a side that had not asked for it")),
        }
    }

    fn log_in(&mut self, out: &mut Vec<Action>) {
        let packet = self.startup.packet(&self.user, self.target_database());
        out.push(Action::Reframe((Side::Upstream, frame::typed_layout())));
        out.push(Action::ToUpstream(packet));
        self.state = State::Authenticating(Proof::Unasked);
    }

    /// The operator's choice, then the client's, then what the server would take
    /// where none is named: the name of the user the client gave.
    fn target_database(&self) -> Option<&str> {
        self.options
            .database
            .as_deref()
            .or(self.startup.database.as_deref())
            .or(Some(self.startup.user.as_str()))
    }

    /// A frame of the target during login; `Some` once both sides are in.
    pub(crate) fn on_upstream(
        &mut self,
        frame: &Frame,
        out: &mut Vec<Action>,
    ) -> Result<Option<Established>, Fault> {
        match (&mut self.state, frame.kind) {
            (State::TlsAnswer, None) => {
                out.push(Action::Drop(frame.seq));
                // More than the one byte would be text that an attacker put in
                // front of the handshake (CVE-2021-23222).
                if frame.body == b"S" {
                    out.push(Action::StartTls(Side::Upstream));
                    self.state = State::UpstreamHandshake;
                } else {
                    let refusal = unavailable(
                        "the target does not offer TLS, and this gateway does not go on without",
                        "tell the operator: enable TLS at the target or set `upstream_tls = \"off\"`",
                    );
                    self.end(&refusal, out);
                }
                Ok(None)
            }
            (State::Authenticating(_) | State::Settling, Some(b'E')) => {
                out.push(Action::Drop(frame.seq));
                let refusal = target_refused(&ServerError::read(&frame.body));
                self.end(&refusal, out);
                Ok(None)
            }
            (State::Authenticating(_), Some(b'R')) => {
                out.push(Action::Drop(frame.seq));
                self.authentication(&frame.body, out)?;
                Ok(None)
            }
            (State::Authenticating(_), Some(b'N')) => {
                out.push(Action::Drop(frame.seq));
                Ok(None)
            }
            (State::Settling, Some(b'S')) => {
                let (name, value) = parameter_status(&frame.body)?;
                if let Some(wrong) = unpinned(&name, &value) {
                    out.push(Action::Drop(frame.seq));
                    self.end(&wrong, out);
                } else {
                    self.reported.insert(name, value);
                    out.push(Action::Pass(frame.seq));
                }
                Ok(None)
            }
            (State::Settling, Some(b'N')) => {
                out.push(Action::Pass(frame.seq));
                Ok(None)
            }
            (State::Settling, Some(b'K')) => {
                out.push(Action::Drop(frame.seq));
                self.key(&frame.body, out)?;
                Ok(None)
            }
            (State::Settling, Some(b'Z')) => self.established(frame, out).map(Some),
            (State::Over, _) => {
                out.push(Action::Drop(frame.seq));
                Ok(None)
            }
            _ => Err(fault(
                "the target sent a message that has no place in a login",
            )),
        }
    }

    fn authentication(&mut self, body: &[u8], out: &mut Vec<Action>) -> Result<(), Fault> {
        let mut reader = Reader::new(body);
        let code = reader.u32().map_err(|_| garbled())?;
        let data = reader.rest();
        let State::Authenticating(proof) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(fault("the target asked for a login that is over"));
        };
        let next = match (code, proof) {
            // A target that skips the end of SCRAM has proved nothing.
            (0, Proof::Scram(_)) => Err("the target ended the login without proving itself"),
            (0, _) => {
                let mut ok = Vec::new();
                reply::authentication(&mut ok, 0);
                out.push(Action::ToClient(ok));
                self.state = State::Settling;
                return Ok(());
            }
            (3, Proof::Unasked) if self.options.upstream_tls || self.options.clear_password => {
                out.push(Action::GiveCredential(CredentialFrame {
                    // The length counts itself and the NUL; the host adds the password.
                    before: vec![b'p', 0, 0, 0, 5],
                    after: vec![0],
                    length: Some((1, 4)),
                }));
                Ok(Proof::Given)
            }
            (3, Proof::Unasked) => Err("the target asks for the password in clear, without TLS"),
            (5, Proof::Unasked) => Exchange::new("md5").step(data).map_or(
                Err("the target's md5 challenge could not be answered"),
                |hash| {
                    let mut answer = Vec::new();
                    reply::message(&mut answer, b'p', |body| {
                        body.extend_from_slice(&hash);
                        body.push(0);
                    });
                    out.push(Action::ToUpstream(answer));
                    Ok(Proof::Given)
                },
            ),
            (10, Proof::Unasked) => sasl_begin(data, out),
            (11, Proof::Scram(mut exchange)) => match exchange.step(data) {
                Ok(answer) if !answer.is_empty() => {
                    let mut message = Vec::new();
                    reply::message(&mut message, b'p', |body| body.extend_from_slice(&answer));
                    out.push(Action::ToUpstream(message));
                    Ok(Proof::Scram(exchange))
                }
                _ => Err("the target's SCRAM challenge could not be answered"),
            },
            (12, Proof::Scram(mut exchange)) => match exchange.step(data) {
                Ok(rest) if rest.is_empty() => Ok(Proof::Verified),
                _ => Err("the target failed to prove that it knows the password"),
            },
            (2 | 6 | 7 | 9, Proof::Unasked) => Err(
                "the target asks for Kerberos, GSSAPI, SSPI or SCM login, which is not supported",
            ),
            _ => Err("the target asks for a login step that makes no sense"),
        };
        match next {
            Ok(proof) => self.state = State::Authenticating(proof),
            Err(why) => self.end(&unavailable(why, TELL_OPERATOR), out),
        }
        Ok(())
    }

    /// The client gets a key of ours: the target's would let whoever sees it
    /// cancel past the gateway.
    fn key(&self, body: &[u8], out: &mut Vec<Action>) -> Result<(), Fault> {
        let ours = self
            .entropy
            .get(..8)
            .ok_or_else(|| fault("too little entropy was given"))?;
        if body.len() != 8 {
            return Err(garbled());
        }
        let mut message = Vec::new();
        reply::key(&mut message, ours);
        out.push(Action::RegisterCancel(CancelKey {
            key: ours.to_vec(),
            packet: [&CANCEL_REQUEST[..], body].concat(),
        }));
        out.push(Action::ToClient(message));
        Ok(())
    }

    fn established(&mut self, frame: &Frame, out: &mut Vec<Action>) -> Result<Established, Fault> {
        let status = match frame.body.as_slice() {
            [status @ (b'I' | b'T' | b'E')] => *status,
            _ => return Err(garbled()),
        };
        // Both are reported by every server; one that does not may read text in
        // a way the classifier does not.
        for name in ["client_encoding", "standard_conforming_strings"] {
            if !self.reported.contains_key(name) {
                out.push(Action::Drop(frame.seq));
                return Err(fault("the target does not report how it reads text"));
            }
        }
        let protects = self.options.protected.is_some();
        if protects {
            out.push(Action::Rows((ROW, RowPlan::Refuse)));
        }
        out.extend([
            Action::Subscribe(frame::client_commands(false)),
            Action::Subscribe(frame::upstream_replies(protects)),
            Action::Pass(frame.seq),
            Action::Ready,
        ]);
        self.state = State::Over;
        Ok(Established {
            user: std::mem::take(&mut self.user),
            database: self.target_database().unwrap_or_default().to_owned(),
            settings: self
                .startup
                .parameters
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .filter(|(name, _)| gives_meaning(name))
                .collect(),
            reported: std::mem::take(&mut self.reported),
            limits: self.options.limits,
            protected: self.options.protected.take(),
            status,
        })
    }

    fn refuse(
        &mut self,
        sqlstate: &str,
        message: &str,
        code: &str,
        hint: &str,
        out: &mut Vec<Action>,
    ) {
        let mut bytes = Vec::new();
        reply::report(
            &mut bytes,
            Severity::Fatal,
            sqlstate,
            message,
            Some(code),
            Some(hint),
        );
        out.extend([Action::ToClient(bytes), Action::Close]);
        self.state = State::Over;
    }

    fn end(&mut self, refusal: &Refusal, out: &mut Vec<Action>) {
        let mut bytes = Vec::new();
        reply::refusal(&mut bytes, Severity::Fatal, refusal);
        out.extend([Action::ToClient(bytes), Action::Close]);
        self.state = State::Over;
    }
}

fn sasl_begin(data: &[u8], out: &mut Vec<Action>) -> Result<Proof, &'static str> {
    let mut reader = Reader::new(data);
    let mut offered = false;
    while let Ok(mechanism) = reader.string() {
        offered |= mechanism == SCRAM;
    }
    if !offered {
        return Err("the target offers no login that is supported (SCRAM-SHA-256, md5, password)");
    }
    let mut exchange = Exchange::new("scram-sha-256");
    let first = exchange
        .step(&[])
        .map_err(|_| "no SCRAM login could be started")?;
    let length = u32::try_from(first.len()).map_err(|_| "no SCRAM login could be started")?;
    let mut message = Vec::new();
    reply::message(&mut message, b'p', |body| {
        body.extend_from_slice(SCRAM);
        body.push(0);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&first);
    });
    out.push(Action::ToUpstream(message));
    Ok(Proof::Scram(exchange))
}

/// Says what is wrong at the target in words that give nothing of it away,
/// except where the client itself can mend it.
fn target_refused(error: &ServerError) -> Refusal {
    let (message, hint) = match error.sqlstate.as_str() {
        "3D000" => (
            error.message.as_str(),
            "name a database that exists at the target",
        ),
        "53300" | "57P03" => (
            error.message.as_str(),
            "the target is busy: try again shortly",
        ),
        "28P01" | "28000" => (
            "the target did not accept the gateway's own account",
            TELL_OPERATOR,
        ),
        _ => ("the target refused the connection", TELL_OPERATOR),
    };
    let mut refusal = unavailable(message, hint);
    refusal.detail = Some(format!("the target said {}", error.status()));
    refusal
}

pub(crate) fn parameter_status(body: &[u8]) -> Result<(String, String), Fault> {
    let mut reader = Reader::new(body);
    let mut text = || -> Result<String, Fault> {
        let bytes = reader.string().map_err(|_| garbled())?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    };
    Ok((text()?, text()?))
}

/// A setting under which the server would read text otherwise than the classifier.
pub(crate) fn unpinned(name: &str, value: &str) -> Option<Refusal> {
    let right = match name {
        "client_encoding" => startup::is_utf8(value),
        "standard_conforming_strings" => value == "on",
        _ => true,
    };
    (!right).then(|| Refusal {
        kind: RefusalKind::Denied,
        code: "HP-PROTOCOL".to_owned(),
        message: format!("`{name}` must stay at its value; the session is over"),
        detail: Some(
            "under another one the gateway could not tell what a statement does".to_owned(),
        ),
        hint: Some(format!("connect again and do not change `{name}`")),
    })
}

fn fault(message: &str) -> Fault {
    Fault {
        message: message.to_owned(),
    }
}

fn garbled() -> Fault {
    fault("the target sent a message that is not PostgreSQL's")
}
