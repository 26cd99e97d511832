//! Compiled plugins, handed from one test's gateway to the next: compiling takes
//! seconds, and each gateway has a state directory of its own.
//!
//! The gateway names a file by what its code depends on and checks its sum, so one
//! of another build is never taken.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::{gateway, random};

/// Where a gateway keeps them, below its own directory.
pub(crate) const INSIDE: &str = ".holdpoint/plugins";

fn shared() -> PathBuf {
    gateway::binary().with_file_name("compiled-plugins")
}

/// Puts what is there into a new gateway's directory.
pub(crate) fn bring(to: &Path) {
    copy(&shared(), to);
}

/// Keeps what a gateway has compiled.
pub(crate) fn keep(from: &Path) {
    copy(from, &shared());
}

fn copy(from: &Path, to: &Path) {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(to);
    made.unwrap();
    for file in fs::read_dir(from).into_iter().flatten().flatten() {
        let place = to.join(file.file_name());
        let whole = file
            .path()
            .extension()
            .is_some_and(|ending| ending == "cwasm");
        if !whole || place.exists() {
            continue;
        }
        // Others may look meanwhile: a file is there whole or not at all.
        let part = to.join(random::hex(8));
        if fs::copy(file.path(), &part).is_ok() {
            let _ = fs::rename(&part, &place);
        }
    }
}
