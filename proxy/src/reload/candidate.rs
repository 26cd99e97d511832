//! All that the configuration names, opened and checked, before any of it counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use holdpoint_core::config::{Config, SecretRef, UpstreamTls};
use holdpoint_core::policy::{Policy, Surroundings};
use holdpoint_host::Plugin;

use super::read_enforced_rules;
use crate::notify::Channels;
use crate::on_call::Lists;
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
        let lists: Vec<&str> = config.review.on_call.keys().map(String::as_str).collect();
        policy.check_lists(&lists)?;
        if policy.wants_webauthn() && config.review.webauthn.is_none() {
            bail!(
                "rules ask for `webauthn = true`, and there is no `[review.webauthn]`: nobody \
                 could register a security key"
            );
        }
        // For its checks: bundles and URLs.
        Lists::new(config, &secrets).context("`[review.oncall]`")?;
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
        warnings.extend(ownerless(config, &policy));
        warnings.extend(policy.unmet(&surroundings(config, &plugins)));
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

fn surroundings<'a>(config: &'a Config, plugins: &'a Plugins) -> Surroundings<'a> {
    let targets = config.targets.values();
    let classes = plugins
        .iter()
        .flat_map(|plugin| plugin.descriptor().classes.iter());
    Surroundings {
        targets: config.targets.keys().map(String::as_str).collect(),
        tags: (targets.flat_map(|target| &target.tags))
            .map(String::as_str)
            .collect(),
        protocols: plugins.iter().map(Plugin::name).collect(),
        classes: classes.map(String::as_str).collect(),
        max_hold: config.hold.max_hold,
    }
}

/// Rules that leave a decision to owners who are not there.
fn ownerless(config: &Config, policy: &Policy) -> Vec<String> {
    let without = config
        .targets
        .iter()
        .filter(|(_, target)| target.owners.is_empty());
    let warn = |name: &str, rule: &str| {
        format!(
            "`{rule}` asks the owners of target `{name}`, which has none: what they alone would \
             decide is refused; set `owners` of the target"
        )
    };
    without
        .flat_map(|(name, _)| {
            let rules = policy.asks_owners(name);
            rules.into_iter().map(move |rule| warn(name, rule))
        })
        .collect()
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
    let lists = config.review.on_call.values();
    let lists = lists.filter_map(|list| list.secret.as_ref());
    for secret in targets.chain(webhooks).chain(integrations).chain(lists) {
        if let SecretRef::File(path) = secret {
            files.push(path.clone());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use holdpoint_core::policy::RuleFile;

    use super::*;

    #[test]
    fn a_rule_for_owners_of_a_target_that_has_none_is_warned_of() {
        let text = r#"[[identity.issuer]]
name = "a"
issuer = "https://a.example"
audiences = ["x"]
[target.owned]
protocol = "postgres"
address = "127.0.0.1:1"
user = "u"
owners = ["group:shop"]
[target.stray]
protocol = "postgres"
address = "127.0.0.1:1"
user = "u"
[listener.l]
listen = "127.0.0.1:6432"
target = "owned"
tls = { cert = "c", key = "k" }
[policy]
files = ["p.toml"]
"#;
        let config = Config::parse(text, "test", Path::new("/")).unwrap();
        let rules = RuleFile {
            name: "p".to_owned(),
            text: "[[rule]]\nname = \"x\"\nhold = { reviewers = [\"owner\"] }\n".to_owned(),
        };
        let policy = Policy::compile(&[rules], &config.issuer_names()).unwrap();
        let warnings = ownerless(&config, &policy);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("`p:x`") && warnings[0].contains("`stray`"));
    }
}
