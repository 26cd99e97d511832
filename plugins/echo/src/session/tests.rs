//! Scripts against a few lines of host: bytes come in any splits, the host cuts
//! lines, keeps them, and takes the token out.

use holdpoint_plugin::testing::{self, Scripted};
use holdpoint_plugin::{Identity, auth::AuthError};

use super::*;

struct Host {
    session: EchoSession,
    buffers: [Vec<u8>; 2],
    seq: u64,
    taking: bool,
    log: String,
}

impl Host {
    fn new(client_tls: bool) -> Self {
        let setup = Setup {
            settings: Vec::new(),
            client_tls,
            entropy: vec![0; 32],
        };
        let mut host = Self {
            session: EchoSession::new(setup),
            buffers: [Vec::new(), Vec::new()],
            seq: 0,
            taking: false,
            log: String::new(),
        };
        let actions = host.session.open();
        host.act(actions);
        host
    }

    fn ready() -> Self {
        let mut host = Self::new(true);
        host.receive(Side::Client, b"token secret\n");
        host.accept();
        host.log.clear();
        host
    }

    fn note(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('|');
    }

    fn receive(&mut self, side: Side, bytes: &[u8]) {
        let at = usize::from(side == Side::Upstream);
        self.buffers[at].extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(end) = self.buffers[at].iter().position(|b| *b == b'\n') {
            let body: Vec<u8> = self.buffers[at].drain(..=end).collect();
            if side == Side::Client && std::mem::take(&mut self.taking) {
                continue;
            }
            self.seq += 1;
            frames.push(Frame {
                seq: self.seq,
                kind: None,
                body,
            });
        }
        if !frames.is_empty() {
            let actions = self.session.on_frames(side, frames);
            self.act(actions);
        }
    }

    fn accept(&mut self) {
        let identity = Identity {
            subject: "agent".to_owned(),
            label: "a".to_owned(),
            groups: Vec::new(),
        };
        let actions = self
            .session
            .on_identity(IdentityOutcome::Accepted(identity));
        self.act(actions);
    }

    fn verdict(&mut self, verdict: Verdict) {
        let actions = self.session.on_verdict(verdict);
        self.act(actions);
    }

    fn act(&mut self, actions: Result<Vec<Action>, Fault>) {
        let actions = match actions {
            Ok(actions) => actions,
            Err(fault) => return self.note(&format!("fault {}", fault.message)),
        };
        for action in actions {
            match action {
                Action::ToClient(bytes) => {
                    self.note(&format!(
                        "<= {}",
                        String::from_utf8_lossy(&bytes).trim_end()
                    ));
                }
                Action::Submit(submission) => {
                    let class = &submission.command.operations[0].class;
                    let text = String::from_utf8_lossy(&submission.command.text);
                    self.note(&format!("submit {class} `{text}`"));
                }
                Action::Completed(done) => self.note(&format!("completed {}", done.status)),
                Action::GiveCredential(frame) => {
                    self.note(&format!("=> {}***", String::from_utf8_lossy(&frame.before)));
                }
                Action::TakeCredential(slot) => {
                    assert_eq!(slot.skip, 6);
                    self.taking = true;
                    self.note("take");
                }
                Action::Pass(_) => self.note("pass"),
                Action::Drop(_) => self.note("drop"),
                Action::Connect => self.note("connect"),
                Action::Ready => self.note("ready"),
                Action::Close => self.note("close"),
                Action::StartTls(_) => self.note("tls"),
                other => panic!("{other:?} has no place in this protocol"),
            }
        }
    }
}

fn denied() -> Verdict {
    Verdict::Refused(Refusal {
        kind: RefusalKind::Denied,
        code: "HP-DENIED".to_owned(),
        message: "no".to_owned(),
        detail: None,
        hint: None,
    })
}

#[test]
fn a_client_in_clear_is_led_to_tls_before_its_token_is_taken() {
    let mut host = Host::new(false);
    host.receive(Side::Client, b"starttls\n");
    assert_eq!(host.log, "drop|<= ok tls|tls|");
    host.log.clear();
    let actions = host.session.on_tls(Side::Client);
    host.act(actions);
    host.receive(Side::Client, b"token secret\n");
    host.accept();
    assert_eq!(host.log, "take|connect|<= ok agent|ready|");
}

#[test]
fn a_token_in_clear_ends_the_session() {
    let mut host = Host::new(false);
    host.receive(Side::Client, b"token secret\n");
    assert!(host.log.contains("refused HP-TLS-REQUIRED"), "{}", host.log);
    assert!(host.log.ends_with("close|"));
}

#[test]
fn any_split_of_the_bytes_gives_the_same_commands() {
    let bytes = b"read x\nwrite y\nformat z\n";
    let whole = "submit read `read x`|submit write `write y`|submit unknown `format z`|";
    for split in 0..bytes.len() {
        let mut host = Host::ready();
        host.receive(Side::Client, &bytes[..split]);
        host.receive(Side::Client, &bytes[split..]);
        host.verdict(Verdict::Forwarded);
        host.verdict(Verdict::Forwarded);
        assert_eq!(host.log, whole, "split at {split}");
    }
}

#[test]
fn a_refusal_comes_after_the_answers_of_what_went_before() {
    let mut host = Host::ready();
    host.receive(Side::Client, b"read x\nwrite x\nread y\n");
    host.verdict(Verdict::Forwarded);
    host.verdict(denied());
    assert_eq!(host.log, "submit read `read x`|submit write `write x`|");
    host.log.clear();
    host.receive(Side::Upstream, b"ok x=1\n");
    assert_eq!(
        host.log,
        "pass|completed ok|<= refused HP-DENIED: no|submit read `read y`|"
    );
}

#[test]
fn the_account_of_the_target_is_used_and_its_password_never_seen() {
    testing::set_login(Scripted {
        username: "app".to_owned(),
        answers: Vec::new(),
    });
    let mut host = Host::new(true);
    host.receive(Side::Client, b"token secret\n");
    host.accept();
    host.receive(Side::Upstream, b"ok\n");
    testing::clear_login();
    assert_eq!(
        host.log,
        "take|connect|=> login app ***|drop|<= ok agent|ready|"
    );
    assert_eq!(
        auth::Exchange::new("md5").step(b""),
        Err(AuthError::NoCredential)
    );
}

#[test]
fn an_answer_that_nobody_asked_for_is_a_fault() {
    let mut host = Host::ready();
    host.receive(Side::Upstream, b"ok surprise\n");
    assert_eq!(host.log, "fault the target answered what it was not asked|");
}
