//! Builds a plugin crate for WebAssembly and wraps it as a component.
//!
//! Two steps: cargo, for the target [`TARGET`], and wit-component, which needs no tool
//! installed. Where the target's standard library is missing and rustup cannot
//! be asked, a distribution's compiler builds it from the library's sources.
//!
//! Limits: the crate must be a `cdylib`, and it inherits nothing of the outer
//! build but its jobserver. The result depends on the compiler: two compilers
//! give two digests.

mod build_script;
mod cargo;
mod toolchain;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use wit_component::ComponentEncoder;

pub use build_script::build_shipped;
use toolchain::{Places, Toolchain};

/// Has no WASI, so that a component made of it imports only what it says.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A component that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub path: PathBuf,
    /// SHA-256 of the file, in lower-case hex: what a configuration pins.
    pub digest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "this machine cannot build for {TARGET}: run `rustup target add {TARGET}`, or install a \
         compiler with its library's sources (Debian: rustc-web, cargo-web, rust-web-src; and lld, \
         where no rustup toolchain is there)"
    )]
    NoTarget,
    #[error("cargo could not be started ({program}): {source}")]
    NoCargo { program: PathBuf, source: io::Error },
    #[error("the plugin in {} does not compile:\n{output}", crate_dir.display())]
    Compile { crate_dir: PathBuf, output: String },
    #[error(
        "the crate in {} gave no WebAssembly module: its Cargo.toml needs \
         `[lib] crate-type = [\"cdylib\", \"rlib\"]`",
        crate_dir.display()
    )]
    NoModule { crate_dir: PathBuf },
    #[error(
        "{} is no component: {reason} (does the crate call `holdpoint_plugin::stream_plugin!`?)",
        module.display()
    )]
    Componentize { module: PathBuf, reason: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

impl BuildError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Builds the plugin in `crate_dir` and writes `out_dir/NAME.wasm`, NAME being
/// the directory's. Cargo works in `out_dir/cargo`: a directory of its own, for
/// the outer cargo, which may be waiting for us, holds the lock on its own.
///
/// # Errors
/// See [`BuildError`]; each says what to do.
pub fn build(crate_dir: &Path, out_dir: &Path) -> Result<Component, BuildError> {
    let crate_dir = crate_dir
        .canonicalize()
        .map_err(BuildError::file(crate_dir))?;
    std::fs::create_dir_all(out_dir).map_err(BuildError::file(out_dir))?;
    let toolchain = toolchain::find(&Places::of_this_machine()).ok_or(BuildError::NoTarget)?;
    build_with(&toolchain, &crate_dir, out_dir)
}

fn build_with(
    toolchain: &Toolchain,
    crate_dir: &Path,
    out_dir: &Path,
) -> Result<Component, BuildError> {
    let module = cargo::build(toolchain, crate_dir, &out_dir.join("cargo"))?;
    let component = componentize(&module)?;
    let name = crate_dir.file_name().unwrap_or(module.as_os_str());
    let path = out_dir.join(name).with_extension("wasm");
    write(&path, &component)?;
    Ok(Component {
        path,
        digest: digest(&component),
    })
}

/// Wraps a module, which carries its own description of its interface.
///
/// # Errors
/// The file cannot be read or describes no component.
pub fn componentize(module: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = std::fs::read(module).map_err(BuildError::file(module))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| BuildError::Componentize {
            module: module.to_owned(),
            reason: format!("{error:#}"),
        })
}

/// Leaves an equal file alone, so that nothing which depends on it is stale, and
/// shows no half-written one. Several processes, and threads of one, may write
/// the same path at once: each has a part of its own.
fn write(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    static PARTS: AtomicU64 = AtomicU64::new(0);
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let part = path.with_extension(format!(
        "part-{}-{}",
        std::process::id(),
        PARTS.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(BuildError::file(path))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_write_one_component_at_once_all_succeed() {
        let dir = std::env::temp_dir().join(format!("holdpoint-build-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("plugin.wasm");
        for round in 0..50_u8 {
            let _ = std::fs::remove_file(&path);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| write(&path, &[round; 4096]).unwrap());
                }
            });
            assert_eq!(std::fs::read(&path).unwrap(), [round; 4096]);
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "no part stays");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Takes minutes the first time: the standard library is built along.
    #[test]
    fn a_distributions_compiler_builds_the_shipped_plugins() {
        let Some(toolchain) = toolchain::distribution(&Places::of_this_machine()) else {
            eprintln!("skipped: no distribution's compiler with library sources is here");
            return;
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let out = root.join("target/plugins-distribution");
        std::fs::create_dir_all(&out).unwrap();
        for plugin in ["plugins/echo", "plugins/postgres"] {
            let crate_dir = root.join(plugin).canonicalize().unwrap();
            let component = build_with(&toolchain, &crate_dir, &out).unwrap();
            let bytes = std::fs::read(&component.path).unwrap();
            assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0");
        }
    }
}
