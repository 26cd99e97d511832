//! The extended protocol: units, pipelines, names.

use super::*;

fn run(text: &str) -> Vec<Message> {
    vec![
        parse("", text),
        bind("", ""),
        describe("P"),
        execute(""),
        sync(),
    ]
}

fn ran(text: &str, status: u8) -> Vec<Message> {
    vec![
        m(b'1', b""),
        m(b'2', b""),
        m(b'n', b""),
        tag(text),
        z(status),
    ]
}

#[test]
fn messages_up_to_a_sync_are_one_command() {
    check(
        || {
            vec![
                client(&run("DELETE FROM t")),
                upstream(&ran("DELETE 2", b'I')),
            ]
        },
        r#"
        submit "DELETE FROM t" write
        -> P DELETE FROM t
        -> B
        -> D
        -> E
        -> S
        <- 1
        <- 2
        <- n
        completed 1 "DELETE 2" rows 2
        <- C DELETE 2
        <- Z I
        "#,
    );
}

#[test]
fn a_refused_unit_is_an_error_and_then_ready() {
    check(
        || vec![client(&run("DROP TABLE t")), client(&run("SELECT 1"))],
        r#"
        submit "DROP TABLE t" ddl
        <= E 42501 denied
        <= Z I
        submit "SELECT 1" read
        -> P SELECT 1
        -> B
        -> D
        -> E
        -> S
        "#,
    );
}

#[test]
fn values_and_their_types_are_part_of_the_command() {
    let mut host = Host::logged_in();
    let parse = m(
        b'P',
        b"\0DELETE FROM t WHERE id = $1 AND x = $2\0\0\x02\0\0\0\x17\0\0\0\0",
    );
    let bind = m(
        b'B',
        b"\0\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\0",
    );
    host.play(client(&[parse, bind, execute(""), sync()]));
    let command = host.submitted.last().unwrap();
    let [seven, null] = command.parameters.as_slice() else {
        panic!("{command:?}")
    };
    assert_eq!((seven.type_name.as_str(), seven.binary), ("int4", true));
    assert_eq!(seven.value.as_deref(), Some(&[0, 0, 0, 7][..]));
    assert_eq!(
        (null.type_name.as_str(), null.binary, &null.value),
        ("", false, &None)
    );
}

#[test]
fn names_of_statements_make_no_difference_to_a_digest() {
    let canonical = |name: &str| {
        let mut host = Host::logged_in();
        host.play(client(&[
            parse(name, "DELETE FROM t"),
            describe(&format!("S{name}")),
            sync(),
        ]));
        assert!(host.submitted.is_empty(), "nothing runs yet");
        host.play(upstream(&[
            m(b'1', b""),
            m(b't', b""),
            m(b'n', b""),
            z(b'I'),
        ]));
        host.play(client(&[bind("c", name), execute("c"), sync()]));
        let command = host.submitted.pop().unwrap();
        (command.text, command.canonical)
    };
    assert_eq!(canonical("a"), canonical("b"));
    assert_eq!(canonical("a").0, b"DELETE FROM t");
}

#[test]
fn every_run_counts() {
    check(
        || {
            vec![
                client(&[parse("s", "DELETE FROM t"), sync()]),
                upstream(&[m(b'1', b""), z(b'I')]),
                client(&[bind("", "s"), execute(""), execute(""), sync()]),
            ]
        },
        r#"
        -> P s DELETE FROM t
        -> S
        <- 1
        <- Z I
        submit "-- 1 of 2: 13 bytes, 0 parameters\nDELETE FROM t\n-- 2 of 2: as above, 0 parameters\n" write+write
        -> B
        -> E
        -> E
        -> S
        "#,
    );
}

#[test]
fn a_name_that_is_not_known_is_unknown() {
    check(
        || vec![client(&[bind("", "ghost"), execute(""), sync()])],
        r#"
        submit "" unknown
        -> B
        -> E
        -> S
        "#,
    );
}

#[test]
fn a_name_means_what_the_server_confirmed() {
    // The Parse fails, so `s` still stands for the read.
    check(
        || {
            vec![
                client(&[parse("s", "SELECT 1"), sync()]),
                upstream(&[m(b'1', b""), z(b'I')]),
                client(&[parse("s", "DELETE FROM t"), sync()]),
                client(&[bind("", "s"), execute(""), sync()]),
                upstream(&[error("42P05"), z(b'I')]),
            ]
        },
        r#"
        -> P s SELECT 1
        -> S
        <- 1
        <- Z I
        -> P s DELETE FROM t
        -> S
        <- E 42P05 key (a)=(42)
        <- Z I
        submit "SELECT 1" read
        -> B
        -> E
        -> S
        "#,
    );
}

#[test]
fn a_pipeline_of_units_is_judged_one_by_one() {
    check(
        || {
            vec![
                Step::Client([run("SELECT 1"), run("DROP TABLE t"), run("SELECT 2")].concat()),
                upstream(&ran("SELECT 1", b'I')),
                upstream(&ran("SELECT 1", b'I')),
            ]
        },
        r#"
        submit "SELECT 1" read
        -> P SELECT 1
        -> B
        -> D
        -> E
        -> S
        submit "DROP TABLE t" ddl
        completed 1 "SELECT 1" rows 1
        <- 1
        <- 2
        <- n
        <- C SELECT 1
        <- Z I
        <= E 42501 denied
        <= Z I
        submit "SELECT 2" read
        -> P SELECT 2
        -> B
        -> D
        -> E
        -> S
        completed 1 "SELECT 1" rows 1
        <- 1
        <- 2
        <- n
        <- C SELECT 1
        <- Z I
        "#,
    );
}

#[test]
fn after_a_refusal_the_rest_of_the_group_is_skipped() {
    check(
        || {
            vec![client(&[
                parse("", "DROP TABLE t"),
                bind("", ""),
                execute(""),
                flush(),
                parse("", "SELECT 1"),
                bind("", ""),
                execute(""),
                sync(),
            ])]
        },
        r#"
        submit "DROP TABLE t" ddl
        <= E 42501 denied
        <= Z I
        "#,
    );
}

#[test]
fn a_closed_name_is_not_known_any_more() {
    let mut host = Host::logged_in();
    host.play(client(&[parse("s", "SELECT 1"), sync()]));
    host.play(upstream(&[m(b'1', b""), z(b'I')]));
    host.play(client(&[close("Ss"), bind("", "s"), execute(""), sync()]));
    assert_eq!(
        host.submitted.last().unwrap().operations[0].class,
        "unknown"
    );
}

#[test]
fn a_text_that_no_server_may_see_is_refused_at_parse() {
    check(
        || vec![client(&[parse("s", "SET NAMES 'SJIS'"), sync()])],
        r#"
        submit "SET NAMES 'SJIS'"  reject: `client_encoding` is pinned: it decides where literals end. Leave client_encoding at UTF8 and standard_conforming_strings on
        <= E 42501 denied
        <= Z I
        "#,
    );
}

fn units() -> impl Strategy<Value = Vec<Message>> {
    let text = proptest::sample::select(vec![
        "SELECT 1",
        "DELETE FROM t",
        "DROP TABLE t",
        "BEGIN",
        "ROLLBACK",
        "SET search_path = x",
        "PREPARE p AS SELECT 1",
    ]);
    let unit = (text, any::<bool>(), any::<bool>()).prop_map(|(text, simple, named)| {
        match (simple, named) {
            (true, _) => vec![q(text)],
            (false, true) => vec![parse("s", text), bind("p", "s"), execute("p"), sync()],
            (false, false) => run(text),
        }
    });
    proptest::collection::vec(unit, 1..6).prop_map(|units| units.concat())
}

proptest! {
    #[test]
    fn any_split_of_the_stream_gives_the_same_commands(
        messages in units(),
        cuts in proptest::collection::vec(1..5_usize, 1..20),
    ) {
        let whole = {
            let mut host = Host::logged_in();
            host.play(Step::Client(messages.clone()));
            host.log
        };
        let mut host = Host::logged_in();
        let mut rest = messages.as_slice();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            host.play(Step::Client(now.to_vec()));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(host.log, whole);
    }
}
