//! Notices changes, on SIGHUP and in the files themselves, and brings them into force.
//!
//! Rules, plugins, certificates and secrets change while connections go on: a
//! session takes new rules before its next command and judges a held one again; new
//! sessions get new plugins, certificates and passwords. Listeners, targets'
//! addresses, identities and limits need a restart, and are said to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use holdpoint_core::config::Config;
use holdpoint_core::policy::Judge;
use holdpoint_core::record::{Durability, Entry as Record, NewRecord};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::candidate::{Candidate, Entry, files};
use super::read_config;
use crate::clock::Clock;
use crate::listener::{ProtocolCell, RouteCell};
use crate::recorder::Recorder;
use crate::secrets::Secrets;
use crate::session::{Protocol, Rules, Sessions};

/// Editors write a file in several steps.
const SETTLE: Duration = Duration::from_millis(250);

/// The cells that sessions and listeners read from.
pub struct InForce {
    rules: Rules,
    sessions: Arc<Sessions>,
    secrets: Secrets,
    listeners: BTreeMap<String, Cells>,
    /// How a plugin becomes what listeners use.
    protocol: fn(&holdpoint_host::Plugin) -> Arc<dyn Protocol>,
}

struct Cells {
    route: RouteCell,
    protocol: ProtocolCell,
}

impl InForce {
    pub fn new(
        rules: Rules,
        sessions: Arc<Sessions>,
        secrets: Secrets,
        protocol: fn(&holdpoint_host::Plugin) -> Arc<dyn Protocol>,
    ) -> Self {
        Self {
            rules,
            sessions,
            secrets,
            listeners: BTreeMap::new(),
            protocol,
        }
    }

    /// Makes a listener's cells, for the listener to read from.
    pub fn add(&mut self, name: &str, entry: &Entry) -> (RouteCell, ProtocolCell) {
        let route = Arc::new(ArcSwap::new(Arc::clone(&entry.route)));
        let protocol = Arc::new(ArcSwap::from_pointee((self.protocol)(&entry.plugin)));
        let cells = Cells {
            route: Arc::clone(&route),
            protocol: Arc::clone(&protocol),
        };
        self.listeners.insert(name.to_owned(), cells);
        (route, protocol)
    }

    /// Nothing here can fail: what could was done when the candidate was read.
    fn take(&self, candidate: &Candidate) {
        self.secrets.replace(&candidate.secrets);
        for (name, cells) in &self.listeners {
            if let Some(entry) = candidate.entries().get(name) {
                cells.route.store(Arc::clone(&entry.route));
                cells
                    .protocol
                    .store(Arc::new((self.protocol)(&entry.plugin)));
            }
        }
        // Last: a session that sees new rules sees the rest as well.
        let judge = Arc::clone(&candidate.policy) as Arc<dyn Judge>;
        self.rules.store(Arc::new(judge));
        self.sessions.rules_changed();
    }
}

/// SIGHUP has an ear from here on: until then it ends the process. What comes before the
/// [`Reloader`] starts is answered then.
pub struct Hangup(Signal);

impl Hangup {
    /// Needs a runtime that lives as long as this.
    ///
    /// # Errors
    /// The signal cannot be waited for.
    pub fn listen() -> anyhow::Result<Self> {
        let signal = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        Ok(Self(signal))
    }
}

/// Watches, and reloads.
pub struct Reloader {
    path: PathBuf,
    /// What the running listeners were built from.
    config: Config,
    in_force: InForce,
    recorder: Recorder,
    clock: Clock,
}

impl Reloader {
    pub fn new(
        path: PathBuf,
        config: Config,
        in_force: InForce,
        recorder: Recorder,
        clock: Clock,
    ) -> Self {
        Self {
            path,
            config,
            in_force,
            recorder,
            clock,
        }
    }

    /// Begins to watch, in a task of its own.
    ///
    /// # Errors
    /// Files cannot be watched.
    pub fn start(self, hangup: Hangup) -> anyhow::Result<()> {
        let Hangup(mut hangup) = hangup;
        let (told, mut changes) = mpsc::channel(1);
        let mut watched = Watched::new(told)?;
        let path = std::path::absolute(&self.path)?;
        watched.follow(files(&self.config, path.clone()));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => {}
                    change = changes.recv() => {
                        if change.is_none() {
                            return;
                        }
                        tokio::time::sleep(SETTLE).await;
                        while changes.try_recv().is_ok() {}
                    }
                }
                self.reload(&mut watched, &path).await;
            }
        });
        Ok(())
    }

    async fn reload(&self, watched: &mut Watched, file: &Path) {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_config(&path)).await;
        let (config, candidate) = match read.map_err(anyhow::Error::new).and_then(|read| read) {
            Ok(config) => {
                // Before they are read, so that no change goes unseen; and also of a set that is
                // refused, since a file that it names is where the mistake is mended.
                watched.follow(files(&config, file.to_owned()));
                // Compiling a plugin takes seconds.
                let read = tokio::task::spawn_blocking(move || {
                    let candidate = Candidate::read(&config);
                    (config, candidate)
                });
                match read.await {
                    Ok((config, candidate)) => (Some(config), candidate),
                    Err(error) => (None, Err(error.into())),
                }
            }
            Err(error) => (None, Err(error)),
        };
        match candidate {
            Ok(candidate) => {
                for warning in candidate.warnings() {
                    tracing::warn!("{warning}");
                }
                for what in config
                    .iter()
                    .flat_map(|new| needs_restart(&self.config, new))
                {
                    tracing::warn!("{what} changed: that takes a restart");
                }
                // Recorded first, as everything that changes what may run.
                let version = candidate.policy.version().to_owned();
                let entry = Record::Reload {
                    what: "all".to_owned(),
                    policy: version.clone(),
                    plugins: candidate.plugins.used(),
                    accepted: true,
                    message: None,
                };
                if let Err(error) = self.record(entry).await {
                    tracing::error!(%error, "the change cannot be recorded, so it does not count");
                    return;
                }
                self.in_force.take(&candidate);
                tracing::info!("rules {version} in force");
            }
            Err(error) => {
                tracing::error!("the old set stays in force: {error:#}");
                let entry = Record::Reload {
                    what: "all".to_owned(),
                    policy: self.in_force.rules.load().version().to_owned(),
                    plugins: Vec::new(),
                    accepted: false,
                    message: Some(format!("{error:#}")),
                };
                if let Err(error) = self.record(entry).await {
                    tracing::error!(%error, "that a reload was refused is not recorded");
                }
            }
        }
    }

    async fn record(&self, entry: Record) -> Result<(), crate::recorder::JournalError> {
        let record = NewRecord {
            session: None,
            at: self.clock.now(),
            entry,
            blob: bytes::Bytes::new(),
        };
        self.recorder
            .write(record, Durability::Synced)
            .await
            .map(|_| ())
    }
}

/// What a reload does not take over.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let show = |config: &Config, part: &str| -> String {
        match part {
            "`node`" => config.node.clone(),
            "`state`" => format!("{:?}", config.state),
            "listeners" => format!("{:?}", config.listeners),
            "identities" => format!("{:?}{:?}", config.identity, config.dev_issuer),
            "hold limits" => format!("{:?}", config.hold),
            "limits" => format!("{:?}", config.limits),
            "the admin listener" => format!("{:?}", config.admin),
            "the store" => format!("{:?}", config.store),
            "channels and integrations" => format!("{:?}", config.review),
            _ => format!("{:?}", config.journal),
        }
    };
    let parts = [
        "`node`",
        "`state`",
        "listeners",
        "identities",
        "hold limits",
        "limits",
        "the admin listener",
        "the store",
        "channels and integrations",
        "the journal",
    ];
    parts
        .into_iter()
        .filter(|part| show(old, part) != show(new, part))
        .collect()
}

/// Files are watched by way of their folders: editors replace files.
struct Watched {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
    files: Arc<ArcSwap<BTreeSet<PathBuf>>>,
}

impl Watched {
    fn new(told: mpsc::Sender<()>) -> anyhow::Result<Self> {
        let files: Arc<ArcSwap<BTreeSet<PathBuf>>> = Arc::default();
        let ours = Arc::clone(&files);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = match event {
                Ok(event) if event.kind.is_access() => false,
                Ok(event) => event.paths.iter().any(|path| concerns(&ours.load(), path)),
                // Something was missed: look.
                Err(_) => true,
            };
            if concerns {
                // Full: a look is due anyway.
                let _ = told.try_send(());
            }
        })
        .context("cannot watch files")?;
        Ok(Self {
            watcher,
            folders: BTreeSet::new(),
            files,
        })
    }

    fn follow(&mut self, files: Vec<PathBuf>) {
        for folder in files.iter().filter_map(|file| file.parent()) {
            if self.folders.contains(folder) {
                continue;
            }
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder.to_path_buf())),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "cannot watch; SIGHUP still reloads")
                }
            }
        }
        self.files.store(Arc::new(files.into_iter().collect()));
    }
}

/// Whether a change of `path` may change one of our files: itself, or what a link
/// beside it leads to, as Kubernetes' `..data` does.
fn concerns(files: &BTreeSet<PathBuf>, path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("..data"));
    files.contains(path) || (hidden && files.iter().any(|file| file.parent() == path.parent()))
}
