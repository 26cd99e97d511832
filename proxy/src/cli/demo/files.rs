//! What the demo writes: certificates, secrets, configuration, rules.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use super::postgres::Postgres;
use super::receiver::Receiver;
use super::redis::Redis;
use crate::identity::DEV_AUDIENCE as AUDIENCE;

const DEFAULT_RULES: &str = include_str!("../../../../policies/default.toml");
const POSTGRES_RULES: &str = include_str!("../../../../policies/postgres.toml");

pub(super) struct Files {
    pub(super) program: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) config: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) ca: PathBuf,
    pub(super) agent_token: PathBuf,
    pub(super) reviewer_token: PathBuf,
    pub(super) gateway_log: PathBuf,
    pub(super) admin: SocketAddr,
}

impl Files {
    pub(super) fn write(
        place: &Path,
        postgres: &Postgres,
        receiver: &Receiver,
        redis: Option<&Redis>,
    ) -> anyhow::Result<Vec<Self>> {
        let ports = super::ports::free(5)?;
        let issuer = ports[4];
        let at = |name: &str| place.join(name);

        certificates(place).context("cannot make the demo's certificates")?;
        private(&at("upstream-password"), &postgres.password)?;
        private(&at("webhook-secret"), receiver.secret())?;
        fs::create_dir(at("policies"))?;
        private(&at("policies/default.toml"), DEFAULT_RULES)?;
        private(&at("policies/postgres.toml"), POSTGRES_RULES)?;
        let known = known_here(issuer);
        let first = Node {
            name: "demo",
            config: "holdpoint.toml",
            more: String::new(),
            known: &known,
            addresses: [ports[0], ports[1]],
        };
        let Some(redis) = redis else {
            return Ok(vec![first.write(place, postgres, receiver)?]);
        };
        let store = format!(
            r#"
# What the other node holds is seen and decided here, too.
[store.redis]
url = "redis://{}"
password = "file:redis-password"
cluster_secret = "file:cluster-secret"
"#,
            redis.address
        );
        let first = Node {
            name: "demo-1",
            more: store.clone(),
            ..first
        };
        let second = Node {
            name: "demo-2",
            config: "holdpoint-2.toml",
            more: store,
            known: &known_there(issuer),
            addresses: [ports[2], ports[3]],
        };
        Ok(vec![
            first.write(place, postgres, receiver)?,
            second.write(place, postgres, receiver)?,
        ])
    }

    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

/// Identities, by the development issuer of this node.
fn known_here(issuer: SocketAddr) -> String {
    format!(
        r#"[dev_issuer]
listen = "{issuer}"
token_ttl = "12h"

[dev_issuer.users.agent]
agent = true
groups = ["holdpoint-agents"]
scopes = ["holdpoint.connect"]
owners = ["olivia"]

[dev_issuer.users.rita]
groups = ["holdpoint-reviewers"]
scopes = ["holdpoint.connect", "holdpoint.review"]

# Answers for the agent, so she cannot approve what it asks.
[dev_issuer.users.olivia]
groups = ["holdpoint-reviewers"]
scopes = ["holdpoint.review"]
"#
    )
}

/// The same identities, by the issuer of the first node.
fn known_there(issuer: SocketAddr) -> String {
    format!(
        r#"[[identity.issuer]]
name = "dev"
issuer = "http://{issuer}/dev"
audiences = ["{AUDIENCE}"]
algorithms = ["ES256"]

[identity.agents.agent]
name = "agent"
groups = ["holdpoint-agents"]
owners = ["dev|olivia"]
"#
    )
}

/// One gateway.
#[derive(Clone)]
struct Node<'a> {
    name: &'a str,
    config: &'a str,
    /// Further tables.
    more: String,
    /// Who is known.
    known: &'a str,
    /// Where clients connect, and where reviewers do.
    addresses: [SocketAddr; 2],
}

impl Node<'_> {
    fn write(
        &self,
        place: &Path,
        postgres: &Postgres,
        receiver: &Receiver,
    ) -> anyhow::Result<Files> {
        let at = |name: &str| place.join(name);
        let [listener, admin] = self.addresses;
        let second = if self.config == "holdpoint.toml" {
            ""
        } else {
            "-2"
        };
        private(
            &at(self.config),
            &format!(
                r#"# Made by `holdpoint demo`: one target, two identities, all on loopback.
node = "{name}"
state = ".holdpoint{second}"

{known}
[target.shop]
protocol = "postgres"
address = "{target}"
tls = "off"                     # loopback only
user = "{user}"
password = "file:upstream-password"
tags = ["demo"]
settings = {{ database = "{database}" }}

[listener.shop]
listen = "{listener}"
target = "shop"
tls = {{ cert = "gateway.pem", key = "gateway.key" }}

[policy]
files = ["policies/default.toml", "policies/postgres.toml"]

[hold]
inline_wait = {{ agent = "5m", person = "5m" }}
heartbeat = "5s"

[review]
public_url = "http://{admin}"

[[review.webhook]]
name = "reviewers"
url = "{webhook}"
secret = "file:webhook-secret"

[admin]
listen = "{admin}"

[journal]
dir = "journal{second}"
segment = "4MiB"
{more}"#,
                name = self.name,
                known = self.known,
                more = self.more,
                target = postgres.address,
                user = postgres.user,
                database = postgres.database,
                webhook = receiver.url(),
            ),
        )?;
        Ok(Files {
            program: std::env::current_exe().context("cannot find this program")?,
            dir: place.to_path_buf(),
            config: at(self.config),
            journal: at(&format!("journal{second}")),
            ca: at("ca.pem"),
            agent_token: at("agent.token"),
            reviewer_token: at("rita.token"),
            gateway_log: at(&format!("gateway{second}.log")),
            admin,
        })
    }
}

/// Writes a file that only its owner may read.
pub(super) fn private(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// An authority, and the gateway's certificate for loopback.
fn certificates(place: &Path) -> anyhow::Result<()> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, "holdpoint demo");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    private(&place.join("ca.pem"), &authority.pem())?;
    private(&place.join("gateway.pem"), &leaf.pem())?;
    private(&place.join("gateway.key"), &key.serialize_pem())
}
