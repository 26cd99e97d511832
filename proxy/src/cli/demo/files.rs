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
    ) -> anyhow::Result<Self> {
        let ports = super::ports::free(3)?;
        let (listener, admin, issuer) = (ports[0], ports[1], ports[2]);
        let at = |name: &str| place.join(name);

        certificates(place).context("cannot make the demo's certificates")?;
        private(&at("upstream-password"), &postgres.password)?;
        private(&at("webhook-secret"), receiver.secret())?;
        fs::create_dir(at("policies"))?;
        private(&at("policies/default.toml"), DEFAULT_RULES)?;
        private(&at("policies/postgres.toml"), POSTGRES_RULES)?;
        private(
            &at("holdpoint.toml"),
            &format!(
                r#"# Made by `holdpoint demo`: one target, two identities, all on loopback.
node = "demo"

[dev_issuer]
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
dir = "journal"
segment = "4MiB"
"#,
                target = postgres.address,
                user = postgres.user,
                database = postgres.database,
                webhook = receiver.url(),
            ),
        )?;
        Ok(Self {
            program: std::env::current_exe().context("cannot find this program")?,
            dir: place.to_path_buf(),
            config: at("holdpoint.toml"),
            journal: at("journal"),
            ca: at("ca.pem"),
            agent_token: at("agent.token"),
            reviewer_token: at("rita.token"),
            gateway_log: at("gateway.log"),
            admin,
        })
    }

    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
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
