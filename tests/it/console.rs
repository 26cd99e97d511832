//! People review in a browser: sign in, read, decide, and what comes of it at the agent.

use holdpoint_tests::browser::Page;
use holdpoint_tests::{Browser, Gateway, People, PgServer, Settings, need};

/// A gateway with the development issuer, and its people.
pub(crate) async fn gateway() -> Option<(Gateway, People)> {
    gateway_with(holdpoint_tests::RULES).await
}

async fn gateway_with(rules: &str) -> Option<(Gateway, People)> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let reviewers = [("rita", "reviewers"), ("olivia", "reviewers")];
    let people = People::new(Some("olivia"), &reviewers);
    let settings = Settings {
        known: people.known(),
        rules: rules.to_owned(),
        // A browser takes its time, and more where two of them share a machine.
        hold: "heartbeat = \"1s\"\ninline_wait = { agent = \"5m\" }\n".to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::with(&server.database(), settings).await;
    Some((gateway, people))
}

struct Reviewer {
    browser: Browser,
    base: String,
}

impl Reviewer {
    /// Signs in as `user`, by way of the page at `path`.
    async fn sign_in(gateway: &Gateway, user: &str, path: &str) -> (Self, Page) {
        let mut this = Self {
            browser: Browser::default(),
            base: format!("http://{}", gateway.admin),
        };
        let page = this.open(path).await;
        assert_eq!(page.status, 401, "{}", page.body);
        let link = page.link("/console/login");
        let page = this.browser.open(&link).await;
        let page = this.browser.submit(&page, &[("user", user)]).await;
        (this, page)
    }

    async fn open(&mut self, path: &str) -> Page {
        self.browser.open(&format!("{}{path}", self.base)).await
    }

    /// Waits until the list has a command with `text`, and opens it.
    async fn held(&mut self, text: &str) -> Page {
        for _ in 0..500 {
            let page = self.open("/console").await;
            assert_eq!(page.status, 200, "{}", page.body);
            if page.text().contains(text) {
                let link = page.link("class=\"card\"");
                return self.browser.open(&link).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("nothing with {text:?} waits in the console");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_names_people_of_the_development_issuer_by_its_name() {
    let rules = r#"[[rule]]
name = "all"
match = { confidence = "proven" }
hold = { reviewers = ["person:dev|rita"] }
"#;
    let Some((gateway, people)) = gateway_with(rules).await else {
        return;
    };
    let token = people.agent(&gateway).await;
    let psql = gateway
        .psql_as(&token)
        .start(&["CREATE TABLE named_by_person (a int)"]);
    let (mut rita, _) = Reviewer::sign_in(&gateway, "rita", "/console").await;
    let page = rita.held("CREATE TABLE named_by_person").await;
    let page = rita.browser.open(&page.link("Approve…")).await;
    let page = rita.browser.submit_to(&page, "/decision", &[]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let done = psql.wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(gateway.database.has_table("named_by_person"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_in_the_console_runs_once() {
    let Some((gateway, people)) = gateway().await else {
        return;
    };
    let token = people.agent(&gateway).await;
    let psql = gateway
        .psql_as(&token)
        .start(&["CREATE TABLE made_by_console (a int)"]);
    let (mut rita, page) = Reviewer::sign_in(&gateway, "rita", "/console").await;
    assert!(page.url.ends_with("/console"), "{}", page.url);
    assert!(page.body.contains("rita"), "{}", page.body);
    let page = rita.held("CREATE TABLE made_by_console").await;
    for part in ["ddl", "ada", "olivia", "shop", "it changes something"] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    let page = rita.browser.open(&page.link("Approve…")).await;
    let page = rita.browser.submit_to(&page, "/decision", &[]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.body.contains("it settled the approval"),
        "{}",
        page.body
    );
    let done = psql.wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let count = gateway
        .psql_as(&token)
        .run("SELECT count(*) FROM pg_class WHERE relname = 'made_by_console'");
    assert_eq!(count.stdout, "1\n", "{}", count.stderr);

    let page = rita.open("/console/sessions?text=MADE_BY_console").await;
    assert!(page.text().contains("ada on shop"), "{}", page.body);
    let session = page.link("class=\"rows\"");
    let page = rita.browser.open(&session).await;
    assert!(page.body.contains("opens a session on"), "{}", page.body);
    let page = rita.open("/console/health").await;
    assert!(page.text().contains("is writing"), "{}", page.body);
    let page = rita.open("/console/rules").await;
    for part in ["changes", "it changes something", "postgres"] {
        assert!(page.text().contains(part), "{part}: {}", page.body);
    }
    // The same again: a reviewer sees what was decided the last time.
    let again = "create table MADE_BY_CONSOLE (a int) -- again";
    let psql = gateway.psql_as(&token).start(&[again]);
    let page = rita.held("MADE_BY_CONSOLE").await;
    let text = page.text();
    let before = text.split("Decided before").nth(1).unwrap();
    assert!(before.contains("used ada by rita"), "{text}");
    drop(psql);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_and_its_reason_reach_the_client() {
    let Some((gateway, people)) = gateway().await else {
        return;
    };
    let token = people.agent(&gateway).await;
    let psql = gateway.psql_as(&token).start(&["DROP TABLE orders"]);
    let (mut rita, _) = Reviewer::sign_in(&gateway, "rita", "/console").await;
    let page = rita.held("DROP TABLE orders").await;
    let page = rita.browser.open(&page.link("Deny…")).await;
    // A denial without a reason is none.
    let refused = rita.browser.submit_to(&page, "/decision", &[]).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let reason = [("reason", "archive it instead")];
    let page = rita.browser.submit_to(&page, "/decision", &reason).await;
    assert!(page.body.contains("archive it instead"), "{}", page.body);
    let done = psql.wait();
    assert_ne!(done.code, Some(0));
    assert!(
        done.stderr.contains("archive it instead"),
        "{}",
        done.stderr
    );
    assert!(!gateway.tap.saw("DROP TABLE orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_digest_a_foreign_form_or_an_owner_decide_nothing() {
    let Some((gateway, people)) = gateway().await else {
        return;
    };
    let token = people.agent(&gateway).await;
    let psql = gateway.psql_as(&token).start(&["DROP TABLE orders"]);
    let (mut rita, _) = Reviewer::sign_in(&gateway, "rita", "/console").await;
    let page = rita.held("DROP TABLE orders").await;
    let approve = rita.browser.open(&page.link("Approve…")).await;
    let other = "0".repeat(64);
    for (name, value, status, says) in [
        ("digest", other.as_str(), 409, "HP-DIGEST"),
        ("csrf", "guess", 403, "Nothing was done"),
    ] {
        let page = rita
            .browser
            .submit_to(&approve, "/decision", &[(name, value)])
            .await;
        assert_eq!(page.status, status, "{}", page.body);
        assert!(page.body.contains(says), "{}", page.body);
    }
    // Back to where she wanted to go; but she answers for the agent.
    let path = approve.url.split_once("/console").unwrap().1;
    let path = format!("/console{path}");
    let (mut olivia, page) = Reviewer::sign_in(&gateway, "olivia", &path).await;
    assert!(page.url.ends_with("/approve"), "{}", page.url);
    let page = olivia.browser.submit_to(&page, "/decision", &[]).await;
    assert_eq!(page.status, 403, "{}", page.body);
    assert!(page.body.contains("HP-NOT-ELIGIBLE"), "{}", page.body);
    // Her cookie does not open a form of rita's.
    let page = olivia.browser.submit_to(&approve, "/decision", &[]).await;
    assert_eq!(page.status, 403, "{}", page.body);
    drop(psql);
    assert!(!gateway.tap.saw("DROP TABLE orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_review_is_not_let_in() {
    let Some((gateway, _issuer)) = gateway().await else {
        return;
    };
    // The issuer gives an agent no token to decide with.
    let (mut ada, page) = Reviewer::sign_in(&gateway, "ada", "/console").await;
    assert_eq!(page.status, 403, "{}", page.body);
    assert!(page.body.contains("Not signed in"), "{}", page.body);
    assert_eq!(ada.open("/console").await.status, 401);
    // An answer that this browser did not ask for, with a state that another did.
    let mut rita = Browser::default();
    let base = format!("http://{}", gateway.admin);
    let page = rita.open(&format!("{base}/console")).await;
    let page = rita.open(&page.link("/console/login")).await;
    let state = page.url.split("state=").nth(1).unwrap();
    let state = state.split('&').next().unwrap();
    let url = format!("{base}/console/callback?code=evil&state={state}");
    let answer = Browser::default().open(&url).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    // Which did not use it up.
    let page = rita.submit(&page, &[("user", "rita")]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.body.contains("Waiting for a decision"),
        "{}",
        page.body
    );
}
