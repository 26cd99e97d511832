//! Finds a compiler that can build for WebAssembly.
//!
//! First the one in use, if it has the target's standard library. Otherwise the
//! distribution's, which builds the library from source. Its cargo must be of
//! the same origin, so both are called by their full paths.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TARGET;

const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The target's library is installed.
    Ready { cargo: PathBuf },
    /// The library is built along with the plugin.
    FromSource {
        cargo: PathBuf,
        rustc: PathBuf,
        /// Absent where the compiler is left to find its own.
        linker: Option<PathBuf>,
    },
}

pub(crate) fn find() -> Option<Toolchain> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let rustc = variable("RUSTC").unwrap_or_else(|| "rustc".into());
    if has_library(&rustc) {
        return Some(Toolchain::Ready {
            cargo: variable("CARGO").unwrap_or_else(|| "cargo".into()),
        });
    }
    let (cargo, rustc) = (Path::new(DISTRIBUTION_CARGO), Path::new(DISTRIBUTION_RUSTC));
    if !cargo.exists() || !rustc.exists() {
        return None;
    }
    let sources =
        Path::new(&ask(rustc, &["--print", "sysroot"])?).join("lib/rustlib/src/rust/library/std");
    sources.is_dir().then(|| Toolchain::FromSource {
        cargo: cargo.to_owned(),
        rustc: rustc.to_owned(),
        linker: linker(rustc),
    })
}

fn has_library(rustc: &Path) -> bool {
    ask(rustc, &["--print", "target-libdir", "--target", TARGET])
        .and_then(|dir| std::fs::read_dir(dir).ok())
        .is_some_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libcore-") && name.ends_with(".rlib")
            })
        })
}

/// Distributions package the linker apart from the compiler, or not at all; then
/// the one of a rustup toolchain does.
fn linker(distribution: &Path) -> Option<PathBuf> {
    let of = |rustc: &Path| {
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
        let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
        hosts
            .flatten()
            .map(|host| host.path().join("bin/rust-lld"))
            .find(|path| path.exists())
    };
    of(distribution)
        .or_else(|| of(Path::new("rustc")))
        .or_else(|| {
            std::env::split_paths(&std::env::var_os("PATH")?)
                .flat_map(|dir| [dir.join("rust-lld"), dir.join("wasm-ld")])
                .find(|path| path.exists())
        })
}

fn ask(rustc: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(rustc).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
