//! From a file's bytes to a plugin that may be asked.
//!
//! In this order: size, pinned digest, compile, what it imports, what it
//! exports, what it says of itself. Each failure names the component's part and
//! leaves whatever was loaded before in place.

use std::sync::Arc;

use holdpoint_core::id::Digest;
use holdpoint_core::plugin::PluginError;
use wasmtime::component::Component;

use crate::bindings::StreamPluginPre;
use crate::engine::Engine;
use crate::guest::{self, Guest, NoAuth};
use crate::plugin::{Plugin, bounded};
use crate::{cache, convert};

/// All that a component may ask for, without the version.
const IMPORTS: [&str; 4] = [
    "holdpoint:plugin/types",
    "holdpoint:plugin/framing",
    "holdpoint:plugin/host",
    "holdpoint:plugin/upstream-auth",
];

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the component has {size} bytes; the limit is {limit}")]
    Large { size: usize, limit: usize },
    #[error(
        "the component's SHA-256 is {found}, but {expected} is pinned; if the change is wanted, \
         pin the new digest"
    )]
    Digest { expected: Digest, found: Digest },
    #[error("this is no WebAssembly component: {0}")]
    Compile(String),
    #[error(
        "the component imports `{0}`, which plugins do not get; build it for \
         wasm32-unknown-unknown, which has no WASI"
    )]
    Import(String),
    #[error(
        "the component does not fit the interface holdpoint:plugin@0.1.0: {0}; build it anew with \
         the SDK of this release"
    )]
    Interface(String),
    #[error("the plugin could not describe itself: {0}")]
    Describe(PluginError),
    #[error("the plugin's description makes no sense: {0}")]
    Descriptor(String),
}

impl Engine {
    /// Loads a component. Takes seconds for one that is not in the cache: call it
    /// off the request path.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, bytes: &[u8], pinned: Option<Digest>) -> Result<Plugin, LoadError> {
        if bytes.len() > self.limits.component {
            return Err(LoadError::Large {
                size: bytes.len(),
                limit: self.limits.component,
            });
        }
        let digest = Digest::of(bytes);
        if let Some(expected) = pinned
            && expected != digest
        {
            return Err(LoadError::Digest {
                expected,
                found: digest,
            });
        }
        let component = cache::compile(&self.wasm, self.cache.as_deref(), digest, bytes)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        check_imports(self, &component)?;
        let wrong = |error: wasmtime::Error| LoadError::Interface(format!("{error:#}"));
        let pre = guest::linker(&self.wasm)
            .and_then(|linker| linker.instantiate_pre(&component))
            .and_then(StreamPluginPre::new)
            .map_err(wrong)?;

        let unnamed: Arc<str> = Arc::from("(unnamed)");
        let mut store = Guest::store(self, &unnamed, Guest::live(Box::new(NoAuth)));
        let described = bounded(self, &unnamed, &mut store, self.limits.load, |store| {
            let plugin = pre.instantiate(&mut *store)?;
            plugin
                .holdpoint_plugin_stream_protocol()
                .call_describe(store)
        });
        let descriptor = convert::descriptor(described.map_err(LoadError::Describe)?)
            .map_err(LoadError::Descriptor)?;
        Ok(Plugin::new(self.clone(), digest, descriptor, pre))
    }
}

fn check_imports(engine: &Engine, component: &Component) -> Result<(), LoadError> {
    for (name, _) in component.component_type().imports(&engine.wasm) {
        let bare = name.split('@').next().unwrap_or(name);
        if !IMPORTS.contains(&bare) {
            return Err(LoadError::Import(name.to_owned()));
        }
    }
    Ok(())
}
