//! A rule asks who approves to have signed in of late: over the API, on the command line, in the
//! console, and what the record shows of it.

use std::time::Duration;

use holdpoint_tests::desk::{Desk, text};
use holdpoint_tests::issuer::now;
use holdpoint_tests::{Browser, Gateway, People, PgServer, Reviewer, Settings, need};
use hyper::StatusCode;
use serde_json::{Value, json};

fn rules(step_up: &str) -> String {
    format!(
        r#"
[[rule]]
name = "reads"
match = {{ classes = ["read", "session", "transaction"], confidence = "proven" }}
allow = true

[[rule]]
name = "tables"
match = {{ classes = ["ddl"] }}
hold = {{ reviewers = ["group:reviewers"], break_glass = ["group:sre"], step_up = "{step_up}" }}
"#
    )
}

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let settings = Settings {
        rules: rules("5m"),
        ..Settings::default()
    };
    Some(Gateway::with(&server.database(), settings).await)
}

/// Rita, who signed in so many seconds ago.
fn rita(gateway: &Gateway, ago: Option<i64>, groups: &[&str]) -> Reviewer {
    let mut claims = gateway
        .issuer
        .claims("rita", "holdpoint.review", groups, 600);
    claims["client_id"] = json!("reviewer-cli");
    if let Some(ago) = ago {
        claims["auth_time"] = json!(now() - ago);
    }
    let token = gateway.issuer.sign(&claims);
    gateway.keep_secret(&token);
    Reviewer::new(gateway.admin, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_recent_sign_in_approves_and_the_journal_shows_it() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["CREATE TABLE stepped_up (a int)"]);
    let anyone = rita(&gateway, None, &["reviewers"]);
    let view = anyone.pending("CREATE TABLE stepped_up").await;
    assert_eq!(view["step_up"], "5m");
    for ago in [None, Some(301), Some(24 * 3_600)] {
        let (status, problem) = rita(&gateway, ago, &["reviewers"]).approve(&view).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::FORBIDDEN, &json!("HP-STEP-UP")),
            "{ago:?}"
        );
    }
    // A token of tomorrow is none at all.
    let (status, problem) = rita(&gateway, Some(-3_600), &["reviewers"])
        .approve(&view)
        .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{problem}");
    // Nor is an emergency a way around it.
    let id = view["id"].as_str().unwrap();
    let glass = |by: Reviewer| {
        let body = json!({ "digest": view["digest"], "reason": "it is down" });
        let path = format!("/v1/approvals/{id}/break-glass");
        async move { by.call(hyper::Method::POST, &path, Some(body)).await }
    };
    let (status, problem) = glass(rita(&gateway, Some(301), &["sre"])).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::FORBIDDEN, &json!("HP-STEP-UP"))
    );

    let (status, done) = rita(&gateway, Some(10), &["reviewers"])
        .approve(&view)
        .await;
    assert_eq!(status, StatusCode::OK, "{done}");
    psql.wait().unwrap_done();
    assert!(gateway.database.has_table("stepped_up"));
    let shown = anyone.show(id).await;
    assert!(shown["votes"][0]["signed_in_at"].is_string(), "{shown}");
    gateway.stop();
    gateway.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_counts_without_any_sign_in_of_late() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["CREATE TABLE never_made (a int)"]);
    let rita = rita(&gateway, None, &["reviewers"]);
    let view = rita.pending("CREATE TABLE never_made").await;
    let (status, done) = rita.deny(&view, "not today").await;
    assert_eq!(status, StatusCode::OK, "{done}");
    assert!(psql.wait().stderr.contains("not today"));
    assert!(!gateway.tap.saw("never_made"));
}

/// A gateway with the development issuer, and somebody in front of it.
async fn desk(step_up: &str) -> Option<(Desk, People)> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let people = People::new(None, &[("rita", "reviewers")]);
    let settings = Settings {
        known: people.known(),
        rules: rules(step_up),
        ..Settings::default()
    };
    let gateway = Gateway::with(&server.database(), settings).await;
    Some((Desk::new(gateway), people))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_what_to_do_and_then_it_counts() {
    let Some((desk, people)) = desk("5m").await else {
        return;
    };
    let gateway = &desk.gateway;
    let token = people.agent(gateway).await;
    let psql = gateway
        .psql_as(&token)
        .start(&["CREATE TABLE by_command (a int)"]);
    // For the asking, at the development issuer: nobody signed in for it.
    let asked = desk
        .command(&["token", "--user", "rita", "--scope", "holdpoint.review"])
        .env("HOLDPOINT_ISSUER", people.issuer())
        .output()
        .unwrap();
    let asked = text(&asked.stdout).trim().to_owned();
    gateway.keep_secret(&asked);
    let rita = Reviewer::new(gateway.admin, &asked);
    let view = rita.pending("CREATE TABLE by_command").await;
    let id = view["id"].as_str().unwrap();
    let approve = ["approvals", "approve", id, "--yes"];
    let refused = desk
        .command(&approve)
        .env("HOLDPOINT_TOKEN", &asked)
        .output()
        .unwrap();
    let said = text(&refused.stderr);
    assert!(!refused.status.success());
    for part in [
        "HP-STEP-UP",
        "holdpoint login --review --max-age 5m",
        "step-up ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let (login, begun) = desk.begin(&["--review", "--max-age", "5m"]);
    let url = begun["url"].as_str().unwrap();
    assert!(url.contains("max_age=300"), "{url}");
    let mut browser = Browser::default();
    let page = browser.open(url).await;
    let page = browser.submit(&page, &[("user", "rita")]).await;
    assert!(page.body.contains("Signed in"), "{}", page.body);
    login.signed_in();
    desk.kept("access_token");
    let done = desk.run(&approve);
    assert!(done.status.success(), "{}", text(&done.stderr));
    psql.wait().unwrap_done();

    // The same browser may go on as she is, but not where the issuer is told to ask.
    let offers = async |browser: &mut Browser, args: &[&str]| {
        let (mut login, begun) = desk.begin(args);
        let page = browser.open(begun["url"].as_str().unwrap()).await;
        login.child.kill().unwrap();
        page.body.contains("Go on as rita")
    };
    assert!(offers(&mut browser, &["--review"]).await);
    assert!(offers(&mut browser, &["--review", "--max-age", "1h"]).await);
    assert!(!offers(&mut browser, &["--review", "--max-age", "0s"]).await);
    assert!(!offers(&mut browser, &["--review", "--prompt", "login"]).await);
    assert!(!offers(&mut Browser::default(), &["--review"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_leads_through_the_sign_in_and_back() {
    let Some((desk, people)) = desk("10s").await else {
        return;
    };
    let gateway = &desk.gateway;
    let token = people.agent(gateway).await;
    let base = format!("http://{}", gateway.admin);
    let mut browser = Browser::default();
    let page = browser.open(&format!("{base}/console")).await;
    let page = browser.open(&page.link("/console/login")).await;
    browser.submit(&page, &[("user", "rita")]).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let psql = gateway
        .psql_as(&token)
        .start(&["CREATE TABLE by_console (a int)"]);
    let mut page = browser.open(&format!("{base}/console")).await;
    while !page.text().contains("CREATE TABLE by_console") {
        tokio::time::sleep(Duration::from_millis(50)).await;
        page = browser.open(&format!("{base}/console")).await;
    }
    let page = browser.open(&page.link("class=\"card\"")).await;
    assert!(
        page.text().contains("a sign-in of the last 10s"),
        "{}",
        page.body
    );
    let approve = page.link("Approve…");
    let page = browser.open(&approve).await;
    assert!(page.body.contains("Sign in again first"), "{}", page.body);
    // The issuer knows her, and asks her all the same: her sign-in is too old for this.
    let page = browser.open(&page.link("Sign in again</a>")).await;
    assert!(page.body.contains("Who are you?"), "{}", page.body);
    assert!(!page.body.contains("Go on as"), "{}", page.body);
    let page = browser.submit(&page, &[("user", "rita")]).await;
    assert_eq!(page.url, approve);
    let page = browser.submit_to(&page, "/decision", &[]).await;
    assert!(
        page.body.contains("it settled the approval"),
        "{}",
        page.body
    );
    let done = psql.wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    // An agent is told that such things take longer.
    let about: Value = serde_json::from_str(
        &browser
            .open(&format!("{base}/.well-known/holdpoint"))
            .await
            .body,
    )
    .unwrap();
    let how = about["how"].to_string();
    assert!(
        how.contains("--because") && how.contains("sign in again"),
        "{how}"
    );
}
