//! Mail over TLS: required, verified, and nothing before it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdpoint_core::config::{EmailOut, MailTls, SecretRef};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::channel::SendError;
use super::email::Email;

/// A mail server: what it was told, line by line, after TLS and before.
#[derive(Clone, Default)]
struct Server {
    clear: Arc<Mutex<Vec<String>>>,
    secret: Arc<Mutex<Vec<String>>>,
}

struct Authority {
    pem: PathBuf,
    acceptor: TlsAcceptor,
}

/// A CA of its own in a file, and a certificate of it for `localhost`.
fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let pem =
        std::env::temp_dir().join(format!("holdpoint-mail-{name}-{}.pem", std::process::id()));
    std::fs::write(&pem, ca.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    Authority {
        pem,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    }
}

impl Server {
    /// Gives its port. `starttls` and `implicit` say what it can do.
    async fn start(&self, acceptor: Option<TlsAcceptor>, implicit: bool) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (this, acceptor) = (this.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        this.talk(socket, &this.clear, false, true).await;
                        return;
                    };
                    if implicit {
                        if let Ok(socket) = acceptor.accept(socket).await {
                            this.talk(socket, &this.secret, false, true).await;
                        }
                        return;
                    }
                    let Some(socket) = this.talk(socket, &this.clear, true, true).await else {
                        return;
                    };
                    if let Ok(socket) = acceptor.accept(socket).await {
                        this.talk(socket, &this.secret, false, false).await;
                    }
                });
            }
        });
        port
    }

    /// Until the end, or until TLS is asked for.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        heard: &Mutex<Vec<String>>,
        starttls: bool,
        greet: bool,
    ) -> Option<S> {
        let mut lines = BufReader::new(socket);
        if greet {
            lines.write_all(b"220 mail.example\r\n").await.ok()?;
        }
        let mut data = false;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).await.unwrap_or(0) == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            heard.lock().unwrap().push(line.clone());
            let answer = match line.as_str() {
                "." if data => {
                    data = false;
                    "250 queued"
                }
                _ if data => continue,
                "STARTTLS" => {
                    lines.write_all(b"220 go on\r\n").await.ok()?;
                    return Some(lines.into_inner());
                }
                "DATA" => {
                    data = true;
                    "354 go on"
                }
                line if line.starts_with("EHLO") && starttls => "250-mail\r\n250 STARTTLS",
                line if line.starts_with("EHLO") => "250-mail\r\n250 AUTH PLAIN",
                line if line.starts_with("AUTH") => "235 in",
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            lines
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .ok()?;
        }
    }

    fn heard(&self, line: &str) -> (bool, bool) {
        let has = |lines: &Mutex<Vec<String>>| {
            let lines = lines.lock().unwrap();
            lines.iter().any(|have| have.starts_with(line))
        };
        (has(&self.clear), has(&self.secret))
    }
}

async fn send(port: u16, tls: MailTls, ca: PathBuf) -> Result<(), SendError> {
    let config = EmailOut {
        host: "localhost".to_owned(),
        port,
        tls,
        login: Some(("holdpoint".to_owned(), SecretRef::Env("X".to_owned()))),
        from: "holdpoint@acme.example".to_owned(),
        to: vec!["ops@acme.example".to_owned()],
        ca: Some(ca),
    };
    let password = "hunter2".to_owned().into();
    let email = Email::new("email:ops", &config, Some(&password)).unwrap();
    email
        .send(&Bytes::from_static(b"Subject: x\r\n\r\nx\r\n"))
        .await
}

#[tokio::test]
async fn a_name_and_a_mail_travel_in_tls_alone() {
    let authority = authority("good");
    for (tls, implicit) in [(MailTls::Starttls, false), (MailTls::Implicit, true)] {
        let server = Server::default();
        let port = server
            .start(Some(authority.acceptor.clone()), implicit)
            .await;
        send(port, tls, authority.pem.clone()).await.unwrap();
        assert_eq!(server.heard("AUTH PLAIN"), (false, true), "{tls:?}");
        assert_eq!(server.heard("Subject: x"), (false, true), "{tls:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_nothing() {
    let authority = authority("none");
    let server = Server::default();
    let port = server.start(None, false).await;
    let error = send(port, MailTls::Starttls, authority.pem)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("STARTTLS"), "{error}");
    for line in ["AUTH", "MAIL", "DATA", "Subject"] {
        assert_eq!(server.heard(line), (false, false), "{line}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_told_nothing() {
    let (ours, other) = (authority("ours"), authority("other"));
    for (tls, implicit) in [(MailTls::Starttls, false), (MailTls::Implicit, true)] {
        let server = Server::default();
        let port = server.start(Some(other.acceptor.clone()), implicit).await;
        let error = send(port, tls, ours.pem.clone()).await.unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(server.heard("AUTH"), (false, false), "{tls:?}: {error}");
        assert_eq!(server.heard("MAIL"), (false, false));
    }
}
