//! The console in a real browser: what its script, style and markup come to.
//!
//! `tests/drivers/browser/review.mjs` does a reviewer's work in Chromium and asks for held
//! commands as it goes. Screenshots stay in `target/console-screenshots`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use holdpoint_tests::need;
use holdpoint_tests::needs::{self, workspace};

use crate::console::gateway;

/// What the agent asks for: a change that passes, one that does not, and one that is hard to read.
const HELD: [&str; 3] = [
    "UPDATE bills SET amount = amount + 5, note = 'paid late' WHERE id = 1",
    "DROP TABLE victims",
    "-- monthly clean-up\nDELETE FROM audit_entries_of_the_previous_accounting_period AS entry\n \
     USING retention_rules_of_the_accounting_department AS rule\n WHERE entry.kind = rule.kind\n   \
     AND entry.written_at < now() - rule.keep_for /* 'as agreed' */\n   \
     AND entry.note <> 'keep\u{202e}this\u{200b}one'\n   AND entry.amount > 1000.50\nRETURNING entry.id",
];

pub(crate) struct Script(pub(crate) Child);

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_review_in_a_real_browser() {
    let Some((node, modules, chromium)) = need!(needs::browser(), "chromium with puppeteer") else {
        return;
    };
    let Some((gateway, people)) = gateway().await else {
        return;
    };
    let tables = "CREATE TABLE bills (id int, amount int, note text); \
         INSERT INTO bills VALUES (1, 10, ''); \
         CREATE TABLE audit_entries_of_the_previous_accounting_period \
           (id int, kind text, written_at timestamptz, note text, amount numeric); \
         CREATE TABLE retention_rules_of_the_accounting_department (kind text, keep_for interval)";
    gateway.database.direct().run(tables).unwrap_done();
    let token = people.agent(&gateway).await;
    let child = Command::new(node)
        .arg(workspace().join("tests/drivers/browser/review.mjs"))
        .args([&modules, &chromium])
        .arg(format!("http://{}", gateway.admin))
        .arg(workspace().join("target/console-screenshots"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut script = Script(child);
    let said = BufReader::new(script.0.stdout.take().unwrap());
    let mut running: Vec<_> = HELD.iter().map(|_| None).collect();
    let mut lines = Vec::new();
    for line in said.lines() {
        let line = line.unwrap();
        eprintln!("{line}");
        let number = || line.rsplit(' ').next()?.parse::<usize>().ok();
        if line.starts_with("hold ") {
            let at = number().unwrap();
            running[at] = Some(gateway.psql_as(&token).start(&[HELD[at]]));
        } else if line.starts_with("approved ") {
            let done = running[number().unwrap()].take().unwrap().wait();
            assert_eq!(done.code, Some(0), "{}", done.stderr);
        } else if line.starts_with("denied ") {
            let done = running[number().unwrap()].take().unwrap().wait();
            assert_ne!(done.code, Some(0));
            let told = done.stderr;
            assert!(told.contains("archive the rows instead"), "{told}");
        }
        lines.push(line);
    }
    let mut errors = String::new();
    let mut stderr = script.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut errors).unwrap();
    assert!(script.0.wait().unwrap().success(), "{errors}");
    assert_eq!(lines.last().map(String::as_str), Some("done"), "{errors}");
    let amount = gateway
        .database
        .value("SELECT amount FROM bills WHERE id = 1");
    assert_eq!(amount, "15");
    assert!(!gateway.tap.saw("DROP TABLE victims"));
}
