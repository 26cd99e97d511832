//! The one HTTP client: bounded answers, one timeout, no redirects.
//!
//! `https` everywhere; `http` only to this machine, for the development issuer and
//! for tests. hyper's client follows no redirect by itself, so a 3xx is an answer
//! like any other: what is asked for is where the configuration says, or nowhere.
//!
//! Errors name the server, never the path or the query: a webhook's URL may be a secret.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// What servers are told of who asks.
pub(crate) const USER_AGENT: &str = concat!("holdpoint/", env!("CARGO_PKG_VERSION"));

/// Of a request, from dialling to the last byte, where the caller has no other.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection waits for the next request. Messages come in bursts, and dialling for
/// each would cost more than they do; a connection that was idle for longer is mostly found dead.
const IDLE: Duration = Duration::from_secs(1);

/// Connections to one server that wait.
const MOST_IDLE: usize = 32;

/// Speaks to servers that one set of roots vouches for. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    max_body: usize,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer whose body comes bit by bit.
pub(crate) struct Streaming {
    pub(crate) status: StatusCode,
    server: String,
    body: hyper::body::Incoming,
}

impl Streaming {
    /// The next part of the body; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        loop {
            return match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => Some(Ok(bytes)),
                    // Trailers.
                    Err(_) => continue,
                },
                Err(error) => Some(Err(HttpError::Unreachable {
                    server: self.server.clone(),
                    cause: error.to_string(),
                })),
            };
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("cannot read the CA bundle `{}`: {cause}", path.display())]
    Ca { path: PathBuf, cause: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("`{0}` is not a URL with `https` (or `http` to this machine)")]
    Url(String),
    #[error("`{server}` gave no answer within {} s", after.as_secs())]
    Slow { server: String, after: Duration },
    #[error("`{server}` cannot be reached: {cause}")]
    Unreachable { server: String, cause: String },
    #[error("`{server}` sent more than {limit} bytes, or broke off")]
    Body { server: String, limit: usize },
}

impl HttpClient {
    /// Trusts `ca`, or the system's roots where there is none. An answer's body may
    /// have `max_body` bytes.
    pub(crate) fn new(ca: Option<&Path>, max_body: usize) -> Result<Self, HttpError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| HttpError::Tls(e.to_string()))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dialler());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(connector);
        Ok(Self { client, max_body })
    }

    /// Asks for a JSON document.
    pub(crate) async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        let request = asking(Request::get(checked(url)?)).body(Bytes::new());
        let request = request.map_err(|_| HttpError::Url(url.to_owned()))?;
        self.send(request, TIMEOUT).await
    }

    /// Posts a form that is already encoded.
    pub(crate) async fn post_form(&self, url: &str, form: String) -> Result<Answer, HttpError> {
        let request = asking(Request::post(checked(url)?))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form));
        let request = request.map_err(|_| HttpError::Url(url.to_owned()))?;
        self.send(request, TIMEOUT).await
    }

    /// One request, whose answer's head is there within `timeout`. How long its body
    /// may be, and take, is for the caller to say.
    pub(crate) async fn stream(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Streaming, HttpError> {
        let server = server(request.uri());
        if !is_safe(request.uri()) {
            return Err(HttpError::Url(server));
        }
        let answer = self.client.request(request.map(Full::new));
        let Ok(answer) = tokio::time::timeout(timeout, answer).await else {
            return Err(HttpError::Slow {
                server,
                after: timeout,
            });
        };
        let answer = answer.map_err(|error| HttpError::Unreachable {
            server: server.clone(),
            cause: causes(&error),
        })?;
        let (head, body) = answer.into_parts();
        Ok(Streaming {
            status: head.status,
            server,
            body,
        })
    }

    /// One request, from dialling to the last byte within `timeout`.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        let server = server(request.uri());
        if !is_safe(request.uri()) {
            return Err(HttpError::Url(server));
        }
        let answer = async {
            let response = self.client.request(request.map(Full::new)).await;
            let response = response.map_err(|error| HttpError::Unreachable {
                server: server.clone(),
                cause: causes(&error),
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, self.max_body).collect().await;
            let body = body.map_err(|_| HttpError::Body {
                server: server.clone(),
                limit: self.max_body,
            })?;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(timeout, answer)
            .await
            .unwrap_or_else(|_| {
                Err(HttpError::Slow {
                    server: server.clone(),
                    after: timeout,
                })
            })
    }
}

/// Dials without waiting for more to send.
fn dialler() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http
}

fn asking(request: http::request::Builder) -> http::request::Builder {
    request
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
}

fn roots(ca: Option<&Path>) -> Result<rustls::RootCertStore, HttpError> {
    let mut roots = rustls::RootCertStore::empty();
    let Some(path) = ca else {
        // A machine without roots can still serve loopback; `https` then fails in its handshake.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let failed = |cause: String| HttpError::Ca {
        path: path.to_owned(),
        cause,
    };
    for cert in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let cert = cert.map_err(|e| failed(e.to_string()))?;
        roots.add(cert).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// The client's own text says only "client error": the cause is beneath.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(next) = below {
        text = format!("{text}: {next}");
        below = next.source();
    }
    text
}

/// Scheme, host and port. No user name either: it may come with a password.
fn server(uri: &Uri) -> String {
    let port = uri.port().map(|port| format!(":{port}"));
    format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.host().unwrap_or_default(),
        port.unwrap_or_default()
    )
}

/// Refuses what would send a request, or trust an answer, in clear over a network.
pub(crate) fn checked(url: &str) -> Result<Uri, HttpError> {
    url.parse()
        .ok()
        .filter(is_safe)
        .ok_or_else(|| HttpError::Url(url.to_owned()))
}

fn is_safe(uri: &Uri) -> bool {
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else {
        return false;
    };
    // A name before `@` is there to make people misread the host.
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    match uri.scheme_str() {
        Some("https") => plain,
        Some("http") => plain && is_loopback(host),
        _ => false,
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_this_machine_only() {
        for good in [
            "https://issuer.example/keys",
            "http://127.0.0.1:9400/dev",
            "http://[::1]:9400/dev",
            "http://localhost/x",
        ] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in [
            "http://issuer.example/keys",
            "http://127.0.0.1.example/",
            "http://127.0.0.1@issuer.example/",
            "http://localhost@issuer.example/",
            "https://user:secret@issuer.example/",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
            "/relative",
            "issuer.example",
            "",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_error_names_the_server_and_not_the_path() {
        let client = HttpClient::new(None, 1024).unwrap();
        // Nobody listens on port 1.
        let error = client.get("http://127.0.0.1:1/hook/secret?token=x").await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("`http://127.0.0.1:1`"), "{text}");
        assert!(
            !text.contains("secret") && !text.contains("token"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_request_in_clear_over_a_network_is_never_sent() {
        let client = HttpClient::new(None, 1024).unwrap();
        let request = Request::get("http://issuer.example/").body(Bytes::new());
        let sent = client.send(request.unwrap(), TIMEOUT).await;
        assert!(matches!(sent, Err(HttpError::Url(_))));
    }

    #[tokio::test]
    async fn requests_that_follow_each_other_share_a_connection_and_late_ones_do_not() {
        use axum::extract::ConnectInfo;
        use std::net::SocketAddr;
        use std::sync::Mutex;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let from = Arc::clone(&seen);
        let answer = async move |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
            from.lock().unwrap().push(peer.port());
        };
        let app = axum::Router::new().route("/", axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let client = HttpClient::new(None, 1024).unwrap();
        for pause in [0, 0, 2 * IDLE.as_millis() as u64] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            client.get(&base).await.unwrap();
        }
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen[0], seen[1]);
        assert_ne!(seen[1], seen[2]);
        server.abort();
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_or_elsewhere_is_not_followed() {
        use axum::routing::get;
        let app = axum::Router::new()
            .route("/long", get(async || "x".repeat(2000)))
            .route(
                "/moved",
                get(async || axum::response::Redirect::to("/long")),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let client = HttpClient::new(None, 1024).unwrap();
        let long = client.get(&format!("{base}/long")).await;
        assert!(matches!(long, Err(HttpError::Body { limit: 1024, .. })));
        let moved = client.get(&format!("{base}/moved")).await.unwrap();
        assert_eq!(moved.status, StatusCode::SEE_OTHER);
        server.abort();
    }
}
