//! A token issuer for demo and tests, inside the gateway.
//!
//! It hands out anybody's token to anyone on this machine. Therefore: loopback only, only
//! where no other issuer is configured, keys and client secrets made anew at each start, and a
//! loud warning. Requests must name it by a loopback address in `Host`, so that a web page that
//! rebinds its own name to this machine gets nothing.
//!
//! To clients it is an OpenID provider like others: [`routes`] has the endpoints, [`grants`]
//! what was promised, [`page`] the pages on which people choose who they are.

mod grants;
mod page;
mod routes;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_core::config::{self, Agent, DevUser, IdentityConfig, Issuer};
use holdpoint_core::id::Digest;
use holdpoint_core::principal::Identity;
use holdpoint_core::secret::Secret;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use grants::Grants;
pub(crate) use grants::same as same_secret;

pub(crate) const AUDIENCE: &str = "api://holdpoint";
const CONNECT: &str = "holdpoint.connect";
const REVIEW: &str = "holdpoint.review";

/// The client that people's tokens are issued to.
const PEOPLE_CLIENT: &str = "holdpoint-dev";

/// A token for `user` with `scope`, for the asking.
pub(crate) const DEV_GRANT: &str = "urn:holdpoint:dev";

/// A running development issuer; it stops when dropped.
#[derive(Debug)]
pub struct DevIssuer {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: AbortHandle,
}

struct Shared {
    issuer: String,
    users: BTreeMap<String, DevUser>,
    /// Of agents, by their client id, which is their subject.
    client_secrets: BTreeMap<String, Secret>,
    ttl: Duration,
    key: EncodingKey,
    kid: String,
    jwk: Value,
    /// Never held over an await.
    grants: Mutex<Grants>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    #[error(
        "`dev_issuer.listen` is {0}: it hands out anybody's token, so it must be a loopback address"
    )]
    NotLoopback(SocketAddr),
    #[error("`dev_issuer` cannot run beside `identity.issuer`; remove one of them")]
    OtherIssuer,
    #[error("cannot listen on {address} (`dev_issuer.listen`): {cause}")]
    Listen {
        address: SocketAddr,
        cause: std::io::Error,
    },
    #[error("cannot make the development issuer's keys: {0}")]
    Keys(String),
    #[error("`{0}` is not in `dev_issuer.users`")]
    UnknownUser(String),
    #[error("`{user}` may not have the scope `{scope}`; see `dev_issuer.users`")]
    Scope { user: String, scope: String },
}

impl DevIssuer {
    /// Makes keys and starts to answer.
    ///
    /// # Errors
    /// The address is not loopback or not free.
    pub async fn start(config: &config::DevIssuer) -> Result<Self, DevIssuerError> {
        if !config.listen.ip().is_loopback() {
            return Err(DevIssuerError::NotLoopback(config.listen));
        }
        let listen = |cause| DevIssuerError::Listen {
            address: config.listen,
            cause,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared::new(config, config::DevIssuer::issuer_at(address))?);
        let app = routes::router(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the development issuer has stopped");
            }
        });
        tracing::warn!(
            issuer = shared.issuer,
            "DEVELOPMENT ISSUER: anyone on this machine can get anybody's token. Never for production."
        );
        Ok(Self {
            shared,
            address,
            server: server.abort_handle(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS/dev`.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// The secret that an agent's client credentials need; made at this start.
    pub fn client_secret(&self, agent: &str) -> Option<&Secret> {
        self.shared.client_secrets.get(agent)
    }

    /// `base` with this issuer and its agents; for [`Authenticator::new`](super::Authenticator::new).
    ///
    /// # Errors
    /// Another issuer is configured.
    pub fn identity(&self, base: &IdentityConfig) -> Result<IdentityConfig, DevIssuerError> {
        if !base.issuers.is_empty() {
            return Err(DevIssuerError::OtherIssuer);
        }
        let mut config = base.clone();
        config.issuers.push(self.config());
        for (name, user) in self.shared.users.iter().filter(|(_, user)| user.agent) {
            let owners = user.owners.iter().map(|owner| Identity {
                issuer: self.shared.issuer.clone(),
                subject: owner.clone(),
            });
            config.agents.insert(
                name.clone(),
                Agent {
                    name: name.clone(),
                    groups: user.groups.clone(),
                    owners: owners.collect(),
                },
            );
        }
        Ok(config)
    }

    /// This issuer as the gateway would have it configured.
    pub fn config(&self) -> Issuer {
        Issuer {
            name: "dev".to_owned(),
            issuer: self.shared.issuer.clone(),
            audiences: vec![AUDIENCE.to_owned()],
            algorithms: vec!["ES256".to_owned()],
            connect_scope: CONNECT.to_owned(),
            review_scope: REVIEW.to_owned(),
            subject_claim: None,
            groups_claim: "/groups".to_owned(),
            groups_prefix: None,
            jwks_refresh: Duration::from_secs(3600),
            jwks_min_refetch: Duration::from_secs(30),
            jwks_max_stale: Duration::from_secs(24 * 3600),
            ca: None,
            login: Some(config::Login {
                client_id: PEOPLE_CLIENT.to_owned(),
                audience: None,
            }),
            console: None,
        }
    }

    /// A token for `subject`, without asking over HTTP. No scopes means all it may have.
    ///
    /// # Errors
    /// The subject is unknown or may not have a scope.
    pub fn mint(
        &self,
        subject: &str,
        scopes: &[&str],
        ttl: Duration,
    ) -> Result<String, DevIssuerError> {
        self.shared.mint(subject, scopes, ttl, None)
    }
}

impl Drop for DevIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn new(config: &config::DevIssuer, issuer: String) -> Result<Self, DevIssuerError> {
        let failed = |error: String| DevIssuerError::Keys(error);
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| failed(e.to_string()))?;
        // An uncompressed point: 4, x, y.
        let point = pair.public_key_raw();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err(failed("the public key is not a P-256 point".to_owned()));
        };
        let kid = hex::encode(&Digest::of(point).0[..8]);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        let mut client_secrets = BTreeMap::new();
        for (name, _) in config.users.iter().filter(|(_, user)| user.agent) {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|e| failed(e.to_string()))?;
            client_secrets.insert(name.clone(), URL_SAFE_NO_PAD.encode(random).into());
        }
        Ok(Self {
            issuer,
            users: config.users.clone(),
            client_secrets,
            ttl: config.token_ttl,
            key: EncodingKey::from_ec_der(pair.serialized_der()),
            kid,
            jwk,
            grants: Mutex::default(),
        })
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }

    /// Whether somebody is there and may have all of these scopes.
    fn may_all(&self, subject: &str, scopes: &[String]) -> bool {
        self.users
            .get(subject)
            .is_some_and(|user| scopes.iter().all(|scope| may(user, scope)))
    }

    /// Without `signed_in`, nobody signed in for it: it was there for the asking.
    fn mint(
        &self,
        subject: &str,
        scopes: &[&str],
        ttl: Duration,
        signed_in: Option<u64>,
    ) -> Result<String, DevIssuerError> {
        let user = self
            .users
            .get(subject)
            .ok_or_else(|| DevIssuerError::UnknownUser(subject.to_owned()))?;
        if let Some(scope) = scopes.iter().find(|scope| !may(user, scope)) {
            return Err(DevIssuerError::Scope {
                user: subject.to_owned(),
                scope: (*scope).to_owned(),
            });
        }
        let scope = if scopes.is_empty() {
            let all = user.scopes.iter().map(String::as_str);
            all.filter(|scope| may(user, scope))
                .collect::<Vec<_>>()
                .join(" ")
        } else {
            scopes.join(" ")
        };
        let now = self.now();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| DevIssuerError::Keys(e.to_string()))?;
        let mut claims = json!({
            "iss": self.issuer, "sub": subject, "aud": AUDIENCE,
            "client_id": if user.agent { subject } else { PEOPLE_CLIENT },
            "scope": scope, "groups": user.groups, "jti": hex::encode(id),
            "iat": now, "exp": now.saturating_add(ttl.as_secs()),
        });
        if let Some(at) = signed_in {
            claims["auth_time"] = at.into();
        }
        self.sign("at+jwt", &claims)
    }

    /// Tells the client who signed in; of no use at the gateway.
    fn mint_id(
        &self,
        subject: &str,
        nonce: Option<&str>,
        signed_in: u64,
    ) -> Result<String, DevIssuerError> {
        let now = self.now();
        let mut claims = json!({
            "iss": self.issuer, "sub": subject, "aud": PEOPLE_CLIENT, "auth_time": signed_in,
            "iat": now, "exp": now.saturating_add(self.ttl.as_secs()),
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        self.sign("JWT", &claims)
    }

    fn sign(&self, kind: &str, claims: &Value) -> Result<String, DevIssuerError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
            .map_err(|e| DevIssuerError::Keys(e.to_string()))
    }
}

/// Whatever its table says: an agent never decides.
fn may(user: &DevUser, scope: &str) -> bool {
    user.scopes.iter().any(|have| have == scope) && !(user.agent && scope == REVIEW)
}
