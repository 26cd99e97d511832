//! Where to sign in, and as which client: from the flags, from what the gateway says at
//! `/.well-known/holdpoint`, or from a configuration file, whichever says it first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use serde::Deserialize;

use super::cache::Kept;
use crate::api::About;
use crate::http_client::{HttpClient, USER_AGENT, checked, is_loopback};
use crate::oidc::Client;

const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 1 << 20;

/// The client of the development issuer.
const DEV_CLIENT: &str = "holdpoint-dev";

/// Which gateway, which issuer.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Where {
    /// The gateway's admin address, which says where to sign in
    #[arg(long, value_name = "URL", env = "HOLDPOINT_SERVER")]
    pub(in crate::cli) server: Option<String>,
    /// PEM bundle that the gateway's certificate is checked against
    #[arg(long, value_name = "FILE", env = "HOLDPOINT_CA")]
    pub(in crate::cli) ca: Option<PathBuf>,
    /// Issuer, where there are several, or whatever the gateway says
    #[arg(long, value_name = "URL", env = "HOLDPOINT_ISSUER")]
    pub(in crate::cli) issuer: Option<String>,
    /// PEM bundle that the issuer's certificate is checked against
    #[arg(long, value_name = "FILE", env = "HOLDPOINT_ISSUER_CA")]
    pub(in crate::cli) issuer_ca: Option<PathBuf>,
    /// The public client that is registered at the issuer for this
    #[arg(long, value_name = "ID", env = "HOLDPOINT_LOGIN_CLIENT")]
    pub(in crate::cli) client_id: Option<String>,
    /// Configuration file that names the issuer
    #[arg(short, long, value_name = "FILE", env = "HOLDPOINT_CONFIG")]
    pub(in crate::cli) config: Option<PathBuf>,
}

/// Everything that is said to an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) audience: Option<String>,
    pub(super) connect_scope: String,
    pub(super) review_scope: String,
    /// Tokens go to this gateway alone.
    pub(super) server: Option<String>,
    /// Of the issuer's TLS.
    pub(super) ca: Option<PathBuf>,
}

impl Way {
    /// Who asks, and goes on after a token's end.
    pub(super) fn client(&self) -> Client {
        Client {
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            audience: self.audience.clone(),
            ca: self.ca.clone(),
            // A program on somebody's machine could not keep one.
            secret: None,
            offline: true,
        }
    }
}

impl Where {
    /// The gateway as it is written down: no slash at the end.
    pub(in crate::cli) fn server(&self) -> Option<String> {
        let server = self.server.as_deref()?;
        Some(server.trim_end_matches('/').to_owned())
    }

    /// Whether a kept token is among those that this names. No name is all.
    pub(super) fn names(&self, kept: &Kept) -> bool {
        let server = self.server();
        server.is_none_or(|server| kept.server.as_ref() == Some(&server))
            && self
                .issuer
                .as_ref()
                .is_none_or(|issuer| kept.issuer == *issuer)
            && self
                .client_id
                .as_ref()
                .is_none_or(|client| kept.client_id == *client)
    }

    /// # Errors
    /// Nothing says where to sign in; the message says how to.
    pub(super) async fn way(&self) -> anyhow::Result<Way> {
        let mut ways = Vec::new();
        if let Some(server) = self.server() {
            ways = asked(&server, self.ca.as_deref()).await?;
        }
        if ways.is_empty()
            && let Some(config) = &self.config
        {
            ways = written(config)?;
        }
        let found = match &self.issuer {
            None => ways.into_iter().next(),
            Some(issuer) => ways.into_iter().find(|way| way.issuer == *issuer),
        };
        let mut way = match (found, &self.issuer) {
            (Some(way), _) => way,
            (None, Some(issuer)) => {
                let dev = is_dev(issuer).then(|| DEV_CLIENT.to_owned());
                let Some(client_id) = self.client_id.clone().or(dev) else {
                    bail!(
                        "nothing says as which client to sign in at `{issuer}`\nhint: give \
                         `--client-id ID` of a public client that is registered there, or let an \
                         operator set `login = {{ client_id = \"ID\" }}` of the gateway's issuer"
                    );
                };
                Way {
                    issuer: issuer.clone(),
                    client_id,
                    audience: None,
                    connect_scope: "holdpoint.connect".to_owned(),
                    review_scope: "holdpoint.review".to_owned(),
                    server: None,
                    ca: None,
                }
            }
            (None, None) => match self.server() {
                Some(server) => bail!(
                    "the gateway at `{server}` does not say how to sign in\nhint: an operator sets \
                     `login = {{ client_id = \"ID\" }}` of an issuer; or give `--issuer URL` and \
                     `--client-id ID`"
                ),
                None => bail!(
                    "nothing says where to sign in\nhint: name the gateway with `--server URL` \
                     or HOLDPOINT_SERVER, or give `--issuer URL` and `--client-id ID`"
                ),
            },
        };
        checked(&way.issuer)?;
        if let Some(client) = &self.client_id {
            way.client_id.clone_from(client);
        }
        way.server = self.server();
        if let Some(ca) = &self.issuer_ca {
            // Kept for later, when the folder is another.
            way.ca = Some(std::path::absolute(ca)?);
        }
        Ok(way)
    }
}

/// What the gateway says.
async fn asked(server: &str, ca: Option<&Path>) -> anyhow::Result<Vec<Way>> {
    let http = HttpClient::new(ca, MAX_ANSWER)?;
    let request = Request::get(checked(&format!("{server}/.well-known/holdpoint"))?)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Bytes::new())?;
    let answer = http
        .send(request, PATIENCE)
        .await
        .with_context(|| format!("cannot ask the gateway at `{server}`"))?;
    if answer.status != StatusCode::OK {
        bail!("`{server}` answered {}: is it a holdpoint?", answer.status);
    }
    let about: About = serde_json::from_slice(&answer.body)
        .with_context(|| format!("`{server}` is not a holdpoint"))?;
    let ways = about.login.into_iter().map(|login| Way {
        issuer: login.issuer,
        client_id: login.client_id,
        audience: login.audience,
        connect_scope: login.connect_scope,
        review_scope: login.review_scope,
        server: None,
        ca: None,
    });
    Ok(ways.collect())
}

/// What a configuration says. Only this much of it is read: a client need not be able to
/// read what the gateway reads.
fn written(path: &Path) -> anyhow::Result<Vec<Way>> {
    let file = File::read(path)?;
    let mut ways = Vec::new();
    if let Some(dev) = file.dev_issuer {
        ways.push(Way {
            issuer: dev.issuer(),
            client_id: DEV_CLIENT.to_owned(),
            audience: None,
            connect_scope: "holdpoint.connect".to_owned(),
            review_scope: "holdpoint.review".to_owned(),
            server: None,
            ca: None,
        });
    }
    for issuer in file.identity.unwrap_or_default().issuer {
        let Some(login) = issuer.login else {
            continue;
        };
        let or = |scope: Option<String>, usual: &str| scope.unwrap_or_else(|| usual.to_owned());
        ways.push(Way {
            issuer: issuer.issuer,
            client_id: login.client_id,
            audience: login.audience,
            connect_scope: or(issuer.connect_scope, "holdpoint.connect"),
            review_scope: or(issuer.review_scope, "holdpoint.review"),
            server: None,
            ca: issuer.ca.map(|ca| beside(path, &ca)).transpose()?,
        });
    }
    Ok(ways)
}

fn beside(config: &Path, file: &Path) -> anyhow::Result<PathBuf> {
    let folder = config.parent().unwrap_or(Path::new(""));
    Ok(std::path::absolute(folder.join(file))?)
}

/// The issuer that a configuration names: the development issuer, or the first.
pub(in crate::cli) fn issuer_in(path: &Path) -> anyhow::Result<String> {
    let file = File::read(path)?;
    let listed = file.identity.unwrap_or_default().issuer.into_iter().next();
    match (file.dev_issuer, listed) {
        (Some(dev), _) => Ok(dev.issuer()),
        (None, Some(first)) => Ok(first.issuer),
        (None, None) => bail!("`{}` names no issuer", path.display()),
    }
}

#[derive(Deserialize)]
struct File {
    dev_issuer: Option<Dev>,
    identity: Option<Identity>,
}

#[derive(Deserialize)]
struct Dev {
    listen: String,
}

#[derive(Deserialize, Default)]
struct Identity {
    #[serde(default)]
    issuer: Vec<Issuer>,
}

#[derive(Deserialize)]
struct Issuer {
    issuer: String,
    connect_scope: Option<String>,
    review_scope: Option<String>,
    ca: Option<PathBuf>,
    login: Option<Login>,
}

#[derive(Deserialize)]
struct Login {
    client_id: String,
    audience: Option<String>,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        toml::from_str(&text).with_context(|| format!("`{}` is wrong", path.display()))
    }
}

impl Dev {
    fn issuer(&self) -> String {
        format!("http://{}/dev", self.listen)
    }
}

/// By its address alone: only this machine's issuers are asked for tokens by name.
pub(in crate::cli) fn is_dev(issuer: &str) -> bool {
    checked(issuer).is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(is_loopback)
            && uri.path() == "/dev"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_for_tokens_by_name() {
        assert!(is_dev("http://127.0.0.1:9400/dev"));
        for issuer in [
            "https://127.0.0.1:9400/dev",
            "http://issuer.example/dev",
            "http://127.0.0.1:9400/",
            "http://127.0.0.1@issuer.example/dev",
        ] {
            assert!(!is_dev(issuer), "{issuer}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_said_with_what_to_do() {
        let text = Where::default().way().await.unwrap_err().to_string();
        assert!(text.contains("--server URL"), "{text}");
        let place = Where {
            issuer: Some("https://issuer.example".to_owned()),
            ..Where::default()
        };
        let text = place.way().await.unwrap_err().to_string();
        assert!(text.contains("--client-id ID"), "{text}");
    }

    #[tokio::test]
    async fn flags_go_before_what_is_found() {
        let place = Where {
            issuer: Some("http://127.0.0.1:9400/dev".to_owned()),
            ..Where::default()
        };
        assert_eq!(place.way().await.unwrap().client_id, DEV_CLIENT);
        let place = Where {
            client_id: Some("mine".to_owned()),
            ..place
        };
        assert_eq!(place.way().await.unwrap().client_id, "mine");
    }
}
