//! A file of the state directory that says who may act: ours alone, and always whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::secrets::{SecretError, check_file};

const MAX_FILE: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("cannot use `{}`: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Unsafe(#[from] SecretError),
    #[error("`{}` is not as holdpoint wrote it: {cause}; without it, what it kept is to be made anew", path.display())]
    Content { path: PathBuf, cause: String },
}

/// What another node keeps in a file of its own, as it said last. A later word has a greater
/// number, so that an old one that somebody puts back is not taken for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FromNode<T> {
    pub(crate) number: u64,
    pub(crate) items: Vec<T>,
}

/// What is kept at `path`; `None` where nothing is.
///
/// # Errors
/// The file is not ours alone, or not as we wrote it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    let failed = |cause| StateFileError::File {
        path: path.to_owned(),
        cause,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    // Whoever could write it could be anybody.
    check_file(&file, path)?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    let value = serde_json::from_slice(&text).map_err(|e| StateFileError::Content {
        path: path.to_owned(),
        cause: e.to_string(),
    })?;
    Ok(Some(value))
}

/// Whole and beside the old one first, so that no crash leaves half of it.
///
/// # Errors
/// It could not be written; the old one stays.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), StateFileError> {
    let failed = |cause| StateFileError::File {
        path: path.to_owned(),
        cause,
    };
    let text = serde_json::to_vec_pretty(value).map_err(|e| failed(e.into()))?;
    let beside = path.with_extension("json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)
}
