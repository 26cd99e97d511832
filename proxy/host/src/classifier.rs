//! Many commands classified by one instance, outside any session.
//!
//! Making an instance costs several times what judging an ordinary statement
//! does. An answer must still not depend on earlier questions, so the instance
//! is given up after a failure and, since its memory only grows, every so often.
//! Failures are not counted against the plugin: who feeds a file of texts made
//! to exhaust a parser wants an answer for each.

use holdpoint_core::command::Command;
use holdpoint_core::plugin::PluginError;
use wasmtime::Store;

use crate::bindings::StreamPlugin;
use crate::convert;
use crate::guest::Guest;
use crate::plugin::Plugin;

/// Questions after which an instance is replaced.
const LIFE: u32 = 1000;

pub struct Classifier {
    plugin: Plugin,
    instance: Option<Instance>,
}

struct Instance {
    store: Store<Guest>,
    bindings: StreamPlugin,
    left: u32,
}

impl Classifier {
    pub(crate) fn new(plugin: Plugin) -> Self {
        Self {
            plugin,
            instance: None,
        }
    }

    /// What a command does. See `Plugin::classify`.
    ///
    /// # Errors
    /// `Fault` where the plugin does not understand the fields; otherwise as for
    /// a session. The next question is answered either way.
    pub fn classify(&mut self, input: &[(String, Vec<u8>)]) -> Result<Command, PluginError> {
        let mut instance = match self.instance.take().filter(|instance| instance.left > 0) {
            Some(instance) => instance,
            None => {
                let (store, bindings) = self.plugin.instantiate()?;
                Instance {
                    store,
                    bindings,
                    left: LIFE,
                }
            }
        };
        instance.left -= 1;
        let Instance {
            store, bindings, ..
        } = &mut instance;
        let answer = self.plugin.call(store, |store| {
            bindings
                .holdpoint_plugin_classifier()
                .call_classify(store, input)
        })?;
        let command = match answer {
            Ok(command) => {
                convert::command(command).map_err(|message| PluginError::Misbehaved {
                    plugin: self.plugin.name().to_owned(),
                    message,
                })?
            }
            Err(message) => {
                self.instance = Some(instance);
                return Err(PluginError::Fault {
                    plugin: self.plugin.name().to_owned(),
                    message,
                });
            }
        };
        self.instance = Some(instance);
        Ok(command)
    }
}
