//! PostgreSQL's wire, spoken by hand: for drivers without TLS of their own, and
//! for what no driver would ever send.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Gateway;

/// SSLRequest, whole.
pub const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

pub type Tls = TlsStream<TcpStream>;

/// Connects and asks for TLS, as libpq does.
pub async fn tls(address: SocketAddr, ca: &Path) -> Tls {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(SSL_REQUEST).await.unwrap();
    assert_eq!(tcp.read_u8().await.unwrap(), b'S');
    handshake(tcp, ca).await.unwrap()
}

/// The TLS handshake alone.
pub async fn handshake(tcp: TcpStream, ca: &Path) -> std::io::Result<Tls> {
    handshake_for(tcp, ca, None).await
}

/// As [`handshake`], naming the protocol that is wanted inside.
pub async fn handshake_for(tcp: TcpStream, ca: &Path, alpn: Option<&str>) -> std::io::Result<Tls> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// A start-up packet with these parameters.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut packet = u32::try_from(body.len() + 4)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    packet.extend_from_slice(&body);
    packet
}

/// One typed message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// A simple query.
pub fn query(sql: &[u8]) -> Vec<u8> {
    let mut body = sql.to_vec();
    body.push(0);
    message(b'Q', &body)
}

/// Reads one typed message; `None` when the gateway closed.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

/// Reads up to ReadyForQuery or the end: kinds, and the text of all bodies.
pub async fn read_all(stream: &mut Tls) -> (String, String) {
    let (mut kinds, mut text) = (String::new(), String::new());
    while let Some((kind, body)) = read(stream).await {
        kinds.push(char::from(kind));
        text.push_str(&String::from_utf8_lossy(&body).replace('\0', " "));
        if kind == b'Z' {
            break;
        }
    }
    (kinds, text)
}

/// Logs in with this token, up to ReadyForQuery. Gives the key for cancelling.
pub async fn log_in(stream: &mut Tls, token: &str) -> Vec<u8> {
    let packet = startup(&[("user", "agent"), ("database", "shop")]);
    stream.write_all(&packet).await.unwrap();
    let (kind, _) = read(stream).await.unwrap();
    assert_eq!(kind, b'R');
    let password = [token.as_bytes(), b"\0"].concat();
    stream.write_all(&message(b'p', &password)).await.unwrap();
    let mut key = Vec::new();
    loop {
        match read(stream).await.expect("the login goes on") {
            (b'K', body) => key = body,
            (b'E', body) => panic!("{}", String::from_utf8_lossy(&body)),
            (b'Z', _) => return key,
            _ => {}
        }
    }
}

impl Gateway {
    /// A connection that has logged in with this token, up to ReadyForQuery.
    pub async fn wire(&self, token: &str) -> Tls {
        self.keep_secret(token);
        let mut stream = tls(self.address, &self.dir.join("ca.pem")).await;
        log_in(&mut stream, token).await;
        stream
    }

    /// tokio-postgres over TLS.
    pub async fn tokio_postgres(&self, token: &str) -> tokio_postgres::Client {
        self.keep_secret(token);
        let stream = tls(self.address, &self.dir.join("ca.pem")).await;
        let mut config = tokio_postgres::Config::new();
        // The stream has its TLS already.
        config
            .user("agent")
            .dbname("shop")
            .password(token)
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config
            .connect_raw(stream, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }
}
