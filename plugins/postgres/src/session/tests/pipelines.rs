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

/// Else its answer would be missing, and later answers would count for other messages.
#[test]
fn a_query_that_the_server_skips_on_its_way_to_a_sync_is_over_with_it() {
    check(
        || {
            vec![
                client(&[parse("", "SELEC"), q("SELECT 1"), sync()]),
                upstream(&[error("42601"), z(b'I')]),
                client(&[parse("s", "SELECT 1"), sync()]),
                upstream(&[error("42P05"), z(b'I')]),
                client(&[bind("", "s"), execute(""), sync()]),
            ]
        },
        r#"
        -> P SELEC
        submit "SELECT 1" read
        -> Q SELECT 1
        -> S
        completed 1 "ERROR 42601" failed
        <- E 42601 key (a)=(42)
        <- Z I
        -> P s SELECT 1
        -> S
        <- E 42P05 key (a)=(42)
        <- Z I
        submit "" unknown
        -> B
        -> E
        -> S
        "#,
    );
}

#[test]
fn a_query_that_fails_itself_skips_nothing() {
    check(
        || {
            vec![
                client(&[parse("a", "SELECT 1"), q("SELECT 2"), sync()]),
                upstream(&[m(b'1', b""), error("22012"), z(b'I'), z(b'I')]),
                client(&[bind("", "a"), execute(""), sync()]),
            ]
        },
        r#"
        -> P a SELECT 1
        submit "SELECT 2" read
        -> Q SELECT 2
        -> S
        <- 1
        completed 1 "ERROR 22012" failed
        <- E 22012 key (a)=(42)
        <- Z I
        <- Z I
        submit "SELECT 1" read
        -> B
        -> E
        -> S
        "#,
    );
}

#[test]
fn a_held_query_behind_a_parse_that_fails_is_counted_once() {
    for verdict in [Verdict::Forwarded, Verdict::Refused(refusal())] {
        let mut host = Host::logged_in();
        host.play(client(&[parse("", "SELEC"), flush()]));
        host.play(client(&[q("DELETE FROM t -- HOLD")]));
        host.play(upstream(&[error("42601")]));
        host.verdict(verdict);
        host.play(client(&[sync()]));
        host.play(upstream(&[z(b'I')]));
        assert_eq!(host.forwarded, 0, "{}", host.log);
        host.log.clear();
        host.play(client(&run("SELECT 1")));
        host.play(upstream(&[m(b'1', b""), tag("SELECT 1"), z(b'I')]));
        assert!(
            host.log.contains("completed 1 \"SELECT 1\""),
            "{}",
            host.log
        );
    }
}

#[test]
fn what_the_server_would_fail_at_a_place_that_nobody_can_tell_ends_the_session() {
    for kind in [b'S', b'H'] {
        let mut host = Host::logged_in();
        host.play(client(&[m(kind, b"x")]));
        assert!(host.closed && host.log.contains("08P01"), "{}", host.log);
    }
    let mut host = Host::logged_in();
    host.play(upstream(&[error("08P01")]));
    assert!(host.closed && host.log.contains("fault"), "{}", host.log);
}

/// A server ignores a Sync amid the data, and would not where the COPY has failed.
#[test]
fn a_sync_behind_a_copy_waits_until_the_copy_has_answered() {
    let copy = || run("COPY t FROM STDIN");
    let asked = || upstream(&[m(b'1', b""), m(b'2', b""), m(b'n', b""), m(b'G', b"\0\0\0")]);
    let sent = |host: &Host| host.log.matches("-> S").count();
    let mut host = Host::logged_in();
    host.play(client(&copy()));
    assert_eq!(sent(&host), 0, "{}", host.log);
    host.play(asked());
    host.play(client(&[m(b'd', b"1\n"), sync(), m(b'c', b"")]));
    assert_eq!(sent(&host), 0, "{}", host.log);
    host.play(client(&[sync()]));
    assert_eq!(sent(&host), 1, "{}", host.log);
    host.play(upstream(&[tag("COPY 1"), z(b'I')]));
    assert!(
        host.log.contains("completed 1 \"COPY 1\" rows 1"),
        "{}",
        host.log
    );
    assert!(!host.closed, "{}", host.log);

    // It failed before it asked, or amid the data: the server skips to the Sync.
    for before in [vec![], vec![asked()]] {
        let asks = !before.is_empty();
        let mut host = Host::logged_in();
        host.play(client(&copy()));
        before.into_iter().for_each(|step| host.play(step));
        host.play(upstream(&[error("22P02")]));
        if asks {
            let ignored = [m(b'd', b"x\n"), m(b'c', b""), q("SELECT 42")];
            host.play(client(&ignored));
            host.play(client(&[sync()]));
        }
        assert_eq!(sent(&host), 1, "{}", host.log);
        assert!(!host.log.contains("SELECT 42"), "{}", host.log);
        host.play(upstream(&[z(b'I')]));
        host.play(client(&[q("SELECT 43")]));
        assert!(host.log.contains("-> Q SELECT 43"), "{}", host.log);
    }
}

#[test]
fn nothing_is_sent_behind_a_copy_that_may_ask_for_data() {
    let copies = [
        vec![q("COPY t FROM STDIN")],
        run("COPY t FROM STDIN"),
        vec![q("SELECT 1; COPY t FROM STDIN")],
    ];
    for copy in copies {
        for behind in [vec![q("SELECT 2")], run("SELECT 2")] {
            let mut host = Host::logged_in();
            host.play(client(&copy));
            host.log.clear();
            host.play(client(&behind));
            assert_eq!(host.log, "", "sent into the data");
            host.play(upstream(
                &[m(b'1', b""), m(b'G', b"\0\0\0")][usize::from(copy.len() == 1)..],
            ));
            assert!(host.closed && host.log.contains("08P01"), "{}", host.log);
        }
    }
    // It failed before it asked.
    check(
        || {
            vec![
                client(&[q("COPY t FROM STDIN"), q("SELECT 2")]),
                upstream(&[error("42P01"), z(b'I')]),
            ]
        },
        r#"
        submit "COPY t FROM STDIN" copy_in
        -> Q COPY t FROM STDIN
        completed 1 "ERROR 42P01" failed
        <- E 42P01 key (a)=(42)
        <- Z I
        submit "SELECT 2" read
        -> Q SELECT 2
        "#,
    );
}

/// The model's target does not say that it keeps names in UTF-8.
#[test]
fn a_name_that_a_server_may_take_for_another_one_is_not_known() {
    let mut host = Host::logged_in();
    for (name, class) in [("s", "read"), ("é", "unknown")] {
        host.play(client(&[parse(name, "SELECT 1"), sync()]));
        host.play(upstream(&[m(b'1', b""), z(b'I')]));
        host.play(client(&[bind("", name), execute(""), sync()]));
        host.play(upstream(&[m(b'2', b""), tag("SELECT 1"), z(b'I')]));
        let submitted = host.submitted.last().unwrap();
        assert_eq!(submitted.operations[0].class, class, "{name}");
    }
    let long = "é".repeat(31);
    host.play(client(&[q(&format!(
        "PREPARE \"{long}xa\" AS SELECT 1; EXECUTE \"{long}xb\""
    ))]));
    let submitted = host.submitted.last().unwrap();
    assert_eq!(submitted.operations[0].class, "unknown");
    // What is between quotes is no name.
    for (text, class) in [
        ("SELECT 'é', $a$é$a$ -- é", "read"),
        ("SELECT 1 AS é", "unknown"),
        ("SELECT $é$a$é$", "unknown"),
        ("SELECT 1 AS U&\"a\"", "unknown"),
    ] {
        let mut host = Host::logged_in();
        host.play(client(&[q(text)]));
        let submitted = host.submitted.last().unwrap();
        assert_eq!(submitted.operations[0].class, class, "{text}");
    }
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

/// The target has failed the group when the Query in it is refused, and skips to the Sync.
#[test]
fn a_query_that_is_refused_in_a_group_that_failed_counts_nothing_twice() {
    let mut host = Host::logged_in();
    host.play(client(&[
        parse("s", "SELECT 1"),
        bind("", "s"),
        describe("Px"),
    ]));
    host.play(client(&[q("DELETE FROM t /* HOLD */")]));
    assert_eq!(host.submitted.len(), 2, "{}", host.log);
    host.play(upstream(&[m(b'1', b""), m(b'2', b""), error("34000")]));
    host.verdict(Verdict::Refused(refusal()));
    host.play(client(&[sync()]));
    host.play(upstream(&[z(b'I')]));
    assert_eq!(host.forwarded, 0, "{}", host.log);
    assert_eq!(host.log.matches("<- Z").count(), 1, "{}", host.log);
}
