//! Custody of secrets: where they lie, and who may read them there.
//!
//! The configuration names a file or an environment variable, never a value. A file that
//! others can read is refused rather than warned about. Values live in [`Secret`]s and are
//! replaced all together on reload, or not at all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use holdpoint_core::config::{Config, SecretRef};
use holdpoint_core::secret::Secret;
use rustix::fs::OFlags;

const MAX_SECRET: usize = 64 * 1024;

/// A secret is not there, or not safe where it is. Never says what it is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable `{0}` is not set; set it, or use a file")]
    NotSet(String),
    #[error("cannot read `{}`: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("`{}` belongs to another user (uid {owner}): `chown {us} {}`", path.display(), path.display())]
    Owner { path: PathBuf, owner: u32, us: u32 },
    #[error("others may use `{}` (mode {mode:04o}): `chmod 600 {}`", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{0} is empty")]
    Empty(String),
    #[error("{0} is longer than {MAX_SECRET} bytes")]
    TooLong(String),
    #[error("{of}: {cause}")]
    Of {
        /// The setting that names it.
        of: String,
        cause: Box<SecretError>,
    },
}

/// Reads one secret.
///
/// # Errors
/// It is absent, empty, too long, or in a file that others may use.
pub fn resolve(place: &SecretRef) -> Result<Secret, SecretError> {
    match place {
        SecretRef::Env(name) => {
            let value = std::env::var_os(name).ok_or_else(|| SecretError::NotSet(name.clone()))?;
            checked(value.into_vec(), || {
                format!("the environment variable `{name}`")
            })
        }
        SecretRef::File(path) => from_file(path),
    }
}

fn from_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |cause| SecretError::Read {
        path: path.to_owned(),
        cause,
    };
    // Without O_NONBLOCK a FIFO in its place would stop the start for ever.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    check_file(&file, path)?;
    let mut bytes = Vec::new();
    let limit = MAX_SECRET as u64 + 3;
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    checked(bytes, || format!("`{}`", path.display()))
}

/// Looks at what was opened, not at the path: nobody can swap it in between.
/// Refuses a file that is not ours, or that others may use.
pub(crate) fn check_file(file: &File, path: &Path) -> Result<(), SecretError> {
    let about = file.metadata().map_err(|cause| SecretError::Read {
        path: path.to_owned(),
        cause,
    })?;
    if !about.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let us = rustix::process::geteuid().as_raw();
    if about.uid() != us && about.uid() != 0 {
        return Err(SecretError::Owner {
            path: path.to_owned(),
            owner: about.uid(),
            us,
        });
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn checked(bytes: Vec<u8>, what: impl Fn() -> String) -> Result<Secret, SecretError> {
    let secret = Secret::new(bytes);
    match secret.expose().len() {
        0 => Err(SecretError::Empty(what())),
        length if length > MAX_SECRET => Err(SecretError::TooLong(what())),
        _ => Ok(secret),
    }
}

/// Every secret that the configuration names. Cheap to clone; clones see reloads.
#[derive(Debug, Clone)]
pub struct Secrets(Arc<ArcSwap<Held>>);

#[derive(Debug, Default)]
struct Held {
    targets: BTreeMap<String, Secret>,
    webhooks: BTreeMap<String, Secret>,
    integrations: BTreeMap<String, Secret>,
    consoles: BTreeMap<String, Secret>,
    on_call: BTreeMap<String, Secret>,
    /// Read again by who uses them; here, that they can be.
    store: usize,
    /// Of other channels, by `slack:NAME` and key.
    channels: BTreeMap<(String, &'static str), Secret>,
}

impl Secrets {
    /// # Errors
    /// One of them cannot be used; the error names its setting.
    pub fn load(config: &Config) -> Result<Self, SecretError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Held::read(config)?))))
    }

    /// Reads all of them again. Those in use stay if one cannot be used.
    ///
    /// # Errors
    /// As [`Secrets::load`].
    pub fn reload(&self, config: &Config) -> Result<(), SecretError> {
        self.0.store(Arc::new(Held::read(config)?));
        Ok(())
    }

    /// Takes over what another one read.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// How many secrets are held.
    pub fn count(&self) -> usize {
        let held = self.0.load();
        let maps = [
            &held.targets,
            &held.webhooks,
            &held.integrations,
            &held.on_call,
            &held.consoles,
        ];
        maps.iter().map(|map| map.len()).sum::<usize>() + held.channels.len() + held.store
    }

    /// The password for a target, where one is configured.
    pub fn get(&self, target: &str) -> Option<Secret> {
        self.0.load().targets.get(target).cloned()
    }

    /// What signs messages to this webhook.
    pub fn webhook(&self, name: &str) -> Option<Secret> {
        self.0.load().webhooks.get(name).cloned()
    }

    /// What a channel that is no webhook needs, such as `slack:NAME` its `token`.
    pub fn channel(&self, name: &str, key: &str) -> Option<Secret> {
        let held = self.0.load();
        let mut all = held.channels.iter();
        all.find(|((have, of), _)| have == name && *of == key)
            .map(|(_, secret)| secret.clone())
    }

    /// What this integration signs votes with.
    pub fn integration(&self, name: &str) -> Option<Secret> {
        self.0.load().integrations.get(name).cloned()
    }

    /// What the web console proves with that it is its client at this issuer.
    pub fn console(&self, issuer: &str) -> Option<Secret> {
        self.0.load().consoles.get(issuer).cloned()
    }

    /// What opens this list of who is on call.
    pub fn on_call(&self, name: &str) -> Option<Secret> {
        self.0.load().on_call.get(name).cloned()
    }
}

impl Held {
    fn read(config: &Config) -> Result<Self, SecretError> {
        let mut held = Self::default();
        for (name, target) in &config.targets {
            if let Some(place) = &target.password {
                let secret = named(place, || format!("target.{name}.password"))?;
                held.targets.insert(name.clone(), secret);
            }
        }
        for hook in &config.review.webhooks {
            let secret = named(&hook.secret, || format!("webhook `{}`", hook.name))?;
            held.webhooks.insert(hook.name.clone(), secret);
        }
        for (name, integration) in &config.review.integrations {
            let secret = named(&integration.secret, || format!("integration `{name}`"))?;
            held.integrations.insert(name.clone(), secret);
        }
        for issuer in &config.identity.issuers {
            let place = issuer
                .console
                .as_ref()
                .and_then(|login| login.client_secret.as_ref());
            if let Some(place) = place {
                let secret = named(place, || format!("console of issuer `{}`", issuer.name))?;
                held.consoles.insert(issuer.name.clone(), secret);
            }
        }
        for (name, list) in &config.review.on_call {
            if let Some(place) = &list.secret {
                let secret = named(place, || format!("list `{name}` of who is on call"))?;
                held.on_call.insert(name.clone(), secret);
            }
        }
        if let Some(store) = &config.store {
            let places = [
                ("cluster_secret", Some(&store.cluster_secret)),
                ("password", store.password.as_ref()),
                ("sentinel_password", store.sentinel_password.as_ref()),
            ];
            for (name, place) in places {
                if let Some(place) = place {
                    named(place, || format!("store.redis.{name}"))?;
                    held.store += 1;
                }
            }
        }
        held.channels = channels(config)?;
        Ok(held)
    }
}

fn channels(config: &Config) -> Result<BTreeMap<(String, &'static str), Secret>, SecretError> {
    let review = &config.review;
    let mut places = Vec::new();
    for (name, slack) in &review.slack {
        let name = format!("slack:{name}");
        places.push((name.clone(), "token", &slack.token));
        places.push((name, "signing_secret", &slack.signing_secret));
    }
    for (name, teams) in &review.teams {
        places.push((format!("teams:{name}"), "workflow_url", &teams.workflow_url));
    }
    for (name, email) in &review.email {
        if let Some((_, password)) = &email.login {
            places.push((format!("email:{name}"), "password", password));
        }
    }
    for (name, pagerduty) in &review.pagerduty {
        let key = &pagerduty.routing_key;
        places.push((format!("pagerduty:{name}"), "routing_key", key));
    }
    let mut read = BTreeMap::new();
    for (name, key, place) in places {
        let secret = named(place, || format!("`{key}` of {name}"))?;
        read.insert((name, key), secret);
    }
    Ok(read)
}

fn named(place: &SecretRef, of: impl Fn() -> String) -> Result<Secret, SecretError> {
    resolve(place).map_err(|cause| SecretError::Of {
        of: of(),
        cause: Box::new(cause),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(name: &str, content: &[u8], mode: u32) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("holdpoint-secrets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn read(path: &Path) -> Result<Secret, SecretError> {
        resolve(&SecretRef::File(path.to_owned()))
    }

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        for (content, secret) in [
            (&b"s3cret"[..], &b"s3cret"[..]),
            (b"s3cret\n", b"s3cret"),
            (b"s3cret\r\n", b"s3cret"),
            (b"s3cret\n\n", b"s3cret\n"),
            (b" s3cret ", b" s3cret "),
        ] {
            let path = file("line-end", content, 0o600);
            assert_eq!(read(&path).unwrap().expose(), secret);
        }
    }

    #[test]
    fn a_file_that_others_may_use_is_refused_with_the_way_to_mend_it() {
        for mode in [0o644, 0o640, 0o620, 0o604, 0o601, 0o660] {
            let path = file("open", b"s3cret", mode);
            let said = read(&path).unwrap_err().to_string();
            assert!(
                said.contains(&format!("`chmod 600 {}`", path.display())),
                "{said}"
            );
            assert!(!said.contains("s3cret"), "{said}");
        }
        assert!(read(&file("closed", b"s3cret", 0o400)).is_ok());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let dir = std::env::temp_dir();
        assert!(matches!(read(&dir), Err(SecretError::NotAFile(_))));
        assert!(matches!(
            read(Path::new("/dev/zero")),
            Err(SecretError::NotAFile(_))
        ));
        let absent = dir.join("holdpoint-no-such-file");
        assert!(matches!(read(&absent), Err(SecretError::Read { .. })));
    }

    #[test]
    fn empty_and_endless_secrets_are_refused() {
        for content in [&b""[..], b"\n", b"\r\n"] {
            let path = file("empty", content, 0o600);
            assert!(matches!(read(&path), Err(SecretError::Empty(_))));
        }
        let path = file("long", &vec![b'x'; MAX_SECRET + 1], 0o600);
        assert!(matches!(read(&path), Err(SecretError::TooLong(_))));
        let path = file("just", &vec![b'x'; MAX_SECRET], 0o600);
        assert!(read(&path).is_ok());
    }

    #[test]
    fn an_unset_variable_is_named() {
        let place = SecretRef::Env("HOLDPOINT_TEST_UNSET".to_owned());
        let said = resolve(&place).unwrap_err().to_string();
        assert!(said.contains("HOLDPOINT_TEST_UNSET"), "{said}");
    }
}
