//! Takes changed rules, plugins, certificates and secrets into force.
//!
//! A candidate is read and validated whole before anything changes; a broken one
//! leaves the old set in force and says so, in the log and in the journal.

mod candidate;
mod watch;

pub use candidate::{Candidate, Entry};
pub use watch::{Hangup, InForce, Reloader};

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use holdpoint_core::config::Config;
use holdpoint_core::policy::{Policy, RuleFile};

/// Reads and checks `holdpoint.toml`.
///
/// # Errors
/// It cannot be read, others may write it, or it is wrong; the message shows the place.
pub fn read_config(path: &Path) -> anyhow::Result<Config> {
    let path = std::path::absolute(path)?;
    let text = read_trusted(&path)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    Ok(Config::parse(&text, &path.display().to_string(), dir)?)
}

/// Reads and compiles the rules that a gateway enforces: whoever can write them
/// decides, so nobody else may.
///
/// # Errors
/// As for [`read_config`].
pub fn read_enforced_rules(config: &Config) -> anyhow::Result<Policy> {
    compile(&config.policies, &config.issuer_names(), read_trusted)
}

/// Reads and compiles rule files to try them out, in order.
///
/// # Errors
/// One cannot be read or is wrong; the message shows the place.
pub fn read_rules(files: &[PathBuf], issuers: &BTreeMap<String, String>) -> anyhow::Result<Policy> {
    compile(files, issuers, read_text)
}

fn compile(
    files: &[PathBuf],
    issuers: &BTreeMap<String, String>,
    read: fn(&Path) -> anyhow::Result<String>,
) -> anyhow::Result<Policy> {
    let mut rules = Vec::with_capacity(files.len());
    for path in files {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        rules.push(RuleFile {
            name,
            text: read(path)?,
        });
    }
    Ok(Policy::compile(&rules, issuers)?)
}

/// Reads a text file.
///
/// # Errors
/// The message names it.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Reads a file that decides what is allowed.
fn read_trusted(path: &Path) -> anyhow::Result<String> {
    let mut file =
        fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        bail!("`{}` is not a file", path.display());
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        bail!(
            "`{}` belongs to user {}: it must belong to root or to whoever runs holdpoint",
            path.display(),
            meta.uid()
        );
    }
    if meta.mode() & 0o022 != 0 {
        bail!(
            "others may write `{}`: chmod go-w {}",
            path.display(),
            path.display()
        );
    }
    let mut text = String::new();
    file.read_to_string(&mut text)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(text)
}
