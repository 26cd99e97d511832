//! What the program uses, after `raw` was checked: nothing here can be wrong.
//! Paths are absolute; durations are durations; names refer to things that exist.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::decision::Reviewers;
use crate::principal::Identity;
use crate::webauthn::RelyingParty;

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where `holdpoint.toml` lies; relative paths in it start here.
    pub dir: PathBuf,
    /// This node's name in records and checkpoints.
    pub node: String,
    /// Private (0700) directory for sockets, caches and the approval token of `holdpoint` itself.
    pub state: PathBuf,
    pub identity: IdentityConfig,
    /// Loopback only; excludes `identity.issuers`.
    pub dev_issuer: Option<DevIssuer>,
    pub listeners: BTreeMap<String, Listener>,
    pub targets: BTreeMap<String, Target>,
    pub plugins: BTreeMap<String, Plugin>,
    /// Rule files, in the order given.
    pub policies: Vec<PathBuf>,
    pub hold: HoldConfig,
    pub review: Review,
    pub admin: Option<Admin>,
    pub journal: JournalConfig,
    pub limits: Limits,
    /// Where several nodes meet; absent for one alone.
    pub store: Option<RedisConfig>,
}

/// Where a secret lies. Never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable's name.
    Env(String),
    /// A file that only its owner may read; one trailing line end is not part of the secret.
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct IdentityConfig {
    pub issuers: Vec<Issuer>,
    /// By OAuth client id: what counts as an agent, and what it may do.
    pub agents: BTreeMap<String, Agent>,
    pub max_token_bytes: usize,
    pub clock_skew: Duration,
    pub max_session: Duration,
    pub on_token_expiry: OnTokenExpiry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTokenExpiry {
    RefuseNewCommands,
    Close,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// Used in `Reviewers::Person` and in messages.
    pub name: String,
    /// The `iss` claim, byte for byte.
    pub issuer: String,
    pub audiences: Vec<String>,
    /// JOSE names: `RS256`, `PS256`, `ES256`, `ES384`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// Scope needed to connect; `holdpoint.connect` unless set.
    pub connect_scope: String,
    /// Scope needed to decide; `holdpoint.review` unless set.
    pub review_scope: String,
    /// Claim used as subject where present; `sub` otherwise.
    pub subject_claim: Option<String>,
    /// JSON pointer.
    pub groups_claim: String,
    /// Groups without it are ignored; it stays part of the name.
    pub groups_prefix: Option<String>,
    pub jwks_refresh: Duration,
    pub jwks_min_refetch: Duration,
    pub jwks_max_stale: Duration,
    /// PEM bundle for the issuer's own TLS; the system's roots otherwise.
    pub ca: Option<PathBuf>,
    /// How people sign in on the command line.
    pub login: Option<Login>,
    /// How people sign in to the web console; as `login` unless set.
    pub console: Option<ConsoleLogin>,
}

/// What the web console says to an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLogin {
    pub client_id: String,
    /// Of a confidential client.
    pub client_secret: Option<SecretRef>,
    /// Sent as `audience` and `resource`.
    pub audience: Option<String>,
}

/// What `holdpoint login` says to an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// A public client.
    pub client_id: String,
    /// Sent as `audience` and `resource`.
    pub audience: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub name: String,
    pub groups: Vec<String>,
    pub owners: Vec<Identity>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DevIssuer {
    pub listen: SocketAddr,
    pub users: BTreeMap<String, DevUser>,
    pub token_ttl: Duration,
}

impl DevIssuer {
    /// What rules call it: `person:dev|alice`.
    pub const NAME: &str = "dev";

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> String {
        Self::issuer_at(self.listen)
    }

    /// As [`DevIssuer::issuer`], of one that listens there.
    pub fn issuer_at(address: SocketAddr) -> String {
        format!("http://{address}/dev")
    }
}

/// An identity of the development issuer, by its subject.
#[derive(Debug, Clone, PartialEq)]
pub struct DevUser {
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    pub agent: bool,
    /// Subjects of this issuer that answer for this agent.
    pub owners: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub listen: SocketAddr,
    pub target: String,
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The plugin's name.
    pub protocol: String,
    /// Host name or IP, used for dialling and for the certificate.
    pub host: String,
    pub port: u16,
    pub tls: UpstreamTls,
    /// `tls` may be off towards another machine.
    pub danger_allow_cleartext: bool,
    pub user: String,
    pub password: Option<SecretRef>,
    /// Labels that rules may match, such as `prod`.
    pub tags: Vec<String>,
    /// Who decides where a rule leaves it to the target's owners.
    pub owners: Vec<Reviewers>,
    /// Passed to the plugin.
    pub settings: BTreeMap<String, String>,
    pub connect_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Verified against the system's roots or this PEM bundle.
    Verify { ca: Option<PathBuf> },
    /// In clear. Only to loopback, unless `danger_allow_cleartext` was set.
    Off,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Absent: the component that this binary carries.
    pub path: Option<PathBuf>,
    /// SHA-256 that the component must have, hex.
    pub sha256: Option<String>,
    pub cpu_budget: Duration,
    pub memory: u64,
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            path: None,
            sha256: None,
            cpu_budget: Duration::from_millis(250),
            memory: 128 << 20,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct HoldConfig {
    pub inline_wait_agent: Duration,
    pub inline_wait_person: Duration,
    /// A rule's `expires_in` cannot exceed it.
    pub max_hold: Duration,
    pub max_hold_in_transaction: Duration,
    pub heartbeat: Duration,
    /// After a late approval the identical command passes once within this.
    pub grant_ttl: Duration,
    /// A denied command is refused without asking again for this long.
    pub deny_cooldown: Duration,
    pub max_pending_per_principal: usize,
    pub max_pending: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// Base of the links in messages.
    pub public_url: Option<String>,
    /// What security keys are made for; without it there are none.
    pub webauthn: Option<RelyingParty>,
    pub webhooks: Vec<WebhookOut>,
    pub integrations: BTreeMap<String, Integration>,
    pub on_call: BTreeMap<String, OnCall>,
    pub slack: BTreeMap<String, SlackOut>,
    pub teams: BTreeMap<String, TeamsOut>,
    pub email: BTreeMap<String, EmailOut>,
    pub pagerduty: BTreeMap<String, PagerDutyOut>,
}

impl Review {
    /// Whether anyone is told of held commands.
    pub fn tells(&self) -> bool {
        !(self.webhooks.is_empty()
            && self.slack.is_empty()
            && self.teams.is_empty()
            && self.email.is_empty()
            && self.pagerduty.is_empty())
    }
}

/// One channel of Slack, by an app of the operator's.
#[derive(Debug, Clone, PartialEq)]
pub struct SlackOut {
    pub token: SecretRef,
    pub signing_secret: SecretRef,
    /// An id, not a name: names can be taken over.
    pub channel: String,
    /// Whether messages can be decided on where they are.
    pub buttons: bool,
    /// How long an account stands for whoever signed in for it.
    pub link_lasts: Duration,
    pub api_url: String,
    pub ca: Option<PathBuf>,
}

/// A Microsoft Teams workflow that takes cards.
#[derive(Debug, Clone, PartialEq)]
pub struct TeamsOut {
    pub workflow_url: SecretRef,
    pub ca: Option<PathBuf>,
}

/// Mail by SMTP.
#[derive(Debug, Clone, PartialEq)]
pub struct EmailOut {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// Both or none.
    pub login: Option<(String, SecretRef)>,
    pub from: String,
    pub to: Vec<String>,
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    Starttls,
    Implicit,
    /// Loopback only.
    Off,
}

/// A PagerDuty service (Events API v2).
#[derive(Debug, Clone, PartialEq)]
pub struct PagerDutyOut {
    pub routing_key: SecretRef,
    pub severity: Severity,
    pub api_url: String,
    pub ca: Option<PathBuf>,
}

/// As PagerDuty names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Critical,
    Error,
    Warning,
    Info,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Where to ask who is on call.
#[derive(Debug, Clone, PartialEq)]
pub struct OnCall {
    pub url: String,
    /// Sent as a bearer token.
    pub secret: Option<SecretRef>,
    pub ca: Option<PathBuf>,
    /// How long an answer counts.
    pub cache: Duration,
}

/// Standard Webhooks out.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookOut {
    pub name: String,
    pub url: String,
    /// `whsec_…`.
    pub secret: SecretRef,
    pub ca: Option<PathBuf>,
    /// Of what it is told, such as `approval.pending`; absent: of everything.
    pub events: Option<Vec<&'static str>>,
}

/// A system that may send signed votes on behalf of reviewers.
#[derive(Debug, Clone, PartialEq)]
pub struct Integration {
    pub secret: SecretRef,
    /// Who it may speak for.
    pub reviewers: Vec<Reviewers>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Absent only on loopback.
    pub tls: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JournalConfig {
    pub dir: PathBuf,
    pub sync: Sync,
    /// Bytes; segments are allocated whole.
    pub segment: u64,
    /// Ed25519 seed for checkpoints; made on first start where the file is absent.
    pub key: PathBuf,
}

/// Which records are on stable storage before the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Responses too.
    All,
    /// Everything but responses.
    Commands,
    /// Everything but responses and commands that policy allows at once.
    Relaxed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub max_sessions: usize,
    pub max_sessions_per_principal: usize,
    /// Of login, in each direction.
    pub handshake: Duration,
    /// Bytes of one command.
    pub max_command: u32,
    /// Bytes read from a client while a command of its is undecided.
    pub held_ahead: usize,
    pub drain: Duration,
}

/// The mailbox between nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisConfig {
    pub place: RedisPlace,
    pub username: Option<String>,
    pub password: Option<SecretRef>,
    pub sentinel_password: Option<SecretRef>,
    pub ca: Option<PathBuf>,
    /// Proves that a vote comes from a node of ours.
    pub cluster_secret: SecretRef,
    pub key_prefix: String,
    /// Replicas that must have a vote before it is called submitted.
    pub replicas: usize,
    /// How long a vote for another node waits for its answer.
    pub vote_wait: Duration,
    /// Clear text may leave the machine.
    pub danger_allow_cleartext: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RedisPlace {
    Single(RedisUrl),
    /// Sentinels, which know where the master is.
    Sentinel {
        master: String,
        sentinels: Vec<RedisUrl>,
    },
    /// Some nodes of a cluster, which know the others.
    Cluster(Vec<RedisUrl>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Database number.
    pub db: u32,
}

impl std::fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        }
        if self.db == 0 {
            Ok(())
        } else {
            write!(f, "/{}", self.db)
        }
    }
}
