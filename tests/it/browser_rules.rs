//! What rules can ask of reviewers, in a real browser: a reason, steps in order, windows, a broken
//! glass and its review, a sign-in of just before, a security key.
//!
//! `tests/drivers/browser/rules.mjs` is three reviewers in Chromium, one of them with its virtual
//! authenticator. Screenshots stay in `target/console-screenshots`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use holdpoint_tests::desk::{Desk, text};
use holdpoint_tests::needs::{self, workspace};
use holdpoint_tests::{Gateway, People, PgServer, Settings, need};

use crate::browser::Script;

const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction"], confidence = "proven" }
allow = true

[[rule]]
name = "vault"
match = { classes = ["ddl"], text = "vault" }
hold = { reviewers = ["group:reviewers"], webauthn = true, reason = "it touches the vault" }

[[rule]]
name = "tables"
match = { classes = ["ddl"] }
hold = { justify = true, steps = [{ reviewers = ["group:reviewers"] }, { reviewers = ["group:leads"] }] }

[[rule]]
name = "rows"
match = { classes = ["write"] }
hold = { reviewers = ["group:reviewers"], windows = ["session", "10m"] }

[[rule]]
name = "upkeep"
match = { classes = ["maintenance"] }
hold = { reviewers = ["group:reviewers"], break_glass = ["group:sre"] }

[[rule]]
name = "grants"
match = { classes = ["dcl"] }
hold = { reviewers = ["group:reviewers"], step_up = "20s", reason = "it gives rights away" }
"#;

const HELD: [(&str, &str); 6] = [
    ("steps", "CREATE TABLE staged (a int)"),
    ("windows", "UPDATE bills SET amount = amount + 5"),
    ("glass", "VACUUM bills"),
    ("recent", "GRANT SELECT ON bills TO PUBLIC"),
    ("keys", "CREATE TABLE vault (a int)"),
    ("other", "CREATE TABLE second_vault (a int)"),
];

#[tokio::test(flavor = "multi_thread")]
async fn people_do_what_rules_ask_of_them_in_a_real_browser() {
    let Some((node, modules, chromium)) = need!(needs::browser(), "chromium with puppeteer") else {
        return;
    };
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let reviewers = [("rita", "reviewers"), ("lea", "leads"), ("sam", "sre")];
    let people = People::new(None, &reviewers);
    let settings = Settings {
        known: people.known(),
        rules: RULES.to_owned(),
        // Pages are opened four times each before anyone decides.
        hold: "heartbeat = \"1s\"\ninline_wait = { agent = \"5m\" }\n".to_owned(),
        ..Settings::default()
    };
    let database = server.database();
    database
        .direct()
        .run("CREATE TABLE bills (id int, amount int); INSERT INTO bills VALUES (1, 10)")
        .unwrap_done();
    let gateway = Gateway::prepare(&database, settings).await;
    // Browsers make keys for names, not for addresses.
    let base = format!("http://localhost:{}", gateway.admin.port());
    let config = gateway.read("holdpoint.toml");
    let review = format!("[review]\npublic_url = \"{base}\"\n[review.webauthn]\n");
    gateway.rewrite("holdpoint.toml", &(config + &review));
    gateway.spawn();
    gateway.wait_ready().await;
    let desk = Desk::new(gateway);
    let gateway = &desk.gateway;
    let token = people.agent(gateway).await;

    let child = Command::new(node)
        .arg(workspace().join("tests/drivers/browser/rules.mjs"))
        .args([&modules, &chromium])
        .arg(&base)
        .arg(workspace().join("target/console-screenshots"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut script = Script(child);
    let said = BufReader::new(script.0.stdout.take().unwrap());
    let sql = BTreeMap::from(HELD);
    let mut running = BTreeMap::new();
    let mut last = String::new();
    for line in said.lines() {
        let line = line.unwrap();
        eprintln!("{line}");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["hold", name] => {
                let psql = gateway.psql_as(&token).start(&[sql[name]]);
                running.insert(name.to_owned(), psql);
            }
            ["justify", _, id] => {
                let done = desk
                    .command(&["approvals", "justify", id, "release 7 needs it"])
                    .env("HOLDPOINT_TOKEN", &token)
                    .output()
                    .unwrap();
                assert!(done.status.success(), "{}", text(&done.stderr));
            }
            ["ran", name] => {
                let done = running.remove(name).unwrap().wait();
                assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
            }
            ["denied", name] => {
                let done = running.remove(name).unwrap().wait();
                assert!(done.stderr.contains("one is enough"), "{}", done.stderr);
            }
            // In its window, nobody is asked.
            ["again", name] => {
                let done = gateway.psql_as(&token).run(sql[name]);
                assert_eq!(done.code, Some(0), "{name}: {}", done.stderr);
            }
            _ => {}
        }
        last = line;
    }
    let mut errors = String::new();
    let mut stderr = script.0.stderr.take().unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    assert!(script.0.wait().unwrap().success(), "{errors}");
    assert_eq!(last, "done", "{errors}");
    assert_eq!(gateway.database.value("SELECT amount FROM bills"), "20");
    for (table, made) in [("staged", true), ("vault", true), ("second_vault", false)] {
        assert_eq!(gateway.database.has_table(table), made, "{table}");
    }
    let kept = gateway.read(".holdpoint/security-keys.json");
    assert!(kept.contains("key at the desk"), "{kept}");
    gateway.stop();
    gateway.verified();
}
