//! The lists. What each is meant to do is checked against a server without a gateway.

use holdpoint_tests::wire::{message, query};

const WRITE: &str = "DELETE FROM victims";

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes())
}

/// At most this many rows; 0: all.
fn execute(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, rows]].concat())
}

fn describe(what: &str) -> Vec<u8> {
    message(b'D', format!("{what}\0").as_bytes())
}

fn close(what: &str) -> Vec<u8> {
    message(b'C', format!("{what}\0").as_bytes())
}

pub(super) fn q(sql: &str) -> Vec<u8> {
    query(sql.as_bytes())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// What is sent at once. The next comes when all of it is answered.
pub(super) type Step = Vec<Vec<u8>>;

pub(super) struct Trick {
    pub(super) name: String,
    /// `… SET …` by a superuser, before the connection; reset after it.
    pub(super) before: &'static str,
    /// Of the startup packet.
    pub(super) startup: Vec<(&'static str, &'static str)>,
    pub(super) steps: Vec<Step>,
}

fn trick(name: impl Into<String>, steps: Vec<Step>) -> Trick {
    Trick {
        name: name.into(),
        before: "",
        startup: Vec::new(),
        steps,
    }
}

/// Each text in a message of its own.
fn texts(name: &str, texts: &[&str]) -> Trick {
    trick(name, texts.iter().map(|text| vec![q(text)]).collect())
}

/// Who is `{boss}` may read the canary.
fn roles() -> Vec<Trick> {
    [
        "SET ROLE {boss}",
        "SET role TO '{boss}'",
        "SET \"role\" = {boss}",
        "SET SESSION ROLE {boss}",
        "BEGIN; SET LOCAL ROLE {boss}",
        "SELECT set_config('role', '{boss}', false)",
        "SELECT pg_catalog.set_config('ROLE', '{boss}', false)",
        "SELECT set_config('ro' || 'le', '{boss}', false)",
        "SELECT set_config(E'r\\x6fle', '{boss}', false)",
        "SELECT set_config(U&'r!006fle' UESCAPE '!', '{boss}', false)",
        "SELECT U&\"set!005fconfig\" UESCAPE '!' ('role', '{boss}', false)",
        "SELECT \"set_config\"($$role$$, $a${boss}$a$, false)",
        "SELECT 1 ORDER BY set_config('role', '{boss}', false)",
        "SELECT * FROM set_config('role', '{boss}', false)",
        "VALUES (set_config('role', '{boss}', false))",
        "SELECT set_config(s, '{boss}', false) FROM (VALUES ('role')) AS r (s)",
        "SELECT (('SELECT set_config(''role'', ''{boss}'', false)::tsvector'::text).ts_stat).word",
        "SELECT s.ts_stat FROM CAST('SELECT set_config(''role'', ''{boss}'', false)::tsvector' AS text) AS s",
        "SELECT evil.become()",
        "DO $$ BEGIN SET ROLE {boss}; END $$",
        "DO LANGUAGE plpgsql 'BEGIN PERFORM set_config(''role'', ''{boss}'', false); END'",
        "PREPARE r AS SELECT set_config('role', '{boss}', false); EXECUTE r",
        "EXPLAIN ANALYZE SELECT set_config('role', '{boss}', false)",
        "COPY (SELECT set_config('role', '{boss}', false)) TO STDOUT",
    ]
    .iter()
    .map(|text| texts(text, &[text, "SELECT secret FROM hr.payroll"]))
    .chain([
        texts("a function of another's rights", &["SELECT hr.peek()"]),
        texts(
            "a function that is called in a plan",
            &["SELECT 1 FROM invoices WHERE hr.peek() <> '' AND 1 / length(replace(hr.peek(), 'canary', '')) < 0",
              "SELECT hr.peek()::int"],
        ),
    ])
    .collect()
}

/// Where `\'` ends no literal, a DELETE runs that is one's content elsewhere.
fn strings() -> Vec<Trick> {
    let hidden = r"SELECT '\' || '; DELETE FROM victims; --'";
    let mut tricks: Vec<Trick> = [
        "SET standard_conforming_strings = off",
        "SET SESSION \"standard_conforming_strings\" TO 'no'",
        "SET Standard_Conforming_Strings TO 0",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "SELECT set_config('STANDARD_conforming_strings', 'f', false) FROM victims",
        "SELECT set_config('standard_conforming' || '_strings', 'off', false)",
        "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
        "UPDATE U&\"pg_catalog\".U&\"pg_settings\" UESCAPE 'l' SET setting = 'off' WHERE name = 'standard_conforming_strings'",
        "UPDATE U&\"pg_cat!0061log\" UESCAPE '!'.U&\"pg_settings\" UESCAPE '?' SET setting = 'off' WHERE name = 'standard_conforming_strings'",
        "SELECT (('SELECT set_config(''standard_conforming_strings'', ''off'', false)::tsvector'::text).ts_stat).word",
        "SELECT evil.quiet()",
        "CALL evil.quietly()",
        "DO $$ BEGIN SET standard_conforming_strings = off; END $$",
        "CREATE FUNCTION made.f() RETURNS int LANGUAGE sql SET standard_conforming_strings = off AS 'DELETE FROM victims RETURNING 1'; SELECT made.f()",
    ]
    .iter()
    .map(|text| texts(text, &[text, hidden]))
    .chain([texts(
        "for one transaction",
        &["BEGIN", "SET LOCAL standard_conforming_strings = off", hidden, "COMMIT"],
    )])
    .collect();
    let hidden = || vec![vec![q(hidden)]];
    for startup in [
        ("standard_conforming_strings", "off"),
        ("STANDARD_CONFORMING_STRINGS", "off"),
        ("options", "-c standard_conforming_strings=off"),
        ("options", "--standard-conforming-strings=off"),
    ] {
        tricks.push(Trick {
            startup: vec![startup],
            ..trick(format!("at startup: {startup:?}"), hidden())
        });
    }
    for before in [
        "ALTER ROLE {app} SET standard_conforming_strings = off",
        "ALTER DATABASE {database} SET standard_conforming_strings = off",
        "ALTER ROLE {app} IN DATABASE {database} SET standard_conforming_strings = off",
    ] {
        for again in [
            "SELECT 1",
            "RESET standard_conforming_strings",
            "SET standard_conforming_strings TO DEFAULT",
            "RESET ALL",
            "DISCARD ALL",
        ] {
            let steps = [vec![vec![q(again)]], hidden()].concat();
            tricks.push(Trick {
                before,
                ..trick(format!("{before}; {again}"), steps)
            });
        }
    }
    tricks
}

/// In GBK two of these bytes are a character, and the next quote ends the literal.
fn encodings() -> Vec<Trick> {
    let hidden = "SELECT E'€\\' ; DELETE FROM victims; --'";
    let mut tricks: Vec<Trick> = [
        "SET client_encoding = 'GBK'",
        "SET client_encoding TO gbk",
        "SET NAMES 'GBK'",
        "SET SESSION NAMES 'GBK'",
        "SELECT set_config('client_encoding', 'GBK', false)",
        "SELECT set_config('client' || '_encoding', 'GBK', false)",
        "UPDATE pg_settings SET setting = 'GBK' WHERE name = 'client_encoding'",
        "DO $$ BEGIN SET client_encoding = 'GBK'; END $$",
    ]
    .iter()
    .map(|text| texts(text, &[text, hidden]))
    .collect();
    for startup in [
        ("client_encoding", "GBK"),
        ("Client_Encoding", "'GBK'"),
        ("options", "-c client_encoding=GBK"),
    ] {
        tricks.push(Trick {
            startup: vec![startup],
            ..trick(format!("at startup: {startup:?}"), vec![vec![q(hidden)]])
        });
    }
    for again in ["SELECT 1", "RESET client_encoding", "DISCARD ALL"] {
        let before = "ALTER ROLE {app} SET client_encoding = 'GBK'";
        tricks.push(Trick {
            before,
            ..trick(
                format!("{before}; {again}"),
                vec![vec![q(again)], vec![q(hidden)]],
            )
        });
    }
    tricks
}

/// Where a literal, a comment or a statement ends.
fn ends() -> Vec<Trick> {
    [
        r"SELECT '\'; DELETE FROM victims; --'",
        r"SELECT E'\''; DELETE FROM victims; --'",
        r"SELECT E'\\'; DELETE FROM victims; --'",
        r"SELECT U&'\\'; DELETE FROM victims; --'",
        "SELECT U&'!!' UESCAPE '!'; DELETE FROM victims; --'",
        "SELECT $é$ $e$ $é$; DELETE FROM victims; --$é$",
        "SELECT $é1$ $é$ $é1$; DELETE FROM victims; --$é$",
        "SELECT $😀$'$😀$; DELETE FROM victims; --'",
        "SELECT $$'$$; DELETE FROM victims; --'",
        "SELECT $a$ $A$ $a$; DELETE FROM victims; --$A$",
        "SELECT 1 AS a$b$; DELETE FROM victims; --$b$",
        "SELECT 1 AS é$b$; DELETE FROM victims; --$b$",
        "SELECT 'a'\n'b'; DELETE FROM victims",
        "SELECT 'a'--'\n'b'; DELETE FROM victims; --'",
        "SELECT 1 /* /* */ ' */; DELETE FROM victims; --'",
        "SELECT 1 /*/ */; DELETE FROM victims; --*/",
        "SELECT 4 */**/ 2; DELETE FROM victims",
        "SELECT 4 - --1\r1; DELETE FROM victims",
        "SELECT \"a\"\"'\" FROM (SELECT 1) x (\"a\"\"'\"); DELETE FROM victims; --'",
        "SELECT 1;;; ; /**/ ; DELETE FROM victims",
        "SELECT B'1', X'a', N'\\'; DELETE FROM victims; --'",
        "SELECT 1E0; DELETE FROM victims",
        "WITH a AS (DELETE FROM victims RETURNING 1) SELECT 1",
        "EXPLAIN (COSTS off, ANALYZE) DELETE FROM victims",
        "BEGIN; DECLARE c CURSOR FOR SELECT evil.boom(1); FETCH c; COMMIT",
        "DECLARE c CURSOR WITH HOLD FOR SELECT evil.boom(1)",
    ]
    .iter()
    .map(|text| texts(text, &[text]))
    .chain([trick(
        "a DELETE behind a COPY in one text",
        vec![
            vec![q("COPY scratch FROM STDIN; DELETE FROM victims")],
            vec![message(b'c', b"")],
        ],
    )])
    .collect()
}

/// Names that mean something else, and code that a read would run.
fn meanings() -> Vec<Trick> {
    let boom = "CREATE FUNCTION pg_temp.boom() RETURNS int LANGUAGE sql \
        AS 'DELETE FROM public.victims; SELECT 1'";
    let each: Vec<(&str, Vec<&str>)> = vec![
        (
            "a schema in front",
            vec!["SET search_path = evil", "INSERT INTO scratch VALUES (1)"],
        ),
        (
            "SET SCHEMA",
            vec!["SET SCHEMA 'evil'", "INSERT INTO scratch VALUES (1)"],
        ),
        (
            "for one transaction",
            vec![
                "BEGIN",
                "SET LOCAL search_path TO evil, public",
                "INSERT INTO scratch VALUES (1)",
                "COMMIT",
            ],
        ),
        (
            "set_config of the path",
            vec![
                "SELECT set_config('search_path', 'evil', false)",
                "INSERT INTO scratch VALUES (1)",
            ],
        ),
        (
            "a built-in that is shadowed",
            vec!["SET search_path = evil, pg_catalog", "SELECT lower('A')"],
        ),
        (
            "a built-in that is shadowed, copied to",
            vec![
                "SET search_path = evil, pg_catalog",
                "COPY (SELECT lower('A')) TO STDOUT",
            ],
        ),
        ("a function by its schema", vec!["SELECT evil.boom(1)"]),
        (
            "a function of a built-in's name",
            vec!["SELECT evil.lower('A')"],
        ),
        (
            "the same in quotes",
            vec!["SELECT \"evil\" . \"lower\" ('A')"],
        ),
        (
            "the same by escapes",
            vec!["SELECT U&\"\\0065vil\".U&\"l\\006fwer\"('A')"],
        ),
        (
            "an operator of another schema",
            vec!["SELECT 1 OPERATOR(evil.===) 2"],
        ),
        ("an aggregate", vec!["SELECT evil.total(id) FROM invoices"]),
        (
            "an operator in an ORDER BY",
            vec!["SELECT 1 FROM invoices ORDER BY id OPERATOR(evil.===) 1"],
        ),
        (
            "a function in a default's place",
            vec!["INSERT INTO scratch VALUES (evil.boom(1))"],
        ),
        (
            "a function among what COPY writes",
            vec!["COPY (SELECT evil.boom(id) FROM invoices) TO STDOUT"],
        ),
        ("a temporary function", vec![boom, "SELECT pg_temp.boom()"]),
        (
            "a temporary view",
            vec![
                "CREATE TEMP VIEW v AS SELECT evil.boom(1)",
                "SELECT * FROM v",
            ],
        ),
        (
            "a temporary table with a trigger",
            vec![
                "CREATE TEMP TABLE scratch (n int)",
                "CREATE TRIGGER fire BEFORE INSERT ON pg_temp.scratch FOR EACH ROW EXECUTE FUNCTION evil.fire()",
                "INSERT INTO scratch VALUES (1)",
            ],
        ),
        (
            "a temporary table with a default",
            vec![
                "CREATE TEMP TABLE scratch (n int, b int DEFAULT evil.boom(1))",
                "INSERT INTO scratch (n) VALUES (1)",
            ],
        ),
        (
            "a rule",
            vec![
                "CREATE RULE r AS ON INSERT TO scratch DO ALSO DELETE FROM victims",
                "INSERT INTO scratch VALUES (1)",
            ],
        ),
        (
            "a domain",
            vec![
                "CREATE DOMAIN made.d AS int CHECK (evil.boom(VALUE) > 0)",
                "SELECT 1::made.d",
            ],
        ),
        (
            "a cast",
            vec![
                "CREATE TYPE made.c AS (n int)",
                "CREATE FUNCTION made.cast(made.c) RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.victims; RETURN 1; END'",
                "CREATE CAST (made.c AS int) WITH FUNCTION made.cast(made.c)",
                "SELECT ROW(1)::made.c::int",
            ],
        ),
        (
            "an operator",
            vec![
                "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.same)",
                "SELECT 1 === 2",
                "DROP OPERATOR public.=== (int, int)",
            ],
        ),
        (
            "an overload",
            vec![
                "CREATE FUNCTION public.lower(int) RETURNS text LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.victims; RETURN 1; END'",
                "SELECT lower(1)",
                "DROP FUNCTION public.lower(int)",
            ],
        ),
        (
            "a function as a column",
            vec![
                "CREATE FUNCTION made.gone(public.invoices) RETURNS int LANGUAGE sql AS 'DELETE FROM public.victims; SELECT 1'",
                "SELECT made.gone(i) FROM invoices i",
            ],
        ),
        (
            "a policy on rows",
            vec![
                "CREATE POLICY p ON scratch USING (evil.boom(1) = 1)",
                "ALTER TABLE scratch ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
                "INSERT INTO scratch VALUES (1)",
            ],
        ),
    ];
    each.iter().map(|(name, list)| texts(name, list)).collect()
}

/// Statements and cursors of SQL and of the protocol share their names.
fn names() -> Vec<Trick> {
    let returning = "DELETE FROM victims RETURNING id";
    let smile = format!("{}😀", "n".repeat(61));
    let cut = "n".repeat(61);
    vec![
        trick(
            "FETCH of a portal that the protocol bound",
            vec![
                vec![q("BEGIN")],
                vec![parse("s", returning), bind("k", "s"), sync()],
                vec![q("FETCH ALL FROM k"), q("COMMIT")],
            ],
        ),
        trick(
            "MOVE in a portal of the name of a cursor that was",
            vec![
                vec![q("BEGIN"), q("DECLARE k CURSOR FOR SELECT 1")],
                vec![close("Pk"), parse("s", returning), bind("k", "s"), sync()],
                vec![q("MOVE FORWARD ALL IN k"), q("COMMIT")],
            ],
        ),
        trick(
            "FETCH of a portal behind a refused DECLARE of its name",
            vec![
                vec![q("BEGIN"), parse("s", returning), bind("k", "s"), sync()],
                vec![
                    q("SAVEPOINT a"),
                    q("DECLARE k CURSOR FOR SELECT 1"),
                    q("ROLLBACK TO a"),
                ],
                vec![q("FETCH k"), q("COMMIT")],
            ],
        ),
        trick(
            "a portal that is suspended, refused beside, and bound anew",
            vec![
                vec![
                    parse("r", "SELECT generate_series(1, 3)"),
                    parse("s", WRITE),
                    sync(),
                    q("BEGIN"),
                ],
                vec![bind("p", "r"), execute("p", 1), sync()],
                vec![execute("p", 1), sync()],
                vec![
                    close("Pp"),
                    bind("p", "s"),
                    execute("p", 1),
                    sync(),
                    q("COMMIT"),
                ],
            ],
        ),
        trick(
            "a statement that is closed and prepared anew in one pipeline",
            vec![vec![
                parse("s", "SELECT 1"),
                describe("Ss"),
                close("Ss"),
                parse("s", WRITE),
                describe("Ss"),
                bind("", "s"),
                execute("", 0),
                sync(),
            ]],
        ),
        trick(
            "a portal that outlives its statement, and one of the same name",
            vec![
                vec![q("BEGIN")],
                vec![
                    parse("s", "SELECT 1"),
                    bind("p", "s"),
                    close("Ss"),
                    parse("s", WRITE),
                    execute("p", 0),
                    close("Pp"),
                    bind("p", "s"),
                    describe("Pp"),
                    execute("p", 0),
                    sync(),
                ],
                vec![q("COMMIT")],
            ],
        ),
        trick(
            "DEALLOCATE ALL by the protocol, between",
            vec![
                vec![parse("s", "SELECT 1"), parse("d", "DEALLOCATE ALL"), sync()],
                vec![bind("", "d"), execute("", 0), parse("s", WRITE), sync()],
                vec![bind("", "s"), execute("", 0), sync()],
            ],
        ),
        trick(
            "DISCARD ALL, then EXECUTE of what the protocol prepared",
            vec![
                vec![q("PREPARE s AS SELECT 1")],
                vec![
                    q("DEALLOCATE s"),
                    q("DISCARD PLANS"),
                    parse("s", WRITE),
                    sync(),
                ],
                vec![q("EXECUTE s")],
            ],
        ),
        trick(
            "EXECUTE by the protocol of what SQL prepared",
            vec![
                vec![parse("p", "PREPARE s AS DELETE FROM victims"), sync()],
                vec![bind("", "p"), execute("", 0), sync()],
                vec![bind("", "s"), execute("", 0), sync()],
            ],
        ),
        trick(
            "a name that SQL cuts before a character, and the protocol has whole",
            vec![
                vec![parse(&cut, WRITE), sync()],
                vec![q(&format!("EXECUTE \"{smile}\""))],
            ],
        ),
        trick(
            "names that the protocol cuts inside a character",
            vec![
                vec![parse(&format!("{smile}a"), "SELECT 1"), sync()],
                vec![
                    close(&format!("S{smile}b")),
                    parse(&format!("{smile}c"), WRITE),
                    sync(),
                ],
                vec![bind("", &format!("{smile}d")), execute("", 0), sync()],
            ],
        ),
        trick(
            "a cursor whose name is cut",
            vec![
                vec![q("BEGIN"), parse("s", returning), bind(&cut, "s"), sync()],
                vec![q(&format!("FETCH ALL FROM \"{smile}\"")), q("COMMIT")],
            ],
        ),
        trick(
            "data of a COPY that looks like messages, and what comes behind its failure",
            vec![
                vec![q("COPY scratch FROM STDIN")],
                vec![
                    message(b'd', &q(WRITE)),
                    message(b'd', b"\\.\n"),
                    message(b'd', &[sync(), q(WRITE)].concat()),
                    message(b'f', b"enough\0"),
                    q(WRITE),
                ],
            ],
        ),
        trick(
            "a unit behind the failure of a COPY of the extended protocol",
            vec![
                vec![parse("s", WRITE), sync()],
                vec![
                    parse("", "COPY scratch FROM STDIN"),
                    bind("", ""),
                    execute("", 0),
                    message(b'H', b""),
                ],
                vec![
                    message(b'f', b"enough\0"),
                    sync(),
                    bind("", "s"),
                    execute("", 0),
                    sync(),
                ],
            ],
        ),
    ]
}

/// Bytes that no server takes: nothing of them may run, here or there.
pub(super) fn broken() -> Vec<Trick> {
    let raw = |name: &str, text: &[u8]| trick(name, vec![vec![message(b'Q', text)]]);
    vec![
        raw("a NUL inside", b"SELECT 1\0; DELETE FROM victims\0"),
        raw("no NUL at the end", b"DELETE FROM victims"),
        raw(
            "a quote in two bytes",
            b"SELECT '\xc0\xa7; DELETE FROM victims; --'\0",
        ),
        raw(
            "a quote in three bytes",
            b"SELECT '\xe0\x80\xa7; DELETE FROM victims; --'\0",
        ),
        raw(
            "a surrogate",
            b"SELECT '\xed\xa0\x80'; DELETE FROM victims\0",
        ),
        raw(
            "half a character",
            b"SELECT '\xe2\x82'; DELETE FROM victims; --'\0",
        ),
        texts(
            "half a pair of surrogates",
            &[r"SELECT U&'\D83D'; DELETE FROM victims"],
        ),
        texts(
            "an escape that is none",
            &[r"SELECT U&'\00zz'; DELETE FROM victims"],
        ),
        texts(
            "a comment that does not end",
            &["SELECT 1 /* /* */; DELETE FROM victims"],
        ),
    ]
}

/// The view of the settings may be written to by everybody.
pub(super) fn pretended_writes() -> Vec<Trick> {
    let set = |name: &str, value: &str| {
        format!("UPDATE pg_settings SET setting = '{value}' WHERE name = '{name}'")
    };
    let dropped = r"SELECT '\' || '; DO $$ BEGIN DELETE FROM victims; END $$; --'";
    let gbk = "SELECT E'€\\' ; DO $$ BEGIN DELETE FROM victims; END $$; --'";
    [
        (set("search_path", "evil"), "INSERT INTO scratch VALUES (1)"),
        (set("standard_conforming_strings", "off"), dropped),
        (set("client_encoding", "GBK"), gbk),
    ]
    .into_iter()
    .flat_map(|(set, then)| {
        let unit = vec![
            parse("", &set),
            bind("", ""),
            execute("", 0),
            sync(),
            q(then),
        ];
        [
            trick(set.clone(), vec![vec![q(&set), q(then)]]),
            trick(format!("{set}, as a unit"), vec![unit]),
        ]
    })
    .collect()
}

pub(super) fn all() -> Vec<Trick> {
    [roles(), strings(), encodings(), ends(), meanings(), names()]
        .into_iter()
        .flatten()
        .collect()
}
