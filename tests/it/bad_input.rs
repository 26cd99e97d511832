//! What an agent, a target or an operator gets wrong, or tries. Each has a stable
//! code, an answer in the client's protocol, and nothing forwarded.

use std::time::{Duration, Instant};

use holdpoint_tests::tap::Behaviour;
use holdpoint_tests::wire::{self, message, query, read_all, startup};
use holdpoint_tests::{Gateway, PgServer, Settings, need, random};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::start(&server.database()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_right_is_refused_before_the_target_is_dialled() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let issuer = &gateway.issuer;
    let good = issuer.claims("ada", "holdpoint.connect", &["agents"], 600);
    let spoilt = |change: fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        issuer.sign(&claims)
    };
    let now = holdpoint_tests::issuer::now();
    let mut expired = good.clone();
    expired["exp"] = json!(now - 300);
    let mut early = good.clone();
    early["nbf"] = json!(now + 3600);
    let signed = issuer.sign(&good);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let unsigned = format!(
        "{}.{}.",
        b64(br#"{"alg":"none","typ":"at+jwt"}"#),
        head.split('.').nth(1).unwrap()
    );
    let flipped = format!("{head}.{}", flip(signature));
    let cases: Vec<(&str, String)> = vec![
        ("empty", "x".to_owned()),
        ("garbage", random::hex(200)),
        ("expired", issuer.sign(&expired)),
        ("not yet valid", issuer.sign(&early)),
        (
            "another audience",
            spoilt(|claims| claims["aud"] = json!("api://other")),
        ),
        (
            "no audience",
            spoilt(|claims| drop(claims.as_object_mut().unwrap().remove("aud"))),
        ),
        (
            "another issuer",
            spoilt(|claims| claims["iss"] = json!("https://evil.example")),
        ),
        (
            "several issuers",
            spoilt(|claims| claims["iss"] = json!([claims["iss"], "https://evil.example"])),
        ),
        (
            "no scope",
            spoilt(|claims| claims["scope"] = json!("openid")),
        ),
        (
            "review scope only",
            spoilt(|claims| claims["scope"] = json!("holdpoint.review")),
        ),
        (
            "bound to a key",
            spoilt(|claims| claims["cnf"] = json!({ "jkt": "x" })),
        ),
        ("unsigned", unsigned),
        ("another signature", flipped),
    ];
    for (name, token) in cases {
        let done = gateway.psql_as(&token).run("SELECT 1");
        assert_eq!(done.code, Some(2), "{name}: {}", done.stdout);
        assert!(
            done.stderr.contains("FATAL") && done.stderr.contains("HP-"),
            "{name}: {}",
            done.stderr
        );
    }
    assert_eq!(
        gateway.tap.conversations().len(),
        0,
        "the target was dialled for a bad token"
    );
}

fn b64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn flip(signature: &str) -> String {
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{first}{}", &signature[1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_no_token_is_asked_for() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    tcp.write_all(&startup(&[("user", "agent")])).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with(b"E") && text.contains("HP-TLS-REQUIRED"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_clear_behind_the_request_for_tls_are_never_read_as_commands() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    let mut stuffed = wire::SSL_REQUEST.to_vec();
    stuffed.extend_from_slice(&startup(&[("user", "agent")]));
    tcp.write_all(&stuffed).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut answer))
        .await
        .unwrap();
    let after = answer.strip_prefix(b"S").unwrap_or(&answer);
    assert!(!after.starts_with(b"R"), "asked for a password: {answer:?}");
    assert_eq!(gateway.tap.conversations().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_any_phase_ends_the_session_and_reaches_nobody() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let ca = gateway.dir.join("ca.pem");
    let starts: Vec<Vec<u8>> = vec![
        random::raw(64),
        vec![0; 64],
        b"\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x7f\xff\xff\xff\0\x03\0\0".to_vec(),
        b"\0\0\0\x04".to_vec(),
        startup(&[("user", "agent"), ("replication", "true")]),
        startup(&[("user", "agent"), ("options", "-c search_path=evil")]),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
    ];
    for start in starts {
        let mut stream = wire::tls(gateway.address, &ca).await;
        stream.write_all(&start).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("the session ends");
        assert!(
            !answer.contains(&b'R') || answer.starts_with(b"E"),
            "{start:?}: {answer:?}"
        );
    }
    assert_eq!(gateway.tap.conversations().len(), 0);
    // After login.
    let token = gateway.agent("ada");
    for bad in [
        message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        message(b'!', b"what"),
        b"Q\0\0\0\x01".to_vec(),
        b"Q\x7f\xff\xff\xff".to_vec(),
        query(b"SELECT '\xff\xfe'"),
    ] {
        let mut stream = gateway.wire(&token).await;
        stream.write_all(&bad).await.unwrap();
        let (kinds, text) = tokio::time::timeout(Duration::from_secs(20), read_all(&mut stream))
            .await
            .unwrap();
        assert!(kinds.contains('E'), "{bad:?}: {kinds} {text}");
        assert!(text.contains("HP-"), "{bad:?}: {text}");
    }
    assert!(!gateway.tap.saw("what"));
    assert_eq!(
        gateway.psql().run("SELECT 1").stdout,
        "1\n",
        "others are served"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_cut_off_is_not_sent() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let whole = query(b"SELECT 'cut off'");
    stream.write_all(&whole[..whole.len() - 3]).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = read_all(&mut stream).await;
    assert!(gateway.tap.quiet(Duration::from_secs(10)));
    assert!(!gateway.tap.saw("cut off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_one_byte_at_a_time_is_one_command() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    for byte in query(b"SELECT 'slow'") {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let (kinds, text) = read_all(&mut stream).await;
    assert_eq!(kinds, "TDCZ", "{text}");
    assert_eq!(gateway.tap.count("SELECT 'slow'"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_slow_or_talks_nonsense_is_an_error_for_the_client() {
    let Some(gateway) = gateway().await else {
        return;
    };
    for behaviour in [
        Behaviour::Refuse,
        Behaviour::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Behaviour::Garbage(vec![0xff; 64]),
        Behaviour::Garbage(b"R\0\0\0\x08\0\0\0\x63".to_vec()),
    ] {
        gateway.tap.behave(behaviour.clone());
        let began = Instant::now();
        let done = gateway.psql().run("SELECT 1");
        assert_eq!(done.code, Some(2), "{behaviour:?}: {}", done.stdout);
        assert!(
            done.stderr.contains("HP-UPSTREAM"),
            "{behaviour:?}: {}",
            done.stderr
        );
        assert!(began.elapsed() < Duration::from_secs(15), "{behaviour:?}");
    }
    gateway.tap.behave(Behaviour::Relay);
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_the_limit_is_refused_and_costs_no_memory() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    stream
        .write_all(b"Q\x40\x00\x00\x00SELECT 1")
        .await
        .unwrap();
    let (kinds, text) = tokio::time::timeout(Duration::from_secs(20), read_all(&mut stream))
        .await
        .unwrap();
    assert!(
        kinds.contains('E') && text.contains("HP-TOO-LARGE"),
        "{kinds}: {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_journal_nothing_runs() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    // Not a directory: the gateway must not start.
    let gateway = Gateway::prepare(&server.database(), Settings::default()).await;
    gateway.dir.write("journal", "a file");
    gateway.spawn();
    assert!(!gateway.wait_exit(30).success());
    assert!(gateway.log().contains("journal"), "{}", gateway.log());
    gateway.waive("journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_may_read_or_write_are_refused_at_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    for (file, mode, hint) in [
        ("upstream-password", 0o644, "chmod"),
        ("gateway.key", 0o644, "chmod"),
        ("holdpoint.toml", 0o666, "chmod"),
        ("rules.toml", 0o662, "chmod"),
    ] {
        let gateway = Gateway::prepare(&server.database(), Settings::default()).await;
        std::fs::set_permissions(
            gateway.dir.join(file),
            std::fs::Permissions::from_mode(mode),
        )
        .unwrap();
        gateway.spawn();
        assert!(!gateway.wait_exit(30).success(), "{file}");
        assert!(
            gateway.log().contains(file) && gateway.log().contains(hint),
            "{file}: {}",
            gateway.log()
        );
        gateway.waive("journal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_ends_what_a_session_may_do() {
    let Some(gateway) = ({
        let Some(server) = need!(PgServer::shared(), "postgresql") else {
            return;
        };
        let identity = "clock_skew = \"1s\"\n".to_owned();
        Some(
            Gateway::with(
                &server.database(),
                Settings {
                    identity,
                    ..Settings::default()
                },
            )
            .await,
        )
    }) else {
        return;
    };
    let token = gateway.issuer.sign(&gateway.issuer.claims(
        "ada",
        "holdpoint.connect",
        &["agents"],
        3,
    ));
    let mut stream = gateway.wire(&token).await;
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut stream).await.0, "TDCZ");
    tokio::time::sleep(Duration::from_millis(5200)).await;
    stream.write_all(&query(b"SELECT 2")).await.unwrap();
    let (_, text) = read_all(&mut stream).await;
    assert!(text.contains("HP-TOKEN-EXPIRED"), "{text}");
    assert!(!gateway.tap.saw("SELECT 2"));
}
