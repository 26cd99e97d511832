//! Ways to connect besides the usual one, and cancelling, which has a connection of
//! its own.

use std::time::{Duration, Instant};

use holdpoint_tests::wire::{
    self, SSL_REQUEST, Tls, handshake, handshake_for, log_in, query, read_all,
};
use holdpoint_tests::{Gateway, PgServer, RULES, Settings, eventually, need};
use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// GSSENCRequest, whole.
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

const SOON: Duration = Duration::from_secs(20);

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let sleeps = "[[rule]]\nname = \"sleeps\"\n\
                  match = { classes = [\"function_effect\"] }\nallow = true\n";
    let settings = Settings {
        rules: format!("{sleeps}{RULES}"),
        ..Settings::default()
    };
    Some(Gateway::with(&server.database(), settings).await)
}

async fn tcp(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.address).await.unwrap()
}

/// Asks to cancel what this key is of.
async fn cancel(mut stream: impl AsyncWrite + Unpin, key: &[u8]) {
    let packet = [b"\0\0\0\x10\x04\xd2\x16\x2e", key].concat();
    stream.write_all(&packet).await.unwrap();
    let _ = stream.shutdown().await;
}

async fn answer(stream: &mut Tls) -> (String, String) {
    tokio::time::timeout(SOON, read_all(stream)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_from_the_first_byte_is_served_to_those_who_name_the_protocol() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let ca = gateway.dir.join("ca.pem");
    let mut stream = handshake_for(tcp(&gateway).await, &ca, Some("postgresql"))
        .await
        .unwrap();
    log_in(&mut stream, &gateway.agent("ada")).await;
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, "TDCZ");

    // Without it whoever speaks another protocol could be led here (ALPACA).
    for alpn in [None, Some("http/1.1")] {
        let Ok(mut stream) = handshake_for(tcp(&gateway).await, &ca, alpn).await else {
            continue;
        };
        let _ = stream.write_all(&wire::startup(&[("user", "agent")])).await;
        let mut said = Vec::new();
        let read = stream.read_to_end(&mut said);
        let _ = tokio::time::timeout(SOON, read).await.expect("it ends");
        assert!(
            !said.contains(&b'R'),
            "{alpn:?}: asked for a token: {said:?}"
        );
    }
    // Encryption is settled by then.
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut stream = handshake_for(tcp(&gateway).await, &ca, Some("postgresql"))
            .await
            .unwrap();
        stream.write_all(request).await.unwrap();
        let (kinds, text) = answer(&mut stream).await;
        assert!(
            kinds == "E" && text.contains("HP-PROTOCOL"),
            "{kinds}: {text}"
        );
    }
    assert_eq!(gateway.tap.conversations().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kerberos_encryption_is_declined_once_and_tls_may_follow() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut stream = tcp(&gateway).await;
    stream.write_all(GSS_REQUEST).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'N');
    stream.write_all(SSL_REQUEST).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    let mut stream = handshake(stream, &gateway.dir.join("ca.pem"))
        .await
        .unwrap();
    log_in(&mut stream, &gateway.agent("ada")).await;

    // Not for ever, and not in clear.
    for again in [GSS_REQUEST.to_vec(), wire::startup(&[("user", "agent")])] {
        let mut stream = tcp(&gateway).await;
        stream.write_all(GSS_REQUEST).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
        stream.write_all(&again).await.unwrap();
        let mut said = Vec::new();
        let read = stream.read_to_end(&mut said);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&said);
        assert!(text.starts_with('E') && text.contains("HP-"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_what_its_key_is_of_and_nothing_else() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let ca = gateway.dir.join("ca.pem");
    let mut stream = wire::tls(gateway.address, &ca).await;
    let key = log_in(&mut stream, &gateway.agent("ada")).await;
    assert_eq!(key.len(), 8);
    stream
        .write_all(&query(b"SELECT pg_sleep(60)"))
        .await
        .unwrap();
    eventually("the command", 10, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    // Keys of nobody: one bit off, the number of the target's process, none at all.
    let mut near = key.clone();
    near[7] ^= 1;
    let pid = gateway.database.value(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()",
    );
    let pid = pid.parse::<u32>().unwrap().to_be_bytes();
    assert_ne!(key[..4], pid, "the target's own key was handed out");
    let dialled = gateway.tap.conversations().len();
    for wrong in [
        &near[..],
        &[&pid[..], &key[4..]].concat(),
        &[0; 8],
        b"",
        &[7; 300],
    ] {
        cancel(tcp(&gateway).await, wrong).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        gateway.tap.conversations().len(),
        dialled,
        "the target was asked"
    );

    let began = Instant::now();
    cancel(wire::tls(gateway.address, &ca).await, &key).await;
    let (kinds, text) = answer(&mut stream).await;
    assert!(
        kinds.ends_with("EZ") && text.contains("57014"),
        "{kinds}: {text}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(gateway.tap.conversations().len(), dialled + 1);

    // Nothing runs: nothing is asked of the target, where the key could meet
    // something else by now, and the session goes on.
    cancel(tcp(&gateway).await, &key).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(gateway.tap.conversations().len(), dialled + 1);
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, "TDCZ");
    // The session is over, and its key with it.
    stream.write_all(&wire::message(b'X', b"")).await.unwrap();
    drop(stream);
    cancel(tcp(&gateway).await, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_withdraws_what_is_held_and_the_session_goes_on() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let ca = gateway.dir.join("ca.pem");
    let rita = gateway.reviewer("rita");
    for in_clear in [true, false] {
        let mut stream = wire::tls(gateway.address, &ca).await;
        let key = log_in(&mut stream, &gateway.agent("ada")).await;
        stream
            .write_all(&query(b"DROP TABLE victims"))
            .await
            .unwrap();
        let view = rita.pending("DROP TABLE victims").await;
        let dialled = gateway.tap.conversations().len();
        if in_clear {
            cancel(tcp(&gateway).await, &key).await;
        } else {
            cancel(wire::tls(gateway.address, &ca).await, &key).await;
        }
        let (kinds, text) = answer(&mut stream).await;
        assert!(kinds.ends_with("EZ"), "{kinds}: {text}");
        assert!(text.contains("HP-WITHDRAWN"), "{text}");
        assert_eq!(rita.approve(&view).await.0, StatusCode::CONFLICT);
        assert_eq!(gateway.tap.conversations().len(), dialled);
        stream.write_all(&query(b"SELECT 1")).await.unwrap();
        assert_eq!(answer(&mut stream).await.0, "TDCZ");
    }
    assert!(!gateway.tap.saw("DROP TABLE"));
    assert!(gateway.database.has_table("victims"));
}

/// Wherever a cancel meets an approval on its way: what is answered as done was done, and
/// nothing else, and the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_between_approval_and_forward_is_before_it_or_after_it() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rita = gateway.reviewer("rita");
    let ca = gateway.dir.join("ca.pem");
    let mut stream = wire::tls(gateway.address, &ca).await;
    let key = log_in(&mut stream, &gateway.agent("ada")).await;
    // Another session has another key, and holds the same command all the time.
    let mut other = gateway.wire(&gateway.agent("bob")).await;
    let waits = query(b"DROP TABLE victims");
    other.write_all(&waits).await.unwrap();
    let waiting = rita.pending("DROP TABLE victims").await;
    let (mut ran, mut withdrawn) = (0, 0);
    for round in 0..12u64 {
        let text = format!("UPDATE invoices SET amount = amount + 1 WHERE id = 1 /* {round} */");
        stream.write_all(&query(text.as_bytes())).await.unwrap();
        let view = rita.pending(&text).await;
        // Now the one is earlier, now the other.
        let (first, second) = (round % 4 * 2, (3 - round % 4) * 2);
        let approve = async {
            tokio::time::sleep(Duration::from_millis(first)).await;
            rita.approve(&view).await.0
        };
        let cancels = async {
            tokio::time::sleep(Duration::from_millis(second)).await;
            cancel(tcp(&gateway).await, &key).await;
        };
        let (status, ()) = tokio::join!(approve, cancels);
        let (kinds, said) = answer(&mut stream).await;
        let why = format!("{round}: {status} {kinds} {said}");
        if kinds.contains('C') {
            assert_eq!(status, StatusCode::OK, "{why}");
            ran += 1;
        } else if said.contains("HP-WITHDRAWN") {
            withdrawn += 1;
        } else {
            assert!(said.contains("57014") && status == StatusCode::OK, "{why}");
        }
        let done = gateway
            .database
            .value("SELECT amount FROM invoices WHERE id = 1");
        assert_eq!(done, (10 + ran).to_string(), "{why}");
    }
    assert!(ran > 0 || withdrawn > 0);
    assert_eq!(
        rita.pending("DROP TABLE victims").await["id"],
        waiting["id"]
    );
    drop(other);
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_speaks_tls_where_it_has_a_certificate() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let gateway = Gateway::prepare(&server.database(), Settings::default()).await;
    let config = gateway.read("holdpoint.toml").replace(
        "[admin]\n",
        "[admin]\ntls = { cert = \"gateway.pem\", key = \"gateway.key\" }\n",
    );
    gateway.rewrite("holdpoint.toml", &config);
    gateway.spawn();
    eventually("the gateway", 60, || {
        assert!(gateway.exited().is_none(), "{}", gateway.log());
        gateway.log().contains("in force").then_some(())
    });
    let ask = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let tcp = TcpStream::connect(gateway.admin).await.unwrap();
    let mut stream = handshake(tcp, &gateway.dir.join("ca.pem")).await.unwrap();
    stream.write_all(ask).await.unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");

    let mut clear = TcpStream::connect(gateway.admin).await.unwrap();
    clear.write_all(ask).await.unwrap();
    let mut said = Vec::new();
    let read = clear.read_to_end(&mut said);
    let _ = tokio::time::timeout(SOON, read).await.expect("it ends");
    let text = String::from_utf8_lossy(&said);
    assert!(!text.contains("HTTP"), "answered in clear: {text}");
}
