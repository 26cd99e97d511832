//! Justifications, windows and broken glass over HTTP.

use holdpoint_core::approval::Draft;
use holdpoint_core::decision::{Reviewers, Window};
use holdpoint_core::id::CommandId;

use super::*;

/// A rule that asks for a reason and offers a window and a glass.
fn asking(at: u128) -> Draft {
    let mut draft = draft("agent", "DROP TABLE t", at);
    draft.hold.justify = true;
    draft.hold.windows = vec![Window::For(Duration::from_secs(600))];
    draft.hold.break_glass = vec![Reviewers::Group("dba".to_owned())];
    draft
}

async fn held(gateway: &Gateway, draft: &Draft) -> Waiter {
    let approvals = &gateway.desk.approvals;
    let opened = approvals.open(draft.clone(), gateway.desk.hands.now());
    opened.await.1.unwrap()
}

#[tokio::test]
async fn only_who_asked_says_why_and_once() {
    let gateway = Gateway::start().await;
    let draft = asking(1);
    let _waiter = held(&gateway, &draft).await;
    let path = format!("/v1/approvals/{}/justification", draft.id);
    let say = |token, text: &str| {
        let (gateway, path, body) = (&gateway, &path, json!({ "text": text }));
        async move { gateway.json("POST", path, token, body).await }
    };
    let vote = json!({ "decision": "approve", "digest": draft.digest.to_string() });
    let decide = format!("/v1/approvals/{}/decision", draft.id);
    let (status, early) = gateway
        .json("POST", &decide, "review-rita", vote.clone())
        .await;
    assert_eq!((status, &early["code"]), (409, &json!("HP-NOT-JUSTIFIED")));
    let wait = format!("/v1/approvals/{}/wait?timeout=0", draft.id);
    let (_, status) = gateway
        .json("GET", &wait, "connect-agent", Value::Null)
        .await;
    assert_eq!(status["to_justify"], json!(true));

    assert_eq!(
        say("connect-mallory", "x").await.0,
        404,
        "nothing is said to a stranger"
    );
    assert_eq!(
        say("review-agent", "x").await.0,
        403,
        "it takes a connecting token"
    );
    assert_eq!(say("connect-agent", " ").await.0, 400);
    assert_eq!(say("connect-agent", &"x".repeat(2_001)).await.0, 400);
    assert_eq!(say("connect-agent", "it\nis \u{1b}[2Jold").await.0, 200);
    let (status, again) = say("connect-agent", "or so").await;
    assert_eq!((status, &again["code"]), (409, &json!("HP-JUSTIFIED")));
    let show = format!("/v1/approvals/{}", draft.id);
    let (_, view) = gateway.json("GET", &show, "review-rita", Value::Null).await;
    assert_eq!(view["justification"], json!("it\nis \\u{1b}[2Jold"));
    assert_eq!(
        gateway.json("POST", &decide, "review-rita", vote).await.0,
        200
    );
}

#[tokio::test]
async fn a_window_is_opened_listed_and_revoked() {
    let gateway = Gateway::start().await;
    let mut draft = asking(1);
    draft.hold.justify = false;
    let _waiter = held(&gateway, &draft).await;
    let decide = format!("/v1/approvals/{}/decision", draft.id);
    let vote = |window: &str| json!({ "decision": "approve", "digest": draft.digest.to_string(), "window": window });
    for wrong in ["session", "9m", "ever"] {
        let refused = gateway
            .json("POST", &decide, "review-rita", vote(wrong))
            .await;
        assert_eq!(refused.0, 400, "{refused:?}");
    }
    assert_eq!(
        gateway
            .json("POST", &decide, "review-rita", vote("10m"))
            .await
            .0,
        200
    );
    let claim = |command| {
        let (approvals, now) = (&gateway.desk.approvals, gateway.desk.hands.now());
        approvals.claim(
            &draft.id,
            &draft.digest,
            &draft.session,
            CommandId(command),
            now,
        )
    };
    assert!(claim(1).await.is_ok() && claim(2).await.is_ok());
    let (_, listed) = gateway
        .json("GET", "/v1/windows", "review-sam", Value::Null)
        .await;
    assert_eq!(listed["windows"][0]["uses"], json!(1));
    assert_eq!(
        gateway
            .json("GET", "/v1/windows", "connect-agent", Value::Null)
            .await
            .0,
        403
    );
    let revoke = format!("/v1/windows/{}/revoke", draft.id);
    assert_eq!(
        gateway
            .json("POST", &revoke, "connect-agent", Value::Null)
            .await
            .0,
        403
    );
    assert_eq!(
        gateway
            .json("POST", &revoke, "review-sam", Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        gateway
            .json("POST", &revoke, "review-sam", Value::Null)
            .await
            .0,
        404
    );
    assert!(claim(3).await.is_err());
}

#[tokio::test]
async fn a_broken_glass_needs_the_digest_and_a_reason_and_is_reviewed() {
    let gateway = Gateway::start().await;
    let draft = asking(1);
    let _waiter = held(&gateway, &draft).await;
    let path = format!("/v1/approvals/{}/break-glass", draft.id);
    let break_it = |token, digest: &str, reason: &str| {
        let (gateway, path) = (&gateway, &path);
        let body = json!({ "digest": digest, "reason": reason });
        async move { gateway.json("POST", path, token, body).await }
    };
    let digest = draft.digest.to_string();
    assert_eq!(break_it("connect-agent", &digest, "x").await.0, 403);
    assert_eq!(break_it("review-rita", &digest, "").await.0, 400);
    assert_eq!(break_it("review-rita", &"0".repeat(64), "x").await.0, 409);
    let (status, broken) = break_it("review-rita", &digest, "it burns").await;
    assert_eq!((status, &broken["state"]), (200, &json!("approved")));
    assert_eq!(break_it("review-rita", &digest, "x").await.0, 409);
    let (_, open) = gateway
        .json("GET", "/v1/reviews", "review-sam", Value::Null)
        .await;
    assert_eq!(open["reviews"][0]["glass"]["reason"], json!("it burns"));
    let review = format!("/v1/approvals/{}/review", draft.id);
    for (token, status) in [
        ("review-rita", 403),
        ("review-agent", 403),
        ("connect-agent", 403),
        ("review-sam", 200),
        ("review-tom", 404),
    ] {
        let done = gateway.json("POST", &review, token, Value::Null).await;
        assert_eq!(done.0, status, "{token}: {done:?}");
    }
    let recorded = gateway.desk.ledger.all();
    assert!(
        recorded
            .iter()
            .any(|entry| matches!(entry, Entry::Reviewed { .. }))
    );
}

#[tokio::test]
async fn a_signed_decision_opens_the_window_that_the_rule_offers_and_no_other() {
    let gateway = Gateway::start().await;
    let mut draft = asking(1);
    draft.hold.justify = false;
    let _waiter = held(&gateway, &draft).await;
    let id = draft.id.to_string();
    let vote = |window: &str| {
        let mut vote = decision(&id, &draft.digest.to_string(), "rita");
        vote["window"] = json!(window);
        vote
    };
    for (at, wrong) in ["session", "9m", "ever"].into_iter().enumerate() {
        let webhook = format!("w{at}");
        let refused = gateway.signed("chat", &id, &webhook, &vote(wrong)).await;
        assert_eq!(refused.0, 400, "{refused:?}");
    }
    let done = gateway.signed("chat", &id, "m1", &vote("10m")).await;
    assert_eq!(
        (done.0, &done.1["state"]),
        (200, &json!("approved")),
        "{done:?}"
    );
    let (_, listed) = gateway
        .json("GET", "/v1/windows", "review-sam", Value::Null)
        .await;
    assert_eq!(listed["windows"][0]["id"], json!(id), "{listed}");
}

/// A rule that asks for a sign-in of the last five minutes.
fn stepping_up(at: u128) -> Draft {
    let mut draft = draft("agent", "DROP TABLE t", at);
    draft.hold.step_up = Some(Duration::from_secs(300));
    draft
}

#[tokio::test]
async fn an_approval_without_a_recent_sign_in_is_refused_with_what_to_do() {
    let gateway = Gateway::start().await;
    let draft = stepping_up(1);
    let _waiter = held(&gateway, &draft).await;
    let decide = format!("/v1/approvals/{}/decision", draft.id);
    let vote = json!({ "decision": "approve", "digest": draft.digest.to_string() });
    let now = gateway.desk.hands.now().unix();
    for (token, says) in [
        ("review-rita".to_owned(), "is not known"),
        (format!("review-rita@{}", now - 301), "5m ago"),
        (format!("review-rita@{}", now + 3_600), "has not come yet"),
    ] {
        let (status, problem) = gateway.json("POST", &decide, &token, vote.clone()).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("HP-STEP-UP")),
            "{token}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(says) || detail.contains("301s ago"),
            "{detail}"
        );
        assert!(problem["hint"].is_string(), "{problem}");
    }
    let (_, problem) = gateway
        .json("POST", &decide, "review-rita", vote.clone())
        .await;
    let hint = problem["hint"].as_str().unwrap();
    assert!(
        hint.contains("holdpoint login --review --max-age 5m"),
        "{hint}"
    );
    let show = format!("/v1/approvals/{}", draft.id);
    let (_, view) = gateway.json("GET", &show, "review-rita", Value::Null).await;
    assert_eq!(
        (&view["step_up"], &view["state"]),
        (&json!("5m"), &json!("pending"))
    );

    let fresh = format!("review-rita@{}", now - 300);
    let (status, decided) = gateway.json("POST", &decide, &fresh, vote).await;
    assert_eq!((status, &decided["state"]), (200, &json!("approved")));
    let (_, view) = gateway.json("GET", &show, "review-rita", Value::Null).await;
    assert!(view["votes"][0]["signed_in_at"].is_string(), "{view}");
}

#[tokio::test]
async fn an_integration_proves_no_sign_in_and_no_key_and_may_still_deny() {
    let gateway = Gateway::start().await;
    let keyed = {
        let mut draft = draft("agent", "DROP TABLE u", 2);
        draft.hold.webauthn = true;
        draft
    };
    for (draft, code) in [(stepping_up(1), "HP-STEP-UP"), (keyed, "HP-SECURITY-KEY")] {
        let _waiter = held(&gateway, &draft).await;
        let (id, digest) = (draft.id.to_string(), draft.digest.to_string());
        let mut signed = decision(&id, &digest, "rita");
        let (status, problem) = gateway
            .signed("chat", &id, &format!("m-{id}"), &signed)
            .await;
        assert_eq!((status, &problem["code"]), (403, &json!(code)));
        // Nor does a token alone show a key.
        if code == "HP-SECURITY-KEY" {
            let decide = format!("/v1/approvals/{id}/decision");
            let vote = json!({ "decision": "approve", "digest": digest });
            let now = gateway.desk.hands.now().unix();
            let token = format!("review-rita@{now}");
            let (status, problem) = gateway.json("POST", &decide, &token, vote).await;
            assert_eq!((status, &problem["code"]), (403, &json!(code)));
        }
        signed["decision"] = json!("deny");
        signed["reason"] = json!("no");
        let (status, decided) = gateway
            .signed("chat", &id, &format!("n-{id}"), &signed)
            .await;
        assert_eq!(
            (status, &decided["state"]),
            (200, &json!("denied")),
            "{decided}"
        );
    }
}
