//! A loaded component, and how each call into it is bounded and accounted for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdpoint_core::command::Command;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{Descriptor, PluginError, Setup, UpstreamAuth};
use wasmtime::{Store, Trap};

use crate::bindings::{StreamPlugin, StreamPluginPre};
use crate::classifier::Classifier;
use crate::convert;
use crate::engine::{Budget, Engine};
use crate::faults::Faults;
use crate::guest::{Answers, Guest, Login, NoAuth};
use crate::session::{Instance, Session};

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
    faults: Faults,
}

impl Plugin {
    pub(crate) fn new(
        engine: Engine,
        digest: Digest,
        descriptor: Descriptor,
        pre: StreamPluginPre<Guest>,
    ) -> Self {
        let name = Arc::from(descriptor.name.as_str());
        Self {
            inner: Arc::new(Inner {
                engine,
                name,
                digest,
                descriptor,
                pre,
                faults: Faults::default(),
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

    /// Whether nobody gets a session any more.
    pub fn is_quarantined(&self) -> bool {
        self.inner.faults.principals() >= self.limit() as usize
    }

    fn limit(&self) -> u32 {
        self.inner.engine.limits.faults
    }

    /// An instance for one connection, with its own memory.
    ///
    /// # Errors
    /// The plugin failed at once.
    pub fn session(
        &self,
        setup: Setup,
        auth: Box<dyn UpstreamAuth>,
    ) -> Result<Session, PluginError> {
        let instance = self.instance(setup.clone(), Guest::live(auth))?;
        Ok(Session::new(self.clone(), setup, instance))
    }

    pub(crate) fn instance(
        &self,
        setup: Setup,
        login: (Login, Answers),
    ) -> Result<Instance, PluginError> {
        let mut store = self.store(login);
        let setup = convert::setup(setup);
        let (plugin, session) = self.call(&mut store, |store| {
            let plugin = self.inner.pre.instantiate(&mut *store)?;
            let guest = plugin.holdpoint_plugin_stream_protocol().session();
            let session = guest.call_constructor(store, &setup)?;
            Ok((plugin, session))
        })?;
        Ok(Instance {
            store,
            plugin,
            session,
        })
    }

    /// Whether a session can begin with these settings.
    ///
    /// # Errors
    /// `Fault` where the plugin does not take them; otherwise as for a session.
    pub fn tries(&self, setup: Setup) -> Result<(), PluginError> {
        self.session(setup, Box::new(NoAuth))?.open().map(drop)
    }

    /// What a command given as fields is, as a session would submit it. Each call
    /// has an instance of its own, so answers do not depend on earlier questions.
    ///
    /// # Errors
    /// `Fault` where the plugin does not understand the fields; otherwise as for
    /// a session.
    pub fn classify(&self, input: &[(String, Vec<u8>)]) -> Result<Command, PluginError> {
        let mut store = self.store(Guest::live(Box::new(NoAuth)));
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

    /// A fresh instance.
    pub(crate) fn instantiate(&self) -> Result<(Store<Guest>, StreamPlugin), PluginError> {
        let mut store = self.store(Guest::live(Box::new(NoAuth)));
        let bindings = self.call(&mut store, |store| self.inner.pre.instantiate(store))?;
        Ok((store, bindings))
    }

    /// Whether this principal may have a session.
    pub(crate) fn admit(&self, who: &Digest) -> Result<(), PluginError> {
        let plugin = || self.name().to_owned();
        if self.is_quarantined() {
            let (plugin, principals) = (plugin(), self.inner.faults.principals());
            return Err(PluginError::Quarantined { plugin, principals });
        }
        let faults = self.inner.faults.of(who);
        if faults >= self.limit() {
            let plugin = plugin();
            return Err(PluginError::ShutOut { plugin, faults });
        }
        Ok(())
    }

    fn store(&self, login: (Login, Answers)) -> Store<Guest> {
        Guest::store(&self.inner.engine, &self.inner.name, login)
    }

    /// A bounded call.
    pub(crate) fn call<T>(
        &self,
        store: &mut Store<Guest>,
        call: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        let Inner { engine, name, .. } = &*self.inner;
        bounded(engine, name, store, engine.limits.call, call)
    }

    /// The plugin said what makes no sense; its instance is to be given up.
    pub(crate) fn misbehaved(&self, message: String) -> PluginError {
        PluginError::Misbehaved {
            plugin: self.name().to_owned(),
            message,
        }
    }

    /// An instance had to be given up in a session of `who`.
    pub(crate) fn failed_for(&self, who: Digest) {
        let was = self.is_quarantined();
        let principals = self.inner.faults.count(who);
        if !was && self.is_quarantined() {
            tracing::error!(
                plugin = self.name(),
                digest = %self.inner.digest,
                principals,
                "plugin is quarantined: it takes no more sessions until it is loaded anew"
            );
        } else if self.inner.faults.of(&who) == self.limit() {
            tracing::error!(
                plugin = self.name(),
                digest = %self.inner.digest,
                "plugin keeps failing for one principal, which gets no more sessions until it is \
                 loaded anew"
            );
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.inner.name)
            .field("digest", &self.inner.digest)
            .field("faults", &self.inner.faults)
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
    let _running = engine.ticker.call();
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
