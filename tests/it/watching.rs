//! Following approvals: the API's stream of events, `approvals watch`, `watch`; and what
//! shells make of `completion`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use holdpoint_tests::desk::{Desk, text};
use holdpoint_tests::gateway::binary;
use holdpoint_tests::pty::Pty;
use holdpoint_tests::{Gateway, PgServer, TestDir, need, needs};
use serde_json::Value;

/// A command that goes on; its lines come as it says them.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(desk: &Desk, token: &str, args: &[&str]) -> Self {
        let mut child = desk
            .command(args)
            .env("HOLDPOINT_TOKEN", token)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = sync_channel(256);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(20));
        line.expect("another line")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn desk() -> Option<(Desk, String)> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let gateway = Gateway::start(&server.database()).await;
    let token = gateway.issuer.reviewer("rita", &["reviewers"]);
    gateway.keep_secret(&token);
    Some((Desk::new(gateway), token))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_gets_a_line_for_each_change_and_what_waits_first() {
    let Some((desk, token)) = desk().await else {
        return;
    };
    let rita = desk.gateway.reviewer("rita");
    let first = desk.gateway.psql().start(&["DROP TABLE before_it_began"]);
    let view = rita.pending("before_it_began").await;
    let plain = Watch::start(&desk, &token, &["approvals", "watch"]);
    let json = Watch::start(&desk, &token, &["watch", "--json"]);
    let line = plain.line();
    assert!(
        line.contains("pending") && line.contains("DROP TABLE before_it_began"),
        "{line}"
    );
    // No bell and no colour where nobody hears or sees them.
    assert!(!line.contains(['\x07', '\x1b']), "{line:?}");
    let seen: Value = serde_json::from_str(&json.line()).unwrap();
    assert_eq!(seen["id"], view["id"]);
    assert_eq!(rita.deny(&view, "no").await.0, 200);
    first.wait();
    assert!(plain.line().contains("denied"));
    let seen: Value = serde_json::from_str(&json.line()).unwrap();
    assert_eq!(seen["state"], "denied");
    let second = desk.gateway.psql().start(&["DROP TABLE later"]);
    let view = rita.pending("later").await;
    assert!(plain.line().contains("DROP TABLE later"));
    assert_eq!(rita.approve(&view).await.0, 200);
    assert!(plain.line().contains("approved") && plain.line().contains("used"));
    second.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_needs_a_token_that_may_review() {
    let Some((desk, _)) = desk().await else {
        return;
    };
    let agent = desk.gateway.agent("ada");
    let mut command = desk.command(&["approvals", "watch"]);
    let output = command.env("HOLDPOINT_TOKEN", &agent).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("HP-SCOPE"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_goes_on_when_the_gateway_is_back() {
    let Some((desk, token)) = desk().await else {
        return;
    };
    let watch = Watch::start(&desk, &token, &["approvals", "watch"]);
    let rita = desk.gateway.reviewer("rita");
    let before = desk.gateway.psql().start(&["DROP TABLE first_life"]);
    rita.pending("first_life").await;
    assert!(watch.line().contains("first_life"));
    desk.gateway.stop();
    before.wait();
    desk.gateway.spawn();
    desk.gateway.wait_ready().await;
    let after = desk.gateway.psql().start(&["DROP TABLE second_life"]);
    let view = rita.pending("second_life").await;
    // What became of the first, if the stream still told it, and then the second.
    let line = std::iter::repeat_with(|| watch.line()).find(|line| !line.contains("first_life"));
    assert!(line.unwrap().contains("second_life"));
    rita.deny(&view, "no").await;
    after.wait();
}

fn terminal(desk: &Desk, token: &str, set: &[(&str, &str)]) -> Option<Pty> {
    let mut command = desk.command(&["approvals", "watch"]);
    command.env("HOLDPOINT_TOKEN", token).env("TERM", "xterm");
    need!(Pty::start(command.envs(set.iter().copied())), "script")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_decides_at_the_keyboard_what_is_on_the_screen() {
    let Some((desk, token)) = desk().await else {
        return;
    };
    let rita = desk.gateway.reviewer("rita");
    let first = desk.gateway.psql().start(&["DROP TABLE unloved"]);
    let unloved = rita.pending("unloved").await;
    let second = desk.gateway.psql().start(&["DROP TABLE beloved"]);
    let beloved = rita.pending("beloved").await;
    let Some(mut pty) = terminal(&desk, &token, &[]) else {
        return;
    };
    let id = |view: &Value| view["id"].as_str().unwrap().to_owned();
    pty.sees("DROP TABLE beloved");
    pty.sees("DROP TABLE unloved");
    // Which of them ends sooner is for the clock to say. Down and up again, by either way.
    let marked = |view: &Value| format!("> {}", id(view));
    let (upper, lower) = if pty.sees("> hp-").contains(&marked(&unloved)) {
        (&unloved, &beloved)
    } else {
        (&beloved, &unloved)
    };
    pty.press("j");
    pty.sees(&marked(lower));
    pty.press("\x1b[A");
    pty.sees(&marked(upper));
    if upper == &beloved {
        pty.press("j");
    }
    pty.sees(&marked(&unloved));
    pty.press("a");
    let asked = pty.sees("type the first digits");
    assert!(asked.contains("  | DROP TABLE unloved"), "{asked}");
    // A reflex decides nothing.
    pty.press("\r");
    pty.sees("nothing was decided");
    assert_eq!(rita.show(&id(&unloved)).await["state"], "pending");
    let digits = unloved["digest"].as_str().unwrap().get(..4).unwrap();
    pty.press(&format!("{digits}\r"));
    pty.sees(&format!("{}: approved", id(&unloved)));
    first.wait();
    assert_eq!(rita.show(&id(&unloved)).await["state"], "used");

    pty.sees(&format!("> {}", id(&beloved)));
    pty.press("d\r");
    pty.sees("needs a reason");
    pty.press("people need it\r");
    pty.sees(&format!("{}: denied", id(&beloved)));
    second.wait();
    let view = rita.show(&id(&beloved)).await;
    assert_eq!(
        (&view["state"], &view["denial"]["reason"]),
        (&"denied".into(), &"people need it".into())
    );
    pty.sees("nothing waits");
    assert!(pty.sent().contains("\x1b[1m"), "colours on a terminal");
    pty.press("q");
    assert_eq!(pty.left_as_it_was(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_whatever_ends_the_watch() {
    let Some((desk, token)) = desk().await else {
        return;
    };
    for end in ["\u{3}", "TERM", "HUP"] {
        let Some(mut pty) = terminal(&desk, &token, &[("NO_COLOR", "1")]) else {
            return;
        };
        pty.sees("nothing waits");
        match end {
            // Ctrl-C.
            "\u{3}" => pty.press(end),
            signal => pty.signal(signal),
        }
        assert_eq!(pty.left_as_it_was(), 0, "{end:?}");
        let coloured = ["\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m"];
        assert!(
            !coloured.iter().any(|code| pty.sent().contains(code)),
            "{:?}",
            pty.sent()
        );
    }
    // It is refused before it takes the screen: what it says stays.
    let mut pty = terminal(&desk, &desk.gateway.agent("ada"), &[]).unwrap();
    pty.sees("HP-SCOPE");
    assert_eq!(pty.left_as_it_was(), 1);
    assert!(!pty.sent().contains("?1049h"));
}

#[test]
fn every_shell_can_read_its_completion() {
    let dir = TestDir::new("completion");
    for (shell, args, knows) in [
        ("bash", &["-n"][..], "approvals"),
        ("zsh", &["-n"], "approvals"),
        ("fish", &["--no-execute"], "approvals"),
    ] {
        let output = Command::new(binary())
            .args(["completion", shell])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let script = text(&output.stdout);
        assert!(
            script.contains(knows) && script.contains("completion"),
            "{shell}"
        );
        let Some(program) = needs::program(shell) else {
            eprintln!("{shell} is not here: its script was made and not read");
            continue;
        };
        dir.write(shell, &script);
        let read = Command::new(program)
            .args(args)
            .arg(dir.join(shell))
            .output()
            .unwrap();
        assert!(read.status.success(), "{shell}: {}", text(&read.stderr));
    }
}
