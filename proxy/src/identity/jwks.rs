//! One issuer's keys, fetched and kept.
//!
//! - One fetch at a time, and none sooner than `min_refetch` after the last, whatever
//!   tokens ask for: unknown key ids cannot make us hammer the issuer.
//! - A fetch runs as its own task: a client that leaves does not cancel it for the others.
//! - Keys are refreshed in the background at 80 % of `refresh`. If that fails, the last
//!   set serves until `max_stale`, and then nothing does.
//! - A set that was fetched replaces the last one whole. A key id that is gone
//!   from it is gone at once: that is how issuers revoke a stolen key.
//!
//! Ages are real time, not an argument: nothing here decides about a command.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use holdpoint_core::config::Issuer;
use http::StatusCode;
use jsonwebtoken::Algorithm;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::discovery::{DiscoveryError, MAX_BODY, Metadata, discover};
use super::error::{TokenError, shown};
use super::keys::{Key, KeySet, KeySetError};
use crate::http_client::{HttpClient, HttpError, checked};

/// Of one whole fetch, discovery included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a login waits for a refresh while older keys would still do.
const STALE_WAIT: Duration = Duration::from_secs(2);

/// Key ids known to be absent are not asked for again within this many `min_refetch`.
const ABSENT_FOR: u32 = 10;

/// Bound on remembered absent key ids; the oldest are forgotten first.
const MAX_ABSENT: usize = 256;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Jwks {
    issuer: String,
    /// Its name in our configuration.
    name: String,
    refresh: Duration,
    min_refetch: Duration,
    max_stale: Duration,
    http: HttpClient,
    /// Never held over an await.
    state: Mutex<State>,
    keeper: OnceLock<AbortHandle>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    attempted: Option<Instant>,
    metadata: Option<Metadata>,
    /// Closed when the fetch under way has ended.
    flight: Option<watch::Receiver<()>>,
    absent: VecDeque<(String, Instant)>,
    failure: Option<String>,
}

#[derive(Debug, Clone)]
struct Held {
    set: Arc<KeySet>,
    at: Instant,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("`{url}` answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("`{url}`: {cause}")]
    Set { url: String, cause: KeySetError },
    #[error("no answer within {} s", FETCH_TIMEOUT.as_secs())]
    Slow,
}

impl Jwks {
    pub(super) fn new(issuer: &Issuer) -> Result<Self, HttpError> {
        checked(&issuer.issuer)?;
        Ok(Self {
            issuer: issuer.issuer.clone(),
            name: issuer.name.clone(),
            refresh: issuer.jwks_refresh,
            min_refetch: issuer.jwks_min_refetch,
            max_stale: issuer.jwks_max_stale,
            http: HttpClient::new(issuer.ca.as_deref(), MAX_BODY)?,
            state: Mutex::default(),
            keeper: OnceLock::new(),
        })
    }

    /// The key that a token names, fetched if need be and allowed.
    pub(super) async fn key(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Key>, TokenError> {
        let (flight, patience) = {
            let mut state = self.state();
            let fresh = state
                .held
                .as_ref()
                .filter(|held| held.at.elapsed() < self.refresh);
            if let Some(held) = fresh {
                if let Some(key) = held.set.find(kid, algorithm) {
                    return Ok(key);
                }
                if state.is_absent(kid, self.absent_for()) {
                    return Err(self.unknown(kid));
                }
            }
            let usable = self
                .usable(&state)
                .is_some_and(|set| set.find(kid, algorithm).is_some());
            let patience = if usable { STALE_WAIT } else { FETCH_TIMEOUT };
            (self.fetch(&mut state), patience)
        };
        if let Some(flight) = flight {
            landed(flight, patience).await;
        }
        let mut state = self.state();
        let Some(set) = self.usable(&state) else {
            let cause = state.failure.clone();
            return Err(TokenError::KeysUnavailable {
                issuer: self.name.clone(),
                cause: cause.unwrap_or_else(|| "not fetched yet".to_owned()),
            });
        };
        if let Some(key) = set.find(kid, algorithm) {
            return Ok(key);
        }
        if let Some(kid) = kid
            && state
                .held
                .as_ref()
                .is_some_and(|held| held.at.elapsed() < self.min_refetch)
        {
            state.note_absent(kid);
        }
        Err(self.unknown(kid))
    }

    /// Fetches now and keeps fetching in the background. Gives the number of usable keys.
    pub(super) async fn warm(self: &Arc<Self>) -> Result<usize, String> {
        self.keep_fresh();
        let flight = self.fetch(&mut self.state());
        if let Some(flight) = flight {
            landed(flight, FETCH_TIMEOUT).await;
        }
        let state = self.state();
        match (self.usable(&state), &state.failure) {
            (Some(set), None) => Ok(set.keys.len()),
            (_, Some(cause)) => Err(cause.clone()),
            (None, None) => Err("no answer yet".to_owned()),
        }
    }

    fn keep_fresh(self: &Arc<Self>) {
        let every = self.refresh.mul_f64(0.8).max(self.min_refetch);
        let weak = Arc::downgrade(self);
        self.keeper.get_or_init(|| {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(every).await;
                    let Some(jwks) = Weak::upgrade(&weak) else {
                        return;
                    };
                    let _ = jwks.fetch(&mut jwks.state());
                }
            })
            .abort_handle()
        });
    }

    /// Joins the fetch under way or starts one; `None` where it is too soon for another.
    fn fetch(self: &Arc<Self>, state: &mut State) -> Option<watch::Receiver<()>> {
        // A closed channel here would be a fetch that died: it must not block the next.
        let under_way = state
            .flight
            .as_ref()
            .filter(|flight| flight.has_changed().is_ok());
        if let Some(flight) = under_way {
            return Some(flight.clone());
        }
        if state
            .attempted
            .is_some_and(|at| at.elapsed() < self.min_refetch)
        {
            return None;
        }
        state.attempted = Some(Instant::now());
        let (landing, flight) = watch::channel(());
        state.flight = Some(flight.clone());
        let known = state.metadata.clone();
        let jwks = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = tokio::time::timeout(FETCH_TIMEOUT, jwks.download(known)).await;
            jwks.land(outcome.unwrap_or(Err(FetchError::Slow)));
            drop(landing);
        });
        Some(flight)
    }

    async fn download(&self, known: Option<Metadata>) -> Result<(KeySet, Metadata), FetchError> {
        let metadata = match known {
            Some(metadata) => metadata,
            None => discover(&self.http, &self.issuer).await?,
        };
        let url = metadata.jwks_uri.clone();
        let reply = self.http.get(&url).await?;
        if reply.status != StatusCode::OK {
            return Err(FetchError::Status {
                url,
                status: reply.status,
            });
        }
        let set = KeySet::read(&reply.body).map_err(|cause| FetchError::Set { url, cause })?;
        Ok((set, metadata))
    }

    fn land(&self, outcome: Result<(KeySet, Metadata), FetchError>) {
        let mut state = self.state();
        state.flight = None;
        match outcome {
            Ok((set, metadata)) => {
                for why in &set.dropped {
                    tracing::warn!(issuer = self.name, "key left out: {why}");
                }
                if set.keys.is_empty() {
                    tracing::error!(issuer = self.name, "no usable key: every token is refused");
                }
                state.held = Some(Held {
                    set: Arc::new(set),
                    at: Instant::now(),
                });
                state.metadata = Some(metadata);
                state.failure = None;
            }
            Err(error) => {
                tracing::warn!(issuer = self.name, %error, "cannot fetch the issuer's keys");
                // The place may have moved: ask again where it is.
                state.metadata = None;
                state.failure = Some(error.to_string());
            }
        }
    }

    fn usable(&self, state: &State) -> Option<Arc<KeySet>> {
        let held = state.held.as_ref()?;
        (held.at.elapsed() < self.max_stale.max(self.refresh)).then(|| Arc::clone(&held.set))
    }

    fn unknown(&self, kid: Option<&str>) -> TokenError {
        TokenError::UnknownKey {
            issuer: self.name.clone(),
            kid: kid.map_or_else(|| "for a token without `kid`".to_owned(), shown),
        }
    }

    fn absent_for(&self) -> Duration {
        self.min_refetch.saturating_mul(ABSENT_FOR)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.abort();
        }
    }
}

impl State {
    fn is_absent(&self, kid: Option<&str>, within: Duration) -> bool {
        kid.is_some_and(|kid| {
            self.absent
                .iter()
                .any(|(absent, at)| absent == kid && at.elapsed() < within)
        })
    }

    fn note_absent(&mut self, kid: &str) {
        self.absent.retain(|(absent, _)| absent != kid);
        if self.absent.len() == MAX_ABSENT {
            self.absent.pop_front();
        }
        self.absent.push_back((kid.to_owned(), Instant::now()));
    }
}

/// Waits until the fetch has ended, whichever way, or patience has.
async fn landed(mut flight: watch::Receiver<()>, patience: Duration) {
    // The sender is only ever dropped, so both outcomes mean: look again.
    let _ = tokio::time::timeout(patience, flight.changed()).await;
}
