//! `holdpoint demo`, as a newcomer would run it: by itself, and typing what it prints.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use holdpoint_tests::{TestDir, eventually, gateway, need};

#[test]
fn the_demo_plays_itself_and_leaves_a_journal_that_verifies() {
    let Some(()) = need!(gateway::possible().then_some(()), "postgresql") else {
        return;
    };
    let dir = TestDir::passable("demo");
    let place = dir.join("kept");
    let done = Command::new(gateway::binary())
        .args(["demo", "--auto", "--dir"])
        .arg(&place)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{said}");
    for step in [
        "allowed at once",
        "runs once",
        "denied",
        "one changed bit is found",
    ] {
        assert!(
            said.contains(step) || said.contains(&step.replace("runs once", "went through, once")),
            "{said}"
        );
    }
    let verified = Command::new(gateway::binary())
        .arg("verify")
        .arg(place.join("journal"))
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

#[test]
fn what_the_demo_tells_people_to_type_works() {
    let Some(()) = need!(gateway::possible().then_some(()), "postgresql") else {
        return;
    };
    let dir = TestDir::passable("demo");
    let mut demo = Command::new(gateway::binary())
        .args(["demo", "--dir"])
        .arg(dir.join("kept"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Terminals are told apart by their headings; what to type is indented.
    let mut terminals: Vec<Vec<String>> = Vec::new();
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("Directory:") {
            break;
        }
        let types = ["  export ", "  /"]
            .iter()
            .any(|what| line.starts_with(what));
        match terminals.last_mut() {
            _ if line.ends_with(':') => terminals.push(Vec::new()),
            Some(terminal) if types => terminal.push(line.trim().to_owned()),
            _ => {}
        }
    }
    let [agent, reviewer, record] = terminals.as_slice() else {
        panic!("{terminals:#?}")
    };
    let run = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        shell.spawn().unwrap()
    };
    let (drop, before) = agent.split_last().unwrap();
    let read = run(&before.join("\n")).wait_with_output().unwrap();
    assert!(read.status.success(), "{read:?}");
    let held = run(&format!("{}\n{}\n{drop}", before[0], before[1]));
    let (list, decide) = (&reviewer[..3], &reviewer[3]);
    let id = eventually("the held command", 30, || {
        let listed = run(&list.join("\n")).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let id = text
            .split_whitespace()
            .find(|word| word.starts_with("hp-"))?;
        Some(id.to_owned())
    });
    // Who types it at a terminal is asked instead.
    let decide = decide.replace("approve ID", &format!("approve {id} --yes"));
    let approved = run(&[&reviewer[0], &reviewer[1], &decide]
        .map(String::as_str)
        .join("\n"));
    let approved = approved.wait_with_output().unwrap();
    assert!(approved.status.success(), "{approved:?}");
    let done = held.wait_with_output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let shown = run(&record.join("\n")).wait_with_output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let pid = demo.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(demo.wait().unwrap().success());
}
