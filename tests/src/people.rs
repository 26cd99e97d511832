//! The gateway's own development issuer, and those who sign in there: the agent `ada`, and people
//! who review.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::browser::Form;
use crate::gateway::free_ports;
use crate::{Browser, Gateway, Reviewer};

pub struct People {
    address: SocketAddr,
    tables: String,
}

impl People {
    /// `ada`, for whom `owner` answers where there is one, and reviewers with their group.
    pub fn new(owner: Option<&str>, reviewers: &[(&str, &str)]) -> Self {
        let [address] = free_ports();
        let mut tables = format!(
            "[dev_issuer]\nlisten = \"{address}\"\n[dev_issuer.users.ada]\nagent = true\n\
             groups = [\"agents\"]\nscopes = [\"holdpoint.connect\"]\n"
        );
        if let Some(owner) = owner {
            let _ = writeln!(tables, "owners = [\"{owner}\"]");
        }
        for (user, group) in reviewers {
            let _ = write!(
                tables,
                "[dev_issuer.users.{user}]\ngroups = [\"{group}\"]\nscopes = [\"holdpoint.review\"]\n"
            );
        }
        Self { address, tables }
    }

    /// For [`crate::Settings::known`].
    pub fn known(&self) -> Option<String> {
        Some(self.tables.clone())
    }

    /// The issuer's URL.
    pub fn issuer(&self) -> String {
        format!("http://{}/dev", self.address)
    }

    /// The agent's token.
    pub async fn agent(&self, gateway: &Gateway) -> String {
        self.token(gateway, "ada", "holdpoint.connect").await
    }

    /// Somebody who reviews, over the API.
    pub async fn reviewer(&self, gateway: &Gateway, user: &str) -> Reviewer {
        let token = self.token(gateway, user, "holdpoint.review").await;
        Reviewer::new(gateway.admin, token)
    }

    /// For the asking, as at no other issuer.
    async fn token(&self, gateway: &Gateway, user: &str, scope: &str) -> String {
        let form = Form {
            action: format!("{}/token", self.issuer()),
            fields: [
                ("grant_type", "urn:holdpoint:dev"),
                ("user", user),
                ("scope", scope),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        };
        let page = Browser::default().post(&form).await;
        let answer: serde_json::Value = serde_json::from_str(&page.body).unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        gateway.keep_secret(&token);
        token
    }
}
