//! One run of cargo, shielded from the cargo that may be running us.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::toolchain::Toolchain;
use crate::{BuildError, TARGET};

/// The profile, so that a plugin's own workspace need not define it.
const PROFILE: [&str; 7] = [
    "profile.plugin.inherits=\"release\"",
    "profile.plugin.opt-level=3",
    "profile.plugin.lto=true",
    "profile.plugin.codegen-units=1",
    // A panic is a trap either way; this leaves the unwinder out.
    "profile.plugin.panic=\"abort\"",
    "profile.plugin.debug=false",
    "profile.plugin.strip=true",
];

/// What an outer cargo tells build scripts and what a plugin must not inherit:
/// its flags are for another target, and `cargo clippy` would have it linted.
const SHED: [&str; 10] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
];

/// How much of a failed compilation is repeated: its end names the cause.
const MAX_OUTPUT: usize = 8 * 1024;

/// Builds the crate and says where its module lies.
pub(crate) fn build(
    toolchain: &Toolchain,
    crate_dir: &Path,
    target_dir: &Path,
) -> Result<PathBuf, BuildError> {
    let (mut command, program) = prepare(toolchain);
    command
        .args(["build", "--profile", "plugin", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics", "--lib"])
        .args(PROFILE.iter().flat_map(|setting| ["--config", setting]))
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(crate_dir)
        .stdin(Stdio::null());
    if crate_dir
        .ancestors()
        .any(|dir| dir.join("Cargo.lock").exists())
    {
        // With all versions written down nothing is asked of the network but
        // sources that are missing here.
        command.arg("--locked");
    }
    let output = command.output().map_err(|source| BuildError::NoCargo {
        program: program.to_owned(),
        source,
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let from = text
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| text.len() - at <= MAX_OUTPUT);
        let output = text
            .get(from.unwrap_or(0)..)
            .unwrap_or_default()
            .trim()
            .to_owned();
        return Err(BuildError::Compile {
            crate_dir: crate_dir.to_owned(),
            output,
        });
    }
    module(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| BuildError::NoModule {
        crate_dir: crate_dir.to_owned(),
    })
}

fn prepare(toolchain: &Toolchain) -> (Command, &Path) {
    let (Toolchain::Ready { cargo } | Toolchain::FromSource { cargo, .. }) = toolchain;
    let mut command = Command::new(cargo);
    for name in SHED {
        command.env_remove(name);
    }
    if let Toolchain::FromSource { rustc, linker, .. } = toolchain {
        command
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTUP_TOOLCHAIN")
            .args(["-Zbuild-std=std,panic_abort", "--config"])
            // The distribution's compiler may be older than ours asks for; what a
            // plugin uses of the language is what it declares itself.
            .arg("resolver.incompatible-rust-versions=\"allow\"");
        if let Some(linker) = linker {
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
    }
    (command, cargo)
}

/// The last module that cargo reports: dependencies come first. A path is one
/// JSON string; it holds no quotes on any system that we build on.
fn module(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter(|line| line.contains("\"compiler-artifact\""))
        .flat_map(|line| line.split('"'))
        .rfind(|part| part.ends_with(".wasm"))
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_last_one_that_cargo_reports() {
        let messages = r#"{"reason":"compiler-artifact","filenames":["/t/dep.wasm"]}
{"reason":"compiler-artifact","filenames":["/t/mine.wasm","/t/libmine.rlib"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(module(messages), Some(PathBuf::from("/t/mine.wasm")));
        assert_eq!(module(r#"{"reason":"build-finished"}"#), None);
    }
}
