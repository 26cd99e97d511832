//! From what was written to what the program uses: defaults, and every check
//! that needs more than one key. All mistakes are found, not the first alone.

mod identity;
mod review;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::model::*;
use super::raw;
use crate::source::{At, Problem, Problems, Size, Source, Span};

/// One plugin instance, thread and socket set per listener: past this it is a mistake.
const MAX_LISTENERS: usize = 32;

pub(super) fn resolve(raw: raw::Root, source: &Source<'_>, dir: &Path) -> Result<Config, Problems> {
    let mut resolver = Resolver {
        source,
        dir,
        problems: Problems::default(),
        addresses: Vec::new(),
        issuers: BTreeMap::new(),
    };
    let root = At::root();
    let state = resolver.path(raw.state.as_deref().unwrap_or(Path::new(".holdpoint")));
    let named = raw.node.is_some();
    let node = raw.node.unwrap_or_else(|| "local".to_owned());
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if node.is_empty() || node.len() > 64 || !node.chars().all(fits) {
        let message = "a node's name has 1 to 64 letters, digits, `-`, `_` or `.`";
        resolver.fault(&root.key("node"), message);
    }
    let dev_issuer = raw
        .dev_issuer
        .map(|dev| resolver.dev_issuer(dev, raw.identity.issuer.is_empty()));
    let identity = resolver.identity(raw.identity, dev_issuer.as_ref());
    let targets = resolver.targets(raw.target);
    let listeners = resolver.listeners(raw.listener, &targets);
    let plugins = resolver.plugins(raw.plugin);
    let policies = resolver.policies(raw.policy);
    let hold = resolver.hold(&raw.hold);
    let admin = raw.admin.and_then(|admin| resolver.admin(admin));
    let review = resolver.review(raw.review, admin.as_ref());
    let journal = resolver.journal(raw.journal, &state);
    let limits = resolver.limits(&raw.limits);
    let store = raw
        .store
        .and_then(|store| resolver.store(store.redis, named));
    resolver.problems.or(Config {
        dir: dir.to_path_buf(),
        node,
        state,
        identity,
        dev_issuer,
        listeners,
        targets,
        plugins,
        policies,
        hold,
        review,
        admin,
        journal,
        limits,
        store,
    })
}

struct Resolver<'a> {
    source: &'a Source<'a>,
    dir: &'a Path,
    problems: Problems,
    /// Where each address was claimed.
    addresses: Vec<(SocketAddr, At)>,
    /// Names of issuers and their URLs.
    issuers: BTreeMap<String, String>,
}

impl Resolver<'_> {
    fn fault(&mut self, at: &At, message: impl Into<String>) {
        let problem = self.source.problem(at, message);
        self.problems.push(problem);
    }

    fn fault_with(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    fn span(&mut self, at: &At, value: Option<Span>, default: u64) -> Duration {
        let span = value.map_or(Duration::from_secs(default), |span| span.0);
        if span.is_zero() {
            self.fault(at, "must be more than nothing");
        }
        span
    }

    fn count(&mut self, at: &At, value: Option<usize>, default: usize) -> usize {
        let count = value.unwrap_or(default);
        if count == 0 {
            self.fault(at, "must be at least 1");
        }
        count
    }

    /// A size within what the program can use.
    fn size(&mut self, at: &At, value: Option<Size>, default: u64, least: u64, most: u64) -> u64 {
        let size = value.map_or(default, |size| size.0);
        if size < least || size > most {
            let message = format!("must be between {} and {}", Size(least), Size(most));
            self.fault(at, message);
        }
        size
    }

    fn listen(&mut self, at: &At, text: &str) -> Option<SocketAddr> {
        let Ok(address) = text.parse::<SocketAddr>() else {
            let message =
                format!("`{text}` is no `IP:PORT`, such as `127.0.0.1:6432` or `[::1]:6432`");
            self.fault(at, message);
            return None;
        };
        let taken = self
            .addresses
            .iter()
            .find(|(have, _)| *have == address && address.port() != 0);
        if let Some((_, other)) = taken {
            let message = format!("`{other}` listens on {address} too");
            self.fault(at, message);
        }
        self.addresses.push((address, at.clone()));
        Some(address)
    }

    /// `https://`, or `http://` to loopback.
    fn url(&mut self, at: &At, url: &str, what: &str) {
        let rest = |scheme: &str| url.strip_prefix(scheme).filter(|rest| !rest.is_empty());
        if rest("https://").is_some() {
            return;
        }
        match rest("http://") {
            None => self.fault(at, "must begin with `https://`"),
            Some(rest) => {
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = split_address(authority).map_or(authority, |(host, _)| host);
                if authority.contains('@') || !is_loopback(host) {
                    let message =
                        format!("must begin with `https://`: {what} would travel in clear");
                    self.fault(at, message);
                }
            }
        }
    }

    fn targets(&mut self, raw: BTreeMap<String, raw::Target>) -> BTreeMap<String, Target> {
        let at = At::root().key("target");
        let mut targets = BTreeMap::new();
        for (name, raw) in raw {
            let at = at.key(&name);
            self.name(&at, &name);
            let (host, port) = match split_address(&raw.address) {
                Some((host, port)) => (host.to_owned(), port),
                None => {
                    let message = format!(
                        "`{}` is no `HOST:PORT`, such as `db.example:5432`",
                        raw.address
                    );
                    self.fault(&at.key("address"), message);
                    (String::new(), 0)
                }
            };
            let tls = match raw.tls {
                None => UpstreamTls::Verify { ca: None },
                Some(raw::UpstreamTls::Verify(verify)) => UpstreamTls::Verify {
                    ca: verify.ca.map(|ca| self.path(&ca)),
                },
                Some(raw::UpstreamTls::Off) => {
                    if port != 0 && !is_loopback(&host) && !raw.danger_allow_cleartext {
                        let problem = self
                            .source
                            .problem(&at.key("tls"), format!("commands would travel to `{host}` in clear"))
                            .help(
                                "remove it: TLS is verified then; or set `danger_allow_cleartext = true` \
                                 where the network between is yours alone",
                            );
                        self.fault_with(problem);
                    }
                    UpstreamTls::Off
                }
            };
            let target = Target {
                protocol: raw.protocol,
                host,
                port,
                tls,
                danger_allow_cleartext: raw.danger_allow_cleartext,
                user: raw.user,
                password: raw.password.map(|secret| self.secret(secret)),
                tags: raw.tags,
                owners: self.deciders(&at.key("owners"), &raw.owners),
                settings: raw.settings,
                connect_timeout: self.span(&at.key("connect_timeout"), raw.connect_timeout, 10),
            };
            targets.insert(name, target);
        }
        targets
    }

    fn name(&mut self, at: &At, name: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            let problem = self
                .source
                .problem_of_key(at, "a name has 1 to 64 letters, digits, `-` or `_`");
            self.fault_with(problem);
        }
    }

    pub(super) fn secret(&self, raw: raw::Secret) -> SecretRef {
        match raw.0 {
            SecretRef::File(path) => SecretRef::File(self.path(&path)),
            env @ SecretRef::Env(_) => env,
        }
    }

    fn listeners(
        &mut self,
        raw: BTreeMap<String, raw::Listener>,
        targets: &BTreeMap<String, Target>,
    ) -> BTreeMap<String, Listener> {
        let at = At::root().key("listener");
        if raw.is_empty() {
            let problem = self
                .source
                .problem_of_key(&at, "no listener is configured, so nobody could connect")
                .help("add `[listener.NAME]` with `listen`, `target` and `tls`");
            self.fault_with(problem);
        }
        if raw.len() > MAX_LISTENERS {
            let problem = self
                .source
                .problem_of_key(
                    &at,
                    format!(
                        "{} listeners; at most {MAX_LISTENERS} are possible",
                        raw.len()
                    ),
                )
                .help("run a second gateway for the others");
            self.fault_with(problem);
        }
        let mut listeners = BTreeMap::new();
        for (name, raw) in raw {
            let at = at.key(&name);
            self.name(&at, &name);
            if !targets.contains_key(&raw.target) {
                let problem = self
                    .source
                    .problem(
                        &at.key("target"),
                        format!("there is no target `{}`", raw.target),
                    )
                    .choices(&raw.target, targets.keys().map(String::as_str));
                self.fault_with(problem);
            }
            let Some(listen) = self.listen(&at.key("listen"), &raw.listen) else {
                continue;
            };
            let listener = Listener {
                listen,
                target: raw.target,
                cert: self.path(&raw.tls.cert),
                key: self.path(&raw.tls.key),
            };
            listeners.insert(name, listener);
        }
        listeners
    }

    fn plugins(&mut self, raw: BTreeMap<String, raw::Plugin>) -> BTreeMap<String, Plugin> {
        let at = At::root().key("plugin");
        let mut plugins = BTreeMap::new();
        for (name, raw) in raw {
            let at = at.key(&name);
            if let Some(digest) = &raw.sha256
                && (digest.len() != 64
                    || !digest
                        .bytes()
                        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            {
                self.fault(
                    &at.key("sha256"),
                    "a SHA-256 has 64 hex digits, in lower case",
                );
            }
            let fallback = Plugin::default();
            let budget = raw.cpu_budget.or(Some(Span(fallback.cpu_budget)));
            let plugin = Plugin {
                path: raw.path.map(|path| self.path(&path)),
                sha256: raw.sha256,
                cpu_budget: self.span(&at.key("cpu_budget"), budget, 1),
                memory: self.size(
                    &at.key("memory"),
                    raw.memory,
                    fallback.memory,
                    1 << 20,
                    4 << 30,
                ),
            };
            plugins.insert(name, plugin);
        }
        plugins
    }

    fn policies(&mut self, raw: raw::Policy) -> Vec<PathBuf> {
        let at = At::root().key("policy").key("files");
        if raw.files.is_empty() {
            let problem = self
                .source
                .problem(
                    &at,
                    "no rule file is named, so every command would be refused",
                )
                .help("`[policy]` with `files = [\"policies/default.toml\"]`");
            self.fault_with(problem);
        }
        let mut stems: Vec<String> = Vec::new();
        for (n, file) in raw.files.iter().enumerate() {
            let stem = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if stems.contains(&stem) {
                let message =
                    format!("two rule files are called `{stem}`: rules are known as `file:rule`");
                self.fault(&at.index(n), message);
            }
            stems.push(stem);
        }
        raw.files.iter().map(|file| self.path(file)).collect()
    }

    fn hold(&mut self, raw: &raw::Hold) -> HoldConfig {
        let at = At::root().key("hold");
        let max_hold = self.span(&at.key("max_hold"), raw.max_hold, 1800);
        let in_transaction = raw
            .max_hold_in_transaction
            .or(Some(Span(max_hold.min(Duration::from_secs(60)))));
        let here = at.key("max_hold_in_transaction");
        let max_hold_in_transaction = self.span(&here, in_transaction, 60);
        if max_hold_in_transaction > max_hold {
            self.fault(
                &here,
                format!("must be at most `hold.max_hold`, {}", Span(max_hold)),
            );
        }
        let wait = at.key("inline_wait");
        HoldConfig {
            inline_wait_agent: self.span(&wait.key("agent"), raw.inline_wait.agent, 45),
            inline_wait_person: self.span(&wait.key("person"), raw.inline_wait.person, 300),
            max_hold,
            max_hold_in_transaction,
            heartbeat: self.span(&at.key("heartbeat"), raw.heartbeat, 15),
            grant_ttl: self.span(&at.key("grant_ttl"), raw.grant_ttl, 600),
            deny_cooldown: raw
                .deny_cooldown
                .map_or(Duration::from_secs(300), |span| span.0),
            max_pending_per_principal: self.count(
                &at.key("max_pending_per_principal"),
                raw.max_pending_per_principal,
                16,
            ),
            max_pending: self.count(&at.key("max_pending"), raw.max_pending, 10_000),
        }
    }

    fn admin(&mut self, raw: raw::Admin) -> Option<Admin> {
        let at = At::root().key("admin");
        let listen = self.listen(&at.key("listen"), &raw.listen)?;
        if raw.tls.is_none() && !listen.ip().is_loopback() {
            let problem = self
                .source
                .problem(&at.key("listen"), "reviewers' tokens would travel in clear")
                .help("add `tls = { cert = …, key = … }`, or listen on loopback");
            self.fault_with(problem);
        }
        let tls = raw
            .tls
            .map(|tls| (self.path(&tls.cert), self.path(&tls.key)));
        Some(Admin { listen, tls })
    }

    fn journal(&mut self, raw: raw::Journal, state: &Path) -> JournalConfig {
        let at = At::root().key("journal");
        JournalConfig {
            dir: self.path(raw.dir.as_deref().unwrap_or(Path::new("journal"))),
            sync: match raw.sync {
                Some(raw::Sync::All) => Sync::All,
                Some(raw::Sync::Commands) | None => Sync::Commands,
                Some(raw::Sync::Relaxed) => Sync::Relaxed,
            },
            segment: self.size(&at.key("segment"), raw.segment, 64 << 20, 1 << 20, 4 << 30),
            key: raw
                .key
                .map_or_else(|| state.join("checkpoint.key"), |key| self.path(&key)),
        }
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let at = At::root().key("limits");
        let max_command = self.size(
            &at.key("max_command"),
            raw.max_command,
            16 << 20,
            1 << 10,
            1 << 30,
        );
        let held_ahead = self.size(
            &at.key("held_ahead"),
            raw.held_ahead,
            256 << 10,
            1 << 10,
            1 << 30,
        );
        Limits {
            max_sessions: self.count(&at.key("max_sessions"), raw.max_sessions, 10_000),
            max_sessions_per_principal: self.count(
                &at.key("max_sessions_per_principal"),
                raw.max_sessions_per_principal,
                256,
            ),
            handshake: self.span(&at.key("handshake"), raw.handshake, 30),
            max_command: u32::try_from(max_command).unwrap_or(u32::MAX),
            held_ahead: usize::try_from(held_ahead).unwrap_or(usize::MAX),
            drain: self.span(&at.key("drain"), raw.drain, 30),
        }
    }
}

/// Host and port; an IPv6 address stands in brackets.
fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    (!host.is_empty() && host.chars().all(fits)).then_some((host, port))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}
