//! All that the configuration names, opened and checked, before any of it counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use holdpoint_core::config::{Config, SecretRef, UpstreamTls};
use holdpoint_core::policy::Policy;
use holdpoint_host::Plugin;

use super::read_enforced_rules;
use crate::notify::Channels;
use crate::plugins::Plugins;
use crate::secrets::{self, Secrets};
use crate::session::Route;
use crate::transport::{ClientTls, ServerTls};

/// What would come into force.
pub struct Candidate {
    pub policy: Arc<Policy>,
    pub plugins: Plugins,
    pub secrets: Secrets,
    /// Opened, so that mistakes show; those in use stay until a restart.
    pub channels: Channels,
    entries: BTreeMap<String, Entry>,
    warnings: Vec<String>,
}

/// One listener's part.
#[derive(Clone)]
pub struct Entry {
    pub route: Arc<Route>,
    pub plugin: Plugin,
}

impl Candidate {
    /// Opens everything; binds and changes nothing.
    ///
    /// # Errors
    /// Something cannot be used; the message says what and how to mend it.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let policy = Arc::new(read_enforced_rules(config)?);
        let plugins = Plugins::load(config)?;
        let secrets = Secrets::load(config)?;
        let channels = Channels::open(config, &secrets)?;
        let mut entries = BTreeMap::new();
        for (name, listener) in &config.listeners {
            let target = config
                .targets
                .get(&listener.target)
                .ok_or_else(|| anyhow!("listener `{name}` leads to no target"))?;
            let plugin = plugins.get(&target.protocol).ok_or_else(|| {
                anyhow!(
                    "target `{}` needs plugin `{}`",
                    listener.target,
                    target.protocol
                )
            })?;
            // For its checks: a key that others may read is no secret.
            secrets::resolve(&SecretRef::File(listener.key.clone()))
                .with_context(|| format!("listener `{name}`"))?;
            let alpn = plugin.descriptor().direct_tls_alpn.as_deref();
            let tls = ServerTls::load(&listener.cert, &listener.key, alpn)
                .with_context(|| format!("listener `{name}`"))?;
            let upstream_tls = match &target.tls {
                UpstreamTls::Off => None,
                UpstreamTls::Verify { ca } => {
                    let tls = ClientTls::load(&target.host, ca.as_deref())
                        .with_context(|| format!("target `{}`", listener.target))?;
                    Some(tls)
                }
            };
            let route = Arc::new(Route {
                listener: name.clone(),
                name: listener.target.clone(),
                target: target.clone(),
                tls,
                upstream_tls,
            });
            entries.insert(
                name.clone(),
                Entry {
                    route,
                    plugin: plugin.clone(),
                },
            );
        }
        let mut warnings = policy.warnings().to_vec();
        warnings.extend(odd(config));
        Ok(Self {
            policy,
            plugins,
            secrets,
            channels,
            entries,
            warnings,
        })
    }

    /// What is odd, but no mistake.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }
}

fn odd(config: &Config) -> Vec<String> {
    let mut odd = Vec::new();
    if config.dev_issuer.is_some() {
        odd.push(
            "the development issuer is on: whoever reaches loopback can be anybody".to_owned(),
        );
    }
    if !config.review.tells() {
        odd.push(
            "no `[[review.webhook]]` or other channel: nobody is told of held commands, \
             reviewers have to look"
                .to_owned(),
        );
    }
    if config.admin.is_none() {
        odd.push("no `[admin]`: nobody can decide held commands".to_owned());
    }
    for (name, target) in &config.targets {
        if target.password.is_none() {
            odd.push(format!(
                "target `{name}` has no password: whoever reaches it gets in as `{}`",
                target.user
            ));
        }
        if !config
            .listeners
            .values()
            .any(|listener| listener.target == *name)
        {
            odd.push(format!("no listener leads to target `{name}`"));
        }
    }
    odd
}

/// Every file whose change is to be noticed.
pub(super) fn files(config: &Config, path: PathBuf) -> Vec<PathBuf> {
    let mut files = vec![path];
    files.extend(config.policies.iter().cloned());
    files.extend(
        config
            .plugins
            .values()
            .filter_map(|plugin| plugin.path.clone()),
    );
    for listener in config.listeners.values() {
        files.extend([listener.cert.clone(), listener.key.clone()]);
    }
    let targets = config
        .targets
        .values()
        .filter_map(|target| target.password.as_ref());
    let webhooks = config.review.webhooks.iter().map(|webhook| &webhook.secret);
    let integrations = config
        .review
        .integrations
        .values()
        .map(|integration| &integration.secret);
    for secret in targets.chain(webhooks).chain(integrations) {
        if let SecretRef::File(path) = secret {
            files.push(path.clone());
        }
    }
    files
}
