//! The authenticator as its users see it, and the development issuer.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdpoint_core::Now;
use holdpoint_core::config::{DevIssuer as DevConfig, DevUser, IdentityConfig};
use holdpoint_core::principal::{Identity, Kind};
use serde_json::json;

use super::jwks_tests::Knobs;
use super::testing::{self, Signer, claims, identity, now};
use super::*;
use crate::http_client::HttpClient;

fn today() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now {
        wall_ns: u64::try_from(since.as_nanos()).unwrap(),
        mono_ns: 0,
    }
}

fn no_issuer() -> IdentityConfig {
    identity(Vec::new())
}

async fn dev() -> (DevIssuer, Authenticator) {
    let user = |agent, scopes: &[&str], owners: &[&str]| DevUser {
        groups: vec!["team".to_owned()],
        scopes: scopes.iter().map(ToString::to_string).collect(),
        agent,
        owners: owners.iter().map(ToString::to_string).collect(),
    };
    let both = ["holdpoint.connect", "holdpoint.review"];
    let users = BTreeMap::from([
        ("agent".to_owned(), user(true, &both, &["olivia"])),
        ("rita".to_owned(), user(false, &both, &[])),
    ]);
    let config = DevConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        users,
        token_ttl: Duration::from_secs(60),
    };
    let dev = DevIssuer::start(&config).await.unwrap();
    let authenticator = Authenticator::new(&dev.identity(&no_issuer()).unwrap()).unwrap();
    (dev, authenticator)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_person_connects_with_one_token_and_decides_with_another() {
    let (dev, gate) = dev().await;
    let connect = dev.mint("rita", &["holdpoint.connect"], MINUTE).unwrap();
    let review = dev.mint("rita", &["holdpoint.review"], MINUTE).unwrap();

    let who = gate.connect(connect.as_bytes(), today()).await.unwrap();
    assert_eq!(
        (who.kind, who.identity.subject.as_str()),
        (Kind::Person, "rita")
    );
    assert_eq!(who.groups, ["team"]);
    assert!(gate.review(review.as_bytes(), today()).await.is_ok());

    let refused = gate.review(connect.as_bytes(), today()).await.unwrap_err();
    assert_eq!(refused.denial().code, "HP-SCOPE");
    let refused = gate.connect(review.as_bytes(), today()).await.unwrap_err();
    assert_eq!(refused.denial().code, "HP-SCOPE");
}

#[tokio::test]
async fn an_agent_never_decides() {
    let (dev, gate) = dev().await;
    assert!(dev.mint("agent", &["holdpoint.review"], MINUTE).is_err());
    let token = dev.mint("agent", &[], MINUTE).unwrap();
    let agent = gate.connect(token.as_bytes(), today()).await.unwrap();
    assert_eq!(agent.kind, Kind::Agent);
    assert_eq!(agent.owners[0].subject, "olivia");
    let refused = gate.review(token.as_bytes(), today()).await.unwrap_err();
    assert_eq!(refused, TokenError::NotAPerson);
}

#[tokio::test]
async fn an_agent_whose_issuer_gave_it_the_scope_to_review_still_does_not() {
    let signer = Signer::es256("k");
    let knobs = Knobs::start(&[&signer]).await;
    let gate = Authenticator::new(&identity(vec![knobs.issuer()])).unwrap();
    let mut claims = claims();
    claims["iss"] = knobs.issuer().issuer.into();
    claims["scope"] = "holdpoint.connect holdpoint.review".into();
    let person = signer.token(&claims);
    assert!(gate.review(person.as_bytes(), now()).await.is_ok());
    for (claim, value) in [
        ("client_id", json!("ci")),
        ("client_id", json!("rita")),
        ("act", json!({ "sub": "bot" })),
    ] {
        let mut claims = claims.clone();
        claims[claim] = value;
        let token = signer.token(&claims);
        let refused = gate.review(token.as_bytes(), now()).await.unwrap_err();
        assert_eq!(refused, TokenError::NotAPerson);
    }
}

#[tokio::test]
async fn an_expired_token_is_told_as_such() {
    let (dev, gate) = dev().await;
    let token = dev.mint("rita", &[], Duration::ZERO).unwrap();
    let mut later = today();
    later.wall_ns += 31_000_000_000;
    let refused = gate.connect(token.as_bytes(), later).await.unwrap_err();
    assert_eq!(refused.denial().code, "HP-TOKEN-EXPIRED");
}

#[tokio::test]
async fn one_kid_under_two_issuers_is_two_keys() {
    let (one, two) = (Signer::es256("k"), Signer::es256("k"));
    let (first, second) = (Knobs::start(&[&one]).await, Knobs::start(&[&two]).await);
    let mut other = second.issuer();
    other.name = "second".to_owned();
    let gate = Authenticator::new(&identity(vec![first.issuer(), other])).unwrap();
    for (knobs, signer, good) in [
        (&first, &one, true),
        (&second, &two, true),
        (&first, &two, false),
        (&second, &one, false),
    ] {
        let mut claims = claims();
        claims["iss"] = knobs.issuer().issuer.into();
        let token = signer.token(&claims);
        let outcome = gate.connect(token.as_bytes(), now()).await;
        assert_eq!(outcome.is_ok(), good, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_pass_causes_no_fetch() {
    let knobs = Knobs::start(&[&Signer::es256("k")]).await;
    let gate = Authenticator::new(&identity(vec![knobs.issuer()])).unwrap();
    let mut claims = claims();
    claims["iss"] = knobs.issuer().issuer.into();
    let rsa = Signer::rsa("r", jsonwebtoken::Algorithm::PS512, testing::RSA_2048);
    assert!(
        gate.connect(rsa.token(&claims).as_bytes(), now())
            .await
            .is_err()
    );
    assert!(gate.connect(b"x", now()).await.is_err());
    assert_eq!(knobs.hits.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_revoked_bearer_is_refused_and_sessions_hear_of_it() {
    let (dev, gate) = dev().await;
    let token = dev.mint("agent", &[], MINUTE).unwrap();
    let agent = gate.connect(token.as_bytes(), today()).await.unwrap();
    let mut changes = gate.revocations();
    for revocation in [
        Revocation::Identity(agent.identity.clone()),
        Revocation::Client("agent".to_owned()),
        Revocation::Token(agent.token_id.clone().unwrap()),
    ] {
        gate.revoke(revocation.clone()).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.borrow_and_update();
        assert!(gate.is_revoked(&agent), "{revocation:?}");
        let refused = gate.connect(token.as_bytes(), today()).await.unwrap_err();
        assert_eq!(refused.denial().code, "HP-REVOKED");
        assert!(gate.restore(&revocation).unwrap());
        assert!(!gate.is_revoked(&agent), "{revocation:?}");
    }
}

#[tokio::test]
async fn one_who_is_revoked_does_not_act_for_others_either() {
    let (dev, gate) = dev().await;
    let token = dev.mint("agent", &[], MINUTE).unwrap();
    let mut agent = gate.connect(token.as_bytes(), today()).await.unwrap();
    let bot = Identity {
        issuer: dev.issuer().to_owned(),
        subject: "bot".to_owned(),
    };
    agent.actors.push(bot.clone());
    gate.revoke(Revocation::Identity(bot)).unwrap();
    assert!(gate.is_revoked(&agent));
}

#[tokio::test]
async fn an_agent_of_somebody_who_is_revoked_is_let_in_no_more() {
    let (dev, gate) = dev().await;
    let token = dev.mint("agent", &[], MINUTE).unwrap();
    let agent = gate.connect(token.as_bytes(), today()).await.unwrap();
    let owner = agent.owners.first().unwrap().clone();
    gate.revoke(Revocation::Identity(owner)).unwrap();
    assert!(gate.is_revoked(&agent));
    let refused = gate.connect(token.as_bytes(), today()).await.unwrap_err();
    assert_eq!(refused.denial().code, "HP-REVOKED");
}

#[test]
fn revocations_outlive_a_restart_and_a_reload() {
    let dir = std::env::temp_dir().join(format!("holdpoint-revoked-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let client = Revocation::Client("ci".to_owned());
    let first = Authenticator::open(&no_issuer(), &dir).unwrap();
    first.revoke(client.clone()).unwrap();
    let reloaded = first.reconfigured(&no_issuer()).unwrap();
    assert_eq!(reloaded.revoked(), std::slice::from_ref(&client));
    let restarted = Authenticator::open(&no_issuer(), &dir).unwrap();
    assert_eq!(restarted.revoked(), [client]);

    std::fs::write(dir.join("revoked.json"), "garbage").unwrap();
    let broken = Authenticator::open(&no_issuer(), &dir);
    assert!(broken.is_err(), "a list that cannot be read lets nobody in");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_issuer_that_could_not_be_checked_strictly_is_refused_at_start() {
    let refused = |change: fn(&mut Issuer)| {
        let mut issuer = testing::issuer(testing::ISSUER);
        change(&mut issuer);
        Authenticator::new(&identity(vec![issuer]))
            .unwrap_err()
            .to_string()
    };
    let said = refused(|issuer| issuer.algorithms = vec!["HS256".to_owned()]);
    assert!(said.contains("HS256"), "{said}");
    let said = refused(|issuer| issuer.audiences.clear());
    assert!(said.contains("audiences"), "{said}");
    let said = refused(|issuer| issuer.issuer = "http://issuer.example".to_owned());
    assert!(said.contains("https"), "{said}");
    let twice = vec![
        testing::issuer(testing::ISSUER),
        testing::issuer(testing::ISSUER),
    ];
    assert!(Authenticator::new(&identity(twice)).is_err());
}

#[test]
fn okta_org_servers_are_known_by_their_address() {
    for org in [
        "https://acme.okta.com",
        "https://acme.okta.com/",
        "https://a.oktapreview.com",
    ] {
        assert!(is_okta_org(org), "{org}");
    }
    for other in [
        "https://acme.okta.com/oauth2/default",
        "https://notokta.com",
        "https://okta.com.example",
        "https://login.example",
    ] {
        assert!(!is_okta_org(other), "{other}");
    }
}

#[tokio::test]
async fn the_development_issuer_gives_tokens_over_http() {
    let (dev, gate) = dev().await;
    let http = HttpClient::new(None, 1 << 16).unwrap();
    let metadata = discover(&http, dev.issuer()).await.unwrap();
    let endpoint = metadata.token_endpoint.unwrap();
    let ask = |form: String| {
        let (http, endpoint) = (http.clone(), endpoint.clone());
        async move {
            let reply = http.post_form(&endpoint, form).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            body["access_token"]
                .as_str()
                .map(str::to_owned)
                .ok_or(body["error"].to_string())
        }
    };
    let form = "grant_type=urn:holdpoint:dev&user=rita&scope=holdpoint.review";
    let token = ask(form.to_owned()).await.unwrap();
    assert!(gate.review(token.as_bytes(), today()).await.is_ok());

    let secret = String::from_utf8(dev.client_secret("agent").unwrap().expose().to_vec()).unwrap();
    let form = |id: &str, secret: &str| {
        format!("grant_type=client_credentials&client_id={id}&client_secret={secret}")
    };
    let token = ask(form("agent", &secret)).await.unwrap();
    let agent = gate.connect(token.as_bytes(), today()).await.unwrap();
    assert_eq!(agent.kind, Kind::Agent);

    for (form, error) in [
        (form("agent", "wrong"), "invalid_client"),
        (form("agent", ""), "invalid_client"),
        (form("rita", ""), "invalid_client"),
        (
            format!("{}&scope=holdpoint.review", form("agent", &secret)),
            "invalid_scope",
        ),
        (
            "grant_type=urn:holdpoint:dev&user=nobody".to_owned(),
            "invalid_grant",
        ),
        (
            "grant_type=password&user=rita".to_owned(),
            "unsupported_grant_type",
        ),
    ] {
        let refused = ask(form.clone()).await.unwrap_err();
        assert!(refused.contains(error), "{form}: {refused}");
    }
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_to_this_machine_gets_no_token() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (dev, _) = dev().await;
    let mut socket = tokio::net::TcpStream::connect(dev.address()).await.unwrap();
    let body = "grant_type=urn:holdpoint:dev&user=rita";
    let request = format!(
        "POST /dev/token HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert!(!answer.contains("access_token"), "{answer}");
}

#[tokio::test]
async fn the_development_issuer_stays_on_this_machine_and_alone() {
    let (dev, _) = dev().await;
    let beside = identity(vec![testing::issuer(testing::ISSUER)]);
    assert!(matches!(
        dev.identity(&beside),
        Err(DevIssuerError::OtherIssuer)
    ));
    let open = DevConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        users: BTreeMap::new(),
        token_ttl: MINUTE,
    };
    let refused = DevIssuer::start(&open).await.unwrap_err();
    assert!(matches!(refused, DevIssuerError::NotLoopback(_)));
}

#[tokio::test]
async fn warming_reports_each_issuer_by_name() {
    let knobs = Knobs::start(&[&Signer::es256("k")]).await;
    let mut down = testing::issuer("http://127.0.0.1:1/down");
    down.name = "down".to_owned();
    let gate = Authenticator::new(&identity(vec![knobs.issuer(), down])).unwrap();
    let reports = gate.warm().await;
    assert_eq!(reports[0].name, "down");
    assert!(reports[0].keys.is_err());
    assert_eq!(
        (reports[1].name.as_str(), &reports[1].keys),
        ("main", &Ok(1))
    );
}

/// An integration gives no token that would tell.
#[test]
fn nobody_vouches_for_an_agent_or_for_one_who_is_revoked() {
    let authenticator =
        Authenticator::new(&identity(vec![testing::issuer(testing::ISSUER)])).unwrap();
    let reviewer = |subject: &str| Reviewer {
        identity: Identity {
            issuer: testing::ISSUER.to_owned(),
            subject: subject.to_owned(),
        },
        label: subject.to_owned(),
        groups: Vec::new(),
        on_call: Vec::new(),
        agent: false,
        also: Vec::new(),
        auth_time: None,
    };
    assert!(authenticator.admits(&reviewer("rita")));
    assert!(!authenticator.admits(&reviewer("ci")));
    assert!(!authenticator.admits(&reviewer("ci@clients")));
    assert!(!authenticator.admits(&Reviewer {
        agent: true,
        ..reviewer("rita")
    }));
}
