//! `holdpoint.toml`, from text to what the program uses.
//!
//! [`raw`] mirrors the file, `resolve` fills in defaults and checks what
//! needs more than one key, [`Config`] is what remains: nothing in it can be
//! wrong, except that files and addresses may not exist, which only IO can tell. Printed
//! with `{}`, a [`Config`] is the effective file.

mod effective;
mod model;
mod raw;
#[cfg(test)]
pub(crate) mod reference_tests;
mod resolve;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;

use std::collections::BTreeMap;
use std::path::Path;

pub use crate::source::{Problem, Problems as ConfigErrors};
pub use model::*;

use crate::source::Source;

impl Config {
    /// Reads the text of the file `name`, which lies in `dir`.
    pub fn parse(text: &str, name: &str, dir: &Path) -> Result<Self, ConfigErrors> {
        let (source, raw) = Source::read(name, text)?;
        resolve::resolve(raw, &source, dir)
    }

    /// Issuers' names and their URLs, the development issuer among them.
    pub fn issuer_names(&self) -> BTreeMap<String, String> {
        let dev = self
            .dev_issuer
            .iter()
            .map(|dev| (DevIssuer::NAME.to_owned(), dev.issuer()));
        self.identity
            .issuers
            .iter()
            .map(|issuer| (issuer.name.clone(), issuer.issuer.clone()))
            .chain(dev)
            .collect()
    }
}

/// The JSON Schema of `holdpoint.toml`, as kept in `docs/holdpoint.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(raw::Root)
}
