//! TLS on both sides: our certificate towards clients, verification towards targets.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::Duplex;
use super::sealed::{self, Sealed};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{}`: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("`{}` holds no usable PEM {what}: {cause}", path.display())]
    Pem {
        path: PathBuf,
        what: &'static str,
        cause: String,
    },
    #[error("certificate `{}` and key `{}` do not go together: {cause}", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        cause: rustls::Error,
    },
    #[error("`{0}` is neither a host name nor an IP address, so no certificate can match it")]
    Name(String),
    #[error("this system has no certificate authorities ({0}); set the target's `ca`")]
    NoRoots(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A listener's certificate. Handshakes that begin after a reload use the new one.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug)]
struct Certificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ServerTls {
    /// `alpn` is the name that a client which speaks TLS from its first byte must offer.
    ///
    /// # Errors
    /// A file cannot be read, or certificate and key do not belong together.
    pub fn load(cert: &Path, key: &Path, alpn: Option<&str>) -> Result<Self, TlsError> {
        let pair = read_pair(cert, key)?;
        let certificate = Arc::new(Certificate(ArcSwap::from(pair)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.max_fragment_size = Some(sealed::FRAGMENT);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            certificate,
            cert: cert.into(),
            key: key.into(),
        })
    }

    /// Reads the files again; the old pair stays in force where the new one cannot be used.
    ///
    /// # Errors
    /// As [`ServerTls::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        self.certificate.0.store(read_pair(&self.cert, &self.key)?);
        Ok(())
    }

    /// For a listener that speaks TLS by itself. Follows reloads.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The server's side of a handshake. Gives the protocol that was agreed on.
    ///
    /// # Errors
    /// The handshake failed; the connection is gone.
    pub async fn accept(&self, io: Duplex) -> io::Result<(Duplex, Option<Vec<u8>>)> {
        let side = UnbufferedServerConnection::new(Arc::clone(&self.config));
        let stream = Sealed::handshake(io, side.map_err(io::Error::other)?).await?;
        let alpn = stream.alpn().map(<[u8]>::to_vec);
        Ok((Box::new(stream), alpn))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

fn read_pair(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(cert)?;
    let text = read(key)?;
    let der = PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Pem {
        path: key.into(),
        what: "private key",
        cause: error.to_string(),
    })?;
    let provider = rustls::crypto::ring::default_provider();
    let pair = CertifiedKey::from_der(chain, der, &provider).map_err(|cause| TlsError::Pair {
        cert: cert.into(),
        key: key.into(),
        cause,
    })?;
    Ok(Arc::new(pair))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let wrong = |cause: String| TlsError::Pem {
        path: path.into(),
        what: "certificate",
        cause,
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|cause| TlsError::Read {
        path: path.into(),
        cause,
    })
}

/// Verifies one target. There is no way to switch verification off.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// `host` is what the target's certificate must be for; `ca` a PEM bundle that
    /// takes the place of the system's authorities.
    ///
    /// # Errors
    /// There are no authorities, or `host` is no name that a certificate could be for.
    pub fn load(host: &str, ca: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
            }
            None => {
                let native = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(native.certs);
                if roots.is_empty() {
                    let why = native.errors.first().map(ToString::to_string);
                    return Err(TlsError::NoRoots(
                        why.unwrap_or_else(|| "none found".to_owned()),
                    ));
                }
            }
        }
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.max_fragment_size = Some(sealed::FRAGMENT);
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    /// The client's side of a handshake.
    ///
    /// # Errors
    /// The target's certificate did not verify, or the handshake failed otherwise.
    pub async fn connect(&self, io: Duplex) -> io::Result<Duplex> {
        let config = Arc::clone(&self.config);
        let side = UnbufferedClientConnection::new(config, self.name.clone());
        let stream = Sealed::handshake(io, side.map_err(io::Error::other)?).await?;
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
