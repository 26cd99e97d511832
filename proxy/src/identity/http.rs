//! The HTTP client for issuers: small answers, short waits, no redirects.
//!
//! `https` everywhere; `http` only to this machine, for the development issuer.
//! hyper's client follows no redirect by itself, so a 3xx is an error here:
//! an issuer's keys are where its configuration says, or nowhere.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Of one request, from dialling to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// No document of an issuer is larger.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// Speaks to one issuer.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Why an issuer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("cannot read the CA bundle `{}`: {cause}", path.display())]
    Ca { path: PathBuf, cause: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("`{0}` is not a URL with `https` (or `http` to this machine)")]
    Url(String),
    #[error("`{url}` gave no answer within {} s", TIMEOUT.as_secs())]
    Slow { url: String },
    #[error("`{url}` cannot be reached: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("`{url}` sent more than {MAX_BODY} bytes, or broke off")]
    Body { url: String },
}

impl HttpClient {
    /// Trusts `ca`, or the system's roots where there is none.
    pub(crate) fn new(ca: Option<&Path>) -> Result<Self, HttpError> {
        let mut roots = rustls::RootCertStore::empty();
        if let Some(path) = ca {
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
        } else {
            // A machine without roots can still serve loopback; `https` then fails in its handshake.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| HttpError::Tls(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        // Requests are minutes apart: an idle connection would only be found dead.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(client))
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Reply, HttpError> {
        self.send(Method::GET, url, None).await
    }

    /// Posts a form that is already encoded.
    pub(crate) async fn post_form(&self, url: &str, form: String) -> Result<Reply, HttpError> {
        self.send(Method::POST, url, Some(form)).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        form: Option<String>,
    ) -> Result<Reply, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(checked(url)?)
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("holdpoint/", env!("CARGO_PKG_VERSION")),
            );
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request
            .body(Full::new(Bytes::from(form.unwrap_or_default())))
            .map_err(|_| HttpError::Url(url.to_owned()))?;
        let url = url.to_owned();
        let answer = async {
            let response = self.0.request(request).await.map_err(|error| {
                // The client's own text says only "client error": the cause is beneath.
                let mut cause = error.to_string();
                let mut below = error.source();
                while let Some(next) = below {
                    cause = format!("{cause}: {next}");
                    below = next.source();
                }
                HttpError::Unreachable {
                    url: url.clone(),
                    cause,
                }
            })?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY)
                .collect()
                .await
                .map_err(|_| HttpError::Body { url: url.clone() })?
                .to_bytes();
            Ok(Reply { status, body })
        };
        tokio::time::timeout(TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(HttpError::Slow { url: url.clone() }))
    }
}

/// Refuses what would send a request, or trust an answer, in clear over a network.
pub(crate) fn checked(url: &str) -> Result<Uri, HttpError> {
    let refused = || HttpError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(refused)?;
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    match uri.scheme_str() {
        Some("https") if plain => Ok(uri),
        Some("http") if plain && is_loopback(host) => Ok(uri),
        _ => Err(refused()),
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
}
