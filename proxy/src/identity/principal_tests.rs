//! What a good token says of its bearer, and which keys may sign one.

use holdpoint_core::principal::{Identity, Kind, Principal};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::keys::KeySet;
use super::testing::*;
use super::token_tests::World;

#[test]
fn an_ordinary_token_gives_its_bearer() {
    let world = World::new();
    let token = world.es.token(&claims());
    let principal = world.check(&token).unwrap();
    assert_eq!(
        principal,
        Principal {
            identity: Identity {
                issuer: ISSUER.to_owned(),
                subject: "rita".to_owned(),
            },
            kind: Kind::Person,
            label: "rita".to_owned(),
            client_id: Some("console".to_owned()),
            actors: vec![],
            owners: vec![],
            groups: vec![],
            scopes: vec!["holdpoint.connect".to_owned()],
            expires: NOW + 300,
            token: super::token::fingerprint(token.as_bytes()),
            token_id: Some("t-1".to_owned()),
            auth_time: None,
        }
    );
    assert_eq!(principal.token.len(), 16);
}

#[test]
fn tokens_that_differ_in_what_does_not_matter_pass() {
    let world = World::new();
    let retyped = |typ: Value| world.headed("typ", typ);
    for (what, token) in [
        ("RS256", world.rs.token(&claims())),
        ("typ JWT", retyped(json!("JWT"))),
        (
            "typ application/at+jwt",
            retyped(json!("application/at+jwt")),
        ),
        (
            "several audiences",
            world.claiming("aud", json!(["x", "api://holdpoint"])),
        ),
        (
            "exp with a fraction",
            world.claiming("exp", json!(NOW as f64 + 30.5)),
        ),
        (
            "expired within what clocks may differ",
            world.claiming("exp", json!(NOW - 29)),
        ),
        (
            "issued a moment ahead of our clock",
            world.claiming("iat", json!(NOW + 30)),
        ),
        (
            "a claim that nobody knows",
            world.claiming("x", json!({ "y": [1, null] })),
        ),
    ] {
        assert!(
            world.check(&token).is_ok(),
            "{what}: {:?}",
            world.check(&token)
        );
    }
}

#[test]
fn an_only_key_is_meant_by_a_token_without_kid() {
    let mut world = World::new();
    world.set.keys.truncate(1);
    let header = json!({ "alg": "ES256" }).to_string();
    let token = world.es.sign(&header, &claims().to_string());
    assert!(world.check(token).is_ok());
}

#[test]
fn scopes_come_from_both_claims_in_either_form() {
    let world = World::new();
    for (scp, scope) in [
        (json!(["a", "b"]), json!("c")),
        (json!("a b"), json!("b c")),
        (json!(["a"]), json!(["b", "c"])),
    ] {
        let mut claims = claims();
        claims["scp"] = scp;
        claims["scope"] = scope;
        let principal = world.check(world.es.token(&claims)).unwrap();
        assert_eq!(principal.scopes, ["a", "b", "c"]);
    }
}

#[test]
fn groups_come_from_where_the_issuer_keeps_them_less_those_of_others() {
    let world = World::new();
    let mut claims = claims();
    claims["realm_access"] = json!({ "roles": ["hp-dba", "other", "hp-dba", "HP-x", "hp-ops"] });
    let token = world.es.token(&claims);
    let principal = world.check_with(&token, |issuer| {
        issuer.groups_claim = "/realm_access/roles".to_owned();
        issuer.groups_prefix = Some("hp-".to_owned());
    });
    assert_eq!(principal.unwrap().groups, ["hp-dba", "hp-ops"]);
    assert_eq!(world.check(&token).unwrap().groups, Vec::<String>::new());
    let one = world.check(world.claiming("groups", json!("dba"))).unwrap();
    assert_eq!(one.groups, ["dba"]);
}

#[test]
fn an_agent_is_known_by_its_own_subject_its_client_or_its_actor() {
    let world = World::new();
    let kind = |claim: &str, value: Value| world.check(world.claiming(claim, value)).unwrap().kind;
    assert_eq!(kind("sub", json!("console")), Kind::Agent);
    assert_eq!(kind("client_id", json!("ci")), Kind::Agent);
    assert_eq!(kind("act", json!({ "sub": "bot" })), Kind::Agent);
    assert_eq!(kind("groups", json!(["agents"])), Kind::Person);
    let mut okta = without("client_id");
    okta["cid"] = "rita".into();
    assert_eq!(
        world.check(world.es.token(&okta)).unwrap().kind,
        Kind::Agent
    );
}

#[test]
fn a_configured_agent_brings_its_groups_and_those_who_answer_for_it() {
    let world = World::new();
    let mut claims = with("client_id", json!("ci"));
    claims["scope"] = "holdpoint.connect holdpoint.review".into();
    claims["groups"] = json!(["dba"]);
    let agent = world.check(world.es.token(&claims)).unwrap();
    assert_eq!(agent.label, "CI agent");
    assert_eq!(agent.groups, ["dba", "agents"]);
    assert_eq!(agent.owners[0].subject, "olivia");
    assert_eq!(
        agent.scopes,
        ["holdpoint.connect"],
        "an agent never decides"
    );
}

#[test]
fn everyone_in_the_chain_of_actors_is_behind_the_request() {
    let world = World::new();
    let act = json!({ "sub": "ci", "act": { "sub": "broker", "iss": "https://b.example" } });
    let principal = world.check(world.claiming("act", act)).unwrap();
    let behind: Vec<&str> = principal.behind().map(|who| who.subject.as_str()).collect();
    assert_eq!(behind, ["rita", "ci", "broker", "olivia"]);
    assert_eq!(principal.actors[1].issuer, "https://b.example");
}

#[test]
fn another_subject_claim_is_used_where_it_is_present() {
    let world = World::new();
    let subject = |claims: &Value| {
        let token = world.es.token(claims);
        let use_uid = |issuer: &mut holdpoint_core::config::Issuer| {
            issuer.subject_claim = Some("uid".to_owned());
        };
        world
            .check_with(token, use_uid)
            .map(|who| who.identity.subject)
    };
    assert_eq!(subject(&with("uid", json!("00u1"))).unwrap(), "00u1");
    assert_eq!(subject(&claims()).unwrap(), "rita");
    assert!(subject(&with("uid", json!(7))).is_err());
}

#[test]
fn a_label_is_for_people_and_stays_on_one_line() {
    let world = World::new();
    let mut claims = with("email", json!("rita@example.com"));
    assert_eq!(
        world.check(world.es.token(&claims)).unwrap().label,
        "rita@example.com"
    );
    claims["name"] = "Rita\n\u{1b}[31m Rose".into();
    assert_eq!(
        world.check(world.es.token(&claims)).unwrap().label,
        "Rita[31m Rose"
    );
}

#[test]
fn keys_that_must_not_be_used_are_left_out_of_the_set() {
    let good = Signer::es256("good");
    let small = Signer::rsa("small", Algorithm::RS256, RSA_1024);
    let changed = |name: &str, value: Value| {
        let mut jwk = Signer::es256("bad").jwk();
        jwk[name] = value;
        jwk
    };
    for bad in [
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "good", "alg": "HS256" }),
        small.jwk(),
        changed("use", json!("enc")),
        changed("key_ops", json!(["encrypt"])),
        changed("d", json!("AAAA")),
        changed("alg", json!("RS256")),
        changed("crv", json!("P-521")),
        changed("x", json!("AAAA")),
        changed("kid", json!(7)),
        json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }),
        json!("text"),
        json!({}),
    ] {
        let document = json!({ "keys": [bad, good.jwk()] }).to_string();
        let set = KeySet::read(document.as_bytes()).unwrap();
        assert_eq!(set.keys.len(), 1, "{bad}");
        assert_eq!(set.keys[0].kid.as_deref(), Some("good"), "{bad}");
        assert_eq!(set.dropped.len(), 1, "{bad}");
    }
}

#[test]
fn two_keys_with_one_name_are_both_left_out() {
    let set = key_set(&[
        &Signer::es256("k"),
        &Signer::es256("k"),
        &Signer::es256("l"),
    ]);
    let set = KeySet::read(set.as_bytes()).unwrap();
    assert_eq!(set.keys.len(), 1);
    assert_eq!(set.keys[0].kid.as_deref(), Some("l"));
}

/// Issuers have ways of their own to say that a client asked for itself.
#[test]
fn a_token_of_a_client_is_an_agents_whichever_issuer_it_is_of() {
    let world = World::new();
    let kind = |given: &[(&str, &str)]| {
        let mut all = claims();
        for (claim, value) in given {
            all[*claim] = json!(value);
        }
        world.check(world.es.token(&all)).unwrap().kind
    };
    let person = [("sub", "rita"), ("client_id", "cli")];
    assert_eq!(kind(&person), Kind::Person);
    let service = |account| {
        [
            ("sub", "6c1f7c1e"),
            ("client_id", "Bot"),
            ("preferred_username", account),
        ]
    };
    assert_eq!(kind(&service("service-account-bot")), Kind::Agent);
    assert_eq!(kind(&service("service-account-other")), Kind::Person);
    assert_eq!(kind(&[("sub", "bot"), ("client_id", "bot")]), Kind::Agent);
    for (claim, value) in [
        ("sub", "bot@clients"),
        ("gty", "client-credentials"),
        ("idtyp", "app"),
    ] {
        assert_eq!(kind(&[person[1], (claim, value)]), Kind::Agent, "{claim}");
    }
}
