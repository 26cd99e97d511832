//! Compiled code on disk: a start with it takes milliseconds, without it seconds.
//!
//! Loading compiled code trusts it like our own, so a file counts only if it
//! and its directory belong to us and nobody else may write or read them, and if
//! it still has the checksum it was written with. Anything else is compiled
//! anew; the cache never makes a load fail.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use holdpoint_core::id::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Others' bits of a mode.
const OTHERS: u32 = 0o077;
const SUM: usize = 32;

/// Compiles, or takes what was compiled before.
pub(crate) fn compile(
    engine: &Engine,
    dir: Option<&Path>,
    digest: Digest,
    bytes: &[u8],
) -> wasmtime::Result<Component> {
    let Some(path) = dir.and_then(|dir| usable(dir).then(|| file(engine, dir, digest))) else {
        return Component::from_binary(engine, bytes);
    };
    if let Some(component) = take(engine, &path) {
        return Ok(component);
    }
    let code = engine.precompile_component(bytes)?;
    if let Err(error) = put(&path, &code) {
        tracing::warn!(path = %path.display(), %error, "compiled plugin could not be cached");
    }
    load(engine, &code)
}

/// The name says what the code depends on: the component, wasmtime and its settings.
fn file(engine: &Engine, dir: &Path, digest: Digest) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    dir.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
}

fn usable(dir: &Path) -> bool {
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        tracing::warn!(path = %dir.display(), %error, "plugin cache cannot be made");
        return false;
    }
    let ours = fs::symlink_metadata(dir).is_ok_and(|data| data.is_dir() && is_ours(&data));
    if !ours {
        tracing::warn!(
            path = %dir.display(),
            "plugin cache is not used: it must be a directory of ours that only we can open (mode 0700)"
        );
    }
    ours
}

fn is_ours(data: &fs::Metadata) -> bool {
    data.uid() == rustix::process::geteuid().as_raw() && data.mode() & OTHERS == 0
}

fn take(engine: &Engine, path: &Path) -> Option<Component> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(no_link)
        .open(path)
        .ok()?;
    let data = file.metadata().ok()?;
    if !data.is_file() || !is_ours(&data) {
        tracing::warn!(path = %path.display(), "cached plugin is not ours alone; compiling anew");
        return None;
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).ok()?;
    let (sum, code) = content.split_at_checked(SUM)?;
    if Digest::of(code).0 != sum {
        tracing::warn!(path = %path.display(), "cached plugin is damaged; compiling anew");
        return None;
    }
    load(engine, code).ok()
}

fn put(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    // A leftover of a crashed process with our id.
    let _ = fs::remove_file(&part);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|file| fill(file, code))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn fill(mut file: File, code: &[u8]) -> std::io::Result<()> {
    file.write_all(&Digest::of(code).0)?;
    file.write_all(code)?;
    file.sync_all()
}

#[allow(
    unsafe_code,
    reason = "the one place where compiled code is taken from memory"
)]
fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` was made by `precompile_component`, in this call or by a
    // process of ours: only we can write to the file and its directory, and its
    // checksum held. wasmtime refuses code of another version or configuration.
    unsafe { Component::deserialize(engine, code) }
}
