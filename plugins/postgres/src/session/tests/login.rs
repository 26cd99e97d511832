//! Login on both sides.

use holdpoint_plugin::auth::AuthError;
use holdpoint_plugin::testing::{Answer, Login, clear_login, set_login};

use super::*;

fn request(code: u32) -> Message {
    (None, code.to_be_bytes().to_vec())
}

const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;

fn asks(code: u8, data: &[u8]) -> Message {
    m(b'R', &[&[0, 0, 0, code], data].concat())
}

fn hello() -> Step {
    Step::Client(vec![startup(&[("user", "agent"), ("database", "shop")])])
}

/// Over TLS, with the token accepted, at a target without TLS.
fn asked(settings: &[(&str, &str)]) -> Host {
    let mut host = Host::new(settings, true);
    host.play(hello());
    host.accept();
    host.log.clear();
    host
}

fn settle() -> Vec<Message> {
    vec![
        status("client_encoding", "UTF8"),
        status("standard_conforming_strings", "on"),
        m(b'K', b"\0\0\0\x07\0\0\0\x09"),
        z(b'I'),
    ]
}

#[test]
fn tls_then_token_then_the_target_with_tls_and_scram() {
    let mut host = Host::new(&[], false);
    host.play(Step::Client(vec![request(GSS)]));
    host.play(Step::Client(vec![request(SSL)]));
    host.tls(Side::Client);
    host.play(hello());
    assert_eq!(
        host.lines(),
        ["<= N", "<= S", "tls client", "<= R", "take token"]
    );
    host.log.clear();
    host.accept();
    assert_eq!(
        host.lines(),
        ["connect", "=> \\x00\\x00\\x00\\x08\\x04\\xd2\\x16/"]
    );
    host.log.clear();
    host.play(Step::Upstream(vec![(None, b"S".to_vec())]));
    host.tls(Side::Upstream);
    assert_eq!(host.lines()[0], "tls upstream");
    let sent = &host.lines()[1];
    assert!(
        sent.contains("user\\x00app\\x00database\\x00shop\\x00"),
        "{sent}"
    );
    assert!(
        !sent.contains("agent"),
        "the client's own name stays here: {sent}"
    );
    host.log.clear();
    host.play(upstream(&[asks(
        10,
        b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
    )]));
    host.play(upstream(&[asks(11, b"r=ab,s=cd,i=4096")]));
    host.play(upstream(&[asks(12, b"v=ef"), asks(0, b"")]));
    assert_eq!(
        host.lines(),
        [
            "=> p\\x00\\x00\\x00\\x1bSCRAM-SHA-256\\x00\\x00\\x00\\x00\\x05first",
            "=> p\\x00\\x00\\x00\\tfinal",
            "<= R",
        ]
    );
    host.log.clear();
    host.play(upstream(&settle()));
    assert_eq!(
        host.lines(),
        [
            "<- S client_encoding UTF8",
            "<- S standard_conforming_strings on",
            "cancel key \\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07 for \
             \\x00\\x00\\x00\\x10\\x04\\xd2\\x16.\\x00\\x00\\x00\\x07\\x00\\x00\\x00\\t",
            "<= K",
            "<- Z I",
            "ready",
        ]
    );
}

#[test]
fn nothing_is_asked_for_before_tls() {
    let mut host = Host::new(&[], false);
    host.play(hello());
    assert_eq!(
        host.lines(),
        [
            "<= E 28000 TLS required: connect with sslmode=verify-full and the gateway's CA as \
             sslrootcert FATAL",
            "close"
        ]
    );
}

#[test]
fn a_cancel_request_is_passed_to_the_host_in_clear_or_not() {
    for tls in [false, true] {
        let mut host = Host::new(&[], tls);
        let body = [&CANCEL.to_be_bytes()[..], b"12345678"].concat();
        host.play(Step::Client(vec![(None, body)]));
        assert_eq!(host.lines(), ["cancel 12345678", "close"]);
    }
}

#[test]
fn start_ups_that_change_what_text_means_are_refused() {
    for (name, value, why) in [
        (
            "replication",
            "database",
            "E 0A000 replication connections are not served FATAL",
        ),
        (
            "options",
            "-c role=x",
            "E 22023 startup parameter `options` is not accepted FATAL",
        ),
        (
            "search_path",
            "x",
            "E 22023 startup parameter `search_path` is not accepted FATAL",
        ),
        (
            "client_encoding",
            "SJIS",
            "E 22023 client_encoding `SJIS` is not accepted, only UTF8 FATAL",
        ),
    ] {
        let mut host = Host::new(&[], true);
        host.play(Step::Client(vec![startup(&[
            ("user", "agent"),
            (name, value),
        ])]));
        assert_eq!(host.lines(), [format!("<= {why}"), "close".to_owned()]);
    }
}

#[test]
fn a_refused_token_ends_the_login_with_its_reason() {
    let mut host = Host::new(&[], true);
    host.play(hello());
    let refusal = Refusal {
        kind: RefusalKind::Unauthenticated,
        code: "HP-TOKEN-EXPIRED".to_owned(),
        message: "the token's time is over".to_owned(),
        detail: None,
        hint: None,
    };
    let actions = host
        .session
        .on_identity(IdentityOutcome::Refused(refusal))
        .unwrap();
    host.act(actions);
    assert_eq!(
        host.lines()[2..],
        ["<= E 28000 the token's time is over FATAL", "close"]
    );
}

#[test]
fn a_target_without_tls_is_left_unless_the_operator_says_so() {
    let mut host = asked(&[]);
    host.play(Step::Upstream(vec![(None, b"N".to_vec())]));
    let line = "<= E 57P01 the target does not offer TLS, and this gateway does not go on without \
                FATAL";
    assert_eq!(host.lines(), [line, "close"]);
    let mut host = asked(&[]);
    host.play(Step::Upstream(vec![(None, b"SE".to_vec())]));
    assert_eq!(
        host.lines(),
        [line, "close"],
        "bytes put before the handshake"
    );
}

#[test]
fn md5_and_a_clear_password_go_where_the_operator_lets_them() {
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(upstream(&[asks(5, b"salt"), asks(0, b"")]));
    assert_eq!(
        host.lines(),
        ["=> p\\x00\\x00\\x00\\x0cmd5hash\\x00", "<= R"]
    );
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(upstream(&[asks(3, b"")]));
    let line = "<= E 57P01 the target asks for the password in clear, without TLS FATAL";
    assert_eq!(host.lines(), [line, "close"]);
    let mut host = asked(&[("upstream_tls", "off"), ("upstream_clear_password", "on")]);
    host.play(upstream(&[asks(3, b""), asks(0, b"")]));
    assert_eq!(host.lines(), ["=> password", "<= R"]);
}

#[test]
fn a_target_that_skips_its_own_proof_is_refused() {
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(upstream(&[asks(10, b"SCRAM-SHA-256\0\0")]));
    host.log.clear();
    host.play(upstream(&[asks(0, b"")]));
    let line = "<= E 57P01 the target ended the login without proving itself FATAL";
    assert_eq!(host.lines(), [line, "close"]);
}

#[test]
fn a_target_that_reads_text_otherwise_ends_the_login() {
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(upstream(&[
        asks(0, b""),
        status("client_encoding", "SQL_ASCII"),
    ]));
    assert!(
        host.log
            .contains("`client_encoding` must stay at its value"),
        "{}",
        host.log
    );
    assert!(host.closed);
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(upstream(&[
        asks(0, b""),
        m(b'K', b"\0\0\0\x07\0\0\0\x09"),
        z(b'I'),
    ]));
    assert!(
        host.log.contains("fault: the target does not report"),
        "{}",
        host.log
    );
}

#[test]
fn the_targets_refusal_gives_nothing_of_it_away() {
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(upstream(&[error("28P01")]));
    let line = "<= E 57P01 the target did not accept the gateway's own account FATAL";
    assert_eq!(host.lines(), [line, "close"]);
}

#[test]
fn without_an_account_nobody_is_connected() {
    struct Nobody;
    impl Login for Nobody {
        fn username(&self) -> String {
            String::new()
        }
        fn start(&mut self, _: &str) -> Result<Answer, AuthError> {
            Err(AuthError::NoCredential)
        }
    }
    let mut host = Host::new(&[], true);
    host.play(hello());
    set_login(Nobody);
    host.accept();
    clear_login();
    let line = "<= E 57P01 no account is configured for this target FATAL";
    assert_eq!(host.lines()[2..], [line, "close"]);
}

#[test]
fn a_client_that_speaks_before_it_is_answered_is_cut_off() {
    let mut host = asked(&[("upstream_tls", "off")]);
    host.play(client(&[q("SELECT 1")]));
    assert!(host.closed, "{}", host.log);
    assert!(!host.log.contains("->"), "{}", host.log);
}
