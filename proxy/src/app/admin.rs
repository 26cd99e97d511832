//! The admin listener, and who tells reviewers.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use holdpoint_core::config::{Admin, Config, Issuer, SecretRef};
use holdpoint_core::id::SessionId;
use holdpoint_core::policy::Judge;
use holdpoint_core::principal::{Identity, Principal};

use super::Shared;
use super::nodes::People;
use crate::api::{self, About, ApiParts, Integrations, LoginWay, Place, SessionView};
use crate::approvals::{Approvals, Others, PrincipalView, rfc3339};
use crate::cluster::Cluster;
use crate::console::{self, ConsoleParts, Health, PluginInForce, RulesInForce};
use crate::links::Links;
use crate::listener::ProtocolCell;
use crate::notify::{self, Channels, Inbox, Log};
use crate::recorder::State;
use crate::secrets::{self, Secrets};
use crate::security_keys::SecurityKeys;
use crate::session::{Rules, Sessions};
use crate::transport::ServerTls;

/// Starts the task that tells reviewers of what is held.
pub(super) fn start_notifying(
    config: &Config,
    inbox: Inbox,
    channels: &Channels,
    approvals: &Approvals,
) -> anyhow::Result<()> {
    for (name, slack) in channels.slack() {
        slack
            .remember(&config.state)
            .with_context(|| format!("slack:{name}"))?;
    }
    notify::spawn(
        inbox,
        channels.all().to_vec(),
        public_url(config),
        approvals.clone(),
    )
    .context("messages to reviewers")?;
    Ok(())
}

/// How reviewers are told, and how they answer.
pub(super) struct Telling {
    pub(super) channels: Channels,
    pub(super) log: Arc<Log>,
}

/// What is known of those who review.
pub(super) fn people(config: &Config) -> anyhow::Result<People> {
    Ok(People {
        links: Arc::new(links(config).context("links of chat accounts")?),
        keys: security_keys(config).context("security keys")?,
    })
}

/// Who stands behind accounts of the channels that take answers.
fn links(config: &Config) -> anyhow::Result<Links> {
    let each = config.review.slack.iter();
    let lasts = each.map(|(name, slack)| (format!("slack:{name}"), slack.link_lasts));
    Ok(Links::open(&config.state, lasts)?)
}

/// Where the configuration has them.
fn security_keys(config: &Config) -> anyhow::Result<Option<Arc<SecurityKeys>>> {
    let Some(rp) = &config.review.webauthn else {
        return Ok(None);
    };
    let keys = SecurityKeys::open(&config.state, rp.clone())?;
    Ok(Some(Arc::new(keys)))
}

/// Serves the admin listener on the control runtime.
pub(super) async fn start(
    admin: &Admin,
    socket: TcpListener,
    config: &Config,
    vault: &Secrets,
    shared: &Shared,
    in_force: Serving,
    telling: Telling,
) -> anyhow::Result<()> {
    let tls = match &admin.tls {
        None => None,
        Some((cert, key)) => {
            secrets::resolve(&SecretRef::File(key.clone())).context("the admin listener")?;
            Some(
                ServerTls::load(cert, key, None)
                    .context("the admin listener")?
                    .config(),
            )
        }
    };
    let listener = tokio::net::TcpListener::from_std(socket).context("the admin listener")?;
    let recorder = shared.recorder.clone();
    let sessions = Arc::clone(&shared.sessions);
    let clock = shared.clock;
    let ready = {
        let (recorder, sessions) = (recorder.clone(), Arc::clone(&sessions));
        move || match recorder.health().state {
            _ if sessions.is_draining() => Err("stopping".to_owned()),
            State::Ok | State::Degraded(_) => Ok(()),
            State::Full(why) | State::Failed(why) => Err(why),
            State::Stopped => Err("the journal is closed".to_owned()),
        }
    };
    let cluster = shared.cluster.clone();
    let told = Arc::clone(&telling.log);
    let counters = move || {
        let (accepted, given_up) = told.totals();
        let (opened, refused) = sessions.totals();
        let health = recorder.health();
        let mut counters = vec![
            ("sessions_opened_total".to_owned(), opened),
            ("sessions_refused_total".to_owned(), refused),
            ("journal_records_total".to_owned(), health.records),
            ("journal_syncs_total".to_owned(), health.syncs),
            ("notifications_delivered_total".to_owned(), accepted),
            ("notifications_undelivered_total".to_owned(), given_up),
        ];
        counters.extend(cluster.iter().flat_map(Cluster::counters));
        counters
    };
    let tokens: Arc<dyn api::Tokens> = Arc::new(shared.authenticator.clone());
    let live = live(&shared.sessions, config);
    let others = shared.cluster.clone();
    let others = others.map(|cluster| Arc::new(cluster) as Arc<dyn Others>);
    let People { links, keys } = shared.people.clone();
    let public_url = public_url(config);
    let router = api::router(ApiParts {
        approvals: shared.approvals.clone(),
        board: Arc::clone(&shared.board),
        tokens: Arc::clone(&tokens),
        integrations: integrations(config, vault)?,
        slack: telling.channels.slack(),
        links: Arc::clone(&links),
        told: telling.log,
        public_url: public_url.clone(),
        sessions: Arc::clone(&live),
        others: others.clone(),
        about: about(config, &shared.issuers),
        ready: Arc::new(ready),
        counters: Arc::new(counters),
        clock: Arc::new(move || clock.now()),
    });
    let console = console::router(ConsoleParts {
        approvals: Arc::clone(&shared.board),
        own: shared.approvals.clone(),
        tokens,
        sessions: live,
        others,
        issuers: (shared.issuers.iter())
            .map(|issuer| (issuer.clone(), vault.console(&issuer.name)))
            .collect(),
        public_url,
        links: (!config.review.slack.is_empty()).then_some(links),
        keys,
        journal: config.journal.dir.clone(),
        health: health(config, shared, in_force),
        clock: Arc::new(move || clock.now()),
    });
    let router = match console {
        Ok(console) => {
            if let Some(url) = self::public_url(config) {
                tracing::info!("web console at {url}/console");
            }
            router.merge(console)
        }
        Err(why) => {
            tracing::warn!(%why, "no web console");
            router
        }
    };
    tracing::info!(address = %admin.listen, tls = tls.is_some(), "admin API listening");
    tokio::spawn(async move {
        if let Err(error) = api::serve(listener, router, tls, std::future::pending()).await {
            tracing::error!(%error, "the admin API is gone");
        }
    });
    Ok(())
}

/// What new sessions get: the rules, and each target's plugin.
pub(super) struct Serving {
    pub(super) rules: Rules,
    /// By target.
    pub(super) protocols: Vec<(String, ProtocolCell)>,
}

/// Where browsers find the admin listener: where the configuration says, else on this machine.
pub(super) fn public_url(config: &Config) -> Option<String> {
    let set = config.review.public_url.clone();
    set.or_else(|| {
        let admin = config.admin.as_ref()?;
        let scheme = if admin.tls.is_some() { "https" } else { "http" };
        let here = admin.listen.ip().is_loopback();
        here.then(|| format!("{scheme}://{}", admin.listen))
    })
}

fn health(
    config: &Config,
    shared: &Shared,
    serving: Serving,
) -> Arc<dyn Fn() -> Health + Send + Sync> {
    let node = config.node.clone();
    let (recorder, sessions) = (shared.recorder.clone(), Arc::clone(&shared.sessions));
    Arc::new(move || {
        let health = recorder.health();
        let plugin = |(target, protocol): &(String, ProtocolCell)| {
            let used = protocol.load().used();
            PluginInForce {
                target: target.clone(),
                name: used.name,
                version: used.version,
                digest: used.digest,
            }
        };
        Health {
            node: node.clone(),
            journal: match health.state {
                State::Ok => Ok(()),
                State::Degraded(why) | State::Full(why) | State::Failed(why) => Err(why),
                State::Stopped => Err("it is closed".to_owned()),
            },
            stopping: sessions.is_draining(),
            records: health.records,
            syncs: health.syncs,
            head: recorder.head().to_string(),
            rules: rules_in_force(&***serving.rules.load()),
            plugins: serving.protocols.iter().map(plugin).collect(),
        }
    })
}

fn rules_in_force(policy: &dyn Judge) -> RulesInForce {
    let files = policy.sources().iter();
    RulesInForce {
        version: policy.version().to_owned(),
        files: files
            .map(|file| (file.name.clone(), file.text.clone()))
            .collect(),
        warnings: policy.warnings().to_vec(),
    }
}

fn integrations(config: &Config, secrets: &Secrets) -> anyhow::Result<Integrations> {
    let known = config
        .review
        .integrations
        .iter()
        .filter_map(|(name, integration)| {
            Some((
                name.clone(),
                integration.clone(),
                secrets.integration(name)?,
            ))
        });
    Integrations::new(known).map_err(anyhow::Error::msg)
}

fn about(config: &Config, issuers: &[Issuer]) -> About {
    let names = issuers.iter().map(|issuer| issuer.issuer.clone()).collect();
    let ways = issuers.iter().filter_map(|issuer| {
        let login = issuer.login.as_ref()?;
        Some(LoginWay {
            issuer: issuer.issuer.clone(),
            client_id: login.client_id.clone(),
            audience: login.audience.clone(),
            connect_scope: issuer.connect_scope.clone(),
            review_scope: issuer.review_scope.clone(),
        })
    });
    About::new(places(config), names, ways.collect())
}

fn places(config: &Config) -> Vec<Place> {
    let place = |listener: &holdpoint_core::config::Listener| {
        let target = config.targets.get(&listener.target)?;
        let ip = listener.listen.ip();
        Some(Place {
            name: listener.target.clone(),
            protocol: target.protocol.clone(),
            // On all addresses: wherever this document was found.
            host: (!ip.is_unspecified()).then(|| ip.to_string()),
            port: listener.listen.port(),
        })
    };
    config.listeners.values().filter_map(place).collect()
}

/// The sessions of this process, for the API and for other nodes.
pub(super) fn live(sessions: &Arc<Sessions>, config: &Config) -> Arc<dyn api::Sessions> {
    Arc::new(Live(Arc::clone(sessions), config.clone()))
}

struct Live(Arc<Sessions>, Config);

impl api::Sessions for Live {
    fn list(&self) -> Vec<SessionView> {
        let view = |info: crate::session::SessionInfo| {
            let principal: &Principal = info.principal.as_ref()?;
            let target = self.1.targets.get(&info.target);
            Some(SessionView {
                id: info.id.to_string(),
                principal: PrincipalView::from(principal),
                protocol: target
                    .map(|target| target.protocol.clone())
                    .unwrap_or_default(),
                target: info.target,
                source: info.source,
                opened_at: rfc3339(info.since.wall_ns),
                commands: info.commands,
                node: None,
                link: None,
            })
        };
        self.0.list().into_iter().filter_map(view).collect()
    }

    fn count(&self) -> usize {
        self.0.admitted()
    }

    fn revoke(&self, identity: &Identity) -> usize {
        self.0
            .revoke(|principal| principal.behind().any(|one| one == identity))
    }

    fn has(&self, id: &SessionId) -> bool {
        self.0.has(id)
    }

    fn kill(&self, id: &SessionId) -> bool {
        self.0.kill(id)
    }
}
