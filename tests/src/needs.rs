//! Clients that a machine may lack.
//!
//! A test asks for what it needs; where that is missing it is *skipped*: said on
//! standard error, and a failure when `CI` is set, so that no green run hides it.

use std::path::{Path, PathBuf};

/// Finds a program of PostgreSQL in the distribution's folders or on `PATH`.
pub fn postgres_program(name: &str) -> Option<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .collect();
    versions.sort_by_key(|path| version_of(path));
    versions.pop().or_else(|| program(name))
}

fn version_of(path: &Path) -> u32 {
    path.components()
        .filter_map(|part| part.as_os_str().to_str()?.parse().ok())
        .next()
        .unwrap_or(0)
}

/// Finds a program on `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The python with the drivers that `scripts/setup` installed.
pub fn python_drivers() -> Option<PathBuf> {
    let path = workspace().join("target/drivers/bin/python");
    path.is_file().then_some(path)
}

/// Node and the packages of the independent issuer that `scripts/setup` installed.
pub fn node_issuer() -> Option<(PathBuf, PathBuf)> {
    let modules = workspace().join("target/node-drivers/node_modules");
    modules
        .join("oidc-provider")
        .is_dir()
        .then_some((program("node")?, modules))
}

/// Node and the driver packages that `scripts/setup` installed.
pub fn node_drivers() -> Option<(PathBuf, PathBuf)> {
    let modules = workspace().join("target/node-postgres/node_modules");
    modules
        .join("pg")
        .is_dir()
        .then_some((program("node")?, modules))
}

/// The program with sqlx that `scripts/setup` built.
pub fn sqlx_driver() -> Option<PathBuf> {
    let path = workspace().join("target/sqlx-driver/debug/holdpoint-test-sqlx");
    path.is_file().then_some(path)
}

/// Node, the packages that drive a browser, and Chromium, as `scripts/setup` installed them.
pub fn browser() -> Option<(PathBuf, PathBuf, PathBuf)> {
    let modules = workspace().join("target/node-browser/node_modules");
    let chromium = ["chromium-headless-shell", "chromium", "google-chrome"];
    let chromium = chromium.iter().find_map(|name| program(name))?;
    modules
        .join("puppeteer-core")
        .is_dir()
        .then_some((program("node")?, modules, chromium))
}

/// The programs of a PostgreSQL version that `scripts/setup` installed.
pub fn postgres_version(major: u32) -> Option<PathBuf> {
    let modules = workspace().join("target/node-postgres/node_modules");
    let native = modules.join(format!("postgresql-{major}/native"));
    native.join("bin/postgres").is_file().then_some(native)
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Says that a test is skipped, or fails it where skipping is not accepted.
#[track_caller]
pub fn skip(missing: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{missing} is missing, and with CI set a skipped test is a failure"
    );
    eprintln!("skipped: {missing} is missing (run scripts/setup test)");
}

/// `let Some(python) = need!(python_drivers(), "psycopg") else { return };`
#[macro_export]
macro_rules! need {
    ($found:expr, $name:literal) => {{
        let found = $found;
        if found.is_none() {
            $crate::needs::skip($name);
        }
        found
    }};
}
