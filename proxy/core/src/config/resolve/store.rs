//! The part of resolving that is about what several nodes share.

use super::super::model::*;
use super::super::raw;
use super::{Resolver, is_loopback, split_address};
use crate::source::At;

/// The last database of a Redis as it comes.
const LAST_DB: u32 = 15;

impl Resolver<'_> {
    /// `named` says whether the file names this node.
    pub(super) fn store(&mut self, raw: raw::Redis, named: bool) -> Option<RedisConfig> {
        let at = At::root().key("store").key("redis");
        if !named {
            let problem = self
                .source
                .problem_of_key(&at, "several nodes need names, and this one has none")
                .help("write `node = \"NAME\"` at the top of the file, different on each node");
            self.fault_with(problem);
        }
        let clear = raw.danger_allow_cleartext;
        let mut urls = Vec::new();
        for (n, text) in raw.urls.iter().enumerate() {
            urls.extend(self.redis_url(&at.key("urls").index(n), text, clear));
        }
        let single = raw
            .url
            .as_ref()
            .and_then(|text| self.redis_url(&at.key("url"), text, clear));
        let place = match (
            &raw.url,
            raw.urls.is_empty(),
            raw.sentinel_master,
            raw.cluster,
        ) {
            (Some(_), true, None, false) => single.map(RedisPlace::Single),
            (None, false, Some(master), false) => Some(RedisPlace::Sentinel {
                master,
                sentinels: urls,
            }),
            (None, false, None, true) => Some(RedisPlace::Cluster(urls)),
            _ => {
                let problem = self
                    .source
                    .problem_of_key(&at, "it is not clear which Redis is meant")
                    .help(
                        "one server: `url`; Sentinels: `urls` and `sentinel_master`; \
                         a cluster: `urls` and `cluster = true`",
                    );
                self.fault_with(problem);
                None
            }
        };
        if let Some(RedisPlace::Cluster(urls)) = &place {
            if urls.iter().any(|url| url.db != 0) {
                self.fault(&at.key("urls"), "a cluster has database 0 only");
            }
            if raw.replicas.unwrap_or(0) > 0 {
                self.fault(
                    &at.key("replicas"),
                    "with `cluster` nobody can say which replicas answered: remove it",
                );
            }
        }
        let key_prefix = raw.key_prefix.unwrap_or_else(|| "hp".to_owned());
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if key_prefix.is_empty() || key_prefix.len() > 64 || !key_prefix.chars().all(fits) {
            let message = "has 1 to 64 letters, digits, `-`, `_`, `.` or `:`";
            self.fault(&at.key("key_prefix"), message);
        }
        let vote_wait = self.span(&at.key("vote_wait"), raw.vote_wait, 5);
        if vote_wait.as_secs() > 30 {
            let message = "must be at most 30s: the reviewer waits as long";
            self.fault(&at.key("vote_wait"), message);
        }
        Some(RedisConfig {
            place: place?,
            username: raw.username,
            password: raw.password.map(|secret| self.secret(secret)),
            sentinel_password: raw.sentinel_password.map(|secret| self.secret(secret)),
            ca: raw.ca.map(|ca| self.path(&ca)),
            cluster_secret: self.secret(raw.cluster_secret),
            key_prefix,
            replicas: raw.replicas.unwrap_or(0),
            vote_wait,
            danger_allow_cleartext: clear,
        })
    }

    /// `redis://HOST:PORT/DB`; never with a password in it.
    fn redis_url(&mut self, at: &At, text: &str, clear: bool) -> Option<RedisUrl> {
        // Checked first, and without repeating it: what stands before `@` is a secret.
        if text.contains('@') {
            let message = "credentials must not stand here: use `username` and `password`";
            self.fault(at, message);
            return None;
        }
        let parsed = || {
            let (tls, rest) = match text.strip_prefix("rediss://") {
                Some(rest) => (true, rest),
                None => (false, text.strip_prefix("redis://")?),
            };
            let (address, db) = rest.split_once('/').unwrap_or((rest, ""));
            let db = if db.is_empty() { 0 } else { db.parse().ok()? };
            let (host, port) = split_address(address)?;
            (db <= LAST_DB).then(|| RedisUrl {
                tls,
                host: host.to_owned(),
                port,
                db,
            })
        };
        let Some(url) = parsed() else {
            let message = "is no `rediss://HOST:PORT`, such as `rediss://redis.example:6379`";
            self.fault(at, message);
            return None;
        };
        if !url.tls && !clear && !is_loopback(&url.host) {
            let problem = self
                .source
                .problem(
                    at,
                    format!("held commands would travel to `{}` in clear", url.host),
                )
                .help(
                    "write `rediss://`; or set `danger_allow_cleartext = true` \
                     where the network between is yours alone",
                );
            self.fault_with(problem);
        }
        Some(url)
    }
}
