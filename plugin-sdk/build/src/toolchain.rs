//! Finds a compiler that can build for WebAssembly.
//!
//! First the one in use, if it has the target's standard library. Otherwise the
//! distribution's, which builds the library from source. Its cargo must be of
//! the same origin, so both are called by their full paths.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TARGET;

/// Where to look.
#[derive(Debug)]
pub(crate) struct Places {
    /// The compiler in use, and its cargo.
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    /// The folder of the distribution's programs.
    pub(crate) distribution: PathBuf,
}

impl Places {
    pub(crate) fn of_this_machine() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Self {
            rustc: variable("RUSTC").unwrap_or_else(|| "rustc".into()),
            cargo: variable("CARGO").unwrap_or_else(|| "cargo".into()),
            distribution: "/usr/bin".into(),
        }
    }
}

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

pub(crate) fn find(places: &Places) -> Option<Toolchain> {
    if has_library(&places.rustc) {
        return Some(Toolchain::Ready {
            cargo: places.cargo.clone(),
        });
    }
    distribution(places)
}

/// The distribution's compiler, where the library's sources are there as well.
pub(crate) fn distribution(places: &Places) -> Option<Toolchain> {
    let (cargo, rustc) = (
        places.distribution.join("cargo"),
        places.distribution.join("rustc"),
    );
    if !cargo.exists() {
        return None;
    }
    let sources =
        Path::new(&ask(&rustc, &["--print", "sysroot"])?).join("lib/rustlib/src/rust/library/std");
    sources.is_dir().then(|| Toolchain::FromSource {
        linker: linker(&rustc, &places.rustc),
        cargo,
        rustc,
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
fn linker(distribution: &Path, in_use: &Path) -> Option<PathBuf> {
    let of = |rustc: &Path| {
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
        let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
        hosts
            .flatten()
            .map(|host| host.path().join("bin/rust-lld"))
            .find(|path| path.exists())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = |name: &str| {
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|path| path.exists())
    };
    of(distribution)
        .or_else(|| of(in_use))
        .or_else(|| named("rust-lld"))
        .or_else(|| {
            // Debian's names carry a version. An old linker does not read what a
            // newer compiler writes, so its own version goes first.
            let version = llvm_version(&ask(distribution, &["-vV"])?)?;
            named(&format!("wasm-ld-{version}"))
        })
        .or_else(|| named("wasm-ld"))
}

/// The major version in what `rustc -vV` says.
fn llvm_version(said: &str) -> Option<u32> {
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn ask(rustc: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(rustc).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A machine with these parts, in a directory of its own.
    struct Machine {
        root: PathBuf,
    }

    impl Machine {
        fn new(name: &str) -> Self {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../target/tmp")
                .join(format!("toolchain-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).unwrap();
            Self { root }
        }

        /// A compiler in `dir/bin` that says where its things are.
        fn compiler(&self, dir: &str, libraries: &[&str]) -> PathBuf {
            let sysroot = self.root.join(dir);
            let bin = sysroot.join("bin");
            fs::create_dir_all(&bin).unwrap();
            for library in libraries {
                let path = sysroot.join(library);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let at = sysroot.display();
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in\n\
                 \"--print sysroot\") echo {at} ;;\n\
                 \"--print target-libdir --target {TARGET}\") echo {at}/{TARGET} ;;\n\
                 *) exit 1 ;;\nesac\n"
            );
            for program in ["rustc", "cargo"] {
                let path = bin.join(program);
                fs::write(&path, &script).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            bin
        }

        fn places(&self, in_use: &Path) -> Places {
            Places {
                rustc: in_use.join("rustc"),
                cargo: in_use.join("cargo"),
                distribution: self.root.join("usr/bin"),
            }
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    const LIBRARY: &str = "wasm32-unknown-unknown/libcore-0123.rlib";
    const SOURCES: &str = "lib/rustlib/src/rust/library/std/Cargo.toml";
    const LINKER: &str = "lib/rustlib/any-host/bin/rust-lld";

    #[test]
    fn a_compiler_with_the_target_is_used_whatever_else_is_there() {
        let machine = Machine::new("ready");
        let in_use = machine.compiler("rustup", &[LIBRARY]);
        machine.compiler("usr", &[SOURCES]);
        let cargo = in_use.join("cargo");
        assert_eq!(
            find(&machine.places(&in_use)),
            Some(Toolchain::Ready { cargo })
        );
    }

    #[test]
    fn without_the_target_the_distribution_builds_it_with_the_linker_at_hand() {
        let machine = Machine::new("source");
        let in_use = machine.compiler("rustup", &[LINKER]);
        let bin = machine.compiler("usr", &[SOURCES]);
        let expected = Toolchain::FromSource {
            cargo: bin.join("cargo"),
            rustc: bin.join("rustc"),
            linker: Some(machine.root.join("rustup").join(LINKER)),
        };
        assert_eq!(find(&machine.places(&in_use)), Some(expected));
    }

    #[test]
    fn a_distributions_compiler_without_sources_is_of_no_use() {
        let machine = Machine::new("neither");
        let in_use = machine.compiler("rustup", &[]);
        assert_eq!(find(&machine.places(&in_use)), None);
        machine.compiler("usr", &[]);
        assert_eq!(find(&machine.places(&in_use)), None);
    }

    #[test]
    fn the_linker_is_of_the_compilers_own_version() {
        assert_eq!(
            llvm_version("release: 1.96.0\nLLVM version: 22.1.8"),
            Some(22)
        );
        assert_eq!(llvm_version("release: 1.96.0"), None);
    }
}
