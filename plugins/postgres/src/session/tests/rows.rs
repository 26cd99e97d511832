//! What the host is told about rows, at each step of a session with protected columns.

use super::*;
use holdpoint_plugin::{MaskedField, RowEdit};

fn protecting() -> Host {
    Host::logged_in_with(&[
        ("upstream_tls", "off"),
        ("protected", "public.customers.ssn"),
        ("protected_set", "m"),
    ])
}

/// A row description of `text` columns of one table.
fn description(names: &[&str]) -> Message {
    let mut body = u16::try_from(names.len()).unwrap().to_be_bytes().to_vec();
    for name in names {
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\0\0\0\0\x07\0\x01\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    }
    m(b'T', &body)
}

fn edit(fields: u32, index: u32) -> Option<RowPlan> {
    let replacement = Some(b"****".to_vec());
    Some(RowPlan::Edit(RowEdit {
        fields,
        masked: vec![MaskedField { index, replacement }],
    }))
}

fn told(host: &mut Host, steps: Vec<Step>) -> Vec<Option<RowPlan>> {
    let one = |step| {
        host.play(step);
        host.rows.clone()
    };
    steps.into_iter().map(one).collect()
}

#[test]
fn no_rows_may_come_before_anything_was_asked() {
    assert_eq!(protecting().rows, Some(RowPlan::Refuse));
    assert_eq!(Host::logged_in().rows, None);
}

#[test]
fn a_simple_query_is_masked_from_its_description_to_its_end() {
    let mut host = protecting();
    let steps = vec![
        client(&[q("SELECT id, ssn FROM customers; SELECT 1")]),
        upstream(&[description(&["id", "ssn"])]),
        upstream(&[tag("SELECT 3")]),
        upstream(&[description(&["n"]), tag("SELECT 1")]),
        upstream(&[z(b'I')]),
    ];
    let refuse = Some(RowPlan::Refuse);
    let wanted = [
        refuse.clone(),
        edit(2, 1),
        Some(RowPlan::Unchanged),
        refuse.clone(),
        refuse,
    ];
    assert_eq!(told(&mut host, steps), wanted, "{}", host.log);
}

#[test]
fn rows_of_a_portal_wait_for_what_comes_before_them() {
    let mut host = protecting();
    let unit = [
        parse("s", "SELECT ssn AS x FROM customers"),
        bind("", "s"),
        describe("P"),
        execute(""),
        sync(),
    ];
    let steps = vec![
        client(&unit),
        upstream(&[m(b'1', b""), m(b'2', b"")]),
        upstream(&[description(&["x"])]),
        upstream(&[tag("SELECT 1")]),
        upstream(&[z(b'I')]),
        // Described once: from now on it is known.
        client(&[bind("", "s"), execute(""), sync()]),
        upstream(&[m(b'2', b"")]),
        upstream(&[tag("SELECT 1"), z(b'I')]),
    ];
    let refuse = Some(RowPlan::Refuse);
    let wanted = [
        refuse.clone(),
        refuse.clone(),
        edit(1, 0),
        refuse.clone(),
        refuse.clone(),
        refuse.clone(),
        edit(1, 0),
        refuse,
    ];
    assert_eq!(told(&mut host, steps), wanted, "{}", host.log);
}

#[test]
fn a_description_of_another_shape_lets_no_row_through() {
    let mut host = protecting();
    let steps = vec![
        client(&[q("SELECT ssn FROM customers")]),
        upstream(&[description(&["ssn", "more"])]),
    ];
    let refuse = Some(RowPlan::Refuse);
    assert_eq!(told(&mut host, steps), [refuse.clone(), refuse]);
}

#[test]
fn a_refused_command_leaves_no_rows_to_come() {
    let mut host = protecting();
    host.play(client(&[q("DROP TABLE customers")]));
    assert_eq!(host.rows, Some(RowPlan::Refuse), "{}", host.log);
    host.play(client(&[q("SELECT 1")]));
    assert_eq!(host.rows, Some(RowPlan::Unchanged), "{}", host.log);
}

#[test]
fn what_a_name_stands_for_is_not_masked_through_it() {
    let mut host = protecting();
    let prepared = [parse("s", "SELECT ssn FROM customers"), sync()];
    host.play(client(&prepared));
    host.play(upstream(&[m(b'1', b""), z(b'I')]));
    host.play(client(&[q("EXECUTE s")]));
    let command = host.submitted.last().unwrap();
    let facts = &command.operations[0].facts;
    assert!(
        facts.contains(&("protected".to_owned(), "used".to_owned())),
        "{facts:?}"
    );
}

#[test]
fn every_operation_carries_the_mark_of_the_list() {
    let mut host = protecting();
    host.play(client(&[q(
        "SELECT ssn FROM customers; BEGIN; COPY customers TO STDOUT",
    )]));
    let said: Vec<_> = host
        .submitted
        .last()
        .unwrap()
        .operations
        .iter()
        .map(|operation| {
            let fact = |name: &str| {
                let mut all = operation.facts.iter();
                all.find(|(fact, _)| fact == name)
                    .map(|(_, value)| value.clone())
                    .unwrap()
            };
            (fact("protected"), fact("protected_set"))
        })
        .collect();
    let wanted = ["masked", "none", "used"].map(|word| (word.to_owned(), "m".to_owned()));
    assert_eq!(said, wanted);
}

/// Where a protected column stands, only the target can say.
#[test]
fn what_is_never_described_does_not_run() {
    let run = [bind("", "s"), execute(""), sync()];
    let masked = [parse("s", "SELECT ssn FROM customers")];
    let answered = [m(b'1', b""), m(b't', b"\0\0"), description(&["ssn"])];
    for (unit, runs) in [
        ([&masked[..], &run].concat(), false),
        (
            [&masked[..], &run[..2], &[describe("P")], &run[2..]].concat(),
            false,
        ),
        ([&masked[..], &[describe("Ss")], &run].concat(), true),
        (
            [&masked[..], &run[..1], &[describe("P")], &run[1..]].concat(),
            true,
        ),
        (
            [&[parse("s", "SELECT id FROM customers")][..], &run].concat(),
            true,
        ),
    ] {
        let mut host = protecting();
        host.play(client(&unit));
        let reject = &host.submitted.last().unwrap().reject;
        assert_eq!(reject.is_none(), runs, "{reject:?} {}", host.log);
    }
    // Described before.
    let mut host = protecting();
    host.play(client(&[&masked[..], &[describe("Ss"), sync()]].concat()));
    host.play(upstream(&answered));
    host.play(upstream(&[z(b'I')]));
    host.play(client(&run));
    assert_eq!(host.submitted.last().unwrap().reject, None, "{}", host.log);
}

#[test]
fn nothing_is_said_of_rows_behind_a_close() {
    let mut host = protecting();
    host.play(client(&[parse("", "SELECT 1"), flush()]));
    host.play(upstream(&[m(b'1', b"")]));
    host.play(client(&[q("DROP TABLE customers")]));
    assert!(host.log.ends_with("close\n"), "{}", host.log);
}

/// The detail of an error shows the row that failed.
#[test]
fn an_error_tells_nothing_of_rows() {
    let failed = b"SERROR\0VERROR\0C23514\0Mbad\0DFailing row contains (canary).\0Wwhile\0qUPDATE canary\0st\0\0";
    let mut host = protecting();
    host.play(client(&[q("DELETE FROM wards")]));
    host.play(upstream(&[m(b'E', failed), z(b'I')]));
    assert!(host.log.contains("<= E 23514 bad\n"), "{}", host.log);
    assert!(!host.log.contains("<- E"), "{}", host.log);
    assert!(host.log.ends_with("<- Z I\n"), "{}", host.log);
    // Where nothing is protected, all of it is the target's own.
    let mut host = Host::logged_in();
    host.play(client(&[q("DELETE FROM wards")]));
    host.play(upstream(&[m(b'E', failed), z(b'I')]));
    assert!(host.log.contains("<- E 23514 bad\n"), "{}", host.log);
}
