//! `holdpoint demo --auto`, as a newcomer would run it.

use std::process::Command;

use holdpoint_tests::{TestDir, gateway, need};

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
