//! `holdpoint.toml` as it is written: one struct per table, unknown keys refused.
//!
//! Plain structs and externally tagged enums only: internally tagged enums and `flatten`
//! lose the caret, or accept unknown keys in silence. The comments
//! here are the descriptions in `docs/holdpoint.schema.json`.

mod channels;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::model::SecretRef;
use crate::source::{Size, Span};

pub(super) use channels::{Email, Event, MailTls, PagerDuty, Severity, Slack, Teams};

/// The configuration of holdpoint.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    /// This node's name in records and checkpoints; `local` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// Private folder for sockets and caches; `.holdpoint` unless set. Paths start at this file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<PathBuf>,
    #[serde(default)]
    pub(super) identity: Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dev_issuer: Option<DevIssuer>,
    /// What can be reached, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) target: BTreeMap<String, Target>,
    /// Where clients connect, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) listener: BTreeMap<String, Listener>,
    /// Settings of protocol plugins, by name. Those that come with holdpoint need none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) plugin: BTreeMap<String, Plugin>,
    #[serde(default)]
    pub(super) policy: Policy,
    #[serde(default)]
    pub(super) hold: Hold,
    #[serde(default)]
    pub(super) review: Review,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) admin: Option<Admin>,
    #[serde(default)]
    pub(super) journal: Journal,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<Store>,
}

/// Who may log in.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Longest token accepted, in bytes; 16384 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_token_bytes: Option<usize>,
    /// Tolerance for clocks that differ; `30s` unless set, at most `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clock_skew: Option<Span>,
    /// What happens to a session whose token expires; `refuse-new-commands` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) on_token_expiry: Option<OnTokenExpiry>,
    /// Longest session; `8h` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_session: Option<Span>,
    /// Issuers whose access tokens are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) issuer: Vec<Issuer>,
    /// OAuth clients that are agents, by client id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) agents: BTreeMap<String, Agent>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnTokenExpiry {
    /// What runs is answered, what is held stays held; anything new is refused.
    RefuseNewCommands,
    /// The session ends, and with it what is held.
    Close,
}

/// An OIDC issuer. Its keys are found by its discovery document.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    /// A short name, used in rules: `person:NAME|subject`.
    pub(super) name: String,
    /// The tokens' `iss`, byte for byte.
    pub(super) issuer: String,
    /// Any of these must be in the tokens' `aud`.
    pub(super) audiences: Vec<String>,
    /// Signature algorithms that are accepted; `RS256` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) algorithms: Option<Vec<Algorithm>>,
    /// Scope needed to connect; `holdpoint.connect` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connect_scope: Option<String>,
    /// Scope needed to decide on held commands; `holdpoint.review` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) review_scope: Option<String>,
    /// Claim used as the subject where a token has it; `sub` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject_claim: Option<String>,
    /// JSON pointer to the groups; `/groups` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) groups_claim: Option<String>,
    /// Groups without this prefix are ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) groups_prefix: Option<String>,
    /// PEM bundle for the issuer's TLS; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// How people sign in with `holdpoint login`; told to whoever asks the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<Login>,
    /// How people sign in to the web console, where that is another client than `login`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) console: Option<ConsoleLogin>,
    #[serde(default)]
    pub(super) jwks: Jwks,
}

/// What the web console says to the issuer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsoleLogin {
    /// A web client that is registered there, with the redirect `PUBLIC_URL/console/callback`.
    pub(super) client_id: String,
    /// Of a confidential client. Without it the client is public; PKCE is used in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_secret: Option<Secret>,
    /// Sent as `audience` and `resource`, where the issuer must be told what a token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audience: Option<String>,
}

/// What `holdpoint login` says to the issuer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// A public client that is registered there, for the loopback redirect or the device grant.
    pub(super) client_id: String,
    /// Sent as `audience` and `resource`, where the issuer must be told what a token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audience: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub(super) enum Algorithm {
    RS256,
    PS256,
    ES256,
    ES384,
    EdDSA,
}

/// How the issuer's keys are fetched.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwks {
    /// How often; `1h` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh: Option<Span>,
    /// An unknown key fetches again, but not more often than this; `30s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_refetch: Option<Span>,
    /// Keys older than this are not used; `24h` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_stale: Option<Span>,
}

/// An OAuth client that is an agent. An agent never decides on held commands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    /// For people to read.
    pub(super) name: String,
    /// Groups that rules may match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    /// `issuer name|subject` of those who answer for it; they cannot approve its commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) owners: Vec<String>,
}

/// An issuer for development, inside holdpoint. Loopback only, and never beside another.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DevIssuer {
    /// Loopback address and port.
    pub(super) listen: String,
    /// How long its tokens are good; `1h` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ttl: Option<Span>,
    /// Who may sign in there, by name. There are no passwords: anybody on the machine may be any of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) users: BTreeMap<String, DevUser>,
}

/// Somebody whom the development issuer knows.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DevUser {
    /// The `groups` of their tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    /// Scopes that their tokens may have: `holdpoint.connect`, and `holdpoint.review` for whoever decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scopes: Vec<String>,
    /// Whether it is an agent and no person.
    #[serde(default)]
    pub(super) agent: bool,
    /// Other users of this issuer that answer for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) owners: Vec<String>,
}

/// Something that agents reach through a listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    /// The plugin that speaks the protocol, such as `postgres`.
    pub(super) protocol: String,
    /// `HOST:PORT`.
    pub(super) address: String,
    /// Verified TLS unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<UpstreamTls>,
    /// Lets `tls = "off"` leave the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) danger_allow_cleartext: bool,
    /// The account to log in as.
    pub(super) user: String,
    /// Its password, which no client ever sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<Secret>,
    /// Labels that rules may match, such as `prod`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
    /// Who decides where a rule's reviewers are `owner`: `group:NAME`, `person:ISSUER|SUBJECT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) owners: Vec<String>,
    /// Passed to the plugin, whose page says what there is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) settings: BTreeMap<String, String>,
    /// How long the target may take to accept a connection; `10s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connect_timeout: Option<Span>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum UpstreamTls {
    /// In clear: loopback only.
    Off,
    /// Against a bundle of yours.
    Verify(Verify),
}

/// TLS, verified.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Verify {
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
}

/// A port for clients. Each port leads to one target.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// `IP:PORT`.
    pub(super) listen: String,
    /// A target's name.
    pub(super) target: String,
    /// What the port shows to clients.
    pub(super) tls: Certificate,
}

/// PEM files.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    /// The certificate, and behind it the ones between it and a root.
    pub(super) cert: PathBuf,
    /// Its private key.
    pub(super) key: PathBuf,
}

/// A protocol plugin: a WebAssembly component, in a sandbox of its own for each session.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Plugin {
    /// A component; the one that holdpoint carries unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    /// SHA-256 that the component must have, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// CPU time of one call; `250ms` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_budget: Option<Span>,
    /// Memory of one session; `128MiB` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Size>,
}

/// What may run.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// Rule files. Across files the strictest outcome wins.
    #[serde(default)]
    pub(super) files: Vec<PathBuf>,
}

/// How held commands wait.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    /// How long the connection itself waits.
    #[serde(default)]
    pub(super) inline_wait: InlineWait,
    /// No decision may take longer, whatever a rule's `expires_in` says; `30m` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_hold: Option<Span>,
    /// The same inside an open transaction, whose locks others wait for; `60s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_hold_in_transaction: Option<Span>,
    /// How often a waiting client gets a notice; `15s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) heartbeat: Option<Span>,
    /// After a late approval the identical command passes once within this; `10m` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant_ttl: Option<Span>,
    /// A denied command is refused without asking again for this long; `5m` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deny_cooldown: Option<Span>,
    /// Most commands that are held at once; 10000 unless set. One more is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_pending: Option<usize>,
    /// The same of one principal; 16 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_pending_per_principal: Option<usize>,
}

/// How long the connection itself waits before the client is told to ask again.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InlineWait {
    /// An agent's; `45s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<Span>,
    /// A person's; `5m` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) person: Option<Span>,
}

/// How reviewers are reached.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Review {
    /// Base of the links in messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_url: Option<String>,
    /// Where held commands are announced (Standard Webhooks).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) webhook: Vec<Webhook>,
    /// Lets reviewers register security keys and passkeys in the console, which sign what they
    /// approve where a rule says `webauthn = true`. Needs a `public_url` with a host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) webauthn: Option<Webauthn>,
    /// Systems that may send signed votes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) integration: BTreeMap<String, Integration>,
    /// Lists of who is on call, by name: `oncall:NAME` in rules.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) oncall: BTreeMap<String, OnCall>,
    /// Slack channels, by a name of yours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) slack: BTreeMap<String, Slack>,
    /// Microsoft Teams channels, by a name of yours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) teams: BTreeMap<String, Teams>,
    /// Mail, by a name of yours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) email: BTreeMap<String, Email>,
    /// PagerDuty services, by a name of yours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pagerduty: BTreeMap<String, PagerDuty>,
}

/// The relying party that keys are made for.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Webauthn {
    /// The host of `public_url` unless set; else a domain above it. Keys that were made for another
    /// one are good no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rp_id: Option<String>,
}

/// Where to ask who is on call. The answer is `{"people": [{"issuer": "NAME", "subject": "…"}]}`.
/// Without a good answer nobody is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OnCall {
    /// Asked with GET.
    pub(super) url: String,
    /// Sent as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Secret>,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// How long an answer counts; `30s` unless set, at most `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<Span>,
}

/// A receiver of signed messages.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    /// For logs and metrics.
    pub(super) name: String,
    /// Where messages are sent with POST; `https:`, or loopback.
    pub(super) url: String,
    /// What messages are signed with, `whsec_…`.
    pub(super) secret: Secret,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// Of what it is told; of everything unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Vec<Event>>,
}

/// A system that decides in the name of people.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Integration {
    /// What its votes are signed with.
    pub(super) secret: Secret,
    /// Who it may speak for: `group:NAME`, `person:ISSUER|SUBJECT`.
    pub(super) reviewers: Vec<String>,
}

/// API, metrics and health.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    /// `IP:PORT`.
    pub(super) listen: String,
    /// May be absent on loopback only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Certificate>,
}

/// The record of everything.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    /// Its folder; `journal` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dir: Option<PathBuf>,
    /// What must be on stable storage before a session goes on; `commands` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sync: Option<Sync>,
    /// Size of a segment; `64MiB` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<Size>,
    /// Ed25519 seed that signs checkpoints; made in `state` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sync {
    /// Responses too.
    All,
    /// Everything but responses.
    Commands,
    /// Everything but responses and commands that policy allows at once.
    Relaxed,
}

/// What one gateway takes on.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Most connections at once, those that are still logging in included; 10000 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_sessions: Option<usize>,
    /// Most sessions of one principal; 256 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_sessions_per_principal: Option<usize>,
    /// How long a login may take; `30s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handshake: Option<Span>,
    /// Longest command; `16MiB` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_command: Option<Size>,
    /// Read from a client while a command of its is undecided; `256KiB` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held_ahead: Option<Size>,
    /// How long sessions may end on their own at shutdown; `30s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drain: Option<Span>,
}

/// What several nodes share. One node alone needs none.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    /// Where approvals are shared.
    pub(super) redis: Redis,
}

/// A Redis that carries held commands and votes between nodes. It decides nothing.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Redis {
    /// `rediss://HOST:PORT` (TLS), or `redis://HOST:PORT` on loopback; `/N` for database N.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// In place of `url`: Sentinels, or first nodes of a cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) urls: Vec<String>,
    /// `urls` are Sentinels; this is the name of the master they watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sentinel_master: Option<String>,
    /// `urls` are nodes of a Redis Cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) cluster: bool,
    /// Name to log in with; that of Redis's default user unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<Secret>,
    /// What Sentinels ask for, where that is not nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sentinel_password: Option<Secret>,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// The same on all nodes, at least 32 bytes: proves that a vote comes from one of them.
    pub(super) cluster_secret: Secret,
    /// First word of all keys; `hp` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_prefix: Option<String>,
    /// A vote that fewer replicas have is not called submitted; 0 unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<usize>,
    /// How long a vote for another node waits for its answer; `5s` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vote_wait: Option<Span>,
    /// Lets `redis://` leave the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) danger_allow_cleartext: bool,
}

/// `env:NAME` or `file:PATH`. A literal is refused in words that do not repeat it.
#[derive(Debug, Clone)]
pub(super) struct Secret(pub(super) SecretRef);

struct SecretVisitor;

const LITERAL: &str = "a secret must not stand in this file: write `env:NAME` or `file:PATH`";

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`env:NAME` or `file:PATH`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        let empty = |rest: &str| {
            let none = rest.is_empty();
            none.then(|| E::custom("a name or path must follow the colon"))
        };
        if let Some(name) = text.strip_prefix("env:") {
            empty(name).map_or(Ok(()), Err)?;
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return plain
                .then(|| Secret(SecretRef::Env(name.to_owned())))
                .ok_or_else(|| E::custom("an environment variable has letters, digits and `_`"));
        }
        if let Some(path) = text.strip_prefix("file:") {
            empty(path).map_or(Ok(()), Err)?;
            return Ok(Secret(SecretRef::File(path.into())));
        }
        Err(E::custom(LITERAL))
    }

    // What serde would say of these repeats the value.
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(LITERAL))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(LITERAL))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(LITERAL))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(LITERAL))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
        Err(de::Error::custom(LITERAL))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
        Err(de::Error::custom(LITERAL))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            SecretRef::Env(name) => serializer.collect_str(&format_args!("env:{name}")),
            SecretRef::File(path) => {
                serializer.collect_str(&format_args!("file:{}", path.display()))
            }
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(env:[A-Za-z0-9_]+|file:.+)$",
            "description": "Where a secret lies, `env:NAME` or `file:PATH`. Never the secret."
        })
    }
}
