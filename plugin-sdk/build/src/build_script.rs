//! For the `build.rs` of the gateway: the plugins that it ships in its binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::{Component, build};

/// A directory of components built before: `NAME.wasm` each. For packagers whose
/// build machine has no WebAssembly target.
const PREBUILT: &str = "HOLDPOINT_PLUGINS";

/// Builds `plugins` (directories relative to the workspace at `root`) and writes
/// `OUT_DIR/shipped.rs`:
///
/// ```text
/// /// Name, component and its digest.
/// pub const SHIPPED: &[(&str, &[u8], &str)] = &[…];
/// ```
///
/// A plugin that cannot be built is left out with a warning, so that checking
/// and testing the rest goes on; a release without one is an error.
///
/// # Errors
/// In a release build, that of the first plugin that fails; in any build, that
/// `OUT_DIR` cannot be written.
pub fn build_shipped(root: &Path, plugins: &[&str]) -> Result<(), String> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let out = variable("OUT_DIR").ok_or("OUT_DIR is not set: this is for build scripts")?;
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let prebuilt = variable(PREBUILT);
    println!("cargo:rerun-if-env-changed={PREBUILT}");
    for input in [
        "Cargo.lock",
        "wit",
        "plugin-sdk/Cargo.toml",
        "plugin-sdk/src",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }

    let mut entries = String::new();
    for plugin in plugins {
        let crate_dir = root.join(plugin);
        println!("cargo:rerun-if-changed={}", crate_dir.display());
        let name = crate_dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let component = match &prebuilt {
            Some(dir) => take(&dir.join(&name).with_extension("wasm")),
            None => build(&crate_dir, &shared_dir(&out)).map_err(|error| error.to_string()),
        };
        let shipped = component.and_then(|component| {
            std::fs::copy(&component.path, out.join(&name).with_extension("wasm"))
                .map_err(|error| format!("{}: {error}", component.path.display()))?;
            Ok(component.digest)
        });
        match shipped {
            Ok(digest) => {
                let file = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.wasm\"))");
                let _ = writeln!(entries, "    ({name:?}, {file}, {digest:?}),");
            }
            Err(error) if release => return Err(error),
            Err(error) => {
                println!("cargo:warning=plugin `{name}` is left out of this build");
                for line in error.lines() {
                    println!("cargo:warning={line}");
                }
            }
        }
    }
    let text = format!(
        "/// Name, component and its digest.\n\
         pub const SHIPPED: &[(&str, &[u8], &str)] = &[\n{entries}];\n"
    );
    let path = out.join("shipped.rs");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn take(path: &Path) -> Result<Component, String> {
    println!("cargo:rerun-if-changed={}", path.display());
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Component {
        path: path.to_owned(),
        digest: crate::digest(&bytes),
    })
}

/// `target/plugins` of the outer build: one place for all its profiles, since
/// plugins are built the same way in each. Cargo marks its target directory.
fn shared_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .unwrap_or(out)
        .join("plugins")
}
