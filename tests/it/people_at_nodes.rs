//! What a person did at one node is good at another: a security key, a linked account, a decision
//! in the console. Two processes, one Redis, one address in front of both.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use holdpoint_core::webauthn::{Assertion, Credential, PublicKey, Registration, RelyingParty};
use holdpoint_tests::browser::Page;
use holdpoint_tests::issuer::AUDIENCE;
use holdpoint_tests::slack::{Posted, button};
use holdpoint_tests::{
    Browser, FakeSlack, FaultProxy, Gateway, People, PgServer, RedisServer, Settings, need,
    reviewer,
};
use hyper::Method;
use serde_json::Value;

use crate::two_nodes::{entries, prepared};

/// The core's own authenticator for tests.
#[allow(dead_code, reason = "the core's tests need more of it")]
#[path = "../../proxy/core/src/webauthn/testing.rs"]
mod authenticator;

use authenticator::Authenticator;

const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction"], confidence = "proven" }
allow = true

[[rule]]
name = "tables"
match = { classes = ["ddl"] }
hold = { reviewers = ["group:reviewers"], webauthn = true }

[[rule]]
name = "rows"
match = { classes = ["write"] }
hold = { reviewers = ["group:reviewers"] }
"#;

/// Two nodes behind one address, and who is in front of it.
struct Office {
    _redis: RedisServer,
    slack: FakeSlack,
    front: FaultProxy,
    base: String,
    a: Gateway,
    b: Gateway,
    agent: String,
}

impl Office {
    async fn open() -> Option<Self> {
        let server = need!(PgServer::shared(), "postgresql")?;
        let redis = need!(RedisServer::start(), "redis-server")?;
        let database = server.database();
        let made = database.direct().run("CREATE TABLE notes (a int)");
        made.unwrap_done();
        let slack = FakeSlack::start().await;
        let front = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], 9))).await;
        // Browsers make keys for names, not for addresses.
        let base = format!("http://localhost:{}", front.address.port());
        let people = People::new(None, &[("rita", "reviewers")]);
        let there = format!(
            r#"[[identity.issuer]]
name = "dev"
issuer = "{}"
audiences = ["{AUDIENCE}"]
algorithms = ["ES256"]
login = {{ client_id = "holdpoint-dev" }}
[identity.agents.ada]
name = "ada"
groups = ["agents"]
"#,
            people.issuer()
        );
        let more = format!(
            r#"[review]
public_url = "{base}"
[review.webauthn]
[review.slack.ops]
token = "file:slack-token"
signing_secret = "file:slack-signing"
channel = "C0123456789"
api_url = "{}"
"#,
            slack.api_url()
        );
        let node = async |name: &str, known: Option<String>| {
            let settings = Settings {
                known,
                more: more.clone(),
                rules: RULES.to_owned(),
                ..Settings::default()
            };
            let gateway = prepared(name, &database, &redis, settings).await;
            gateway.rewrite("slack-token", &slack.token);
            gateway.rewrite("slack-signing", &slack.signing_secret);
            gateway.spawn();
            gateway.wait_ready().await;
            gateway
        };
        let a = node("a", people.known()).await;
        let b = node("b", Some(there)).await;
        let agent = people.agent(&a).await;
        b.keep_secret(&agent);
        Some(Self {
            _redis: redis,
            slack,
            front,
            base,
            a,
            b,
            agent,
        })
    }

    /// Rita in a new browser, which comes to `gateway`.
    async fn rita(&self, gateway: &Gateway) -> Browser {
        self.front.lead_to(gateway.admin);
        let mut browser = Browser::default();
        let page = browser.open(&format!("{}/console", self.base)).await;
        let page = browser.open(&page.link("/console/login")).await;
        let page = browser.submit(&page, &[("user", "rita")]).await;
        assert_eq!(page.status, 200, "{}", page.body);
        browser
    }

    /// The page to approve what says `text`, once the list has it.
    async fn approving(&self, browser: &mut Browser, text: &str) -> Page {
        let list = format!("{}/console", self.base);
        let mut page = browser.open(&list).await;
        for _ in 0..200 {
            if page.text().contains(text) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            page = browser.open(&list).await;
        }
        assert!(page.text().contains(text), "{}", page.body);
        let page = browser.open(&page.link("class=\"card\"")).await;
        assert!(page.text().contains(text), "{}", page.body);
        browser.open(&page.link("Approve…")).await
    }

    /// A message that can be decided on and is about `text`.
    async fn message(&self, text: &str) -> Posted {
        let asks = |one: &Posted| {
            one.blocks.to_string().contains(text)
                && button(&one.blocks, "holdpoint.approve").is_some()
        };
        self.slack.message(text, asks).await
    }

    /// A click on it, which reaches `gateway`. Gives what Slack is told of it.
    async fn click(&self, gateway: &Gateway, message: &Posted) -> Value {
        let click = self.slack.press(message, "holdpoint.approve", "U1");
        let (form, headers) = self.slack.signed(&click);
        let path = "/v1/slack/ops/interactions";
        let (status, body) =
            reviewer::request(gateway.admin, Method::POST, path, &headers, form).await;
        assert_eq!(status, 200, "{body}");
        self.slack.whisper("U1").await
    }
}

fn attribute<'a>(page: &'a Page, name: &str) -> &'a str {
    let rest = page
        .body
        .split_once(&format!("{name}=\""))
        .map(|both| both.1);
    let rest = rest.unwrap_or_else(|| panic!("no {name}: {}", page.body));
    rest.split('"').next().unwrap()
}

fn challenge(page: &Page) -> [u8; 32] {
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bytes = engine.decode(attribute(page, "data-challenge"));
    bytes.unwrap().try_into().unwrap()
}

/// Until `gateway` has taken up what another node knows.
async fn taken_up(gateway: &Gateway, file: &str, what: &str) {
    let path = gateway.dir.join(".holdpoint").join(file);
    for _ in 0..200 {
        if std::fs::read_to_string(&path).is_ok_and(|text| text.contains(what)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} has no {what}", path.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_did_at_one_node_is_good_at_another() {
    let Some(office) = Office::open().await else {
        return;
    };
    let (a, b, base) = (&office.a, &office.b, office.base.as_str());

    // A security key, registered at one.
    let mut key = Authenticator::new();
    key.rp = RelyingParty {
        id: "localhost".to_owned(),
        origin: base.to_owned(),
    };
    let mut at_a = office.rita(a).await;
    let page = at_a.open(&format!("{base}/console/keys")).await;
    let made = key.registers(&challenge(&page));
    let fields = [
        ("name", "key at the desk"),
        ("authenticator_data", made.authenticator_data.as_str()),
        ("client_data", made.client_data.as_str()),
    ];
    let page = at_a.submit_to(&page, "/console/keys/add", &fields).await;
    assert!(page.body.contains("key at the desk"), "{}", page.body);
    taken_up(b, "security-keys-elsewhere.json", "key at the desk").await;

    // It signs at the other, and its rule is met by that alone.
    let psql = b
        .psql_as(&office.agent)
        .start(&["CREATE TABLE vault (a int)"]);
    let mut at_b = office.rita(b).await;
    let page = office.approving(&mut at_b, "CREATE TABLE vault").await;
    let unsigned = at_b.submit_to(&page, "/decision", &[]).await;
    assert!(!unsigned.body.contains("it settled"), "{}", unsigned.body);
    let page = office.approving(&mut at_b, "CREATE TABLE vault").await;
    key.counter += 1;
    let nonce = attribute(&page, "name=\"nonce\" value").to_owned();
    let signed = key.signs(&challenge(&page), &nonce);
    let fields = [
        ("nonce", signed.nonce.as_str()),
        ("credential", signed.credential.id.as_str()),
        ("authenticator_data", signed.authenticator_data.as_str()),
        ("client_data", signed.client_data.as_str()),
        ("signature", signed.signature.as_str()),
    ];
    let page = at_b.submit_to(&page, "/decision", &fields).await;
    assert!(
        page.body.contains("it settled the approval"),
        "{}",
        page.body
    );
    psql.wait().unwrap_done();
    let votes = entries(b, "vote");
    let counted: Vec<_> = votes
        .iter()
        .filter(|vote| vote["refused"].is_null())
        .collect();
    assert_eq!(counted.len(), 1, "{votes:?}");
    assert!(counted[0]["vote"]["assertion"].is_object(), "{votes:?}");

    // The console at one shows what the other holds and who is there, and decides.
    let psql = a
        .psql_as(&office.agent)
        .start(&["INSERT INTO notes VALUES (1)"]);
    let page = office
        .approving(&mut at_b, "INSERT INTO notes VALUES (1)")
        .await;
    let live = at_b.open(&format!("{base}/console/sessions")).await;
    let opened = entries(a, "hold");
    let session = opened.last().unwrap()["session"].as_str().unwrap();
    assert!(live.body.contains(session), "{}", live.body);
    let page = at_b.submit_to(&page, "/decision", &[]).await;
    assert!(
        page.body.contains("it settled the approval"),
        "{}",
        page.body
    );
    psql.wait().unwrap_done();
    // Counted where it was held, and nowhere else.
    assert_eq!(
        (entries(a, "forward").len(), entries(b, "forward").len()),
        (1, 1)
    );

    // An account that was linked at one.
    let first = a
        .psql_as(&office.agent)
        .start(&["INSERT INTO notes VALUES (2)"]);
    let message = office.message("VALUES (2)").await;
    let whisper = office.click(a, &message).await;
    let link = button(&whisper["blocks"], "holdpoint.open").expect("a link");
    let link = link["url"].as_str().unwrap();
    let mut at_a = office.rita(a).await;
    let page = at_a.open(link).await;
    let path = link.split_once("/console/").unwrap().1;
    let page = at_a.submit_to(&page, path, &[]).await;
    assert!(page.body.contains("Linked"), "{}", page.body);
    taken_up(b, "links-elsewhere.json", "U1").await;
    let second = b
        .psql_as(&office.agent)
        .start(&["INSERT INTO notes VALUES (3)"]);
    let other = office.message("VALUES (3)").await;
    for (gateway, message, psql) in [(b, other, second), (a, message, first)] {
        let told = office.click(gateway, &message).await;
        assert!(told.to_string().contains("settled it: approved"), "{told}");
        psql.wait().unwrap_done();
    }
    let rows = office.a.database.direct().run("SELECT count(*) FROM notes");
    assert_eq!(rows.stdout.trim(), "3");
    for gateway in [a, b] {
        gateway.stop();
        let report = gateway.verified();
        assert_eq!(report["ok"], true, "{report}");
    }
}
