//! The configuration in force, for `holdpoint check`: every default filled in,
//! secrets as references. It reads back as itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::model::*;
use super::raw;
use crate::decision::Reviewers;
use crate::principal::Identity;
use crate::source::{Size, Span};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = toml::to_string(&root(self)).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

fn some(duration: Duration) -> Option<Span> {
    Some(Span(duration))
}

fn root(config: &Config) -> raw::Root {
    let person = |identity: &Identity| {
        let names = config.issuer_names();
        let name = names.into_iter().find(|(_, url)| *url == identity.issuer);
        let name = name.map_or_else(|| identity.issuer.clone(), |(name, _)| name);
        format!("{name}|{}", identity.subject)
    };
    let reviewers = |reviewers: &Reviewers| match reviewers {
        Reviewers::Group(group) => format!("group:{group}"),
        Reviewers::Person { issuer, subject } => {
            let identity = Identity {
                issuer: issuer.clone(),
                subject: subject.clone(),
            };
            format!("person:{}", person(&identity))
        }
        // For rules alone.
        Reviewers::Owner => "owner".to_owned(),
        Reviewers::OnCall(list) => format!("oncall:{list}"),
    };
    raw::Root {
        node: Some(config.node.clone()),
        state: Some(config.state.clone()),
        identity: identity(&config.identity, &person),
        dev_issuer: config.dev_issuer.as_ref().map(dev_issuer),
        target: config
            .targets
            .iter()
            .map(|(n, t)| (n.clone(), target(t, &reviewers)))
            .collect(),
        listener: config
            .listeners
            .iter()
            .map(|(n, l)| (n.clone(), listener(l)))
            .collect(),
        plugin: config
            .plugins
            .iter()
            .map(|(n, p)| (n.clone(), plugin(p)))
            .collect(),
        policy: raw::Policy {
            files: config.policies.clone(),
        },
        hold: hold(&config.hold),
        review: raw::Review {
            public_url: config.review.public_url.clone(),
            webauthn: config.review.webauthn.as_ref().map(|rp| raw::Webauthn {
                rp_id: Some(rp.id.clone()),
            }),
            webhook: config.review.webhooks.iter().map(webhook).collect(),
            integration: config
                .review
                .integrations
                .iter()
                .map(|(name, integration)| {
                    let raw = raw::Integration {
                        secret: raw::Secret(integration.secret.clone()),
                        reviewers: integration.reviewers.iter().map(reviewers).collect(),
                    };
                    (name.clone(), raw)
                })
                .collect(),
            oncall: config
                .review
                .on_call
                .iter()
                .map(|(name, list)| (name.clone(), on_call(list)))
                .collect(),
            slack: each(&config.review.slack, slack),
            teams: each(&config.review.teams, teams),
            email: each(&config.review.email, email),
            pagerduty: each(&config.review.pagerduty, pagerduty),
        },
        admin: config.admin.as_ref().map(|admin| raw::Admin {
            listen: admin.listen.to_string(),
            tls: admin.tls.as_ref().map(|(cert, key)| raw::Certificate {
                cert: cert.clone(),
                key: key.clone(),
            }),
        }),
        journal: raw::Journal {
            dir: Some(config.journal.dir.clone()),
            sync: Some(match config.journal.sync {
                Sync::All => raw::Sync::All,
                Sync::Commands => raw::Sync::Commands,
                Sync::Relaxed => raw::Sync::Relaxed,
            }),
            segment: Some(Size(config.journal.segment)),
            key: Some(config.journal.key.clone()),
        },
        limits: raw::Limits {
            max_sessions: Some(config.limits.max_sessions),
            max_sessions_per_principal: Some(config.limits.max_sessions_per_principal),
            handshake: some(config.limits.handshake),
            max_command: Some(Size(config.limits.max_command.into())),
            held_ahead: Some(Size(config.limits.held_ahead as u64)),
            drain: some(config.limits.drain),
        },
        store: config.store.as_ref().map(|store| raw::Store {
            redis: redis(store),
        }),
    }
}

fn identity(config: &IdentityConfig, person: &dyn Fn(&Identity) -> String) -> raw::Identity {
    let agents = config.agents.iter().map(|(client, agent)| {
        let raw = raw::Agent {
            name: agent.name.clone(),
            groups: agent.groups.clone(),
            owners: agent.owners.iter().map(person).collect(),
        };
        (client.clone(), raw)
    });
    raw::Identity {
        max_token_bytes: Some(config.max_token_bytes),
        clock_skew: some(config.clock_skew),
        on_token_expiry: Some(match config.on_token_expiry {
            OnTokenExpiry::RefuseNewCommands => raw::OnTokenExpiry::RefuseNewCommands,
            OnTokenExpiry::Close => raw::OnTokenExpiry::Close,
        }),
        max_session: some(config.max_session),
        issuer: config.issuers.iter().map(issuer).collect(),
        agents: agents.collect(),
    }
}

fn issuer(issuer: &Issuer) -> raw::Issuer {
    let algorithms = issuer.algorithms.iter().filter_map(|name| {
        [
            raw::Algorithm::RS256,
            raw::Algorithm::PS256,
            raw::Algorithm::ES256,
            raw::Algorithm::ES384,
            raw::Algorithm::EdDSA,
        ]
        .into_iter()
        .find(|algorithm| format!("{algorithm:?}") == *name)
    });
    raw::Issuer {
        name: issuer.name.clone(),
        issuer: issuer.issuer.clone(),
        audiences: issuer.audiences.clone(),
        algorithms: Some(algorithms.collect()),
        connect_scope: Some(issuer.connect_scope.clone()),
        review_scope: Some(issuer.review_scope.clone()),
        subject_claim: issuer.subject_claim.clone(),
        groups_claim: Some(issuer.groups_claim.clone()),
        groups_prefix: issuer.groups_prefix.clone(),
        ca: issuer.ca.clone(),
        login: issuer.login.as_ref().map(|login| raw::Login {
            client_id: login.client_id.clone(),
            audience: login.audience.clone(),
        }),
        console: issuer.console.as_ref().map(|console| raw::ConsoleLogin {
            client_id: console.client_id.clone(),
            client_secret: console.client_secret.clone().map(raw::Secret),
            audience: console.audience.clone(),
        }),
        jwks: raw::Jwks {
            refresh: some(issuer.jwks_refresh),
            min_refetch: some(issuer.jwks_min_refetch),
            max_stale: some(issuer.jwks_max_stale),
        },
    }
}

fn dev_issuer(dev: &DevIssuer) -> raw::DevIssuer {
    let users = dev.users.iter().map(|(name, user)| {
        let raw = raw::DevUser {
            groups: user.groups.clone(),
            scopes: user.scopes.clone(),
            agent: user.agent,
            owners: user.owners.clone(),
        };
        (name.clone(), raw)
    });
    raw::DevIssuer {
        listen: dev.listen.to_string(),
        token_ttl: some(dev.token_ttl),
        users: users.collect(),
    }
}

fn target(target: &Target, reviewers: &dyn Fn(&Reviewers) -> String) -> raw::Target {
    raw::Target {
        protocol: target.protocol.clone(),
        address: if target.host.contains(':') {
            format!("[{}]:{}", target.host, target.port)
        } else {
            format!("{}:{}", target.host, target.port)
        },
        tls: Some(match &target.tls {
            UpstreamTls::Off => raw::UpstreamTls::Off,
            UpstreamTls::Verify { ca } => raw::UpstreamTls::Verify(raw::Verify { ca: ca.clone() }),
        }),
        danger_allow_cleartext: target.danger_allow_cleartext,
        user: target.user.clone(),
        password: target.password.clone().map(raw::Secret),
        tags: target.tags.clone(),
        owners: target.owners.iter().map(reviewers).collect(),
        settings: target.settings.clone(),
        connect_timeout: some(target.connect_timeout),
    }
}

fn listener(listener: &Listener) -> raw::Listener {
    raw::Listener {
        listen: listener.listen.to_string(),
        target: listener.target.clone(),
        tls: raw::Certificate {
            cert: listener.cert.clone(),
            key: listener.key.clone(),
        },
    }
}

fn plugin(plugin: &Plugin) -> raw::Plugin {
    raw::Plugin {
        path: plugin.path.clone(),
        sha256: plugin.sha256.clone(),
        cpu_budget: some(plugin.cpu_budget),
        memory: Some(Size(plugin.memory)),
    }
}

fn webhook(webhook: &WebhookOut) -> raw::Webhook {
    let words = |words: &Vec<&str>| {
        let events = words.iter().filter_map(|word| raw::Event::of(word));
        events.collect()
    };
    raw::Webhook {
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        secret: raw::Secret(webhook.secret.clone()),
        ca: webhook.ca.clone(),
        events: webhook.events.as_ref().map(words),
    }
}

fn on_call(list: &OnCall) -> raw::OnCall {
    raw::OnCall {
        url: list.url.clone(),
        secret: list.secret.clone().map(raw::Secret),
        ca: list.ca.clone(),
        cache: some(list.cache),
    }
}

fn each<T, R>(all: &BTreeMap<String, T>, raw: impl Fn(&T) -> R) -> BTreeMap<String, R> {
    all.iter()
        .map(|(name, one)| (name.clone(), raw(one)))
        .collect()
}

fn slack(slack: &SlackOut) -> raw::Slack {
    raw::Slack {
        token: raw::Secret(slack.token.clone()),
        signing_secret: raw::Secret(slack.signing_secret.clone()),
        channel: slack.channel.clone(),
        buttons: Some(slack.buttons),
        link_lasts: some(slack.link_lasts),
        api_url: Some(slack.api_url.clone()),
        ca: slack.ca.clone(),
    }
}

fn teams(teams: &TeamsOut) -> raw::Teams {
    raw::Teams {
        workflow_url: raw::Secret(teams.workflow_url.clone()),
        ca: teams.ca.clone(),
    }
}

fn email(email: &EmailOut) -> raw::Email {
    let server = if email.host.contains(':') {
        format!("[{}]:{}", email.host, email.port)
    } else {
        format!("{}:{}", email.host, email.port)
    };
    raw::Email {
        server,
        tls: Some(match email.tls {
            MailTls::Starttls => raw::MailTls::Starttls,
            MailTls::Implicit => raw::MailTls::Implicit,
            MailTls::Off => raw::MailTls::Off,
        }),
        user: email.login.as_ref().map(|(user, _)| user.clone()),
        password: email
            .login
            .as_ref()
            .map(|(_, password)| raw::Secret(password.clone())),
        from: email.from.clone(),
        to: email.to.clone(),
        ca: email.ca.clone(),
    }
}

fn pagerduty(pagerduty: &PagerDutyOut) -> raw::PagerDuty {
    raw::PagerDuty {
        routing_key: raw::Secret(pagerduty.routing_key.clone()),
        severity: Some(match pagerduty.severity {
            Severity::Critical => raw::Severity::Critical,
            Severity::Error => raw::Severity::Error,
            Severity::Warning => raw::Severity::Warning,
            Severity::Info => raw::Severity::Info,
        }),
        api_url: Some(pagerduty.api_url.clone()),
        ca: pagerduty.ca.clone(),
    }
}

fn hold(hold: &HoldConfig) -> raw::Hold {
    raw::Hold {
        inline_wait: raw::InlineWait {
            agent: some(hold.inline_wait_agent),
            person: some(hold.inline_wait_person),
        },
        max_hold: some(hold.max_hold),
        max_hold_in_transaction: some(hold.max_hold_in_transaction),
        heartbeat: some(hold.heartbeat),
        grant_ttl: some(hold.grant_ttl),
        deny_cooldown: some(hold.deny_cooldown),
        max_pending: Some(hold.max_pending),
        max_pending_per_principal: Some(hold.max_pending_per_principal),
    }
}

fn redis(redis: &RedisConfig) -> raw::Redis {
    let texts = |urls: &[RedisUrl]| urls.iter().map(ToString::to_string).collect();
    let (url, urls, sentinel_master, cluster) = match &redis.place {
        RedisPlace::Single(url) => (Some(url.to_string()), Vec::new(), None, false),
        RedisPlace::Sentinel { master, sentinels } => {
            (None, texts(sentinels), Some(master.clone()), false)
        }
        RedisPlace::Cluster(urls) => (None, texts(urls), None, true),
    };
    raw::Redis {
        url,
        urls,
        sentinel_master,
        cluster,
        username: redis.username.clone(),
        password: redis.password.clone().map(raw::Secret),
        sentinel_password: redis.sentinel_password.clone().map(raw::Secret),
        ca: redis.ca.clone(),
        cluster_secret: raw::Secret(redis.cluster_secret.clone()),
        key_prefix: Some(redis.key_prefix.clone()),
        replicas: Some(redis.replicas),
        vote_wait: some(redis.vote_wait),
        danger_allow_cleartext: redis.danger_allow_cleartext,
    }
}
