//! Where tokens are kept between commands: one file, which nobody else may read.
//!
//! `tokens.json` lies in `$HOLDPOINT_HOME`, or else `$XDG_STATE_HOME/holdpoint`, or else
//! `~/.local/state/holdpoint`. It is replaced as a whole, under a lock that also makes
//! sure that a refresh token is used by one process alone. A file or a folder that belongs
//! to somebody else, or that others may use, is refused rather than mended: who could read it
//! has the tokens already.
//!
//! Limits: the file is as safe as the account. Whatever runs as the same user, an agent
//! too, can read it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdpoint_core::secret::Secret;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::secrets::{SecretError, check_file};

const VERSION: u32 = 1;
const MAX_FILE: u64 = 1 << 20;

/// Somebody else refreshes: that takes one request.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Purpose {
    /// To connect to targets.
    Connect,
    /// To decide on held commands.
    Review,
}

/// What came of one sign-in, and how to go on with it.
#[derive(Clone)]
pub(in crate::cli) struct Kept {
    pub(in crate::cli) issuer: String,
    pub(in crate::cli) client_id: String,
    pub(in crate::cli) audience: Option<String>,
    pub(in crate::cli) purpose: Purpose,
    /// The gateway that it is shown to; `None` for any.
    pub(in crate::cli) server: Option<String>,
    /// Of the issuer's TLS.
    pub(in crate::cli) ca: Option<PathBuf>,
    pub(in crate::cli) scopes: Vec<String>,
    /// For people to read.
    pub(in crate::cli) who: Option<String>,
    pub(in crate::cli) access: Secret,
    /// Unix seconds.
    pub(in crate::cli) issued: u64,
    pub(in crate::cli) expires: u64,
    pub(in crate::cli) refresh: Option<Secret>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("issuer", &self.issuer)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// As it lies in the file.
#[derive(Serialize, Deserialize)]
struct Line {
    issuer: String,
    client_id: String,
    audience: Option<String>,
    purpose: Purpose,
    server: Option<String>,
    ca: Option<PathBuf>,
    scopes: Vec<String>,
    who: Option<String>,
    access_token: String,
    issued_at: u64,
    expires_at: u64,
    refresh_token: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Tokens {
    version: u32,
    tokens: Vec<Line>,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum CacheError {
    #[error("no place to keep tokens: set HOLDPOINT_HOME or HOME")]
    NoPlace,
    #[error("cannot use `{}`: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("tokens are not read from where others may reach them: {0}")]
    Unsafe(#[from] SecretError),
    #[error(
        "others may change `{}` (mode {mode:04o}), where tokens are kept: `chmod 700 {}`",
        path.display(), path.display()
    )]
    Folder { path: PathBuf, mode: u32 },
    #[error("`{}` belongs to another user: set HOLDPOINT_HOME to a folder of yours", .0.display())]
    Foreign(PathBuf),
    #[error("`{}` is not what this holdpoint writes; remove it and log in again", .0.display())]
    Content(PathBuf),
    #[error("another holdpoint has held `{}` for {} s; try again", .0.display(), LOCK_WAIT.as_secs())]
    Busy(PathBuf),
}

/// The place, which need not exist yet.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(in crate::cli) fn find() -> Result<Self, CacheError> {
        let set = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let dir = set("HOLDPOINT_HOME")
            .or_else(|| set("XDG_STATE_HOME").map(|path| path.join("holdpoint")))
            .or_else(|| set("HOME").map(|path| path.join(".local/state/holdpoint")))
            .ok_or(CacheError::NoPlace)?;
        Ok(Self { dir })
    }

    #[cfg(test)]
    fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("tokens.json")
    }

    /// What is kept; nothing where there is no file.
    pub(in crate::cli) fn read(&self) -> Result<Vec<Kept>, CacheError> {
        let path = self.path();
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        self.check_folder()?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(bits(flags))
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(CacheError::Io { path, cause }),
        };
        check_file(&file, &path)?;
        let mut text = Vec::new();
        file.take(MAX_FILE)
            .read_to_end(&mut text)
            .map_err(|cause| CacheError::Io {
                path: path.clone(),
                cause,
            })?;
        // The parser's message could quote a token.
        let read: Result<Tokens, _> = serde_json::from_slice(&text);
        drop(Secret::new(text));
        match read {
            Ok(tokens) if tokens.version == VERSION => {
                Ok(tokens.tokens.into_iter().map(Kept::from).collect())
            }
            _ => Err(CacheError::Content(path)),
        }
    }

    /// Waits until nobody else changes it.
    pub(in crate::cli) async fn lock(&self) -> Result<Locked<'_>, CacheError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir);
        made.map_err(|cause| CacheError::Io {
            path: self.dir.clone(),
            cause,
        })?;
        self.check_folder()?;
        let path = self.dir.join("tokens.lock");
        let io = |cause| CacheError::Io {
            path: path.clone(),
            cause,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(bits(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(&path)
            .map_err(io)?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Locked {
                        cache: self,
                        _file: file,
                    });
                }
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(CacheError::Busy(path)),
                Err(error) => return Err(io(error.into())),
            }
        }
    }

    fn check_folder(&self) -> Result<(), CacheError> {
        let about = fs::metadata(&self.dir).map_err(|cause| CacheError::Io {
            path: self.dir.clone(),
            cause,
        })?;
        if about.uid() != rustix::process::geteuid().as_raw() {
            return Err(CacheError::Foreign(self.dir.clone()));
        }
        let mode = about.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(CacheError::Folder {
                path: self.dir.clone(),
                mode,
            });
        }
        Ok(())
    }
}

/// The one process that may change it, until dropped.
#[derive(Debug)]
pub(in crate::cli) struct Locked<'a> {
    cache: &'a Cache,
    _file: File,
}

impl Locked<'_> {
    pub(in crate::cli) fn read(&self) -> Result<Vec<Kept>, CacheError> {
        self.cache.read()
    }

    /// Replaces what is kept, all or nothing.
    pub(in crate::cli) fn write(&self, kept: Vec<Kept>) -> Result<(), CacheError> {
        let path = self.cache.path();
        let fresh = self.cache.dir.join("tokens.json.new");
        let tokens = Tokens {
            version: VERSION,
            tokens: kept.iter().map(Line::from).collect(),
        };
        let text = serde_json::to_vec(&tokens).map_err(|_| CacheError::Content(path.clone()))?;
        let text = Secret::new(text);
        let write = || -> io::Result<()> {
            // Left by one that died; we have the lock.
            if let Err(error) = fs::remove_file(&fresh)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(text.expose())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.cache.dir)?.sync_all()
        };
        write().map_err(|cause| CacheError::Io {
            path: path.clone(),
            cause,
        })
    }

    /// Puts this in place of what was kept for the same.
    pub(in crate::cli) fn keep(&self, fresh: Kept) -> Result<(), CacheError> {
        let mut all = self.read()?;
        all.retain(|kept| !kept.is_for_same(&fresh));
        all.push(fresh);
        self.write(all)
    }
}

impl Kept {
    /// Whether one takes the other's place.
    pub(in crate::cli) fn is_for_same(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.client_id == other.client_id
            && self.audience == other.audience
            && self.purpose == other.purpose
            && self.server == other.server
            && self.scopes == other.scopes
    }

    pub(in crate::cli) fn left(&self, now: u64) -> u64 {
        self.expires.saturating_sub(now)
    }

    /// Close enough to its end that a command could outlive it.
    pub(in crate::cli) fn is_stale(&self, now: u64) -> bool {
        let life = self.expires.saturating_sub(self.issued);
        self.left(now) <= (life / 3).min(60)
    }
}

impl From<Line> for Kept {
    fn from(line: Line) -> Self {
        Self {
            issuer: line.issuer,
            client_id: line.client_id,
            audience: line.audience,
            purpose: line.purpose,
            server: line.server,
            ca: line.ca,
            scopes: line.scopes,
            who: line.who,
            access: line.access_token.into(),
            issued: line.issued_at,
            expires: line.expires_at,
            refresh: line.refresh_token.map(Secret::from),
        }
    }
}

impl From<&Kept> for Line {
    fn from(kept: &Kept) -> Self {
        let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
        Self {
            issuer: kept.issuer.clone(),
            client_id: kept.client_id.clone(),
            audience: kept.audience.clone(),
            purpose: kept.purpose,
            server: kept.server.clone(),
            ca: kept.ca.clone(),
            scopes: kept.scopes.clone(),
            who: kept.who.clone(),
            access_token: text(&kept.access),
            issued_at: kept.issued,
            expires_at: kept.expires,
            refresh_token: kept.refresh.as_ref().map(text),
        }
    }
}

fn bits(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let mut random = [0; 8];
            getrandom::fill(&mut random).unwrap();
            let name = format!("holdpoint-cache-{}", hex::encode(random));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kept(purpose: Purpose, access: &str) -> Kept {
        Kept {
            issuer: "https://issuer.example".to_owned(),
            client_id: "cli".to_owned(),
            audience: None,
            purpose,
            server: None,
            ca: None,
            scopes: vec!["holdpoint.connect".to_owned()],
            who: None,
            access: access.to_owned().into(),
            issued: 0,
            expires: 300,
            refresh: None,
        }
    }

    async fn with_one(dir: &Dir) -> Cache {
        let cache = Cache::at(dir.0.join("deep/inside"));
        assert!(cache.read().unwrap().is_empty());
        cache
            .lock()
            .await
            .unwrap()
            .keep(kept(Purpose::Connect, "first"))
            .unwrap();
        cache
    }

    #[tokio::test]
    async fn a_new_sign_in_takes_the_place_of_the_old_one_for_the_same() {
        let dir = Dir::new();
        let cache = with_one(&dir).await;
        let locked = cache.lock().await.unwrap();
        locked.keep(kept(Purpose::Connect, "second")).unwrap();
        locked.keep(kept(Purpose::Review, "third")).unwrap();
        let all = cache.read().unwrap();
        let tokens: Vec<_> = all.iter().map(|kept| kept.access.expose()).collect();
        assert_eq!(tokens, [b"second".as_slice(), b"third"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&cache.path()), 0o600);
        assert_eq!(mode(&cache.dir), 0o700);
    }

    #[tokio::test]
    async fn a_file_or_a_folder_that_others_may_use_is_refused() {
        let dir = Dir::new();
        let cache = with_one(&dir).await;
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&cache.path(), 0o640);
        let text = cache.read().unwrap_err().to_string();
        assert!(text.contains("chmod 600"), "{text}");
        set(&cache.path(), 0o600);
        set(&cache.dir, 0o770);
        let text = cache.read().unwrap_err().to_string();
        assert!(text.contains("chmod 700"), "{text}");
    }

    #[tokio::test]
    async fn a_link_in_the_place_of_the_file_is_not_followed() {
        let dir = Dir::new();
        let cache = with_one(&dir).await;
        let elsewhere = dir.0.join("elsewhere");
        fs::rename(cache.path(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, cache.path()).unwrap();
        assert!(matches!(cache.read(), Err(CacheError::Io { .. })));
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_refused_without_quoting_it() {
        let dir = Dir::new();
        let cache = with_one(&dir).await;
        fs::write(cache.path(), "{\"version\":1,\"tokens\":\"hp-secret\"}").unwrap();
        let text = format!("{:?}", cache.read().unwrap_err());
        assert!(!text.contains("hp-secret"), "{text}");
    }

    #[tokio::test]
    async fn one_process_at_a_time_changes_it() {
        let dir = Dir::new();
        let cache = with_one(&dir).await;
        let locked = cache.lock().await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(100), cache.lock()).await;
        assert!(second.is_err());
        drop(locked);
        assert!(cache.lock().await.is_ok());
    }

    #[test]
    fn nothing_of_a_token_is_in_its_debug_form() {
        let text = format!("{:?}", kept(Purpose::Connect, "hp-secret"));
        assert!(!text.contains("hp-secret"));
    }

    #[test]
    fn a_token_is_stale_before_it_ends_and_a_short_one_not_at_once() {
        let mut long = kept(Purpose::Connect, "x");
        long.expires = 3600;
        assert!(!long.is_stale(3500));
        assert!(long.is_stale(3541));
        let mut short = long.clone();
        short.expires = 30;
        assert!(!short.is_stale(19));
        assert!(short.is_stale(21));
        // One that never was good is not good either.
        short.expires = short.issued;
        assert!(short.is_stale(0));
    }
}
