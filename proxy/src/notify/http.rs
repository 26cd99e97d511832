//! A small HTTP client: bounded answers, one timeout, no redirects.
//!
//! `https` everywhere; `http` only to this machine. hyper's client follows no
//! redirect by itself, so a 3xx is an answer like any other.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Speaks to one server.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    max_body: usize,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    #[cfg(test)]
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot read the CA bundle `{}`: {cause}", path.display())]
    Ca { path: PathBuf, cause: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("the answer is longer than {0} bytes, or broke off")]
    Body(usize),
}

impl Http {
    /// Trusts `ca`, or the system's roots where there is none.
    pub(crate) fn new(ca: Option<&Path>, max_body: usize) -> Result<Self, HttpError> {
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
        // An idle connection would mostly be found dead.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, max_body })
    }

    /// One request, from dialling to the last byte within `timeout`. The caller
    /// has checked the URL with [`crate::identity::checked`].
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Answer, HttpError> {
        let answer = async {
            let response: Response<_> = self
                .client
                .request(request.map(Full::new))
                .await
                .map_err(unreachable)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, self.max_body)
                .collect()
                .await
                .map_err(|_| HttpError::Body(self.max_body))?
                .to_bytes();
            Ok(Answer {
                status: head.status,
                #[cfg(test)]
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(timeout, answer)
            .await
            .unwrap_or(Err(HttpError::Slow(timeout)))
    }
}

/// The client's own text says only "client error": the cause is beneath.
fn unreachable(error: hyper_util::client::legacy::Error) -> HttpError {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(next) = below {
        text = format!("{text}: {next}");
        below = next.source();
    }
    HttpError::Unreachable(text)
}
