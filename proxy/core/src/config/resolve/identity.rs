//! The part of resolving that is about who may log in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::model::*;
use super::super::raw;
use super::Resolver;
use crate::policy;
use crate::principal::Identity;
use crate::source::{At, Span};

impl Resolver<'_> {
    pub(super) fn dev_issuer(&mut self, raw: raw::DevIssuer, alone: bool) -> DevIssuer {
        let at = At::root().key("dev_issuer");
        if !alone {
            let problem = self
                .source
                .problem_of_key(
                    &at,
                    "the development issuer cannot stand beside another issuer",
                )
                .help("remove `[dev_issuer]`, or every `[[identity.issuer]]`");
            self.fault_with(problem);
        }
        let here = at.key("listen");
        let listen = self.listen(&here, &raw.listen);
        if let Some(address) = listen {
            if !address.ip().is_loopback() {
                self.fault(&here, "the development issuer listens on loopback only");
            }
            if address.port() == 0 {
                self.fault(
                    &here,
                    "the port is part of the issuer's name, so it must be given",
                );
            }
        }
        let mut users = BTreeMap::new();
        for (name, user) in &raw.users {
            if !user.agent && !user.owners.is_empty() {
                let here = at.key("users").key(name).key("owners");
                self.fault(
                    &here,
                    "people have no owners: with `agent = true` it is an agent",
                );
            }
            for (n, owner) in user.owners.iter().enumerate() {
                if !raw.users.contains_key(owner) {
                    let problem = self
                        .source
                        .problem(
                            &at.key("users").key(name).key("owners").index(n),
                            format!("there is no user `{owner}` here"),
                        )
                        .choices(owner, raw.users.keys().map(String::as_str));
                    self.fault_with(problem);
                }
            }
        }
        for (name, user) in raw.users {
            users.insert(
                name,
                DevUser {
                    groups: user.groups,
                    scopes: user.scopes,
                    agent: user.agent,
                    owners: user.owners,
                },
            );
        }
        let dev = DevIssuer {
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            users,
            token_ttl: self.span(&at.key("token_ttl"), raw.token_ttl, 3600),
        };
        self.issuers
            .insert(DevIssuer::NAME.to_owned(), dev.issuer());
        dev
    }

    pub(super) fn identity(
        &mut self,
        raw: raw::Identity,
        dev: Option<&DevIssuer>,
    ) -> IdentityConfig {
        let at = At::root().key("identity");
        if raw.issuer.is_empty() && dev.is_none() {
            let problem = self
                .source
                .problem_of_key(&at, "no issuer is configured, so nobody could log in")
                .help("add `[[identity.issuer]]`, or `[dev_issuer]` to try things out");
            self.fault_with(problem);
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for (n, issuer) in raw.issuer.into_iter().enumerate() {
            let issuer = self.issuer(&at.key("issuer").index(n), issuer, &issuers);
            self.issuers
                .insert(issuer.name.clone(), issuer.issuer.clone());
            issuers.push(issuer);
        }
        let mut agents = BTreeMap::new();
        for (client, agent) in raw.agents {
            let here = at.key("agents").key(&client).key("owners");
            let owners = agent.owners.iter().enumerate();
            let owners = owners
                .filter_map(|(n, owner)| self.person(&here.index(n), owner))
                .collect();
            agents.insert(
                client,
                Agent {
                    name: agent.name,
                    groups: agent.groups,
                    owners,
                },
            );
        }
        let skew = self.span(
            &at.key("clock_skew"),
            raw.clock_skew.or(Some(Span(Duration::from_secs(30)))),
            30,
        );
        if skew > Duration::from_secs(300) {
            self.fault(
                &at.key("clock_skew"),
                "must be at most 5m: expired tokens would live that long",
            );
        }
        IdentityConfig {
            issuers,
            agents,
            max_token_bytes: self.count(&at.key("max_token_bytes"), raw.max_token_bytes, 16384),
            clock_skew: skew,
            max_session: self.span(&at.key("max_session"), raw.max_session, 8 * 3600),
            on_token_expiry: match raw.on_token_expiry {
                Some(raw::OnTokenExpiry::Close) => OnTokenExpiry::Close,
                Some(raw::OnTokenExpiry::RefuseNewCommands) | None => {
                    OnTokenExpiry::RefuseNewCommands
                }
            },
        }
    }

    fn issuer(&mut self, at: &At, raw: raw::Issuer, before: &[Issuer]) -> Issuer {
        if raw.name.is_empty() || raw.name.contains(['|', ':']) {
            self.fault(
                &at.key("name"),
                "an issuer's name is not empty and has no `|` or `:`",
            );
        }
        if before.iter().any(|issuer| issuer.name == raw.name) {
            self.fault(
                &at.key("name"),
                format!("there are two issuers `{}`", raw.name),
            );
        }
        if before.iter().any(|issuer| issuer.issuer == raw.issuer) {
            self.fault(&at.key("issuer"), "another entry has this issuer already");
        }
        self.url(&at.key("issuer"), &raw.issuer, "its keys");
        if raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty) {
            let problem = self
                .source
                .problem(
                    &at.key("audiences"),
                    "tokens made for others would be accepted",
                )
                .help("name the audience that the issuer puts into holdpoint's tokens");
            self.fault_with(problem);
        }
        let algorithms = raw
            .algorithms
            .unwrap_or_else(|| vec![raw::Algorithm::RS256]);
        if algorithms.is_empty() {
            self.fault(
                &at.key("algorithms"),
                "without an algorithm no token could be checked",
            );
        }
        let connect_scope = raw
            .connect_scope
            .unwrap_or_else(|| "holdpoint.connect".to_owned());
        let review_scope = raw
            .review_scope
            .unwrap_or_else(|| "holdpoint.review".to_owned());
        if connect_scope == review_scope {
            let message = "who may connect could review too: the two scopes must differ";
            self.fault(&at.key("review_scope"), message);
        }
        for (key, scope) in [
            ("connect_scope", &connect_scope),
            ("review_scope", &review_scope),
        ] {
            if scope.is_empty() || scope.contains(char::is_whitespace) {
                self.fault(&at.key(key), "a scope is one word");
            }
        }
        let groups_claim = raw.groups_claim.unwrap_or_else(|| "/groups".to_owned());
        if !groups_claim.starts_with('/') {
            let problem = self
                .source
                .problem(&at.key("groups_claim"), "not a JSON pointer")
                .help(format!("`/{groups_claim}`"));
            self.fault_with(problem);
        }
        let login = raw.login.map(|login| {
            if login.client_id.is_empty() {
                let here = at.key("login").key("client_id");
                self.fault(&here, "names the client that `holdpoint login` is there");
            }
            Login {
                client_id: login.client_id,
                audience: login.audience,
            }
        });
        let console = raw.console.map(|console| {
            if console.client_id.is_empty() {
                let here = at.key("console").key("client_id");
                self.fault(&here, "names the client that the web console is there");
            }
            ConsoleLogin {
                client_id: console.client_id,
                client_secret: console.client_secret.map(|secret| self.secret(secret)),
                audience: console.audience,
            }
        });
        let jwks = at.key("jwks");
        Issuer {
            name: raw.name,
            issuer: raw.issuer,
            audiences: raw.audiences,
            algorithms: algorithms
                .iter()
                .map(|algorithm| format!("{algorithm:?}"))
                .collect(),
            connect_scope,
            review_scope,
            subject_claim: raw.subject_claim,
            groups_claim,
            groups_prefix: raw.groups_prefix,
            jwks_refresh: self.span(&jwks.key("refresh"), raw.jwks.refresh, 3600),
            jwks_min_refetch: self.span(&jwks.key("min_refetch"), raw.jwks.min_refetch, 30),
            jwks_max_stale: self.span(&jwks.key("max_stale"), raw.jwks.max_stale, 24 * 3600),
            ca: raw.ca.map(|ca| self.path(&ca)),
            login,
            console,
        }
    }

    fn person(&mut self, at: &At, text: &str) -> Option<Identity> {
        match policy::person(text, &self.issuers) {
            Ok(identity) => Some(identity),
            Err(message) => {
                self.fault(at, message);
                None
            }
        }
    }
}
