//! One connection to the store, made again when it breaks.
//!
//! The password is read anew for each connection, so that a rotated one is taken up when
//! the server refuses the former. Between attempts a link waits, longer each time; a
//! caller who comes meanwhile is told at once that the store is down.
//!
//! What an error says is the server's or the system's words: no password is in them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use holdpoint_core::config::{RedisConfig, RedisPlace, RedisUrl, SecretRef};
use redis::aio::ConnectionLike as _;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, TlsCertificates, TlsMode,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::secrets;

/// For a connection to be there.
const CONNECT: Duration = Duration::from_secs(2);
/// For an answer. A slower server counts as down.
const ANSWER: Duration = Duration::from_secs(2);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nobody answers, or not in time. It may have been done all the same.
    #[error("the store cannot be reached: {0}")]
    Down(String),
    /// We are not let in.
    #[error(
        "the store does not accept our credentials: {0}; \
         mend `store.redis.username` and `password`, which are read again for each attempt"
    )]
    Credentials(String),
    /// It answers with a refusal.
    #[error("the store refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Secret(String),
    #[error("`store.redis.ca`: {0}")]
    Ca(String),
}

impl StoreError {
    /// Whether waiting may mend it.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Down(_))
    }
}

/// A connection, of either kind. Clones share it.
#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

/// Connects, and connects again.
pub(super) struct Link {
    config: Arc<RedisConfig>,
    /// For commands that wait at the server, on top of the usual time.
    blocking: Duration,
    state: Mutex<State>,
    /// What went wrong last; `None` while all is well.
    trouble: std::sync::Mutex<Option<StoreError>>,
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    /// Counts connections, so that an old one's failure does not end a new one.
    made: u64,
    failures: u32,
    not_before: Option<Instant>,
}

impl Link {
    pub(super) fn new(config: Arc<RedisConfig>, blocking: Duration) -> Self {
        Self {
            config,
            blocking,
            state: Mutex::default(),
            trouble: std::sync::Mutex::new(Some(StoreError::Down("not connected yet".to_owned()))),
        }
    }

    /// Sends one command and waits for its answer.
    pub(super) async fn ask<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, StoreError> {
        let (mut wire, made) = self.wire().await?;
        let sent = tokio::time::timeout(ANSWER + self.blocking, wire.send(cmd)).await;
        let error = match sent {
            Ok(Ok(value)) => {
                self.say(None);
                return T::from_redis_value(value)
                    .map_err(|error| StoreError::Refused(format!("unexpected answer: {error}")));
            }
            Ok(Err(error)) if is_lost(&error) => named(&error),
            Ok(Err(error)) => return Err(named(&error)),
            Err(_) => StoreError::Down(format!("no answer within {ANSWER:?}")),
        };
        let mut state = self.state.lock().await;
        if state.made == made {
            state.wire = None;
        }
        drop(state);
        self.say(Some(error.clone()));
        Err(error)
    }

    /// Connects anew for the next command: the server is not the one that it should be.
    pub(super) async fn again(&self) {
        self.state.lock().await.wire = None;
    }

    /// What is wrong with it, if something is.
    pub(super) fn trouble(&self) -> Option<StoreError> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wire(&self) -> Result<(Wire, u64), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(wire) = &state.wire {
            return Ok((wire.clone(), state.made));
        }
        if state.not_before.is_some_and(|at| Instant::now() < at) {
            let why = self.trouble();
            return Err(why.unwrap_or_else(|| StoreError::Down("not connected".to_owned())));
        }
        let patience = CONNECT * 2;
        let made = match tokio::time::timeout(patience, self.connect()).await {
            Ok(made) => made,
            Err(_) => Err(StoreError::Down(format!(
                "no connection within {patience:?}"
            ))),
        };
        match made {
            Ok(wire) => {
                state.made += 1;
                state.failures = 0;
                state.not_before = None;
                state.wire = Some(wire.clone());
                Ok((wire, state.made))
            }
            Err(error) => {
                let wait = FIRST_WAIT * 2_u32.saturating_pow(state.failures.min(8));
                state.failures = state.failures.saturating_add(1);
                // Nodes that lost the same store do not all come back at once.
                state.not_before = Some(Instant::now() + spread(wait.min(LONGEST_WAIT)));
                self.say(Some(error.clone()));
                Err(error)
            }
        }
    }

    fn say(&self, trouble: Option<StoreError>) {
        let mut said = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*said, &trouble) {
            (None, Some(error)) => tracing::warn!(%error, "the store is lost"),
            (Some(StoreError::Down(_)), Some(error)) if !error.is_down() => {
                tracing::error!(%error, "the store cannot be used");
            }
            (Some(_), None) => tracing::info!("the store is there"),
            _ => {}
        }
        *said = trouble;
    }

    async fn connect(&self) -> Result<Wire, StoreError> {
        let config = &self.config;
        let account = Account {
            username: config.username.clone(),
            password: read(config.password.as_ref(), "store.redis.password")?,
        };
        let certificates = self.certificates()?;
        let timing = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER + self.blocking));
        match &config.place {
            RedisPlace::Single(url) => {
                let info = account.info(url)?;
                let client = if url.tls {
                    Client::build_with_tls(info, certificates)
                } else {
                    Client::open(info)
                };
                let client = client.map_err(|e| named(&e))?;
                let made = client
                    .get_multiplexed_async_connection_with_config(&timing)
                    .await;
                made.map(Wire::One).map_err(|e| named(&e))
            }
            RedisPlace::Sentinel { master, sentinels } => {
                let password = config.sentinel_password.as_ref();
                let password = read(password, "store.redis.sentinel_password")?;
                let builder = sentinel(master, sentinels, &account, password, certificates);
                let mut client = builder
                    .and_then(SentinelClientBuilder::build)
                    .map_err(|e| named(&e))?;
                let made = client.get_async_connection_with_config(&timing).await;
                made.map(Wire::One).map_err(|e| named(&e))
            }
            RedisPlace::Cluster(urls) => {
                let infos: Result<Vec<_>, _> = urls.iter().map(|url| account.info(url)).collect();
                let mut builder = ClusterClient::builder(infos?)
                    .retries(2)
                    .connection_timeout(CONNECT)
                    .response_timeout(ANSWER + self.blocking);
                if urls.iter().any(|url| url.tls) {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                if let Some(username) = &account.username {
                    builder = builder.username(username);
                }
                if let Some(password) = &account.password {
                    builder = builder.password(password);
                }
                let client = builder.build().map_err(|e| named(&e))?;
                let made = client.get_async_connection().await;
                made.map(Wire::Many).map_err(|e| named(&e))
            }
        }
    }

    fn certificates(&self) -> Result<TlsCertificates, StoreError> {
        let root_cert = match &self.config.ca {
            None => None,
            Some(path) => {
                let pem = std::fs::read(path);
                let failed = |e| StoreError::Ca(format!("cannot read `{}`: {e}", path.display()));
                Some(pem.map_err(failed)?)
            }
        };
        Ok(TlsCertificates {
            client_tls: None,
            root_cert,
        })
    }
}

impl Wire {
    async fn send(&mut self, cmd: &Cmd) -> Result<redis::Value, RedisError> {
        match self {
            Self::One(wire) => wire.req_packed_command(cmd).await,
            Self::Many(wire) => wire.req_packed_command(cmd).await,
        }
    }
}

struct Account {
    username: Option<String>,
    password: Option<String>,
}

impl Account {
    fn info(&self, url: &RedisUrl) -> Result<ConnectionInfo, StoreError> {
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(url.db));
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let text = url.to_string();
        let info = text
            .as_str()
            .into_connection_info()
            .map_err(|e| named(&e))?;
        Ok(info.set_redis_settings(settings))
    }
}

fn sentinel(
    master: &str,
    sentinels: &[RedisUrl],
    account: &Account,
    password: Option<String>,
    certificates: TlsCertificates,
) -> Result<SentinelClientBuilder, RedisError> {
    let address = |url: &RedisUrl| match url.tls {
        false => ConnectionAddr::Tcp(url.host.clone(), url.port),
        true => ConnectionAddr::TcpTls {
            host: url.host.clone(),
            port: url.port,
            insecure: false,
            tls_params: None,
        },
    };
    let addresses = sentinels.iter().map(address);
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if sentinels.iter().any(|url| url.tls) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    if let Some(db) = sentinels.iter().map(|url| url.db).find(|db| *db != 0) {
        builder = builder.set_client_to_redis_db(i64::from(db));
    }
    if let Some(username) = &account.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &account.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    Ok(builder)
}

fn read(place: Option<&SecretRef>, setting: &str) -> Result<Option<String>, StoreError> {
    let Some(place) = place else {
        return Ok(None);
    };
    let said = |why: String| StoreError::Secret(format!("{setting}: {why}"));
    let secret = secrets::resolve(place).map_err(|error| said(error.to_string()))?;
    match String::from_utf8(secret.expose().to_vec()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(said("it is not text".to_owned())),
    }
}

/// Whether a new connection may do better.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.code(),
            Some("NOAUTH" | "WRONGPASS" | "READONLY" | "LOADING" | "MASTERDOWN")
        )
}

fn named(error: &RedisError) -> StoreError {
    let text = error.to_string();
    if error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
    {
        return StoreError::Credentials(text);
    }
    if is_lost(error) {
        return StoreError::Down(text);
    }
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::ClusterConnectionNotFound => StoreError::Down(text),
        _ => StoreError::Refused(text),
    }
}

/// Between half of it and all of it.
fn spread(wait: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness all wait the same time, which is no harm.
    let _ = getrandom::fill(&mut random);
    wait / 2 + wait / 2 * u32::from(random[0]) / 256
}
