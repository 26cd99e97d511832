//! People sign in: the real `holdpoint login`, in a browser and by a device's code, and what
//! the commands after it make of what it left.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use holdpoint_tests::browser::Page;
use holdpoint_tests::desk::{Desk, text};
use holdpoint_tests::gateway::free_ports;
use holdpoint_tests::{Browser, Gateway, PgServer, Settings, need};
use serde_json::Value;

/// A gateway with the development issuer, and somebody who uses it.
async fn desk(token_ttl: &str) -> Option<Desk> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let [issuer] = free_ports();
    let known = format!(
        r#"[dev_issuer]
listen = "{issuer}"
token_ttl = "{token_ttl}"
[dev_issuer.users.ada]
groups = ["agents"]
scopes = ["holdpoint.connect"]
[dev_issuer.users.rita]
groups = ["reviewers"]
scopes = ["holdpoint.review"]
"#
    );
    let settings = Settings {
        known: Some(known),
        ..Settings::default()
    };
    Some(Desk::new(Gateway::with(&server.database(), settings).await))
}

/// Signs in as `user`, in a browser.
async fn sign_in(desk: &Desk, user: &str, args: &[&str]) -> Value {
    let (login, said) = desk.begin(args);
    let mut browser = Browser::default();
    let page = browser.open(said["url"].as_str().unwrap()).await;
    let page = browser.submit(&page, &[("user", user)]).await;
    assert!(page.body.contains("Signed in"), "{}", page.body);
    login.signed_in()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_in_a_browser_and_reaches_the_target() {
    let Some(desk) = desk("10m").await else {
        return;
    };
    let (code, said) = desk.token(&[]).unwrap_err();
    assert_eq!(code, Some(3));
    assert!(said.contains("holdpoint login --server"), "{said}");

    let done = sign_in(&desk, "ada", &[]).await;
    assert_eq!(done["who"], "ada");
    assert_eq!(done["scopes"][0], "holdpoint.connect");
    let token = desk.token(&[]).unwrap();
    let done = desk.gateway.psql_as(&token).run("SELECT 1");
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);

    // The commands take it by themselves.
    if holdpoint_tests::needs::program("psql").is_some() {
        let ca = desk.gateway.dir.join("ca.pem");
        let output = desk.run(&[
            "psql",
            "shop",
            "--ca",
            ca.to_str().unwrap(),
            "--",
            "-XAtc",
            "SELECT 2",
        ]);
        assert_eq!(text(&output.stdout), "2\n", "{output:?}");
    }
    // Not where somebody has to decide: that is another token.
    let output = desk.run(&["approvals", "list"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("holdpoint login --review"));
    let done = sign_in(&desk, "rita", &["--review"]).await;
    assert_eq!(done["scopes"][0], "holdpoint.review");
    let output = desk.run(&["approvals", "list", "--json"]);
    assert_eq!(text(&output.stdout), "[]\n", "{output:?}");
    assert_ne!(desk.token(&["--review"]).unwrap(), token);
    assert_eq!(desk.token(&[]).unwrap(), token);

    // And when they are gone, they are gone.
    assert!(desk.run(&["logout"]).status.success());
    assert_eq!(desk.token(&[]).unwrap_err().0, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_its_token_when_somebody_enters_its_code() {
    let Some(desk) = desk("10m").await else {
        return;
    };
    let (login, said) = desk.begin(&["--device"]);
    let mut browser = Browser::default();
    let page = browser.open(said["url"].as_str().unwrap()).await;
    let code = said["user_code"].as_str().unwrap().to_lowercase();
    let page = browser
        .submit(&page, &[("user_code", code.as_str()), ("user", "ada")])
        .await;
    assert!(page.body.contains("Signed in"), "{}", page.body);
    let (good, text) = login.end();
    assert!(good, "{text}");
    assert!(desk.token(&[]).is_ok());

    // Somebody says no.
    let (login, said) = desk.begin(&["--device"]);
    let page = browser.open(said["url_complete"].as_str().unwrap()).await;
    browser.submit(&page, &[("deny", "yes")]).await;
    let (good, text) = login.end();
    assert!(!good);
    assert!(text.contains("access_denied"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_by_one_process_and_a_refusal_asks_for_a_login() {
    let Some(desk) = desk("30s").await else {
        return;
    };
    sign_in(&desk, "ada", &[]).await;
    let (first, refresh) = (desk.kept("access_token"), desk.kept("refresh_token"));
    assert_eq!(desk.token(&[]).unwrap(), first);
    desk.age();
    // Many at once: a refresh token that two of them used would end the sign-in.
    let children: Vec<Child> = (0..8)
        .map(|_| {
            desk.command(&["token"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let tokens: Vec<String> = children
        .into_iter()
        .map(|child| text(&child.wait_with_output().unwrap().stdout))
        .collect();
    assert!(tokens[0].len() > 100 && tokens[0].trim() != first);
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_ne!(desk.kept("refresh_token"), refresh);

    // The issuer forgets at its start; what was kept is of no use then.
    desk.gateway.stop();
    desk.gateway.spawn();
    desk.gateway.wait_ready().await;
    desk.age();
    let (code, text) = desk.token(&[]).unwrap_err();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("invalid_grant"), "{text}");
    assert!(desk.kept("refresh_token").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_another_state_is_refused_and_nothing_is_kept() {
    let Some(desk) = desk("10m").await else {
        return;
    };
    let (mut login, said) = desk.begin(&[]);
    let url = said["url"].as_str().unwrap();
    let callback = parameter(url, "redirect_uri");
    let issuer = url.split("/authorize").next().unwrap();
    let mut browser = Browser::default();
    let bad = format!("{callback}?code=evil&state=evil&iss={issuer}");
    let page = browser.open(&bad).await;
    assert_eq!(page.status, 400, "{}", page.body);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(login.child.try_wait().unwrap().is_none());
    assert!(!desk.home.join("tokens.json").exists());
    login.child.kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_in_page_serves_nobody_else() {
    let Some(desk) = desk("10m").await else {
        return;
    };
    let (mut login, said) = desk.begin(&[]);
    let url = said["url"].as_str().unwrap();
    let mut browser = Browser::default();
    let redirect = parameter(url, "redirect_uri");
    // Another place to go back to, another client, no PKCE.
    let encoded = "redirect_uri=http%3A%2F%2F127.0.0.1%3A";
    assert!(url.contains(encoded), "{url}");
    for (from, to) in [
        (encoded, "redirect_uri=http%3A%2F%2Fevil.example%3A"),
        (encoded, "redirect_uri=http%3A%2F%2Flocalhost%3A"),
        ("client_id=holdpoint-dev", "client_id=other"),
    ] {
        let page = browser.open(&url.replace(from, to)).await;
        assert_eq!(page.status, 400, "{to}");
    }
    let plain = url.replace("code_challenge_method=S256", "code_challenge_method=plain");
    let page = browser.open(&plain).await;
    assert!(page.url.starts_with(&redirect), "{}", page.url);
    assert!(page.url.contains("error=invalid_request"), "{}", page.url);
    // That was an answer, with our state: the login ends with it.
    let (good, text) = {
        let ended = login.child.wait().unwrap();
        (ended.success(), login.end().1)
    };
    assert!(!good && text.contains("invalid_request"), "{text}");

    // A form without its cookie, or with somebody else's.
    let (mut login, said) = desk.begin(&[]);
    let page = browser.open(said["url"].as_str().unwrap()).await;
    let stranger: Page = Browser::default().submit(&page, &[("user", "ada")]).await;
    assert_eq!(stranger.status, 400);
    assert!(login.child.try_wait().unwrap().is_none());
    login.child.kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_others_could_read_are_not_used() {
    let Some(desk) = desk("10m").await else {
        return;
    };
    sign_in(&desk, "ada", &[]).await;
    let path = desk.home.join("tokens.json");
    let mode = |path: &PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    mode(&path, 0o644);
    let (code, text) = desk.token(&[]).unwrap_err();
    assert_eq!(code, Some(1));
    assert!(text.contains("chmod 600"), "{text}");
    // Nor does a new login put something beside it.
    let output = desk.run(&["login"]);
    assert!(!output.status.success());
    mode(&path, 0o600);
    assert!(desk.token(&[]).is_ok());
}

/// A parameter of a URL, decoded as far as URLs in it need.
fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(&format!("{name}=")))
        .unwrap();
    value.replace("%3A", ":").replace("%2F", "/")
}
