//! The plugins in force: those that this binary carries, and an operator's own.
//!
//! Loading compiles, which takes seconds for a component that is not in the cache,
//! so it happens at start and at reload, never for a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdpoint_core::config::{self, Config};
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{PluginError, Setup};
use holdpoint_core::record::PluginUsed;
use holdpoint_host::{Engine, EngineError, Limits, LoadError, Plugin};

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Where compiled components are kept, below the state directory.
const CACHE: &str = "plugins";

#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    #[error(
        "there is no plugin `{name}`: this binary carries {shipped}; another one needs `[plugin.{name}]` with its `path`"
    )]
    Missing { name: String, shipped: String },
    #[error("cannot read plugin `{name}` from `{}`: {cause}", path.display())]
    Read {
        name: String,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("`plugin.{name}.sha256` is not a SHA-256 in hex")]
    Pin { name: String },
    #[error("plugin `{name}`: {cause}")]
    Load { name: String, cause: LoadError },
    #[error("plugin `{name}` calls itself `{said}`: name its settings and targets so")]
    Name { name: String, said: String },
    #[error("`[target.{target}.settings]`: plugin `{plugin}` does not take them: {cause}")]
    Settings {
        target: String,
        plugin: String,
        cause: String,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// By name. Immutable: a reload makes another one.
#[derive(Clone, Default)]
pub struct Plugins(BTreeMap<String, Plugin>);

impl Plugins {
    /// Loads what the targets need and what the configuration names.
    ///
    /// # Errors
    /// One of them is missing or cannot be used; none is in force then.
    pub fn load(config: &Config) -> Result<Self, PluginsError> {
        let mut names: BTreeSet<&String> = config
            .targets
            .values()
            .map(|target| &target.protocol)
            .collect();
        names.extend(config.plugins.keys());
        let cache = config.state.join(CACHE);
        let mut loaded = BTreeMap::new();
        for name in names {
            let plugin = load(name, config.plugins.get(name), Some(&cache), data(config))?;
            tracing::info!(plugin = %name, digest = %plugin.digest(), version = %plugin.descriptor().version, "plugin loaded");
            loaded.insert(name.clone(), plugin);
        }
        let loaded = Self(loaded);
        for (name, target) in &config.targets {
            loaded.takes_settings(name, target)?;
        }
        Ok(loaded)
    }

    /// A session that is opened and thrown away: the plugin says what it makes of
    /// a target's settings.
    fn takes_settings(&self, name: &str, target: &config::Target) -> Result<(), PluginsError> {
        let Some(plugin) = self.get(&target.protocol) else {
            return Ok(());
        };
        let settings = &target.settings;
        let setup = Setup {
            settings: settings
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            client_tls: true,
            entropy: [0; 32],
        };
        plugin.tries(setup).map_err(|error| PluginsError::Settings {
            target: name.to_owned(),
            plugin: target.protocol.clone(),
            cause: match error {
                PluginError::Fault { message, .. } => message,
                other => other.to_string(),
            },
        })
    }

    pub fn get(&self, name: &str) -> Option<&Plugin> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Plugin> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For the record.
    pub fn used(&self) -> Vec<PluginUsed> {
        self.0.values().map(used).collect()
    }
}

/// How a plugin is named in records.
pub fn used(plugin: &Plugin) -> PluginUsed {
    PluginUsed {
        name: plugin.name().to_owned(),
        version: plugin.descriptor().version.clone(),
        digest: plugin.digest().to_string(),
    }
}

/// A plugin that this binary carries, outside of any gateway. Its compiled form is
/// kept in the user's cache directory, where there is one.
///
/// # Errors
/// There is none of that name.
pub fn shipped(name: &str) -> Result<Plugin, PluginsError> {
    load(
        name,
        None,
        user_cache().as_deref(),
        4 * Limits::default().data,
    )
}

/// The plugin of a target, outside of any gateway: with the configuration's settings of it.
///
/// # Errors
/// It is missing or cannot be used.
pub fn configured(name: &str, config: &Config) -> Result<Plugin, PluginsError> {
    let cache = user_cache();
    load(
        name,
        config.plugins.get(name),
        cache.as_deref(),
        data(config),
    )
}

fn load(
    name: &str,
    wanted: Option<&config::Plugin>,
    cache: Option<&Path>,
    data: usize,
) -> Result<Plugin, PluginsError> {
    let wanted = wanted.cloned().unwrap_or_default();
    let limits = Limits {
        call: wanted.cpu_budget,
        memory: usize::try_from(wanted.memory).unwrap_or(usize::MAX),
        data,
        ..Limits::default()
    };
    let wrong = |_| PluginsError::Pin {
        name: name.to_owned(),
    };
    let pinned = wanted
        .sha256
        .map(|text| text.parse::<Digest>())
        .transpose()
        .map_err(wrong)?;
    let bytes: Arc<[u8]> = match &wanted.path {
        Some(path) => fs::read(path)
            .map_err(|cause| PluginsError::Read {
                name: name.to_owned(),
                path: path.clone(),
                cause,
            })?
            .into(),
        None => {
            let found = SHIPPED.iter().find(|(shipped, ..)| *shipped == name);
            let (_, bytes, _) = found.ok_or_else(|| missing(name))?;
            Arc::from(*bytes)
        }
    };
    let plugin = Engine::new(limits, cache.map(Path::to_path_buf))?
        .load(&bytes, pinned)
        .map_err(|cause| PluginsError::Load {
            name: name.to_owned(),
            cause,
        })?;
    if plugin.name() != name {
        return Err(PluginsError::Name {
            name: name.to_owned(),
            said: plugin.name().to_owned(),
        });
    }
    Ok(plugin)
}

/// What one answer of a plugin may hold: the largest command, of which text, values
/// and what the digest covers may each be given once, and its facts.
fn data(config: &Config) -> usize {
    let most = usize::try_from(config.limits.max_command).unwrap_or(usize::MAX);
    most.saturating_mul(3)
        .saturating_add(Limits::default().data)
}

fn missing(name: &str) -> PluginsError {
    let shipped: Vec<_> = SHIPPED
        .iter()
        .map(|(name, ..)| format!("`{name}`"))
        .collect();
    let shipped = if shipped.is_empty() {
        "none".to_owned()
    } else {
        shipped.join(", ")
    };
    PluginsError::Missing {
        name: name.to_owned(),
        shipped,
    }
}

fn user_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    base.is_absolute()
        .then(|| base.join("holdpoint").join(CACHE))
}
