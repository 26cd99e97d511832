//! The API over real connections, with tokens that are names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use holdpoint_core::Now;
use holdpoint_core::config::Integration;
use holdpoint_core::decision::Reviewers;
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::{self, Identity, Principal};
use holdpoint_core::record::Entry;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

use super::*;

mod gateway;
mod nodes;
mod rules;

use crate::approvals::testing::{Desk, draft, identity, principal};
use crate::approvals::{Later, PrincipalView, Waiter};
use crate::http_client::HttpClient;
use gateway::{Gateway, decision};

#[tokio::test]
async fn every_route_asks_who_calls_but_for_health_and_the_introduction() {
    const OPEN: [&str; 3] = ["/healthz", "/readyz", "/.well-known/holdpoint"];
    let gateway = Gateway::start().await;
    let paths = serde_json::to_value(openapi()).unwrap()["paths"]
        .as_object()
        .unwrap()
        .clone();
    assert!(paths.len() >= 10);
    for (path, item) in paths {
        let real = path
            .replace("{id}", "hp-000000000000")
            .replace("{name}", "ops");
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            for headers in [
                &[][..],
                &[("authorization", "Bearer nonsense")],
                &[("authorization", "Basic YTpi")],
                &[("cookie", "session=1")],
            ] {
                let (status, headers, body) = gateway.call(&method, &real, headers, "").await;
                if OPEN.contains(&path.as_str()) {
                    assert_eq!(status, 200, "{path}");
                } else {
                    assert_eq!(status, 401, "{method} {path}");
                    let problem: Problem = serde_json::from_slice(&body).unwrap();
                    if path.starts_with("/v1/slack/") {
                        // Slack has no tokens: it signs.
                        assert_eq!(problem.code, "HP-SIGNATURE");
                        continue;
                    }
                    assert_eq!(problem.code, "HP-TOKEN-INVALID");
                    assert!(headers.contains_key("www-authenticate"));
                }
                assert_eq!(headers["cache-control"], "no-store");
                assert!(!headers.contains_key("access-control-allow-origin"));
            }
        }
    }
}

#[tokio::test]
async fn a_reviewer_sees_the_command_and_decides_it_once() {
    let gateway = Gateway::start().await;
    let (id, digest, mut waiter) = gateway.hold("DROP TABLE t", 1).await;
    let (status, list) = gateway
        .json(
            "GET",
            "/v1/approvals?state=pending",
            "review-rita",
            Value::Null,
        )
        .await;
    assert_eq!(status, 200);
    assert_eq!(list["approvals"][0]["shown"]["text"], "DROP TABLE t");
    assert_eq!(list["approvals"][0]["digest"], digest);
    let path = format!("/v1/approvals/{id}/decision");
    let vote = json!({ "decision": "approve", "digest": digest });
    let (status, decided) = gateway
        .json("POST", &path, "review-rita", vote.clone())
        .await;
    assert_eq!(
        (status, &decided["state"], &decided["outcome"]),
        (200, &json!("approved"), &json!("settled"))
    );
    assert_eq!(
        waiter.settled().await,
        holdpoint_core::gate::Settlement::Approved
    );
    let (status, problem) = gateway.json("POST", &path, "review-rob", vote).await;
    assert_eq!(
        (status, &problem["code"], &problem["state"]),
        (409, &json!("HP-SETTLED"), &json!("approved"))
    );
}

#[tokio::test]
async fn votes_that_must_not_count_are_refused_with_their_reason() {
    let gateway = Gateway::start().await;
    let (id, digest, _waiter) = gateway.hold("DROP TABLE t", 1).await;
    let (_, other, _other) = gateway.hold("DROP TABLE u", 2).await;
    let path = format!("/v1/approvals/{id}/decision");
    let cases = [
        (
            "review-olivia",
            json!({ "decision": "approve", "digest": digest }),
            403,
            "HP-NOT-ELIGIBLE",
        ),
        (
            "review-agent",
            json!({ "decision": "approve", "digest": digest }),
            403,
            "HP-NOT-ELIGIBLE",
        ),
        (
            "connect-rita",
            json!({ "decision": "approve", "digest": digest }),
            403,
            "HP-SCOPE",
        ),
        (
            "review-rita",
            json!({ "decision": "approve", "digest": other }),
            409,
            "HP-DIGEST",
        ),
        (
            "review-rita",
            json!({ "decision": "deny", "digest": digest }),
            400,
            "HP-REQUEST",
        ),
        (
            "review-rita",
            json!({ "decision": "maybe", "digest": digest }),
            400,
            "HP-REQUEST",
        ),
        (
            "review-rita",
            json!({ "decision": "approve" }),
            400,
            "HP-REQUEST",
        ),
        (
            "review-rita",
            json!({ "decision": "approve", "digest": digest, "x": 1 }),
            400,
            "HP-REQUEST",
        ),
    ];
    for (token, body, status, code) in cases {
        let (got, problem) = gateway.json("POST", &path, token, body.clone()).await;
        assert_eq!(
            (got, &problem["code"]),
            (status, &json!(code)),
            "{token} {body} {problem}"
        );
    }
    let view = gateway
        .json(
            "GET",
            &format!("/v1/approvals/{id}"),
            "review-rita",
            Value::Null,
        )
        .await;
    assert_eq!(view.1["state"], "pending");
}

#[tokio::test]
async fn an_integration_speaks_for_those_it_may_and_only_signed() {
    let gateway = Gateway::start().await;
    let (id, digest, _waiter) = gateway.hold("DROP TABLE t", 1).await;
    let good = decision(&id, &digest, "rita");
    let code =
        |answer: (u16, Value)| (answer.0, answer.1["code"].as_str().unwrap_or("").to_owned());
    let is = |status, code: &str| (status, code.to_owned());

    assert_eq!(
        code(gateway.signed("nobody", &id, "m1", &good).await),
        is(401, "HP-SIGNATURE")
    );
    assert_eq!(
        code(gateway.signed("mute", &id, "m1", &good).await),
        is(403, "HP-NOT-ELIGIBLE")
    );
    let own = decision(&id, &digest, "olivia");
    assert_eq!(
        code(gateway.signed("chat", &id, "m2", &own).await),
        is(403, "HP-NOT-ELIGIBLE")
    );
    // Neither a stranger, who would be behind nothing, nor one who was revoked.
    let mut stranger = good.clone();
    stranger["reviewer"]["issuer"] = json!("nobodys");
    assert_eq!(
        code(gateway.signed("chat", &id, "m5", &stranger).await),
        is(403, "HP-NOT-ELIGIBLE")
    );
    let revoked = decision(&id, &digest, "revoked");
    assert_eq!(
        code(gateway.signed("chat", &id, "m6", &revoked).await),
        is(403, "HP-REVOKED")
    );
    let elsewhere = decision("hp-000000000000", &digest, "rita");
    assert_eq!(
        code(gateway.signed("chat", &id, "m3", &elsewhere).await),
        is(400, "HP-REQUEST")
    );

    let path = format!("/v1/approvals/{id}/decision");
    let unsigned = [("holdpoint-integration", "chat")];
    let (status, ..) = gateway
        .call("POST", &path, &unsigned, good.to_string())
        .await;
    assert_eq!(status, 401);
    let both = [
        ("holdpoint-integration", "chat"),
        ("authorization", "Bearer review-rita"),
    ];
    let (status, ..) = gateway.call("POST", &path, &both, good.to_string()).await;
    assert_eq!(status, 400);

    let (status, decided) = gateway.signed("chat", &id, "m4", &good).await;
    assert_eq!((status, &decided["outcome"]), (200, &json!("settled")));
    let (status, again) = gateway.signed("chat", &id, "m4", &good).await;
    assert_eq!(
        (status, &again["outcome"]),
        (200, &json!("repeated")),
        "the same message again"
    );
    assert_eq!(
        code(gateway.signed("chat", &id, "m4", &own).await),
        is(409, "HP-REPLAY")
    );
    let recorded = gateway.desk.ledger.all().into_iter().any(|entry| {
        matches!(entry, Entry::Vote { vote, refused: None }
            if vote.channel == "integration:chat" && vote.reviewer.groups == ["dba"])
    });
    assert!(recorded);
}

#[tokio::test]
async fn nobody_of_an_unknown_issuer_is_revoked() {
    let gateway = Gateway::start().await;
    let whom = json!({ "issuer": "nobodys", "subject": "agent" });
    let (status, said) = gateway
        .json("POST", "/v1/revoke", "review-rita", whom)
        .await;
    assert_eq!(
        (status, &said["code"]),
        (400, &json!("HP-REQUEST")),
        "{said}"
    );
    assert!(
        said.to_string().contains("https://issuer.example"),
        "{said}"
    );
}

#[tokio::test]
async fn an_agent_follows_its_own_approvals_and_no_others() {
    let gateway = Gateway::start().await;
    let (id, digest, _waiter) = gateway.hold("DROP TABLE t", 1).await;
    let wait = |timeout| format!("/v1/approvals/{id}/wait?timeout={timeout}");
    let ask = |token, timeout| {
        let path = wait(timeout);
        let gateway = &gateway;
        async move { gateway.json("GET", &path, token, Value::Null).await }
    };
    assert_eq!(ask("connect-mallory", 0).await.0, 404);
    let (status, answer) = ask("connect-agent", 0).await;
    assert_eq!((status, &answer["state"]), (200, &json!("pending")));
    let names: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        [
            "id",
            "state",
            "reason",
            "to_justify",
            "expires_at",
            "usable_until"
        ]
    );
    // It may see how it goes, and nothing else.
    assert_eq!(
        gateway
            .json("GET", "/v1/approvals", "connect-agent", Value::Null)
            .await
            .0,
        403
    );

    let path = format!("/v1/approvals/{id}/decision");
    let deny = json!({ "decision": "deny", "digest": digest, "reason": "not today" });
    let (answer, _) = tokio::join!(ask("connect-agent", 30), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gateway.json("POST", &path, "review-rita", deny).await
    });
    assert_eq!(
        (&answer.1["state"], &answer.1["reason"]),
        (&json!("denied"), &json!("not today"))
    );
}

#[tokio::test]
async fn revoking_ends_sessions_and_approvals_and_is_recorded() {
    let gateway = Gateway::start().await;
    let (_, _, mut waiter) = gateway.hold("DROP TABLE t", 1).await;
    let who = json!({ "issuer": "https://issuer.example", "subject": "agent" });
    let (status, done) = gateway.json("POST", "/v1/revoke", "review-rita", who).await;
    assert_eq!(
        (status, &done["sessions"], &done["approvals"]),
        (200, &json!(1), &json!(1))
    );
    assert_eq!(
        waiter.settled().await,
        holdpoint_core::gate::Settlement::Revoked
    );
    let by = identity("rita");
    let all = gateway.desk.ledger.all();
    assert!(
        all.iter()
            .any(|entry| matches!(entry, Entry::Revoked { by: Some(who), .. } if *who == by))
    );
}

#[tokio::test]
async fn ending_a_session_is_for_reviewers_and_is_recorded() {
    let gateway = Gateway::start().await;
    let (here, gone) = (SessionId::from_random(1), SessionId::from_random(2));
    let path = |id: &SessionId| format!("/v1/sessions/{id}/kill");
    let kill = async |id, token| gateway.json("POST", &path(id), token, json!(null)).await;
    assert_eq!(kill(&here, "connect-agent").await.0, 403);
    assert_eq!(kill(&gone, "review-rita").await.0, 404);
    assert!(gateway.desk.ledger.all().is_empty());
    let (status, done) = kill(&here, "review-rita").await;
    assert_eq!((status, &done["session"]), (200, &json!(here.to_string())));
    let by = identity("rita");
    assert!(gateway.desk.ledger.all().iter().any(
        |entry| matches!(entry, Entry::Killed { session, by: who, node: None } if *session == here && *who == by)
    ));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_read() {
    let gateway = Gateway::start().await;
    let (id, _, _waiter) = gateway.hold("DROP TABLE t", 1).await;
    let path = format!("/v1/approvals/{id}/decision");
    let bearer = [("authorization", "Bearer review-rita")];
    let (status, ..) = gateway
        .call("POST", &path, &bearer, vec![b' '; 80_000])
        .await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn an_agent_that_asks_is_told_what_this_is() {
    let gateway = Gateway::start().await;
    let path = "/.well-known/holdpoint";
    let (_, headers, body) = gateway
        .call("GET", path, &[("accept", "text/plain")], "")
        .await;
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(String::from_utf8_lossy(&body).contains("exactly the same"));
    let (_, _, body) = gateway.call("GET", path, &[], "").await;
    let about: About = serde_json::from_slice(&body).unwrap();
    assert_eq!(about.targets[0].name, "shop");
    let (_, _, body) = gateway
        .call(
            "GET",
            "/metrics",
            &[("authorization", "Bearer connect-prometheus")],
            "",
        )
        .await;
    assert!(String::from_utf8_lossy(&body).contains("holdpoint_commands_total 7"));
}

#[tokio::test]
async fn in_clear_it_serves_loopback_only() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let router = axum::Router::new();
    let served = serve(listener, router, None, std::future::pending()).await;
    assert!(matches!(served, Err(ServeError::Clear(_))));
}

/// The next event of a stream: id, name, data.
async fn next_event(
    stream: &mut crate::http_client::Streaming,
    buffer: &mut String,
) -> (String, String, Value) {
    loop {
        if let Some((event, rest)) = buffer.clone().split_once("\n\n") {
            rest.clone_into(buffer);
            let field = |name: &str| {
                let mut lines = event.lines();
                lines
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            if let (Some(id), Some(name), Some(data)) =
                (field("id: "), field("event: "), field("data: "))
            {
                return (id, name, serde_json::from_str(&data).unwrap());
            }
            continue;
        }
        let more = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let more = more.expect("an event in time").expect("no end").unwrap();
        buffer.push_str(std::str::from_utf8(&more).unwrap());
    }
}

#[tokio::test]
async fn a_follower_sees_what_waits_then_each_change_and_goes_on_after_a_cut() {
    let gateway = Gateway::start().await;
    let (first, digest, _waiter) = gateway.hold("DROP TABLE t", 1).await;
    let follow = async |last: Option<&str>| {
        let mut request = Request::get(format!("{}/v1/approvals/events", gateway.base))
            .header("authorization", "Bearer review-rita");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Bytes::new()).unwrap();
        let stream = gateway.http.stream(request, Duration::from_secs(10)).await;
        (stream.unwrap(), String::new())
    };
    let (mut stream, mut buffer) = follow(None).await;
    let (_, name, _) = next_event(&mut stream, &mut buffer).await;
    assert_eq!(name, "reset");
    let (seen, name, view) = next_event(&mut stream, &mut buffer).await;
    assert_eq!((name.as_str(), &view["id"]), ("approval", &json!(first)));
    let body = json!({ "decision": "deny", "digest": digest, "reason": "no" });
    let path = format!("/v1/approvals/{first}/decision");
    assert_eq!(
        gateway.json("POST", &path, "review-rita", body).await.0,
        200
    );
    loop {
        let (_, _, view) = next_event(&mut stream, &mut buffer).await;
        if view["state"] == "denied" {
            break;
        }
    }
    drop(stream);
    // From the same event on: the denial again, and no new beginning.
    let (mut stream, mut buffer) = follow(Some(&seen)).await;
    let (last, name, view) = next_event(&mut stream, &mut buffer).await;
    assert_eq!((name.as_str(), &view["id"]), ("approval", &json!(first)));
    drop(stream);
    // From after the last one: only what is new.
    let (mut stream, mut buffer) = follow(Some(&last)).await;
    let (second, _, _waiter) = gateway.hold("DROP TABLE u", 2).await;
    loop {
        let (_, name, view) = next_event(&mut stream, &mut buffer).await;
        assert_eq!(name, "approval");
        if view["id"] == json!(second) {
            break;
        }
    }
    // An id of another process, or of nothing, begins anew.
    for other in ["0123456789ab-1", "x", ""] {
        let (mut stream, mut buffer) = follow(Some(other)).await;
        assert_eq!(
            next_event(&mut stream, &mut buffer).await.1,
            "reset",
            "{other}"
        );
    }
}

/// `HOLDPOINT_BLESS=1` writes it.
#[test]
fn the_committed_description_is_that_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let fresh = format!("{}\n", openapi().to_pretty_json().unwrap());
    if std::env::var_os("HOLDPOINT_BLESS").is_some() {
        std::fs::write(path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == fresh,
        "docs/openapi.json is stale: run this with HOLDPOINT_BLESS=1"
    );
    let used: BTreeMap<String, Value> = serde_json::from_str(&committed).unwrap();
    assert!(used["paths"]["/v1/approvals/{id}/decision"]["post"].is_object());
}

#[tokio::test]
async fn whoever_may_do_either_is_told_why_their_own_token_is_refused() {
    let gateway = Gateway::start().await;
    let (id, _, _waiter) = gateway.hold("DROP TABLE t", 1).await;
    let path = format!("/v1/approvals/{id}/wait?timeout=0");
    for (token, code) in [
        ("review-late", "HP-TOKEN-EXPIRED"),
        ("connect-late", "HP-TOKEN-EXPIRED"),
        ("other-late", "HP-SCOPE"),
        ("nonsense", "HP-TOKEN-INVALID"),
    ] {
        let (_, problem) = gateway.json("GET", &path, token, Value::Null).await;
        assert_eq!(problem["code"], code, "{token}: {problem}");
    }
}
