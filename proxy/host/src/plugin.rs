//! A loaded component, and how each call into it is bounded and accounted for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdpoint_core::command::Command;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{Descriptor, PluginError, Setup, UpstreamAuth};
use wasmtime::{Store, Trap};

use crate::bindings::{StreamPlugin, StreamPluginPre};
use crate::classifier::Classifier;
use crate::convert;
use crate::engine::{Budget, Engine};
use crate::guest::{Guest, NoAuth};
use crate::session::Session;

/// A loaded plugin. Cheap to clone; sessions keep the code they began with when
/// a newer version is loaded beside it.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    name: Arc<str>,
    digest: Digest,
    descriptor: Descriptor,
    pre: StreamPluginPre<Guest>,
    traps: AtomicU32,
}

impl Plugin {
    pub(crate) fn new(
        engine: Engine,
        digest: Digest,
        descriptor: Descriptor,
        pre: StreamPluginPre<Guest>,
    ) -> Self {
        let name = Arc::from(descriptor.name.as_str());
        let traps = AtomicU32::new(0);
        Self {
            inner: Arc::new(Inner {
                engine,
                name,
                digest,
                descriptor,
                pre,
                traps,
            }),
        }
    }

    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    pub fn descriptor(&self) -> &Descriptor {
        &self.inner.descriptor
    }

    /// How often an instance had to be given up since the plugin was loaded.
    pub fn traps(&self) -> u32 {
        self.inner.traps.load(Ordering::Relaxed)
    }

    /// Whether it takes no more sessions.
    pub fn is_quarantined(&self) -> bool {
        self.traps() >= self.inner.engine.limits.traps
    }

    /// An instance for one connection, with its own memory.
    ///
    /// # Errors
    /// The plugin is quarantined, or failed at once.
    pub fn session(
        &self,
        setup: Setup,
        auth: Box<dyn UpstreamAuth>,
    ) -> Result<Session, PluginError> {
        self.check()?;
        let mut store = self.store(auth);
        let setup = convert::setup(setup);
        let (plugin, resource) = self.call(&mut store, |store| {
            let plugin = self.inner.pre.instantiate(&mut *store)?;
            let session = plugin.holdpoint_plugin_stream_protocol().session();
            let resource = session.call_constructor(store, &setup)?;
            Ok((plugin, resource))
        })?;
        Ok(Session::new(self.clone(), store, plugin, resource))
    }

    /// What a command given as fields is, as a session would submit it. Each call
    /// has an instance of its own, so answers do not depend on earlier questions.
    ///
    /// # Errors
    /// `Fault` where the plugin does not understand the fields; otherwise as for
    /// a session.
    pub fn classify(&self, input: &[(String, Vec<u8>)]) -> Result<Command, PluginError> {
        self.check()?;
        let mut store = self.store(Box::new(NoAuth));
        let answer = self.call(&mut store, |store| {
            let plugin = self.inner.pre.instantiate(&mut *store)?;
            plugin
                .holdpoint_plugin_classifier()
                .call_classify(store, input)
        })?;
        let command = answer.map_err(|message| PluginError::Fault {
            plugin: self.name().to_owned(),
            message,
        })?;
        convert::command(command).map_err(|wrong| self.misbehaved(wrong))
    }

    /// For many commands in a row.
    pub fn classifier(&self) -> Classifier {
        Classifier::new(self.clone())
    }

    /// A fresh instance; a failure is not counted.
    pub(crate) fn instantiate(&self) -> Result<(Store<Guest>, StreamPlugin), PluginError> {
        let mut store = self.store(Box::new(NoAuth));
        let bindings = self.bounded(&mut store, |store| self.inner.pre.instantiate(store))?;
        Ok((store, bindings))
    }

    /// A bounded call of which a failure is not counted.
    pub(crate) fn bounded<T>(
        &self,
        store: &mut Store<Guest>,
        call: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        let Inner { engine, name, .. } = &*self.inner;
        bounded(engine, name, store, engine.limits.call, call)
    }

    fn check(&self) -> Result<(), PluginError> {
        if self.is_quarantined() {
            let (plugin, traps) = (self.name().to_owned(), self.traps());
            return Err(PluginError::Quarantined { plugin, traps });
        }
        Ok(())
    }

    fn store(&self, auth: Box<dyn UpstreamAuth>) -> Store<Guest> {
        Guest::store(&self.inner.engine, &self.inner.name, auth)
    }

    /// A bounded call; a failure counts against the plugin.
    pub(crate) fn call<T>(
        &self,
        store: &mut Store<Guest>,
        call: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        self.bounded(store, call).inspect_err(|_| self.count())
    }

    /// The plugin said what makes no sense; its instance is to be given up.
    pub(crate) fn misbehaved(&self, message: String) -> PluginError {
        self.count();
        PluginError::Misbehaved {
            plugin: self.name().to_owned(),
            message,
        }
    }

    fn count(&self) {
        let traps = self.inner.traps.fetch_add(1, Ordering::Relaxed) + 1;
        if traps == self.inner.engine.limits.traps {
            tracing::error!(
                plugin = self.name(),
                digest = %self.inner.digest,
                traps,
                "plugin is quarantined: it takes no more sessions until it is loaded anew"
            );
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.inner.name)
            .field("digest", &self.inner.digest)
            .field("traps", &self.traps())
            .finish_non_exhaustive()
    }
}

/// Calls into a guest within `cpu`, and sorts what may come of it. After an
/// error the store must not be used again.
pub(crate) fn bounded<T>(
    engine: &Engine,
    name: &str,
    store: &mut Store<Guest>,
    cpu: Duration,
    call: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
) -> Result<T, PluginError> {
    store.data_mut().budget = Budget::new(cpu);
    store.set_epoch_deadline(1);
    engine.ticker.wake();
    call(store).map_err(|error| {
        let plugin = name.to_owned();
        if store.data().budget.spent {
            let budget_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
            return PluginError::Deadline { plugin, budget_ms };
        }
        match error.downcast_ref::<Trap>() {
            // The trap alone: the frames around it are names that the guest chose.
            Some(trap) => PluginError::Trap {
                plugin,
                message: trap.to_string(),
            },
            None => PluginError::Misbehaved {
                plugin,
                message: error.root_cause().to_string(),
            },
        }
    })
}
