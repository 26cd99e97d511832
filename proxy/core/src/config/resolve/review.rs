//! The part of resolving that is about how reviewers are told, and how they answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::model::*;
use super::super::raw;
use super::{Resolver, is_loopback, split_address};
use crate::decision::Reviewers;
use crate::policy;
use crate::source::At;
use crate::webauthn::RelyingParty;

const SLACK: &str = "https://slack.com/api";
const PAGERDUTY: &str = "https://events.pagerduty.com";

/// Whoever went off call decides for so long at most.
const MAX_ON_CALL_CACHE: Duration = Duration::from_secs(600);

/// A link says which groups somebody was in when it was made, so it must not live for long.
const MAX_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

impl Resolver<'_> {
    pub(super) fn review(&mut self, raw: raw::Review, admin: Option<&Admin>) -> Review {
        let at = At::root().key("review");
        if let Some(url) = &raw.public_url {
            self.url(&at.key("public_url"), url, "reviewers' tokens");
        }
        let reachable =
            raw.public_url.is_some() || admin.is_some_and(|admin| admin.listen.ip().is_loopback());
        if !raw.slack.is_empty() && admin.is_none() {
            let problem = self
                .source
                .problem_of_key(
                    &at.key("slack"),
                    "Slack could not bring an answer: there is no `[admin]`",
                )
                .help("add `[admin]` with `listen`");
            self.fault_with(problem);
        } else if !raw.slack.is_empty() && !reachable {
            let problem = self
                .source
                .problem_of_key(&at.key("slack"), "`review.public_url` is not set: people could not sign in for their Slack account")
                .help("set it to where browsers reach the admin listener");
            self.fault_with(problem);
        }
        let webauthn = raw
            .webauthn
            .and_then(|webauthn| self.webauthn(&at, webauthn, raw.public_url.as_deref()));
        let webhooks = self.webhooks(&at.key("webhook"), raw.webhook);
        let integrations = self.integrations(&at.key("integration"), raw.integration);
        let on_call = self.on_call(&at.key("oncall"), raw.oncall);
        let each = at.key("slack");
        let slack = raw.slack.into_iter();
        let slack =
            slack.map(|(name, raw)| (name.clone(), self.slack(&each.key(&name), &name, raw)));
        let slack = slack.collect();
        let each = at.key("teams");
        let mut teams = BTreeMap::new();
        for (name, raw) in raw.teams {
            self.name(&each.key(&name), &name);
            let workflow_url = self.secret(raw.workflow_url);
            let ca = raw.ca.map(|ca| self.path(&ca));
            teams.insert(name, TeamsOut { workflow_url, ca });
        }
        let each = at.key("email");
        let email = raw.email.into_iter();
        let email =
            email.map(|(name, raw)| (name.clone(), self.email(&each.key(&name), &name, raw)));
        let email = email.collect();
        let each = at.key("pagerduty");
        let pagerduty = raw.pagerduty.into_iter();
        let pagerduty = pagerduty
            .map(|(name, raw)| (name.clone(), self.pagerduty(&each.key(&name), &name, raw)));
        let pagerduty = pagerduty.collect();
        Review {
            public_url: raw.public_url,
            webauthn,
            webhooks,
            integrations,
            on_call,
            slack,
            teams,
            email,
            pagerduty,
        }
    }

    /// Browsers make keys for names only, and for no other host than the page's own or one
    /// above it.
    fn webauthn(
        &mut self,
        review: &At,
        raw: raw::Webauthn,
        public_url: Option<&str>,
    ) -> Option<RelyingParty> {
        let at = review.key("webauthn");
        let Some(url) = public_url else {
            let problem = self
                .source
                .problem_of_key(
                    &at,
                    "`review.public_url` is not set: keys are made for its host",
                )
                .help("set it to where browsers reach the console, by a name");
            self.fault_with(problem);
            return None;
        };
        let origin = url.trim_end_matches('/');
        let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
        let host = split_address(authority).map_or(authority, |(host, _)| host);
        let host = host.to_ascii_lowercase();
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let address = host.parse::<std::net::IpAddr>().is_ok();
        if address || host.is_empty() || !host.chars().all(name) {
            let problem = self
                .source
                .problem(
                    &review.key("public_url"),
                    "browsers make security keys for names, not for addresses",
                )
                .help("name the host; on this machine `http://localhost:PORT`");
            self.fault_with(problem);
            return None;
        }
        let id = raw.rp_id.unwrap_or_else(|| host.clone());
        let above = host
            .strip_suffix(&id)
            .is_some_and(|rest| rest.ends_with('.'));
        if id != host && !(above && id.contains('.')) {
            let message = format!("`{id}` is neither `{host}` nor a domain above it");
            self.fault(&at.key("rp_id"), message);
        }
        // As browsers write it.
        let usual = match origin.starts_with("https:") {
            true => ":443",
            false => ":80",
        };
        let origin = origin.strip_suffix(usual).unwrap_or(origin);
        Some(RelyingParty {
            id,
            origin: origin.to_ascii_lowercase(),
        })
    }

    pub(super) fn deciders(&mut self, at: &At, texts: &[String]) -> Vec<Reviewers> {
        let mut all = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match policy::reviewers(text, &self.issuers) {
                Ok(one) => all.push(one),
                Err(message) => self.fault(&at.index(n), message),
            }
        }
        all
    }

    fn on_call(&mut self, at: &At, raw: BTreeMap<String, raw::OnCall>) -> BTreeMap<String, OnCall> {
        let mut lists = BTreeMap::new();
        for (name, raw) in raw {
            let at = at.key(&name);
            self.name(&at, &name);
            self.url(&at.key("url"), &raw.url, "who may decide");
            let cache = self.span(&at.key("cache"), raw.cache, 30);
            if cache > MAX_ON_CALL_CACHE {
                let message = "must be at most 10m: whoever left would decide that long";
                self.fault(&at.key("cache"), message);
            }
            let list = OnCall {
                url: raw.url,
                secret: raw.secret.map(|secret| self.secret(secret)),
                ca: raw.ca.map(|ca| self.path(&ca)),
                cache,
            };
            lists.insert(name, list);
        }
        lists
    }

    fn webhooks(&mut self, at: &At, raw: Vec<raw::Webhook>) -> Vec<WebhookOut> {
        let mut webhooks: Vec<WebhookOut> = Vec::new();
        for (n, webhook) in raw.into_iter().enumerate() {
            let here = at.index(n);
            if webhooks.iter().any(|other| other.name == webhook.name) {
                self.fault(
                    &here.key("name"),
                    format!("there are two webhooks `{}`", webhook.name),
                );
            }
            self.url(&here.key("url"), &webhook.url, "held commands");
            if webhook.events.as_ref().is_some_and(Vec::is_empty) {
                let message = "it would be told nothing: name an event, or leave this out";
                self.fault(&here.key("events"), message);
            }
            let events = webhook.events.map(|events| {
                let words = events.into_iter().map(raw::Event::word);
                words.collect()
            });
            webhooks.push(WebhookOut {
                name: webhook.name,
                url: webhook.url,
                secret: self.secret(webhook.secret),
                ca: webhook.ca.map(|ca| self.path(&ca)),
                events,
            });
        }
        webhooks
    }

    fn integrations(
        &mut self,
        at: &At,
        raw: BTreeMap<String, raw::Integration>,
    ) -> BTreeMap<String, Integration> {
        let mut integrations = BTreeMap::new();
        for (name, raw) in raw {
            let here = at.key(&name).key("reviewers");
            if raw.reviewers.is_empty() {
                self.fault(&here, "it may speak for nobody: name a group or a person");
            }
            let reviewers = self.deciders(&here, &raw.reviewers);
            let secret = self.secret(raw.secret);
            integrations.insert(name, Integration { secret, reviewers });
        }
        integrations
    }

    fn slack(&mut self, at: &At, name: &str, raw: raw::Slack) -> SlackOut {
        self.name(at, name);
        let id = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        let kind = raw.channel.starts_with(['C', 'G', 'D']);
        if !kind || raw.channel.len() < 9 || !raw.channel.chars().all(id) {
            let problem = self
                .source
                .problem(
                    &at.key("channel"),
                    "not a channel's id, such as `C0123456789`",
                )
                .help("in Slack: the channel's details, at the very end");
            self.fault_with(problem);
        }
        let api_url = raw.api_url.unwrap_or_else(|| SLACK.to_owned());
        self.url(&at.key("api_url"), &api_url, "held commands");
        let here = at.key("link_lasts");
        let link_lasts = self.span(&here, raw.link_lasts, 12 * 3600);
        if link_lasts > MAX_LINK {
            let message = "must be at most 7d: groups that somebody has left would count that long";
            self.fault(&here, message);
        }
        SlackOut {
            token: self.secret(raw.token),
            signing_secret: self.secret(raw.signing_secret),
            channel: raw.channel,
            buttons: raw.buttons.unwrap_or(true),
            link_lasts,
            api_url: api_url.trim_end_matches('/').to_owned(),
            ca: raw.ca.map(|ca| self.path(&ca)),
        }
    }

    fn email(&mut self, at: &At, name: &str, raw: raw::Email) -> EmailOut {
        self.name(at, name);
        let (host, port) = match split_address(&raw.server) {
            Some((host, port)) => (host.to_owned(), port),
            None => {
                let message = format!(
                    "`{}` is no `HOST:PORT`, such as `smtp.example:587`",
                    raw.server
                );
                self.fault(&at.key("server"), message);
                (String::new(), 0)
            }
        };
        let tls = match raw.tls {
            None | Some(raw::MailTls::Starttls) => MailTls::Starttls,
            Some(raw::MailTls::Implicit) => MailTls::Implicit,
            Some(raw::MailTls::Off) => {
                if port != 0 && !is_loopback(&host) {
                    let message = format!("held commands would travel to `{host}` in clear");
                    self.fault(&at.key("tls"), message);
                }
                MailTls::Off
            }
        };
        let login = match (raw.user, raw.password) {
            (Some(user), Some(password)) => Some((user, self.secret(password))),
            (None, None) => None,
            (Some(_), None) => {
                self.fault(&at.key("user"), "a name without a `password`");
                None
            }
            (None, Some(_)) => {
                self.fault(&at.key("password"), "a password without a `user`");
                None
            }
        };
        if raw.to.is_empty() {
            self.fault(&at.key("to"), "the mail would go to nobody");
        }
        let mut each = vec![(at.key("from"), &raw.from)];
        each.extend(
            raw.to
                .iter()
                .enumerate()
                .map(|(n, to)| (at.key("to").index(n), to)),
        );
        for (here, address) in each {
            if !is_mailbox(address) {
                let message = format!("`{address}` is no address, such as `ops@acme.example`");
                self.fault(&here, message);
            }
        }
        EmailOut {
            host,
            port,
            tls,
            login,
            from: raw.from,
            to: raw.to,
            ca: raw.ca.map(|ca| self.path(&ca)),
        }
    }

    fn pagerduty(&mut self, at: &At, name: &str, raw: raw::PagerDuty) -> PagerDutyOut {
        self.name(at, name);
        let api_url = raw.api_url.unwrap_or_else(|| PAGERDUTY.to_owned());
        self.url(&at.key("api_url"), &api_url, "held commands");
        PagerDutyOut {
            routing_key: self.secret(raw.routing_key),
            severity: match raw.severity {
                Some(raw::Severity::Critical) => Severity::Critical,
                Some(raw::Severity::Error) => Severity::Error,
                Some(raw::Severity::Warning) | None => Severity::Warning,
                Some(raw::Severity::Info) => Severity::Info,
            },
            api_url: api_url.trim_end_matches('/').to_owned(),
            ca: raw.ca.map(|ca| self.path(&ca)),
        }
    }
}

/// A bare address: what a mail library may make of the rest is its own business.
fn is_mailbox(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
    text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.is_empty()
            && !domain.contains('@')
            && text.chars().all(plain)
            && text.len() <= 254
    })
}
