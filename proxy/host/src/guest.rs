//! What an instance has of the host: its limits, its log, the target's login.

use std::sync::Arc;

use holdpoint_core::plugin::{self as core, UpstreamAuth};
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Store, StoreLimits, StoreLimitsBuilder};
use zeroize::Zeroizing;

use crate::bindings::{StreamPlugin, framing, host, types, upstream_auth};
use crate::engine::{Budget, Engine, on_tick};

/// Lines that one instance may log, and their length in characters: a plugin
/// that logs each frame must not fill the operator's disk.
const MAX_LINES: u32 = 100;
const MAX_LINE: usize = 512;
/// Logins that one session may begin. Each hands out a proof made of the secret.
const MAX_EXCHANGES: u32 = 4;

/// The data of a store.
pub(crate) struct Guest {
    pub(crate) budget: Budget,
    plugin: Arc<str>,
    limits: StoreLimits,
    table: ResourceTable,
    login: Login,
    answers: Answers,
    exchanges: u32,
    lines: u32,
    /// The instance only repeats itself.
    silent: bool,
}

/// Who answers when the plugin logs in at the target.
pub(crate) enum Login {
    Live(Box<dyn UpstreamAuth>),
    /// As it was answered to an earlier instance of the session: how many of those
    /// answers were given again.
    Recalled(usize),
}

/// What a session's instance heard of the login, for one that is made again.
#[derive(Default)]
pub(crate) struct Answers {
    username: String,
    steps: Vec<Result<Zeroizing<Vec<u8>>, core::AuthError>>,
}

/// One login at the target. A constructor cannot fail in WIT, so a mechanism
/// that is unknown is told at the first step.
#[allow(
    unreachable_pub,
    reason = "generated code names it as if it were public"
)]
pub struct Exchange(Result<Box<dyn core::Exchange>, core::AuthError>);

impl Guest {
    /// A store within the engine's limits.
    pub(crate) fn store(
        engine: &Engine,
        plugin: &Arc<str>,
        (login, answers): (Login, Answers),
    ) -> Store<Self> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(engine.limits.memory)
            .table_elements(100_000)
            .instances(32)
            .tables(32)
            .memories(8)
            .build();
        let guest = Self {
            budget: Budget::new(engine.limits.call),
            plugin: Arc::clone(plugin),
            limits,
            table: ResourceTable::new(),
            silent: matches!(login, Login::Recalled(_)),
            login,
            answers,
            exchanges: 0,
            lines: 0,
        };
        let mut store = Store::new(&engine.wasm, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(engine.limits.data);
        store.epoch_deadline_callback(on_tick);
        store
    }

    /// The login of a new session.
    pub(crate) fn live(auth: Box<dyn UpstreamAuth>) -> (Login, Answers) {
        let answers = Answers {
            username: auth.username(),
            steps: Vec::new(),
        };
        (Login::Live(auth), answers)
    }

    /// The login of an instance that is made again.
    pub(crate) fn recalling(answers: Answers) -> (Login, Answers) {
        (Login::Recalled(0), answers)
    }

    pub(crate) fn into_answers(self) -> Answers {
        self.answers
    }

    /// It has caught up with what its session was.
    pub(crate) fn speak(&mut self) {
        self.silent = false;
    }
}

/// A linker with the host's functions and nothing else.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    StreamPlugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

impl host::Host for Guest {
    fn log(&mut self, level: host::Level, message: String) -> wasmtime::Result<()> {
        self.lines = self.lines.saturating_add(1);
        if self.silent || self.lines > MAX_LINES {
            return Ok(());
        }
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = message.chars().take(MAX_LINE).map(plain).collect();
        let plugin = self.plugin.as_ref();
        match level {
            host::Level::Debug => tracing::debug!(plugin, "{text}"),
            host::Level::Info => tracing::info!(plugin, "{text}"),
            host::Level::Warn => tracing::warn!(plugin, "{text}"),
            host::Level::Error => tracing::error!(plugin, "{text}"),
        }
        if self.lines == MAX_LINES {
            tracing::warn!(
                plugin,
                "this session has logged enough; the rest is left out"
            );
        }
        Ok(())
    }
}

impl types::Host for Guest {}
impl framing::Host for Guest {}

impl upstream_auth::Host for Guest {
    fn username(&mut self) -> wasmtime::Result<String> {
        Ok(self.answers.username.clone())
    }
}

impl upstream_auth::HostExchange for Guest {
    fn new(&mut self, mechanism: String) -> wasmtime::Result<Resource<Exchange>> {
        self.exchanges += 1;
        if self.exchanges > MAX_EXCHANGES {
            return Err(wasmtime::Error::msg("too many logins in one session"));
        }
        let exchange = Exchange(match &mut self.login {
            Login::Live(auth) => auth.start(&mechanism),
            // Not asked: the answers are there.
            Login::Recalled(_) => Err(core::AuthError::NoCredential),
        });
        Ok(self.table.push(exchange)?)
    }

    fn step(
        &mut self,
        exchange: Resource<Exchange>,
        challenge: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, upstream_auth::AuthError>> {
        let exchange = &mut self.table.get_mut(&exchange)?.0;
        let answer = match &mut self.login {
            Login::Recalled(given) => {
                *given += 1;
                let answer = self.answers.steps.get(*given - 1);
                answer.map_or(Err(core::AuthError::NoCredential), |answer| match answer {
                    Ok(bytes) => Ok(bytes.to_vec()),
                    Err(error) => Err(*error),
                })
            }
            Login::Live(_) => {
                let answer = match exchange {
                    Ok(exchange) => exchange.step(&challenge),
                    Err(error) => Err(*error),
                };
                self.answers.steps.push(match &answer {
                    Ok(bytes) => Ok(Zeroizing::new(bytes.clone())),
                    Err(error) => Err(*error),
                });
                answer
            }
        };
        Ok(answer.map_err(|error| match error {
            core::AuthError::UnknownMechanism => upstream_auth::AuthError::UnknownMechanism,
            core::AuthError::BadChallenge => upstream_auth::AuthError::BadChallenge,
            core::AuthError::Weak => upstream_auth::AuthError::Weak,
            core::AuthError::PeerNotVerified => upstream_auth::AuthError::PeerNotVerified,
            core::AuthError::NoCredential => upstream_auth::AuthError::NoCredential,
        }))
    }

    fn drop(&mut self, exchange: Resource<Exchange>) -> wasmtime::Result<()> {
        self.table.delete(exchange)?;
        Ok(())
    }
}

/// No account: for describing and classifying, which log in nowhere.
pub(crate) struct NoAuth;

impl UpstreamAuth for NoAuth {
    fn username(&self) -> String {
        String::new()
    }

    fn start(&mut self, _mechanism: &str) -> Result<Box<dyn core::Exchange>, core::AuthError> {
        Err(core::AuthError::NoCredential)
    }
}
