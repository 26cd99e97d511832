//! The composition root: configuration in, running gateway out. Read this first.
//!
//! Two kinds of runtime. The *control* runtime lives as long as the process and
//! carries what outlives any listener: identities, approvals, notifications, the
//! admin API, reloads. pingora's own runtime carries the listeners and their
//! sessions. The journal is written by a thread of its own.
//!
//! Ends in order on SIGTERM or SIGINT: nobody new is let in, held commands are
//! answered, running ones may finish within `limits.drain`, then the journal closes
//! with a checkpoint over everything. On SIGQUIT a successor gets the listening
//! sockets first ([`sockets`]).

mod admin;
mod nodes;
mod revoked;
mod seams;
mod sockets;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use holdpoint_core::config::{Config, Issuer, Sync};
use holdpoint_core::gate::HoldLimits;
use holdpoint_core::policy::Judge;
use holdpoint_core::record::Start;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::approvals::{Approvals, Board};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::identity::{Authenticator, DevIssuer};
use crate::listener::{Door, Listener};
use crate::notify;
use crate::on_call::Lists;
use crate::recorder::{self, Loss, Recorder};
use crate::reload::{Candidate, Hangup, InForce, Reloader};
use crate::session::{Cancels, Parts, Rules, Sessions};
use sockets::Sockets;

/// Reviewers are still told how things ended, for so long.
const LAST_MESSAGES: Duration = Duration::from_secs(3);

/// Makes ring the process's TLS provider. Call it first: whichever library makes
/// a TLS configuration before would choose for everybody.
pub fn install_crypto() {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// How a gateway starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Startup {
    /// Go on although records are missing that a checkpoint covers.
    pub accept_loss: bool,
    /// Take the sockets over from the gateway that runs.
    pub upgrade: bool,
}

/// The gateway, built but not serving yet: who connects waits.
pub struct App {
    control: Runtime,
    server: Server,
    stop: stop::Stop,
    shared: Shared,
}

/// What outlives any listener.
struct Shared {
    clock: Clock,
    recorder: Recorder,
    authenticator: Authenticator,
    /// Whose tokens are accepted.
    issuers: Vec<Issuer>,
    told: Arc<notify::Log>,
    /// Answers until it is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    dev_issuer: Option<DevIssuer>,
    /// Of this node.
    approvals: Approvals,
    /// Of all nodes.
    board: Arc<dyn Board>,
    /// The other nodes, where there are any.
    cluster: Option<Cluster>,
    sessions: Arc<Sessions>,
    people: nodes::People,
}

impl App {
    /// Opens everything that the configuration names, and starts the admin API.
    ///
    /// # Errors
    /// Something cannot be opened; the message says what and how to mend it.
    pub fn build(config: Config, path: &Path, startup: Startup) -> anyhow::Result<Self> {
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("control")
            .enable_all()
            .build()
            .context("cannot start the control runtime")?;
        let inside = control.enter();
        // The first of all: a reload of the old gateway's unit may reach a successor that waits.
        let hangup = Hangup::listen()?;
        private_dir(&config.state)?;
        no_core_dumps();
        raise_descriptors(config.limits.max_sessions);
        let clock = Clock::new();

        let candidate = Candidate::read(&config)?;
        for warning in candidate.warnings() {
            tracing::warn!("{warning}");
        }
        let start = Start {
            node: config.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: candidate.policy.version().to_owned(),
            plugins: candidate.plugins.used(),
        };
        let loss = if startup.accept_loss {
            Loss::Accept
        } else {
            Loss::Refuse
        };
        let sockets = if startup.upgrade {
            // Once it gave its sockets away, the running gateway does not come back.
            examine(&config, loss)?;
            let sockets = Sockets::take_over(&config)?;
            let patience = config.limits.drain + 2 * stop::LAST_WORDS;
            sockets::wait_for_journal(&config, patience)?;
            sockets
        } else {
            Sockets::bind(&config)?
        };
        let recorder =
            Recorder::open(&config.journal, &config.node, start, loss).context("the journal")?;

        let (authenticator, issuers, dev_issuer) = control.block_on(identities(&config))?;
        let (notices, inbox) = notify::channel();
        let told = notices.log();
        let approvals = Approvals::new(
            config.hold.clone(),
            Arc::new(recorder.clone()),
            Arc::new(move || clock.now()),
            // Nobody is told where there is no way to tell.
            (!candidate.channels.all().is_empty()).then_some(notices),
        );
        approvals.ask_rotas(Arc::new(
            Lists::new(&config, &candidate.secrets).context("`[review.oncall]`")?,
        ));
        control.block_on(approvals.keep_reviews(recorder.open_reviews().iter().cloned()));
        admin::start_notifying(&config, inbox, &candidate.channels, &approvals)?;

        let sessions = Arc::new(Sessions::default());
        let people = admin::people(&config)?;
        let cluster = match &config.store {
            None => None,
            Some(store) => {
                let live = admin::live(&sessions, &config);
                let parts = nodes::parts(
                    (&config, store),
                    &approvals,
                    &recorder,
                    &authenticator,
                    live,
                    &people,
                    clock,
                );
                let cluster = control
                    .block_on(Cluster::open(parts))
                    .context("the store")?;
                Some(cluster)
            }
        };
        let board: Arc<dyn Board> = match &cluster {
            None => Arc::new(approvals.clone()),
            Some(cluster) => Arc::new(cluster.clone()),
        };

        let judge: Arc<dyn Judge> = Arc::clone(&candidate.policy) as Arc<dyn Judge>;
        let rules: Rules = Arc::new(ArcSwap::from_pointee(judge));
        approvals.look_around(Arc::new(seams::Around {
            rules: Arc::clone(&rules),
            sessions: Arc::clone(&sessions),
        }));
        let parts = Arc::new(Parts {
            clock,
            ledger: Arc::new(recorder.clone()),
            gatekeeper: Arc::new(authenticator.clone()),
            desk: Arc::new(approvals.clone()),
            custody: Arc::new(candidate.secrets.clone()),
            rules: Arc::clone(&rules),
            sessions: Arc::clone(&sessions),
            cancels: Arc::new(Cancels::default()),
            limits: config.limits.clone(),
            hold: hold_limits(&config),
            clock_skew: config.identity.clock_skew,
            max_session: config.identity.max_session,
            on_token_expiry: config.identity.on_token_expiry,
            relaxed: config.journal.sync == Sync::Relaxed,
            sync_responses: config.journal.sync == Sync::All,
        });

        let (opened, open) = watch::channel(true);
        let mut server = Server::new_with_opt_and_conf(None, server_conf(&config));
        let mut serving = admin::Serving {
            rules: Arc::clone(&rules),
            protocols: Vec::new(),
        };
        let mut in_force = InForce::new(
            rules,
            Arc::clone(&sessions),
            candidate.secrets.clone(),
            seams::protocol,
        );
        for (name, entry) in candidate.entries() {
            let listener = config
                .listeners
                .get(name)
                .with_context(|| format!("no listener `{name}`"))?;
            let (route, protocol) = in_force.add(name, entry);
            serving
                .protocols
                .push((listener.target.clone(), Arc::clone(&protocol)));
            server.add_service(Listener {
                name: format!("listener {name}"),
                socket: Some(sockets.get(listener.listen)?),
                open: open.clone(),
                door: Arc::new(Door {
                    parts: Arc::clone(&parts),
                    route,
                    protocol,
                }),
            });
            tracing::info!(listener = %name, address = %listener.listen, target = %listener.target, "listening");
        }

        let shared = Shared {
            clock,
            recorder,
            authenticator,
            issuers,
            told,
            dev_issuer,
            board,
            cluster,
            approvals,
            sessions,
            people,
        };
        revoked::end(&shared.authenticator, &shared.approvals, &shared.sessions);
        let admin = match &config.admin {
            Some(admin) => Some((admin, sockets.get(admin.listen)?)),
            None => None,
        };
        let asked = Mutex::new(Some(stop::Asked::listen()));
        let stop = stop::Stop {
            sessions: Arc::clone(&shared.sessions),
            approvals: shared.approvals.clone(),
            drain: config.limits.drain,
            state: config.state.clone(),
            sockets: Arc::new(Mutex::new(Some(sockets))),
            open: opened,
            asked,
        };
        let recorder = shared.recorder.clone();
        let file = path.to_path_buf();
        Reloader::new(file, config.clone(), in_force, recorder, clock).start(hangup)?;
        tracing::info!("rules {} in force", candidate.policy.version());
        // Last, since it says that we are ready: every signal has an ear by now.
        if let Some((admin, socket)) = admin {
            let vault = &candidate.secrets;
            let telling = admin::Telling {
                channels: candidate.channels.clone(),
                log: Arc::clone(&shared.told),
            };
            control.block_on(admin::start(
                admin, socket, &config, vault, &shared, serving, telling,
            ))?;
        }
        drop(inside);
        Ok(Self {
            control,
            server,
            stop,
            shared,
        })
    }

    /// Serves until it is told to stop, and ends in order.
    ///
    /// # Errors
    /// The journal could not be closed: its last checkpoint may be missing.
    pub fn run(self) -> anyhow::Result<()> {
        let Self {
            control,
            server,
            stop,
            shared,
        } = self;
        let Shared {
            recorder,
            approvals,
            sessions,
            cluster,
            told,
            ..
        } = shared;
        server.run(RunArgs {
            shutdown_signal: Box::new(stop),
        });
        control.block_on(async {
            // What is still pending has no owner any more.
            approvals.orphan_all().await;
            if let Some(cluster) = &cluster {
                cluster.close().await;
            }
            told.idle(LAST_MESSAGES).await;
            recorder
                .close()
                .await
                .context("the journal did not close in order")
        })?;
        let (opened, refused) = sessions.totals();
        tracing::info!(opened, refused, "stopped");
        control.shutdown_timeout(std::time::Duration::from_secs(2));
        Ok(())
    }
}

/// Reads what a start needs beside the configuration: the journal's key, whether it signed the
/// last checkpoint, and what is kept in the state directory. Makes, locks and changes nothing.
///
/// # Errors
/// A gateway would not start; the message says why.
pub fn examine(config: &Config, loss: Loss) -> anyhow::Result<()> {
    recorder::examine(&config.journal, &config.node, loss).context("the journal")?;
    Authenticator::open(&config.identity, &config.state)?;
    admin::people(config)?;
    Ok(())
}

/// The authenticator, the issuers whose tokens it accepts, and our own if there is one.
async fn identities(
    config: &Config,
) -> anyhow::Result<(Authenticator, Vec<Issuer>, Option<DevIssuer>)> {
    let mut identity = config.identity.clone();
    let mut dev_issuer = None;
    if let Some(dev) = &config.dev_issuer {
        let issuer = DevIssuer::start(dev)
            .await
            .context("the development issuer")?;
        identity = issuer.identity(&identity)?;
        dev_issuer = Some(issuer);
    }
    let authenticator = Authenticator::open(&identity, &config.state)?;
    for report in authenticator.warm().await {
        match report.keys {
            Ok(keys) => tracing::info!(issuer = %report.name, keys, "issuer's keys are here"),
            // Tokens of this issuer are refused until its keys come.
            Err(error) => {
                tracing::warn!(issuer = %report.name, %error, "issuer cannot be reached yet")
            }
        }
    }
    Ok((authenticator, identity.issuers, dev_issuer))
}

fn hold_limits(config: &Config) -> HoldLimits {
    HoldLimits {
        inline_wait_agent: config.hold.inline_wait_agent,
        inline_wait_person: config.hold.inline_wait_person,
        max_hold: config.hold.max_hold,
        max_hold_in_transaction: config.hold.max_hold_in_transaction,
        heartbeat: config.hold.heartbeat,
    }
}

/// pingora waits a fixed time and then leaves; our own stop waits for sessions, so
/// its times are short.
fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(5),
        pid_file: config.state.join("holdpoint.pid").display().to_string(),
        ..ServerConf::default()
    }
}

/// A directory that only we may enter.
fn private_dir(path: &PathBuf) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the state directory `{}`", path.display()))?;
    let mode = std::fs::metadata(path)?.mode();
    if mode & 0o077 != 0 {
        anyhow::bail!(
            "others may enter the state directory `{0}`: chmod 700 {0}",
            path.display()
        );
    }
    Ok(())
}

/// Listeners, files, reviewers' connections.
const OWN_DESCRIPTORS: u64 = 256;

/// Two for each session, as far as the system lets us: most give a process 1,024 until
/// it asks for more.
fn raise_descriptors(sessions: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let wanted = (sessions as u64)
        .saturating_mul(2)
        .saturating_add(OWN_DESCRIPTORS);
    let have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if have < wanted {
        tracing::warn!(
            have,
            wanted,
            "too few open files for `limits.max_sessions`: raise the hard limit (`LimitNOFILE=` of systemd)"
        );
    }
}

/// Memory holds credentials: no core file of it, and no debugger of the same user.
fn no_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps stay on");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "this process can be dumped");
    }
}
