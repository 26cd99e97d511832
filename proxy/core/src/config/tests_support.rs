//! What tests of configuration and of rules share: files of the repository, and their expected form.

#![allow(
    clippy::disallowed_methods,
    reason = "tests compare with files in the repository"
)]

use std::path::{Path, PathBuf};

/// Set to write what tests expect in place of comparing.
pub(crate) fn bless() -> bool {
    std::env::var("HOLDPOINT_BLESS").is_ok()
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A page of the documentation.
#[track_caller]
pub(crate) fn page(name: &str) -> String {
    std::fs::read_to_string(repository().join("docs").join(name)).unwrap()
}

#[track_caller]
pub(crate) fn same(path: &Path, now: &str) {
    if bless() {
        std::fs::write(path, now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        now,
        kept,
        "`{}` differs; HOLDPOINT_BLESS=1 writes it anew",
        path.display()
    );
}

#[track_caller]
pub(crate) fn fresh(name: &str, schema: &schemars::Schema) {
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    same(&repository().join("docs").join(name), &text);
}
