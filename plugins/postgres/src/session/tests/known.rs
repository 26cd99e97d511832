//! Operations that are told once and then called by a number.

use super::*;

fn run(statement: &str) -> Step {
    client(&[bind("", statement), execute(""), sync()])
}

fn done() -> Step {
    upstream(&[m(b'2', b""), tag("SELECT 1"), z(b'I')])
}

/// What the host was told last, in words and after looking its number up.
fn last(host: &Host) -> (usize, &Recall, &[Operation]) {
    let command = host.submitted.last().unwrap();
    let (words, recall) = host.told.last().unwrap();
    (*words, recall, &command.operations)
}

#[test]
fn a_statement_that_runs_again_is_told_by_its_number() {
    let mut host = Host::logged_in();
    host.play(client(&[parse("s", "SELECT a FROM t"), sync()]));
    host.play(upstream(&[m(b'1', b""), z(b'I')]));
    host.play(run("s"));
    let (words, recall, operations) = last(&host);
    assert_eq!((words, recall), (1, &Recall::Keep(0)));
    let first = operations.to_vec();
    assert_eq!(first[0].objects[0].name, "t");
    host.play(done());
    host.play(run("s"));
    assert_eq!(last(&host), (0, &Recall::Kept(0), first.as_slice()));
}

#[test]
fn what_a_name_stands_for_is_told_each_time() {
    let mut host = Host::logged_in();
    for (prepare, table) in [
        ("PREPARE s AS SELECT a FROM t", "t"),
        ("DEALLOCATE s; PREPARE s AS SELECT a FROM u", "u"),
    ] {
        host.play(client(&[q(prepare)]));
        let tags = prepare.split(';').map(|_| tag("PREPARE"));
        host.play(upstream(&tags.chain([z(b'I')]).collect::<Vec<_>>()));
        host.play(client(&[q("EXECUTE s")]));
        let (_, recall, operations) = last(&host);
        assert_eq!(recall, &Recall::No);
        assert_eq!(operations[0].objects[0].name, table);
        host.play(upstream(&[tag("SELECT 1"), z(b'I')]));
    }
}

#[test]
fn long_lists_of_words_are_not_kept() {
    let mut host = Host::logged_in();
    let tables: Vec<String> = (0..80).map(|n| format!("table_number_{n}")).collect();
    for _ in 0..2 {
        host.play(client(&[q(&format!("SELECT 1 FROM {}", tables.join(",")))]));
        assert_eq!(last(&host).1, &Recall::No);
        host.play(upstream(&[tag("SELECT 1"), z(b'I')]));
    }
}

proptest! {
    /// More statements than there are numbers, alone and in company.
    #[test]
    fn a_number_never_stands_for_another_statement(
        picks in proptest::collection::vec(proptest::collection::vec(0usize..50, 1..4), 1..120)
    ) {
        let text = |pick: &usize| format!("SELECT c{pick} FROM t{pick}");
        let mut host = Host::logged_in();
        for pick in picks {
            let asked: Vec<String> = pick.iter().map(text).collect();
            host.play(client(&[q(&asked.join(";"))]));
            let tags = pick.iter().map(|_| tag("SELECT 1"));
            host.play(upstream(&tags.chain([z(b'I')]).collect::<Vec<_>>()));
            let (_, _, operations) = last(&host);
            let tables: Vec<&str> = operations
                .iter()
                .flat_map(|operation| &operation.objects)
                .map(|object| object.name.as_str())
                .collect();
            let expected: Vec<String> = pick.iter().map(|pick| format!("t{pick}")).collect();
            prop_assert_eq!(tables, expected);
            let count = ("statement_count".to_owned(), pick.len().to_string());
            prop_assert!(operations.iter().all(|operation| operation.facts.contains(&count)));
        }
    }
}
