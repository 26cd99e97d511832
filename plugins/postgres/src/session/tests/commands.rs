//! Simple queries, transactions, COPY, and what belongs to the session.

use super::*;

#[test]
fn a_simple_query_costs_one_call_each_way() {
    check(
        || {
            vec![
                client(&[q("SELECT 1")]),
                upstream(&[m(b'T', b""), m(b'D', b""), tag("SELECT 1"), z(b'I')]),
            ]
        },
        r#"
        submit "SELECT 1" read
        -> Q SELECT 1
        <- T
        <- D
        completed 1 "SELECT 1" rows 1
        <- C SELECT 1
        <- Z I
        "#,
    );
}

#[test]
fn a_refused_query_is_answered_like_an_error_of_the_server() {
    check(
        || vec![client(&[q("DROP TABLE t")]), client(&[q("SELECT 1")])],
        r#"
        submit "DROP TABLE t" ddl
        <= E 42501 denied
        <= Z I
        submit "SELECT 1" read
        -> Q SELECT 1
        "#,
    );
}

#[test]
fn a_held_query_waits_and_what_follows_it_waits_too() {
    check(
        || {
            vec![
                client(&[q("DELETE FROM t -- HOLD")]),
                client(&[q("SELECT 2")]),
                Step::Approve,
                upstream(&[tag("DELETE 3"), z(b'I')]),
            ]
        },
        r#"
        submit "DELETE FROM t -- HOLD" write
        -> Q DELETE FROM t -- HOLD
        submit "SELECT 2" read
        -> Q SELECT 2
        completed 1 "DELETE 3" rows 3
        <- C DELETE 3
        <- Z I
        "#,
    );
}

#[test]
fn a_refusal_inside_a_transaction_fails_it_for_the_client() {
    check(
        || {
            vec![
                client(&[q("BEGIN")]),
                upstream(&[tag("BEGIN"), z(b'T')]),
                client(&[q("DROP TABLE t")]),
                client(&[q("SELECT 1")]),
                client(&[q("COMMIT AND CHAIN")]),
                client(&[q("ROLLBACK")]),
                upstream(&[tag("ROLLBACK"), z(b'I')]),
                client(&[q("SELECT 1")]),
            ]
        },
        r#"
        submit "BEGIN" transaction
        -> Q BEGIN
        completed 1 "BEGIN"
        <- C BEGIN
        <- Z T
        submit "DROP TABLE t" ddl tx
        <= E 42501 denied
        <= Z E
        <= E 25P02 current transaction is aborted, commands ignored until end of transaction block
        <= Z E
        <= E 25P02 current transaction is aborted, commands ignored until end of transaction block
        <= Z E
        submit "ROLLBACK" transaction tx
        -> Q ROLLBACK
        completed 1 "ROLLBACK"
        <- C ROLLBACK
        <- Z I
        submit "SELECT 1" read
        -> Q SELECT 1
        "#,
    );
}

/// A transaction in which something ran and something was refused.
fn refused() -> Vec<Step> {
    vec![
        client(&[q("BEGIN")]),
        upstream(&[tag("BEGIN"), z(b'T')]),
        client(&[q("DROP TABLE t")]),
    ]
}

const REFUSED: &str = r#"
    submit "BEGIN" transaction
    -> Q BEGIN
    completed 1 "BEGIN"
    <- C BEGIN
    <- Z T
    submit "DROP TABLE t" ddl tx
    <= E 42501 denied
    <= Z E
"#;

/// As [`check`], after [`refused`].
fn check_refused(steps: impl Fn() -> Vec<Step>, expected: &str) {
    check(
        || refused().into_iter().chain(steps()).collect(),
        &format!("{REFUSED}{expected}"),
    );
}

#[test]
fn a_commit_after_a_refusal_gives_the_transaction_up() {
    check_refused(
        || {
            vec![
                client(&[q("COMMIT")]),
                upstream(&[tag("ROLLBACK"), z(b'I')]),
                client(&[q("SELECT 1")]),
            ]
        },
        r#"
        submit "ROLLBACK" transaction tx
        undo Q ROLLBACK
        completed 1 "ROLLBACK"
        <- C ROLLBACK
        <- Z I
        submit "SELECT 1" read
        -> Q SELECT 1
        "#,
    );
}

#[test]
fn a_commit_in_a_unit_is_answered_as_that_unit_would_be() {
    check_refused(
        || {
            vec![
                client(&[bind("", "c"), describe("P"), execute(""), sync()]),
                client(&[parse("c", "COMMIT"), bind("", "c"), execute(""), sync()]),
                upstream(&[m(b'1', b""), tag("ROLLBACK"), z(b'I'), z(b'I')]),
                client(&[bind("", "c"), execute(""), sync()]),
            ]
        },
        r#"
        <= E 25P02 current transaction is aborted, commands ignored until end of transaction block
        <= Z E
        -> P c COMMIT
        submit "ROLLBACK" transaction tx
        undo Q ROLLBACK
        -> S
        <- 1
        <= 2
        completed 1 "ROLLBACK"
        <- C ROLLBACK
        <- Z I
        submit "COMMIT" transaction
        -> B
        -> E
        -> S
        "#,
    );
}

#[test]
fn a_commit_whose_parse_fails_at_the_target_fails_there() {
    check_refused(
        || {
            vec![
                client(&[parse("c", "COMMIT"), bind("", "c"), execute(""), sync()]),
                upstream(&[error("42P05"), z(b'E')]),
                client(&[q("COMMIT")]),
                upstream(&[tag("ROLLBACK"), z(b'I')]),
            ]
        },
        r#"
        -> P c COMMIT
        submit "ROLLBACK" transaction tx
        undo Q ROLLBACK
        -> S
        <- E 42P05 key (a)=(42)
        completed 1 "ERROR 42P05" failed
        <- Z E
        submit "COMMIT" transaction tx
        -> Q COMMIT
        completed 1 "ROLLBACK"
        <- C ROLLBACK
        <- Z I
        "#,
    );
}

#[test]
fn a_commit_in_company_is_refused_after_a_refusal() {
    for company in ["COMMIT; SELECT 1", "COMMIT AND CHAIN", "SELECT 1; COMMIT"] {
        let mut host = Host::logged_in();
        refused().into_iter().for_each(|step| host.play(step));
        host.log.clear();
        host.play(client(&[q(company)]));
        assert!(
            host.log.contains("25P02") && !host.log.contains("undo"),
            "{}",
            host.log
        );
    }
}

/// The host gives nothing up where it refused nothing.
#[test]
fn a_commit_after_what_the_host_did_not_refuse_gives_nothing_up() {
    let mut host = Host::logged_in();
    host.play(client(&[q("BEGIN")]));
    host.play(upstream(&[tag("BEGIN"), z(b'T')]));
    host.play(client(&[m(b'F', b"\0\0\0\x01\0\0\0\0\0\0")]));
    host.log.clear();
    host.play(client(&[q("COMMIT")]));
    assert!(
        host.log.contains("25P02") && !host.log.contains("undo"),
        "{}",
        host.log
    );
}

#[test]
fn several_statements_are_one_command_of_all_of_them() {
    check(
        || {
            vec![
                client(&[q("SELECT 1; INSERT INTO t VALUES (1)")]),
                upstream(&[tag("SELECT 1"), tag("INSERT 0 1"), z(b'I')]),
            ]
        },
        r#"
        submit "SELECT 1; INSERT INTO t VALUES (1)" read+write
        -> Q SELECT 1; INSERT INTO t VALUES (1)
        <- C SELECT 1
        completed 1 "SELECT 1; INSERT 0 1" rows 2
        <- C INSERT 0 1
        <- Z I
        "#,
    );
}

/// Equal digests must stand for equal settings.
#[test]
fn a_setting_that_a_rollback_undid_is_not_that_of_one_who_keeps_it() {
    let context = |steps: &[(&str, &[Message])]| {
        let mut host = Host::logged_in();
        for (text, answers) in steps {
            host.play(client(&[q(text)]));
            host.play(upstream(answers));
        }
        host.play(client(&[q("DELETE FROM t")]));
        host.submitted.last().unwrap().context.clone()
    };
    let set = "SET datestyle = 'ISO, DMY'";
    let (begun, set_in, over) = (
        [tag("BEGIN"), z(b'T')],
        [tag("SET"), z(b'T')],
        [tag("ROLLBACK"), z(b'I')],
    );
    let kept = context(&[(set, &[tag("SET"), z(b'I')])]);
    let committed = context(&[
        ("BEGIN", &begun),
        (set, &set_in),
        ("COMMIT", &[tag("COMMIT"), z(b'I')]),
    ]);
    assert_eq!(kept, committed);
    for undone in [
        context(&[("BEGIN", &begun), (set, &set_in), ("ROLLBACK", &over)]),
        context(&[
            ("BEGIN", &begun),
            (set, &set_in),
            ("SELECT 1 / 0", &[error("22012"), z(b'E')]),
            ("COMMIT", &over),
        ]),
        context(&[
            ("BEGIN", &begun),
            (set, &set_in),
            ("ROLLBACK TO s", &[tag("ROLLBACK"), z(b'T')]),
            ("COMMIT", &[tag("COMMIT"), z(b'I')]),
        ]),
        context(&[(
            "SET datestyle = 'ISO, DMY'; SELECT 1 / 0",
            &[tag("SET"), error("22012"), z(b'I')],
        )]),
        context(&[
            ("BEGIN", &begun),
            ("SET LOCAL datestyle = 'ISO, DMY'", &set_in),
            ("COMMIT AND CHAIN", &[tag("COMMIT"), z(b'T')]),
        ]),
    ] {
        assert_ne!(kept, undone);
    }
}

/// A rule about functions is no rule about writes.
#[test]
fn what_calls_an_unknown_function_is_told_with_what_else_it_does() {
    let mut host = Host::logged_in();
    host.play(client(&[q("DELETE FROM t WHERE f(1) = 1; SELECT 1")]));
    assert!(
        host.log.contains("function_effect+write+read"),
        "{}",
        host.log
    );
    let command = host.submitted.last().unwrap();
    let fact = |at: usize, name: &str| {
        let mut facts = command.operations[at].facts.iter();
        let found = facts.find(|(fact, _)| fact == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(fact(1, "within").as_deref(), Some("function_effect"));
    assert_eq!(fact(0, "statement_count").as_deref(), Some("2"));
}

/// A server reads literals when it prepares, and values when it binds.
#[test]
fn what_was_read_under_other_settings_is_not_what_is_read_now() {
    const WRITE: &str = "INSERT INTO t VALUES ('01/02/2026')";
    let last = |steps: &[(&[Message], &[Message])]| {
        let mut host = Host::logged_in();
        for (messages, answers) in steps {
            host.play(client(messages));
            host.play(upstream(answers));
        }
        let command = host.submitted.pop().unwrap();
        (command.text, command.canonical, command.context)
    };
    let set: (&[Message], &[Message]) =
        (&[q("SET datestyle = 'ISO, DMY'")], &[tag("SET"), z(b'I')]);
    let parsed: (&[Message], &[Message]) = (&[parse("s", WRITE), sync()], &[m(b'1', b""), z(b'I')]);
    let run: (&[Message], &[Message]) = (&[bind("", "s"), execute(""), sync()], &[]);
    let whole: (&[Message], &[Message]) = (
        &[parse("s", WRITE), bind("", "s"), execute(""), sync()],
        &[],
    );
    let now = last(&[set, parsed, run]);
    assert_eq!(now, last(&[set, whole]), "kept or parsed anew");
    let before = last(&[parsed, set, run]);
    assert_ne!(now, before);
    assert_eq!(before, last(&[parsed, set, run]), "in every session");
    // The same by name.
    let execute_s: (&[Message], &[Message]) = (&[q("EXECUTE s")], &[]);
    assert_ne!(
        last(&[set, parsed, execute_s]),
        last(&[parsed, set, execute_s])
    );
    // Values.
    let begin: (&[Message], &[Message]) = (&[q("BEGIN")], &[tag("BEGIN"), z(b'T')]);
    let set_in: (&[Message], &[Message]) = (set.0, &[tag("SET"), z(b'T')]);
    let parsed_in: (&[Message], &[Message]) = (parsed.0, &[m(b'1', b""), z(b'T')]);
    let bound: (&[Message], &[Message]) = (&[bind("p", "s"), sync()], &[m(b'2', b""), z(b'T')]);
    let run_bound: (&[Message], &[Message]) = (&[execute("p"), sync()], &[]);
    assert_ne!(
        last(&[begin, set_in, parsed_in, bound, run_bound]),
        last(&[begin, parsed_in, bound, set_in, run_bound])
    );
    // Within one command.
    let set_parsed = parse("z", "SET datestyle = 'ISO, DMY'");
    let unit = |first: &[Message], then: &[Message]| {
        let set = [bind("", "z"), execute("")];
        let run = [bind("", "s"), execute(""), sync()];
        let all = [first, std::slice::from_ref(&set_parsed), &set, then, &run].concat();
        last(&[(&all, &[])])
    };
    let write = [parse("s", WRITE)];
    let (early, late) = (unit(&write, &[]), unit(&[], &write));
    assert_eq!(early.0, late.0);
    assert_ne!(early, late);
}

/// What follows a setting that may fail waits for it.
#[test]
fn nothing_is_proposed_while_a_setting_is_unanswered() {
    let mut host = Host::logged_in();
    host.play(client(&[
        q("SET datestyle = 'ISO, DMY'"),
        q("DELETE FROM t"),
    ]));
    assert_eq!(host.submitted.len(), 1, "{}", host.log);
    host.play(upstream(&[error("22023"), z(b'I')]));
    assert_eq!(host.submitted.len(), 2, "{}", host.log);
    let context = &host.submitted[1].context;
    assert!(
        context.iter().all(|(_, value)| !value.contains("DMY")),
        "{context:?}"
    );
}

#[test]
fn the_data_of_a_copy_goes_by_and_is_part_of_no_other_command() {
    check(
        || {
            vec![
                client(&[q("COPY t FROM STDIN")]),
                upstream(&[m(b'G', b"\0\0\0")]),
                client(&[m(b'd', b"1\n"), m(b'd', b"2\n"), m(b'c', b"")]),
                upstream(&[tag("COPY 2"), z(b'I')]),
            ]
        },
        r#"
        submit "COPY t FROM STDIN" copy_in
        -> Q COPY t FROM STDIN
        <- G
        -> d
        -> d
        -> c
        completed 1 "COPY 2" rows 2
        <- C COPY 2
        <- Z I
        "#,
    );
}

#[test]
fn a_query_inside_the_data_of_a_copy_cannot_slip_through() {
    check(
        || {
            vec![
                client(&[q("COPY t FROM STDIN")]),
                upstream(&[m(b'G', b"\0\0\0")]),
                client(&[q("DROP TABLE t")]),
            ]
        },
        r#"
        submit "COPY t FROM STDIN" copy_in
        -> Q COPY t FROM STDIN
        <- G
        <= E 08P01 invalid message: a new command inside the data of a COPY FATAL
        close
        "#,
    );
}

#[test]
fn function_calls_by_message_are_refused() {
    check(
        || vec![client(&[m(b'F', b"\0\0\0\x01")])],
        r"
        <= E 08P01 function calls by message are not served
        <= Z I
        ",
    );
}

#[test]
fn execute_is_judged_by_what_was_prepared() {
    check(
        || {
            vec![
                client(&[q("PREPARE p AS DELETE FROM t")]),
                upstream(&[tag("PREPARE"), z(b'I')]),
                client(&[q("EXECUTE p")]),
                upstream(&[tag("DELETE 1"), z(b'I')]),
                client(&[q("DEALLOCATE p")]),
                upstream(&[tag("DEALLOCATE"), z(b'I')]),
                client(&[q("EXECUTE p")]),
            ]
        },
        r#"
        submit "PREPARE p AS DELETE FROM t" write
        -> Q PREPARE p AS DELETE FROM t
        completed 1 "PREPARE"
        <- C PREPARE
        <- Z I
        submit "EXECUTE p" write
        -> Q EXECUTE p
        completed 1 "DELETE 1" rows 1
        <- C DELETE 1
        <- Z I
        submit "DEALLOCATE p" session
        -> Q DEALLOCATE p
        completed 1 "DEALLOCATE"
        <- C DEALLOCATE
        <- Z I
        submit "EXECUTE p" unknown reject: EXECUTE would run `p`, which the gateway does not know as a prepared statement of this session: DEALLOCATE it, if it is there, and PREPARE it again
        <= E 42501 denied
        <= Z I
        "#,
    );
}

#[test]
fn a_session_that_would_read_text_otherwise_ends() {
    check(
        || {
            vec![
                client(&[q("SELECT f()")]),
                upstream(&[status("standard_conforming_strings", "off")]),
            ]
        },
        r#"
        submit "SELECT f()" function_effect
        -> Q SELECT f()
        <= E 42501 `standard_conforming_strings` must stay at its value; the session is over FATAL
        close
        "#,
    );
    check(
        || vec![client(&[q("SET client_encoding = 'SJIS'")])],
        r#"
        submit "SET client_encoding = 'SJIS'" session reject: `client_encoding` is pinned: it decides where literals end. Leave client_encoding at UTF8 and standard_conforming_strings on
        <= E 42501 denied
        <= Z I
        "#,
    );
}

#[test]
fn a_target_that_changes_who_we_are_unasked_ends_the_session() {
    check(
        || {
            vec![
                client(&[q("SELECT 1")]),
                upstream(&[status("session_authorization", "postgres")]),
            ]
        },
        r#"
        submit "SELECT 1" read
        -> Q SELECT 1
        <= E 08P01 the target changed who the session runs as, unasked FATAL
        close
        "#,
    );
}

#[test]
fn terminate_and_malformed_messages_end_the_session() {
    check(|| vec![client(&[m(b'X', b"")])], "-> X\nclose");
    check(
        || vec![client(&[m(b'Q', b"SELECT 1")])],
        r"
        <= E 08P01 invalid message: the query is not one string that ends with a NUL FATAL
        close
        ",
    );
    check(|| vec![client(&[m(b'?', b"")])], "rejected Some(63)");
}

#[test]
fn a_notice_and_an_end_are_messages_of_the_server() {
    let host = Host::logged_in();
    assert_eq!(
        show_all(&host.session.notice("held as hp-1")),
        ["N HP001 held as hp-1"]
    );
    let mut last = refusal();
    last.kind = RefusalKind::Unavailable;
    last.code = "HP-SHUTDOWN".to_owned();
    assert_eq!(
        show_all(&host.session.terminate(&last)),
        ["E 57P01 denied FATAL"]
    );
}

#[test]
fn settings_become_part_of_what_is_approved() {
    let mut host = Host::logged_in();
    host.play(client(&[q("SET search_path = a, b")]));
    host.play(upstream(&[tag("SET"), z(b'I')]));
    host.play(client(&[q("SET application_name = 'x'")]));
    host.play(upstream(&[tag("SET"), z(b'I')]));
    host.play(client(&[q("DELETE FROM t")]));
    let context = &host.submitted.last().unwrap().context;
    let words: Vec<String> = context
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        words,
        [
            "database=shop",
            "user=app",
            "search_path=SET search_path = a, b"
        ]
    );
}

#[test]
fn a_password_is_marked_and_stays_out_of_the_context() {
    let mut host = Host::logged_in();
    let text = "PREPARE p AS SELECT 1; ALTER ROLE r PASSWORD 'hunter2'";
    host.play(client(&[q(text)]));
    let command = host.submitted.last().unwrap();
    let span = &command.secrets[0];
    assert_eq!(&text[span.start as usize..span.end as usize], "'hunter2'");
    host.play(upstream(&[tag("PREPARE"), tag("ALTER ROLE"), z(b'I')]));
    host.play(client(&[q("EXECUTE p")]));
    let context = format!("{:?}", host.submitted.last().unwrap().context);
    assert!(
        !context.contains("hunter2") && context.contains("[secret]"),
        "{context}"
    );
}

/// The names in the context of what was submitted last.
fn context(host: &Host) -> Vec<&str> {
    let context = &host.submitted.last().unwrap().context;
    context.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn what_runs_a_known_read_by_its_name_leaves_no_mark() {
    let mut host = Host::logged_in();
    host.play(client(&[q("PREPARE p (int) AS SELECT $1")]));
    host.play(upstream(&[tag("PREPARE"), z(b'I')]));
    host.play(client(&[q("DECLARE c CURSOR with hold FOR SELECT 1")]));
    host.play(upstream(&[tag("DECLARE CURSOR"), z(b'I')]));
    for run in ["EXECUTE p (1)", "EXECUTE p (2)", "FETCH 5 FROM c"] {
        host.play(client(&[q(run)]));
        host.play(upstream(&[tag("SELECT 1"), z(b'I')]));
    }
    host.play(client(&[q("DELETE FROM t")]));
    assert_eq!(context(&host), ["database", "user"]);
}

#[test]
fn what_runs_something_unproven_by_its_name_leaves_a_mark() {
    for (prepared, run) in [
        ("PREPARE p AS SELECT evil()", "EXECUTE p"),
        ("PREPARE p (int) AS SELECT $1", "EXECUTE p (evil())"),
        ("DECLARE p CURSOR with hold FOR SELECT evil()", "FETCH p"),
    ] {
        let mut host = Host::logged_in();
        host.play(client(&[q(prepared)]));
        host.play(upstream(&[tag("PREPARE"), z(b'I')]));
        host.play(client(&[q(run)]));
        host.play(upstream(&[tag("SELECT 1"), z(b'I')]));
        host.play(client(&[q("DELETE FROM t")]));
        assert!(context(&host).contains(&"after"), "{prepared}; {run}");
    }
}

/// It may change what other names stand for, which nothing here would see.
#[test]
fn execute_runs_nothing_that_is_not_known() {
    for run in [
        "EXECUTE s",
        "SELECT 1; EXECUTE s",
        "EXPLAIN EXECUTE s",
        "PREPARE s AS SELECT 1; DEALLOCATE s; EXECUTE s",
    ] {
        let mut host = Host::logged_in();
        host.play(client(&[q(run)]));
        let reject = host.submitted.last().unwrap().reject.as_deref();
        let said = reject.unwrap_or_default();
        assert!(said.contains("the gateway does not know"), "{run}: {said}");
    }
}

#[test]
fn execute_runs_nothing_that_changes_names_or_settings() {
    for (prepared, plain) in [
        ("DEALLOCATE x", false),
        ("PREPARE x AS DELETE FROM t", false),
        ("SET search_path = evil", false),
        ("BEGIN", false),
        ("EXECUTE x", false),
        ("SELEC", false),
        ("SELECT 1", true),
        ("DELETE FROM t", true),
        ("TRUNCATE t", true),
    ] {
        for run in [
            "EXECUTE s",
            "SELECT 1; EXECUTE s",
            "EXPLAIN ANALYZE EXECUTE s",
        ] {
            let mut host = Host::logged_in();
            host.play(client(&[parse("s", prepared), sync()]));
            host.play(upstream(&[m(b'1', b""), z(b'I')]));
            host.play(client(&[q(run)]));
            let reject = host.submitted.last().unwrap().reject.as_deref();
            let said = reject.unwrap_or_default();
            assert_eq!(reject.is_none(), plain, "{prepared}; {run}: {said}");
            assert!(plain || said.starts_with("EXECUTE would run `s`"), "{said}");
        }
        // By the protocol too, which runs what is bound.
        let mut host = Host::logged_in();
        host.play(client(&[parse("s", prepared), sync()]));
        host.play(upstream(&[m(b'1', b""), z(b'I')]));
        host.play(client(&[
            parse("", "EXECUTE s"),
            bind("", ""),
            execute(""),
            sync(),
        ]));
        let reject = host.submitted.last().unwrap().reject.as_deref();
        assert_eq!(reject.is_none(), plain, "{prepared}");
    }
}
