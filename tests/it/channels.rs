//! People are told in Slack and decide there: who counts, what is shown, and what comes of it.

use holdpoint_tests::browser::Page;
use holdpoint_tests::psql::Running;
use holdpoint_tests::slack::{Posted, button};
use holdpoint_tests::{Browser, FakeSlack, Gateway, People, PgServer, Settings, need, reviewer};
use hyper::Method;
use serde_json::Value;

const APPROVE: &str = "holdpoint.approve";
const DENY: &str = "holdpoint.deny";
const PATH: &str = "/v1/slack/ops/interactions";

struct Desk {
    gateway: Gateway,
    slack: FakeSlack,
    people: People,
}

impl Desk {
    async fn start() -> Option<Self> {
        Self::with(holdpoint_tests::RULES).await
    }

    async fn with(rules: &str) -> Option<Self> {
        let server = need!(PgServer::shared(), "postgresql")?;
        let slack = FakeSlack::start().await;
        let reviewers = [
            ("rita", "reviewers"),
            ("olivia", "reviewers"),
            ("nora", "others"),
        ];
        let people = People::new(Some("olivia"), &reviewers);
        let more = format!(
            r#"[review.slack.ops]
token = "file:slack-token"
signing_secret = "file:slack-signing"
channel = "C0123456789"
api_url = "{}"
"#,
            slack.api_url()
        );
        let settings = Settings {
            known: people.known(),
            more,
            rules: rules.to_owned(),
            ..Settings::default()
        };
        let gateway = Gateway::prepare(&server.database(), settings).await;
        gateway.rewrite("slack-token", &slack.token);
        gateway.rewrite("slack-signing", &slack.signing_secret);
        gateway.spawn();
        gateway.wait_ready().await;
        gateway.keep_secret(&slack.token);
        gateway.keep_secret(&slack.signing_secret);
        Some(Self {
            gateway,
            slack,
            people,
        })
    }

    async fn agent(&self) -> String {
        self.people.agent(&self.gateway).await
    }

    async fn reviewer(&self, user: &str) -> holdpoint_tests::Reviewer {
        self.people.reviewer(&self.gateway, user).await
    }

    async fn post(&self, form: &str, headers: &[(String, String)]) -> (u16, Value) {
        self.post_to(PATH, form, headers).await
    }

    async fn post_to(&self, path: &str, form: &str, headers: &[(String, String)]) -> (u16, Value) {
        let form = form.to_owned();
        let (status, body) =
            reviewer::request(self.gateway.admin, Method::POST, path, headers, form).await;
        (status.as_u16(), body)
    }

    /// What a click sends, sent.
    async fn send(&self, payload: &Value) -> Value {
        let (form, headers) = self.slack.signed(payload);
        let (status, body) = self.post(&form, &headers).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn press(&self, message: &Posted, action: &str, user: &str) {
        self.send(&self.slack.press(message, action, user)).await;
    }

    /// A message that can be decided on and is about `text`.
    async fn held(&self, text: &str) -> Posted {
        let asks = |one: &Posted| {
            one.blocks.to_string().contains(text) && button(&one.blocks, DENY).is_some()
        };
        self.slack.message(text, asks).await
    }

    /// An agent's `DROP TABLE orders` that waits, and the message about it.
    async fn drop_is_held(&self) -> (Running, Posted) {
        let token = self.agent().await;
        let psql = self.gateway.psql_as(&token).start(&["DROP TABLE orders"]);
        (psql, self.held("DROP TABLE orders").await)
    }

    /// The same message, once it has no buttons.
    async fn settled(&self, message: &Posted) -> Posted {
        let over = |one: &Posted| one.ts == message.ts && button(&one.blocks, DENY).is_none();
        self.slack.message("that is over", over).await
    }

    /// Signs in as `person` with the link that the Slack user got.
    async fn link(&self, whisper: &Value, person: &str) -> Page {
        let link = button(&whisper["blocks"], "holdpoint.open").expect("a link");
        let link = link["url"].as_str().unwrap();
        let path = link.split_once("/console/").unwrap().1;
        let mut browser = Browser::default();
        let page = browser.open(link).await;
        assert_eq!(page.status, 401, "{}", page.body);
        let page = browser.open(&page.link("/console/login")).await;
        let page = browser.submit(&page, &[("user", person)]).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains("Is this your account?"), "{}", page.body);
        browser.submit_to(&page, path, &[]).await
    }

    /// Links the user, by way of a click that does not count.
    async fn linked(&self, message: &Posted, user: &str, person: &str) {
        self.press(message, DENY, user).await;
        let whisper = self.slack.whisper(user).await;
        let page = self.link(&whisper, person).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains("Linked"), "{}", page.body);
    }
}

fn says(whisper: &Value) -> String {
    whisper["text"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_counts_for_whoever_signed_in_for_the_account_and_the_command_runs_once() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let token = desk.agent().await;
    let psql = desk
        .gateway
        .psql_as(&token)
        .start(&["CREATE TABLE made_in_slack (a int)"]);
    let message = desk.held("CREATE TABLE made_in_slack").await;
    for part in ["ada", "olivia", "shop", "it changes something", "digest"] {
        assert!(message.blocks.to_string().contains(part), "{part}");
    }
    let open = button(&message.blocks, "holdpoint.open").unwrap();
    let page = format!("http://{}/console/approvals/", desk.gateway.admin);
    assert!(open["url"].as_str().unwrap().starts_with(&page));

    // Nobody knows who U1 is.
    desk.press(&message, APPROVE, "U1").await;
    let whisper = desk.slack.whisper("U1").await;
    assert!(says(&whisper).contains("did not count"), "{whisper}");
    let rita = desk.reviewer("rita").await;
    let view = rita.pending("made_in_slack").await;
    assert_eq!(view["votes"].as_array().unwrap().len(), 0);
    assert!(!desk.gateway.tap.saw("CREATE TABLE made_in_slack"));

    // Nobody invites themselves, and no other site confirms.
    let base = format!("http://{}/console/link/", desk.gateway.admin);
    let page = Browser::default().open(&format!("{base}00ff")).await;
    assert_eq!(page.status, 404, "{}", page.body);
    let link = button(&whisper["blocks"], "holdpoint.open").unwrap();
    let form = holdpoint_tests::browser::Form {
        action: link["url"].as_str().unwrap().to_owned(),
        fields: vec![("csrf".to_owned(), "guess".to_owned())],
    };
    let page = Browser::default().post(&form).await;
    assert!([401, 403].contains(&page.status.as_u16()), "{}", page.body);

    let page = desk.link(&whisper, "rita").await;
    assert_eq!(page.status, 200, "{}", page.body);
    let links = std::fs::metadata(desk.gateway.dir.join(".holdpoint/links.json")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&links.permissions()) & 0o777,
        0o600
    );
    let click = desk.slack.press(&message, APPROVE, "U1");
    let (form, headers) = desk.slack.signed(&click);
    assert_eq!(desk.post(&form, &headers).await.0, 200);
    assert!(says(&desk.slack.whisper("U1").await).contains("settled it: approved"));
    let done = psql.wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let over = desk.settled(&message).await;
    assert!(over.blocks.to_string().contains("Approved"), "{over:?}");
    let view = rita.show(view["id"].as_str().unwrap()).await;
    assert_eq!(view["votes"][0]["channel"], "slack:ops", "{view}");
    assert_eq!(view["votes"][0]["reviewer"]["subject"], "rita");

    // The same payload again, and a late click of hers, change nothing.
    assert_eq!(desk.post(&form, &headers).await.0, 200);
    desk.press(&message, APPROVE, "U1").await;
    let said = says(&desk.slack.whisper("U1").await);
    assert!(
        said.contains("did not count") || said.contains("counts once"),
        "{said}"
    );
    let count = desk
        .gateway
        .psql_as(&token)
        .run("SELECT count(*) FROM pg_class WHERE relname = 'made_in_slack'");
    assert_eq!(count.stdout, "1\n", "{}", count.stderr);
    assert_eq!(desk.slack.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_lets_it_run_for_a_while_where_the_rule_offers_that() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let rules = desk.gateway.read("rules.toml");
    let offers = rules.replace("hold = { ", "hold = { windows = [\"session\", \"10m\"], ");
    assert_ne!(rules, offers);
    desk.gateway.rewrite("rules.toml", &offers);
    desk.gateway.signal("HUP");
    holdpoint_tests::eventually("the rules to be in force", 20, || {
        (desk.gateway.log().matches("in force").count() > 1).then_some(())
    });
    let token = desk.agent().await;
    let make = "CREATE TABLE IF NOT EXISTS made_again (a int)";
    let psql = desk.gateway.psql_as(&token).start(&[make]);
    let message = desk.held("made_again").await;
    desk.linked(&message, "U1", "rita").await;
    let choice = button(&message.blocks, "holdpoint.approve.1").expect("a button for ten minutes");
    assert_eq!(choice["text"]["text"], "Approve for 10m", "{choice}");
    desk.press(&message, "holdpoint.approve.1", "U1").await;
    assert_eq!(psql.wait().code, Some(0));
    // Again, and nobody is asked.
    let again = desk.gateway.psql_as(&token).run(make);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(desk.slack.messages().len(), 1);
    let rita = desk.reviewer("rita").await;
    let (_, listed) = rita.call(Method::GET, "/v1/windows", None).await;
    assert_eq!(listed["windows"][0]["uses"], 1, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_client_has_left_and_that_a_command_was_sent_is_shown_where_it_was_asked() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let token = desk.agent().await;
    let mut wire = desk.gateway.wire(&token).await;
    let held = holdpoint_tests::wire::query(b"CREATE TABLE came_back (a int)");
    tokio::io::AsyncWriteExt::write_all(&mut wire, &held)
        .await
        .unwrap();
    let message = desk.held("came_back").await;
    drop(wire);
    // It may come back, so it is still asked; but whoever decides knows that nobody waits.
    let says = |text: &'static str| {
        let ts = message.ts.clone();
        move |one: &Posted| one.ts == ts && one.blocks.to_string().contains(text)
    };
    let left = desk
        .slack
        .message("that nobody waits", says("the client has left"));
    let left = left.await;
    assert!(button(&left.blocks, APPROVE).is_some(), "{left:?}");
    desk.linked(&left, "U1", "rita").await;
    desk.press(&left, APPROVE, "U1").await;
    desk.settled(&message).await;
    let again = desk
        .gateway
        .psql_as(&token)
        .run("CREATE TABLE came_back (a int)");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let sent = desk
        .slack
        .message("that it was sent", says("Approved and sent"));
    sent.await;
    assert_eq!(desk.slack.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_asks_for_its_reason_and_the_agent_is_told() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let (psql, message) = desk.drop_is_held().await;
    desk.linked(&message, "U1", "rita").await;
    desk.press(&message, DENY, "U1").await;
    let modal = desk.slack.modal().await;
    let answer = desk.send(&desk.slack.submit(&modal, "U1", "  ")).await;
    assert_eq!(answer["response_action"], "errors", "{answer}");
    // Whoever got hold of her modal is not her.
    desk.send(&desk.slack.submit(&modal, "U2", "as if I were her"))
        .await;
    assert!(says(&desk.slack.whisper("U2").await).contains("did not count"));
    let reason = "archive it <!channel> instead";
    desk.send(&desk.slack.submit(&modal, "U1", reason)).await;
    let done = psql.wait();
    assert_ne!(done.code, Some(0));
    assert!(done.stderr.contains(reason), "{}", done.stderr);
    let over = desk.settled(&message).await;
    let text = over.blocks.to_string();
    assert!(text.contains("Denied") && text.contains(reason), "{text}");
    assert!(!desk.gateway.tap.saw("DROP TABLE orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slack_did_not_sign_just_now_is_refused() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let (psql, message) = desk.drop_is_held().await;
    desk.linked(&message, "U1", "rita").await;
    let (form, headers) = desk
        .slack
        .signed(&desk.slack.press(&message, APPROVE, "U1"));
    let now: u64 = headers[0].1.parse().unwrap();
    let other = FakeSlack::start().await;
    let with = |name: &str, value: Option<&str>| {
        let mut headers = headers.clone();
        headers.retain(|(have, _)| *have != name);
        headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        headers
    };
    for (what, form, headers) in [
        ("another secret", form.clone(), other.sign(&form, now)),
        (
            "an old one",
            form.clone(),
            desk.slack.sign(&form, now - 301),
        ),
        (
            "one of the future",
            form.clone(),
            desk.slack.sign(&form, now + 310),
        ),
        ("another body", form.replace("U1", "U2"), headers.clone()),
        (
            "no signature",
            form.clone(),
            with("x-slack-signature", None),
        ),
        (
            "no time",
            form.clone(),
            with("x-slack-request-timestamp", None),
        ),
        (
            "another time",
            form.clone(),
            with("x-slack-request-timestamp", Some("1")),
        ),
        (
            "an empty one",
            form.clone(),
            with("x-slack-signature", Some("v0=")),
        ),
    ] {
        let (status, body) = desk.post(&form, &headers).await;
        assert_eq!(
            (status, &body["code"]),
            (401, &"HP-SIGNATURE".into()),
            "{what}"
        );
    }
    // An app that is not configured.
    let path = "/v1/slack/other/interactions";
    let (status, _) = desk.post_to(path, &form, &headers).await;
    assert_eq!(status, 401);
    let rita = desk.reviewer("rita").await;
    let view = rita.pending("DROP TABLE orders").await;
    assert_eq!(view["votes"].as_array().unwrap().len(), 0, "{view}");
    assert_eq!(rita.deny(&view, "no").await.0, 200);
    assert_ne!(psql.wait().code, Some(0));
    let over = desk.settled(&message).await;
    assert!(over.blocks.to_string().contains("Denied"), "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_gives_nobody_a_vote_that_they_do_not_have() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let (psql, message) = desk.drop_is_held().await;
    // She answers for the agent; he is in no group that may decide.
    for (user, person) in [("U1", "olivia"), ("U2", "nora")] {
        desk.linked(&message, user, person).await;
        desk.press(&message, APPROVE, user).await;
        let said = says(&desk.slack.whisper(user).await);
        assert!(said.contains("HP-NOT-ELIGIBLE"), "{person}: {said}");
    }
    desk.linked(&message, "U3", "rita").await;
    // What she was shown is not what is held.
    let mut click = desk.slack.press(&message, APPROVE, "U3");
    let value = click["actions"][0]["value"].as_str().unwrap().to_owned();
    let id = value.split('/').next().unwrap().to_owned();
    click["actions"][0]["value"] = format!("{id}/{}", "0".repeat(64)).into();
    desk.send(&click).await;
    let said = says(&desk.slack.whisper("U3").await);
    assert!(said.contains("HP-DIGEST"), "{said}");
    // Decided elsewhere: the message follows, and a late click is told.
    let rita = desk.reviewer("rita").await;
    let view = rita.pending("DROP TABLE orders").await;
    assert_eq!(rita.deny(&view, "no").await.0, 200);
    desk.settled(&message).await;
    desk.press(&message, APPROVE, "U3").await;
    let said = says(&desk.slack.whisper("U3").await);
    assert!(said.contains("HP-SETTLED"), "{said}");
    assert_ne!(psql.wait().code, Some(0));

    // Whose identity is revoked, their account is worth nothing.
    let token = desk.agent().await;
    let psql = desk.gateway.psql_as(&token).start(&["DROP TABLE visits"]);
    let message = desk.held("DROP TABLE visits").await;
    let other = desk.reviewer("nora").await;
    let body = serde_json::json!({"issuer": desk.people.issuer(), "subject": "rita"});
    let (status, said) = other.call(Method::POST, "/v1/revoke", Some(body)).await;
    assert_eq!(status, 200, "{said}");
    desk.press(&message, APPROVE, "U3").await;
    let said = says(&desk.slack.whisper("U3").await);
    assert!(said.contains("HP-REVOKED"), "{said}");
    drop(psql);
    assert!(!desk.gateway.tap.saw("DROP TABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_has_no_room_in_slack_cannot_be_approved_there() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let token = desk.agent().await;
    let long = format!("CREATE TABLE long (a int){}", " ".repeat(4_000));
    let psql = desk.gateway.psql_as(&token).start(&[&long]);
    let message = desk.held("too long to be shown").await;
    assert!(button(&message.blocks, APPROVE).is_none());
    assert!(!message.blocks.to_string().contains("CREATE TABLE long"));
    desk.linked(&message, "U1", "rita").await;
    // A button that is not there is pressed all the same.
    let mut click = desk.slack.press(&message, DENY, "U1");
    click["actions"][0]["action_id"] = APPROVE.into();
    desk.send(&click).await;
    let said = says(&desk.slack.whisper("U1").await);
    assert!(said.contains("not shown whole"), "{said}");
    let rita = desk.reviewer("rita").await;
    let view = rita.pending("CREATE TABLE long").await;
    assert_eq!(view["votes"].as_array().unwrap().len(), 0);
    assert_eq!(rita.approve(&view).await.0, 200);
    assert_eq!(psql.wait().code, Some(0));
    desk.settled(&message).await;

    // What became of messages is there to be read.
    let (status, told) = rita.call(Method::GET, "/v1/notifications", None).await;
    assert_eq!(status, 200);
    let channels = told["channels"].as_array().unwrap();
    let slack = channels.iter().find(|one| one["channel"] == "slack:ops");
    assert!(slack.unwrap()["accepted"].as_u64() >= Some(1), "{told}");
    assert_eq!(told["undelivered"].as_array().unwrap().len(), 0, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_recent_sign_in_is_denied_in_slack_and_approved_in_the_console_alone() {
    let rules = r#"[[rule]]
name = "all"
match = { confidence = "proven" }
hold = { reviewers = ["group:reviewers"], step_up = "12h" }
"#;
    let Some(desk) = Desk::with(rules).await else {
        return;
    };
    let (psql, message) = desk.drop_is_held().await;
    assert!(button(&message.blocks, APPROVE).is_none());
    let text = message.blocks.to_string();
    assert!(text.contains("a sign-in of the last 12h"), "{text}");
    assert!(button(&message.blocks, "holdpoint.open").is_some());
    // She signs in for her account a moment ago: that is no sign-in for what it presses later.
    desk.linked(&message, "U1", "rita").await;
    let mut click = desk.slack.press(&message, DENY, "U1");
    click["actions"][0]["action_id"] = APPROVE.into();
    desk.send(&click).await;
    let said = says(&desk.slack.whisper("U1").await);
    assert!(said.contains("which Slack cannot show"), "{said}");
    let rita = desk.reviewer("rita").await;
    let view = rita.pending("DROP TABLE orders").await;
    assert_eq!(view["votes"].as_array().unwrap().len(), 0);
    assert_eq!(rita.approve(&view).await.1["code"], "HP-STEP-UP");
    assert_eq!(rita.deny(&view, "archive it instead").await.0, 200);
    assert_ne!(psql.wait().code, Some(0));
    desk.settled(&message).await;
    assert!(!desk.gateway.tap.saw("DROP TABLE orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_old_messages_are_closed_and_a_click_on_one_settles_nothing() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let (psql, message) = desk.drop_is_held().await;
    desk.linked(&message, "U1", "rita").await;
    desk.gateway.kill();
    drop(psql);
    desk.gateway.spawn();
    desk.gateway.wait_ready().await;
    let over = desk.settled(&message).await;
    assert!(over.blocks.to_string().contains("is over"), "{over:?}");
    // The link outlives the restart, the approval does not.
    desk.press(&message, APPROVE, "U1").await;
    let closed = |one: &Posted| one.ts == message.ts && one.updates > over.updates;
    let over = desk.slack.message("closed again", closed).await;
    assert!(over.blocks.to_string().contains("is over"), "{over:?}");
    assert!(!desk.gateway.tap.saw("DROP TABLE orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_told_where_it_was_told_that_a_command_waits() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let (psql, message) = desk.drop_is_held().await;
    assert!(desk.gateway.stop().success());
    let over = desk.settled(&message).await;
    let text = over.blocks.to_string();
    assert!(text.contains("the gateway stopped"), "{text}");
    assert_ne!(psql.wait().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_opens_channels_and_sends_nothing() {
    let Some(desk) = Desk::start().await else {
        return;
    };
    let done = desk.gateway.holdpoint(&["check", "--offline"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{errors}");
    assert!(said.contains("[review.slack.ops]"), "{said}");
    assert!(said.contains("link_lasts = \"12h\""), "{said}");
    assert!(!said.contains(&desk.slack.token));
    assert_eq!(desk.slack.messages().len(), 0);
    desk.gateway.rewrite("slack-token", "xoxp-someones-own");
    let done = desk.gateway.holdpoint(&["check", "--offline"]);
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success());
    assert!(
        errors.contains("slack:ops: its token is no bot token"),
        "{errors}"
    );
    assert!(!errors.contains("someones"), "{errors}");
}
