//! The shipped rules do what their cases say, by the command an author would use.

use std::process::Command;

use holdpoint_tests::gateway::binary;
use holdpoint_tests::needs::workspace;

fn holdpoint(args: &[&str]) -> std::process::Output {
    Command::new(binary())
        .args(args)
        .current_dir(workspace())
        .output()
        .unwrap()
}

#[test]
fn the_shipped_rules_pass_their_cases() {
    let done = holdpoint(&["policy", "test"]);
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "no case ran: {said}");
}

#[test]
fn a_case_that_expects_otherwise_fails() {
    let dir = holdpoint_tests::TestDir::new("cases");
    let rules = dir.write("rules.toml", holdpoint_tests::RULES);
    let cases = dir.write(
        "cases.toml",
        "[[case]]\nname = \"wrong\"\nsql = \"DROP TABLE t\"\nexpect = \"allow\"\n",
    );
    let done = holdpoint(&[
        "policy",
        "test",
        &cases.display().to_string(),
        "--policy",
        &rules.display().to_string(),
    ]);
    assert_eq!(
        done.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn classify_answers_line_by_line_and_goes_on_after_a_bad_line() {
    use std::io::Write as _;
    let mut child = Command::new(binary())
        .args(["classify", "postgres"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let input = "{\"id\": 1, \"sql\": \"SELECT 1\"}\nnot json\n{\"id\": 3, \"sql\": \"DROP TABLE t\", \"mode\": \"simple\"}\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let done = child.wait_with_output().unwrap();
    let lines: Vec<serde_json::Value> = String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[0]["class"], &lines[0]["confidence"]),
        (&"read".into(), &"proven".into())
    );
    assert!(lines[1]["error"].is_string());
    assert_eq!(
        (&lines[2]["id"], &lines[2]["class"]),
        (&3.into(), &"ddl".into())
    );
}
