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
                client(&[q("COMMIT")]),
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
        submit "DROP TABLE t" ddl
        <= E 42501 denied FATAL
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
        submit "EXECUTE p" unknown
        -> Q EXECUTE p
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
