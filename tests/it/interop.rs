//! An OpenID provider that we did not write (npm `oidc-provider`, certified): what it hands
//! out opens our doors, and `holdpoint login` gets along with it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use holdpoint_tests::browser::Page;
use holdpoint_tests::desk::{Desk, text};
use holdpoint_tests::needs::{node_issuer, workspace};
use holdpoint_tests::{Browser, Gateway, PgServer, Settings, need};
use serde_json::Value;

/// The provider; it ends when this is dropped.
struct Provider {
    child: Child,
    _out: BufReader<ChildStdout>,
    issuer: String,
    agent: String,
    secret: String,
}

impl Provider {
    fn start() -> Option<Self> {
        let (node, modules) = need!(node_issuer(), "node with oidc-provider")?;
        let mut child = Command::new(node)
            .arg(workspace().join("tests/drivers/oidc-provider/issuer.mjs"))
            .arg(modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        // Kept open: a provider that cannot write its log would end.
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).expect("the provider starts");
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        Some(Self {
            issuer: text("issuer"),
            agent: text("agent"),
            secret: text("secret"),
            child,
            _out: out,
        })
    }

    /// A gateway that accepts its tokens, and somebody in front of it.
    async fn desk(&self) -> Option<Desk> {
        self.desk_with(holdpoint_tests::RULES).await
    }

    async fn desk_with(&self, rules: &str) -> Option<Desk> {
        let server = need!(PgServer::shared(), "postgresql")?;
        let known = format!(
            r#"[[identity.issuer]]
name = "tests"
issuer = "{}"
audiences = ["api://holdpoint"]
algorithms = ["RS256"]
login = {{ client_id = "holdpoint-cli" }}
console = {{ client_id = "holdpoint-console", client_secret = "file:console-secret" }}
[identity.agents.{}]
name = "robot"
groups = ["agents"]
"#,
            self.issuer, self.agent
        );
        let settings = Settings {
            known: Some(known),
            rules: rules.to_owned(),
            ..Settings::default()
        };
        let gateway = Gateway::prepare(&server.database(), settings).await;
        gateway.dir.write("console-secret", &self.secret);
        gateway.keep_secret(&self.secret);
        gateway.spawn();
        gateway.wait_ready().await;
        Some(Desk::new(gateway))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_client_credentials_of_another_issuer_reaches_the_target() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let Some(desk) = provider.desk().await else {
        return;
    };
    let output = desk
        .command(&["token", "--scope", "holdpoint.connect"])
        .env("HOLDPOINT_ISSUER", &provider.issuer)
        .env("HOLDPOINT_CLIENT_ID", &provider.agent)
        .env("HOLDPOINT_CLIENT_SECRET", &provider.secret)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let token = text(&output.stdout);
    let done = desk.gateway.psql_as(token.trim()).run("SELECT 1");
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);

    // Without the scope it is a token for something else.
    let output = desk
        .command(&["token", "--scope", "holdpoint.review"])
        .env("HOLDPOINT_ISSUER", &provider.issuer)
        .env("HOLDPOINT_CLIENT_ID", &provider.agent)
        .env("HOLDPOINT_CLIENT_SECRET", &provider.secret)
        .output()
        .unwrap();
    let token = text(&output.stdout);
    let done = desk.gateway.psql_as(token.trim()).run("SELECT 1");
    assert!(done.stderr.contains("HP-SCOPE"), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_at_another_issuer_and_the_token_is_renewed() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let Some(desk) = provider.desk().await else {
        return;
    };
    let (login, said) = desk.begin(&["--prompt", "consent"]);
    let mut browser = Browser::default();
    let page = browser.open(said["url"].as_str().unwrap()).await;
    let page = through(&mut browser, page, "Signed in").await;
    assert!(page.url.contains("/callback?"), "{}", page.url);
    let done = login.signed_in();
    assert_eq!(done["refreshable"], true, "{done}");
    let (first, refresh) = (desk.token(&[]).unwrap(), desk.kept("refresh_token"));
    let done = desk.gateway.psql_as(&first).run("SELECT 1");
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);

    desk.age();
    let second = desk.token(&[]).unwrap();
    assert_ne!(first, second);
    assert_ne!(desk.kept("refresh_token"), refresh, "it rotates");
    let done = desk.gateway.psql_as(&second).run("SELECT 1");
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_signs_in_at_another_issuer() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let Some(desk) = provider.desk().await else {
        return;
    };
    let (login, said) = desk.begin(&["--device"]);
    let mut browser = Browser::default();
    let page = browser.open(said["url"].as_str().unwrap()).await;
    let code = said["user_code"].as_str().unwrap();
    let page = browser.submit(&page, &[("user_code", code)]).await;
    through(&mut browser, page, "Success").await;
    login.signed_in();
    let token = desk.token(&[]).unwrap();
    let done = desk.gateway.psql_as(&token).run("SELECT 1");
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_signs_in_to_the_console_which_proves_its_secret() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let Some(desk) = provider.desk().await else {
        return;
    };
    let console = format!("http://{}/console", desk.gateway.admin);
    let mut browser = Browser::default();
    let page = browser.open(&console).await;
    let page = browser.open(&page.link("/console/login")).await;
    let page = through(&mut browser, page, "Waiting for a decision").await;
    assert_eq!(page.url, console);
    // A wrong secret is refused by the issuer, and the page does not say it.
    desk.gateway.stop();
    desk.gateway.dir.write("console-secret", "not-the-secret");
    desk.gateway.spawn();
    desk.gateway.wait_ready().await;
    let mut browser = Browser::default();
    let page = browser.open(&console).await;
    let page = browser.open(&page.link("/console/login")).await;
    let page = through(&mut browser, page, "Not signed in").await;
    assert!(!page.body.contains("not-the-secret"), "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_issuer_is_told_to_ask_again_and_shows_the_way_out() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let rules = r#"[[rule]]
name = "all"
match = { confidence = "proven" }
hold = { reviewers = ["person:tests|ada"], step_up = "10s" }
"#;
    let Some(desk) = provider.desk_with(rules).await else {
        return;
    };
    let output = desk
        .command(&["token", "--scope", "holdpoint.connect"])
        .env("HOLDPOINT_ISSUER", &provider.issuer)
        .env("HOLDPOINT_CLIENT_ID", &provider.agent)
        .env("HOLDPOINT_CLIENT_SECRET", &provider.secret)
        .output()
        .unwrap();
    let token = text(&output.stdout);
    let psql = desk
        .gateway
        .psql_as(token.trim())
        .start(&["CREATE TABLE by_another_issuer (a int)"]);
    let console = format!("http://{}/console", desk.gateway.admin);
    let mut browser = Browser::default();
    let page = browser.open(&console).await;
    let page = browser.open(&page.link("/console/login")).await;
    let page = through(&mut browser, page, "Waiting for a decision").await;
    let page = browser.open(&page.link("class=\"card\"")).await;
    let approve = page.link("Approve…");
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let page = browser.open(&approve).await;
    assert!(page.body.contains("Sign in again first"), "{}", page.body);
    // Without `max_age`, it would let the same browser pass.
    let again = page.link("Sign in again</a>");
    let page = browser.open(&again).await;
    assert!(page.url.starts_with(&provider.issuer), "{}", page.url);
    assert!(page.body.contains("password"), "{}", page.body);
    let page = through(&mut browser, page, "Approve this command?").await;
    assert_eq!(page.url, approve);
    let page = browser.submit_to(&page, "/decision", &[]).await;
    assert!(
        page.body.contains("it settled the approval"),
        "{}",
        page.body
    );
    let done = psql.wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let page = browser.submit_to(&page, "/console/logout", &[]).await;
    let way_out = format!(
        "{}/session/end?client_id=holdpoint-console",
        provider.issuer
    );
    assert!(page.body.contains(&way_out), "{}", page.body);
    // It takes no token back that it does not keep itself, and says so; that is no fault.
    assert!(!page.body.contains("given back"), "{}", page.body);
    let log = desk.gateway.log();
    assert!(!log.contains("a token was not given back"), "{log}");
}

/// Fills in what the provider asks until a page says `end`.
async fn through(browser: &mut Browser, mut page: Page, end: &str) -> Page {
    for _ in 0..6 {
        if page.body.contains(end) {
            return page;
        }
        page = browser
            .submit(&page, &[("login", "ada"), ("password", "any")])
            .await;
    }
    panic!("{} says: {}", page.url, page.body);
}
