//! The console over real connections, with tokens that are names.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::{self, Identity, Principal};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

mod step_up;

use crate::api::SessionView;
use crate::approvals::testing::{Desk, draft, principal};
use crate::approvals::{Errand, Later, NoAnswer, Others, PrincipalView, Waiter};
use crate::http_client::HttpClient;

/// `review-NAME` may decide, whatever else may not; `review-NAME@SECONDS` signed in then.
struct Names;

impl Tokens for Names {
    fn review<'a>(&'a self, token: &'a [u8], _: Now) -> Later<'a, Result<Principal, Denial>> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(token);
            let Some(name) = text.strip_prefix("review-") else {
                return Err(Denial::new(
                    Kind::Unauthenticated,
                    "HP-SCOPE",
                    "not to review",
                ));
            };
            let (name, auth_time) = match name.split_once('@') {
                Some((name, at)) => (name, at.parse().ok()),
                None => (name, None),
            };
            let mut principal = principal(name);
            principal.auth_time = auth_time;
            principal.kind = principal::Kind::Person;
            principal.owners = Vec::new();
            principal.groups = vec!["dba".to_owned()];
            Ok(principal)
        })
    }

    fn connect<'a>(&'a self, token: &'a [u8], now: Now) -> Later<'a, Result<Principal, Denial>> {
        self.review(token, now)
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        principal.label == "revoked"
    }

    fn admits(&self, reviewer: &holdpoint_core::approval::Reviewer) -> bool {
        reviewer.identity.subject != "revoked"
    }

    fn issuer(&self, named: &str) -> Result<String, String> {
        match named {
            "nobodys" => Err("`https://issuer.example`".to_owned()),
            known => Ok(known.to_owned()),
        }
    }

    fn revoke(&self, _: &Identity, _: Option<&Identity>) -> Result<(), String> {
        Ok(())
    }
}

struct NoSessions;

impl Sessions for NoSessions {
    fn list(&self) -> Vec<SessionView> {
        Vec::new()
    }

    fn count(&self) -> usize {
        0
    }

    fn revoke(&self, _: &Identity) -> usize {
        0
    }

    fn has(&self, _: &SessionId) -> bool {
        false
    }

    fn kill(&self, _: &SessionId) -> bool {
        false
    }
}

/// Node `b` has two sessions; `c` does not answer, and `d` is gone.
struct Two;

impl Others for Two {
    fn names(&self) -> Vec<String> {
        vec!["b".to_owned(), "c".to_owned()]
    }

    fn gone(&self) -> Vec<String> {
        vec!["d".to_owned()]
    }

    fn ask<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, Result<Value, NoAnswer>> {
        let said = match errand {
            Errand::Sessions if node == "b" => Ok(json!([{
                "id": SessionId::from_random(2).to_string(), "target": "shop",
                "protocol": "postgres", "commands": 3, "source": "192.0.2.1:5",
                "opened_at": "1970-01-01T00:00:01Z",
                "principal": PrincipalView::from(&principal("ada<i>")),
                "link": "https://b.example/console/sessions/x",
            }, {
                "id": SessionId::from_random(3).to_string(), "target": "shop",
                "protocol": "postgres", "commands": 3, "source": "192.0.2.1:6",
                "opened_at": "1970-01-01T00:00:01Z",
                "principal": PrincipalView::from(&principal("eve")),
                "link": "javascript:alert(1)",
            }])),
            _ => Err(NoAnswer("no answer within 5s".to_owned())),
        };
        Box::pin(async move { said })
    }
}

struct Site {
    desk: Desk,
    console: Console,
    base: String,
    http: HttpClient,
}

impl Site {
    async fn start() -> Self {
        Self::with_keys(None).await
    }

    async fn with_keys(keys: Option<Arc<SecurityKeys>>) -> Self {
        Self::with(keys, PathBuf::from("/nonexistent")).await
    }

    async fn with(keys: Option<Arc<SecurityKeys>>, journal: PathBuf) -> Self {
        let desk = Desk::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let health = || Health {
            node: "n1".to_owned(),
            journal: Err("<b>full</b>".to_owned()),
            stopping: false,
            records: 1,
            syncs: 1,
            head: "1/00".to_owned(),
            rules: RulesInForce::default(),
            plugins: Vec::new(),
        };
        let console = Console::new(ConsoleParts {
            approvals: Arc::new(desk.approvals.clone()),
            own: desk.approvals.clone(),
            tokens: Arc::new(Names),
            sessions: Arc::new(NoSessions),
            others: Some(Arc::new(Two)),
            issuers: Vec::new(),
            public_url: Some(base.clone()),
            links: None,
            keys,
            journal,
            health: Arc::new(health),
            clock: desk.hands.clock(),
        })
        .unwrap();
        let routes = routes(console.clone());
        tokio::spawn(crate::api::serve(
            listener,
            routes,
            None,
            std::future::pending(),
        ));
        Self {
            desk,
            console,
            base,
            http: HttpClient::new(None, 1 << 20).unwrap(),
        }
    }

    /// Gives the cookie of somebody with this token; the form token is `csrf`.
    fn signed_in(&self, token: &str) -> String {
        let now = self.console.now().mono_ns;
        let session = SignedIn::with(token, "csrf");
        let name = format!("id-of-{token}");
        self.console.0.signed_in.put(&name, session, now, u64::MAX);
        format!("{}={name}", self.console.0.origin.cookie_name(""))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::from(body.to_owned())).unwrap();
        let answer = self
            .http
            .send(request, Duration::from_secs(10))
            .await
            .unwrap();
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        (answer.status, answer.headers, body)
    }

    async fn get(&self, path: &str, cookie: &str) -> (StatusCode, String) {
        let (status, _, body) = self
            .call(Method::GET, path, &[("cookie", cookie)], "")
            .await;
        (status, body)
    }

    async fn vote(&self, id: &str, cookie: &str, origin: &str, form: &str) -> (StatusCode, String) {
        let headers = [
            ("cookie", cookie),
            ("origin", origin),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let path = format!("/console/approvals/{id}/decision");
        let (status, _, body) = self.call(Method::POST, &path, &headers, form).await;
        (status, body)
    }

    async fn hold(&self, text: &str, at: u128) -> (String, String, Waiter) {
        let draft = draft("agent", text, at);
        let (id, digest) = (draft.id.to_string(), draft.digest.to_string());
        let (_, waiter) = self.desk.approvals.open(draft, self.desk.hands.now()).await;
        (id, digest, waiter.unwrap())
    }

    fn state(&self, id: &str) -> String {
        let id = id.parse().unwrap();
        self.desk.approvals.get(&id).unwrap().state.clone()
    }
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_does_not_need() {
    let site = Site::start().await;
    let (id, _, _waiter) = site.hold("DROP TABLE t", 1).await;
    let rita = site.signed_in("review-rita");
    let paths = [
        "/console".to_owned(),
        format!("/console/approvals/{id}"),
        format!("/console/approvals/{id}/approve"),
        format!("/console/approvals/{id}/deny"),
        "/console/sessions".to_owned(),
        "/console/sessions/s-00000000000000000000".to_owned(),
        "/console/rules".to_owned(),
        "/console/health".to_owned(),
        "/console/login".to_owned(),
        "/console/callback?state=x".to_owned(),
        "/console/changes?seen=x".to_owned(),
        "/console/console.css".to_owned(),
        "/console/console.js".to_owned(),
        "/console/nothing".to_owned(),
        "/".to_owned(),
    ];
    for path in &paths {
        for cookie in ["", rita.as_str()] {
            let (_, headers, body) = site
                .call(Method::GET, path, &[("cookie", cookie)], "")
                .await;
            assert_eq!(headers["content-security-policy"], guard::POLICY, "{path}");
            assert_eq!(headers["x-frame-options"], "DENY", "{path}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
            assert_eq!(headers["referrer-policy"], "same-origin", "{path}");
            let asset = path.ends_with("css") || path.ends_with("js");
            if !asset {
                assert_eq!(headers["cache-control"], "no-store", "{path}");
                // The policy would block them: nothing is written that way.
                for inline in ["<style", " style=", "<script>", " onclick=", "javascript:"] {
                    assert!(!body.contains(inline), "{path}: {inline}");
                }
            }
        }
    }
    for inline in ["'unsafe", "data:", "http:", "*"] {
        assert!(!guard::POLICY.contains(inline), "{inline}");
    }
}

#[tokio::test]
async fn a_stranger_sees_nothing_of_what_waits() {
    let site = Site::start().await;
    let (id, digest, _waiter) = site.hold("DROP TABLE secrets", 1).await;
    let agent = site.signed_in("connect-ada");
    for cookie in ["", "holdpoint=x", agent.as_str()] {
        for path in ["/console".to_owned(), format!("/console/approvals/{id}")] {
            let (status, body) = site.get(&path, cookie).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(!body.contains("secrets") && !body.contains("ada"), "{body}");
            assert!(body.contains("Sign in to review"), "{body}");
        }
        let form = format!("csrf=csrf&digest={digest}&decision=approve");
        let (status, _) = site.vote(&id, cookie, &site.base, &form).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(site.state(&id), "pending");
}

#[tokio::test]
async fn a_token_that_ends_ends_the_sign_in() {
    let site = Site::start().await;
    let agent = site.signed_in("connect-ada");
    let (_, body) = site.get("/console", &agent).await;
    assert!(
        body.contains("Your sign-in is over") && body.contains("HP-SCOPE"),
        "{body}"
    );
    // It is not asked about again.
    let (_, body) = site.get("/console", &agent).await;
    assert!(!body.contains("Your sign-in is over"), "{body}");
}

#[tokio::test]
async fn a_command_is_text_on_every_page_and_whole() {
    let site = Site::start().await;
    let evil = "</pre><script>alert(1)</script><img src=x>\u{202e}\u{200b}\u{1b}[2J&amp;\nDROP";
    let shown = holdpoint_core::display::escape(evil.as_bytes());
    let (id, _, _waiter) = site.hold(&shown, 1).await;
    let rita = site.signed_in("review-rita");
    for path in [
        "/console".to_owned(),
        format!("/console/approvals/{id}"),
        format!("/console/approvals/{id}/approve"),
        format!("/console/approvals/{id}/deny"),
    ] {
        let (status, body) = site.get(&path, &rita).await;
        assert_eq!(status, StatusCode::OK);
        let whole = "<pre class=\"command\" tabindex=\"0\">\n";
        let short = "<pre class=\"command\">\n";
        let start = if path == "/console" { short } else { whole };
        let text = body.split(start).nth(1).unwrap();
        let text = text.split("</pre>").next().unwrap();
        assert_eq!(
            text,
            "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x&gt;\\u{202e}\\u{200b}\\u{1b}[2J&amp;amp;\nDROP",
            "{path}"
        );
        assert!(
            !body.contains("<script>") && !body.contains("<img"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_list_shows_a_long_command_not_at_all_and_its_page_to_the_end() {
    let site = Site::start().await;
    let long = format!("SELECT 1;{}DROP TABLE t", "\n".repeat(5_000));
    let (id, _, _waiter) = site.hold(&long, 1).await;
    let rita = site.signed_in("review-rita");
    let (_, body) = site.get("/console", &rita).await;
    assert!(
        !body.contains("SELECT 1;") && body.contains("open to read it whole"),
        "{body}"
    );
    let (_, body) = site
        .get(&format!("/console/approvals/{id}/approve"), &rita)
        .await;
    assert!(body.contains("DROP TABLE t</pre>"));
}

#[tokio::test]
async fn what_waits_is_listed_by_when_it_ends() {
    let site = Site::start().await;
    let (first, _, _one) = site.hold("DROP TABLE a", 1).await;
    site.desk.hands.pass(Duration::from_secs(5));
    let (second, _, _two) = site.hold("DROP TABLE b", 2).await;
    let rita = site.signed_in("review-rita");
    let (_, body) = site.get("/console", &rita).await;
    assert!(
        body.find(&first).unwrap() < body.find(&second).unwrap(),
        "{body}"
    );
    assert!(body.contains("<title>(2) Approvals"), "{body}");
}

#[tokio::test]
async fn a_vote_needs_the_forms_token_and_our_own_origin() {
    let site = Site::start().await;
    let (id, digest, _waiter) = site.hold("DROP TABLE t", 1).await;
    let rita = site.signed_in("review-rita");
    let good = format!("csrf=csrf&digest={digest}&decision=approve&reason=");
    let other = format!("csrf=guess&digest={digest}&decision=approve");
    let none = format!("digest={digest}&decision=approve");
    for (origin, form) in [
        ("https://evil.example", &good),
        ("null", &good),
        ("", &good),
        (site.base.as_str(), &other),
        (site.base.as_str(), &none),
    ] {
        let (status, body) = site.vote(&id, &rita, origin, form).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin} {form}");
        assert!(body.contains("Nothing was done"), "{body}");
    }
    assert_eq!(site.state(&id), "pending");
    let (status, _) = site.vote(&id, &rita, &site.base, &good).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(site.state(&id), "approved");
    let view = site.desk.approvals.get(&id.parse().unwrap()).unwrap();
    assert_eq!(view.votes[0].channel, "console");
    // Nobody is asked any more.
    let (status, _) = site
        .get(&format!("/console/approvals/{id}/deny"), &rita)
        .await;
    assert_eq!(status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_vote_counts_only_as_the_api_would_count_it() {
    let site = Site::start().await;
    let (id, digest, _waiter) = site.hold("DROP TABLE t", 1).await;
    let rita = site.signed_in("review-rita");
    let stale = "0".repeat(64);
    for (cookie, form, status, code) in [
        // Over something else than what was shown.
        (
            &rita,
            format!("digest={stale}&decision=approve"),
            409,
            "HP-DIGEST",
        ),
        (
            &rita,
            format!("digest={digest}&decision=deny&reason=+"),
            400,
            "HP-REQUEST",
        ),
        (
            &rita,
            format!("digest={digest}&decision=maybe"),
            403,
            "Nothing",
        ),
        // The owner of the agent that asks.
        (
            &site.signed_in("review-olivia"),
            format!("digest={digest}&decision=approve"),
            403,
            "HP-NOT-ELIGIBLE",
        ),
    ] {
        let form = format!("csrf=csrf&{form}");
        let (got, body) = site.vote(&id, cookie, &site.base, &form).await;
        assert_eq!(got.as_u16(), status, "{form}: {body}");
        assert!(body.contains(code), "{body}");
    }
    assert_eq!(site.state(&id), "pending");
    let form = format!("csrf=csrf&digest={digest}&decision=deny&reason=use+a+%3Cview%3E");
    let (status, _) = site.vote(&id, &rita, &site.base, &form).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let (_, body) = site.get(&format!("/console/approvals/{id}"), &rita).await;
    assert!(body.contains("use a &lt;view&gt;"), "{body}");
}

#[tokio::test]
async fn a_page_that_waits_is_told_of_a_change() {
    let site = Site::start().await;
    let rita = site.signed_in("review-rita");
    let (_, body) = site.get("/console", &rita).await;
    let seen = body.split("data-live=\"").nth(1).unwrap();
    let path = format!("/console/changes?seen={}", seen.split('"').next().unwrap());
    let (told, _waiter) = tokio::join!(site.get(&path, &rita), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        site.hold("DROP TABLE t", 1).await
    });
    assert_eq!(told.0, StatusCode::OK);
}

#[tokio::test]
async fn signing_out_needs_our_own_form_too() {
    let site = Site::start().await;
    let rita = site.signed_in("review-rita");
    let out = async |origin: &str| {
        let headers = [
            ("cookie", rita.as_str()),
            ("origin", origin),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        site.call(Method::POST, "/console/logout", &headers, "csrf=csrf")
            .await
    };
    assert_eq!(out("https://evil.example").await.0, StatusCode::FORBIDDEN);
    assert_eq!(site.get("/console", &rita).await.0, StatusCode::OK);
    let (status, headers, _) = out(&site.base).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        headers["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    assert_eq!(
        site.get("/console", &rita).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn sessions_are_those_of_all_nodes_and_a_silent_node_is_marked() {
    let site = Site::start().await;
    let rita = site.signed_in("review-rita");
    let (status, body) = site.get("/console/sessions", &rita).await;
    assert_eq!(status, StatusCode::OK);
    let b = SessionId::from_random(2).to_string();
    for part in [b.as_str(), "ada&lt;i&gt;", "at node b", "shop", " d "] {
        assert!(body.contains(part), "{part}: {body}");
    }
    for node in ["c", "d"] {
        let said = format!("Node <b>{node}</b> does not answer");
        assert!(body.contains(&said), "{said}: {body}");
    }
    assert!(!body.contains("Node <b>b</b>"), "{body}");
    let (status, _) = site.get("/console/sessions", "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_of_another_node_says_where_it_is_recorded() {
    // A journal that knows of nothing.
    let dir = holdpoint_tests::TestDir::new("console");
    let site = Site::with(None, dir.path().to_owned()).await;
    let rita = site.signed_in("review-rita");
    let at = |number: u128| format!("/console/sessions/{}", SessionId::from_random(number));
    let (status, body) = site.get(&at(2), &rita).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body.contains("recorded at node <b>b</b>"), "{body}");
    let link = "href=\"https://b.example/console/sessions/x\"";
    assert!(body.contains(link), "{body}");
    // What is no address of a console is no link.
    let (status, body) = site.get(&at(3), &rita).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("recorded at node <b>b</b>") && !body.contains("javascript"));
    // Of nobody: the nodes whose journals may know it are named.
    let (status, body) = site.get(&at(9), &rita).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("node b, c"), "{body}");
}

#[tokio::test]
async fn what_is_wrong_with_the_gateway_is_said_as_text() {
    let site = Site::start().await;
    let rita = site.signed_in("review-rita");
    let (_, body) = site.get("/console/health", &rita).await;
    assert!(body.contains("&lt;b&gt;full&lt;/b&gt;"), "{body}");
}
