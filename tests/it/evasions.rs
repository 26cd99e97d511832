//! Ways past the rules as shipped, by what is said and not by the order of messages: other
//! roles, settings that move the ends of literals, names that mean something else, code that
//! is made first and run by a read.
//!
//! Each is played twice. Straight to the server it must do its harm, or it would show
//! nothing; through the gateway it must not. The rules are the shipped ones, and what they
//! hold is refused here, since nobody is asked.

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::wire::{self, message, query, read};
use holdpoint_tests::{Database, Gateway, PgServer, Settings, need};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SHIPPED: &str = include_str!("../../policies/postgres.toml");

/// One table may be written to, so that something can be brought to stand for it.
const SCRATCH: &str = r#"
[[rule]]
name = "scratch"
match = { classes = ["copy_in", "write"], objects = ["scratch"], confidence = "proven" }
allow = true
"#;

const WRITE: &str = "DELETE FROM victims";
const CANARY: &str = "canary-41c7e0";

/// What is there already, made by the owner: code that writes, a table that only another
/// role may read. `{app}` and `{boss}` are the roles.
const THERE: &str = r"
ALTER ROLE {app} NOINHERIT;
CREATE ROLE {boss} NOLOGIN;
GRANT {boss} TO {app};
CREATE SCHEMA hr AUTHORIZATION {boss};
CREATE TABLE hr.payroll (secret text);
INSERT INTO hr.payroll VALUES ('canary-41c7e0');
CREATE FUNCTION hr.peek() RETURNS text LANGUAGE sql SECURITY DEFINER
  AS 'SELECT secret FROM hr.payroll';
ALTER TABLE hr.payroll OWNER TO {boss};
ALTER FUNCTION hr.peek() OWNER TO {boss};
GRANT USAGE ON SCHEMA hr TO {app};
SET ROLE {app};
CREATE SCHEMA evil;
CREATE FUNCTION evil.boom(int) RETURNS int LANGUAGE plpgsql
  AS 'BEGIN DELETE FROM public.victims; RETURN 1; END';
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql
  AS 'BEGIN DELETE FROM public.victims; RETURN 1; END';
CREATE FUNCTION evil.same(int, int) RETURNS bool LANGUAGE plpgsql
  AS 'BEGIN DELETE FROM public.victims; RETURN true; END';
CREATE OPERATOR evil.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.same);
CREATE FUNCTION evil.step(int, int) RETURNS int LANGUAGE plpgsql
  AS 'BEGIN DELETE FROM public.victims; RETURN 1; END';
CREATE AGGREGATE evil.total(int) (SFUNC = evil.step, STYPE = int);
CREATE FUNCTION evil.fire() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN DELETE FROM public.victims; RETURN NULL; END';
CREATE TABLE evil.scratch (n int);
CREATE TRIGGER fire BEFORE INSERT ON evil.scratch FOR EACH ROW EXECUTE FUNCTION evil.fire();
CREATE FUNCTION evil.become() RETURNS void LANGUAGE plpgsql
  AS $$ BEGIN PERFORM set_config('role', '{boss}', false); END $$;
CREATE FUNCTION evil.quiet() RETURNS void LANGUAGE plpgsql
  AS $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$;
CREATE PROCEDURE evil.quietly() LANGUAGE plpgsql
  AS $$ BEGIN SET standard_conforming_strings = off; END $$;
";

/// Before each play.
const AGAIN: &str = "
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS made CASCADE;
CREATE SCHEMA made;
DROP TABLE IF EXISTS scratch CASCADE;
CREATE TABLE scratch (n int);
TRUNCATE victims;
INSERT INTO victims VALUES (1), (2);
";

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

fn q(sql: &str) -> Vec<u8> {
    query(sql.as_bytes())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// What is sent at once. The next comes when all of it is answered.
type Step = Vec<Vec<u8>>;

struct Trick {
    name: String,
    /// `… SET …` by a superuser, before the connection; reset after it.
    before: &'static str,
    /// Of the startup packet.
    startup: Vec<(&'static str, &'static str)>,
    steps: Vec<Step>,
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
        "SELECT set_config(is_local => false, setting_name => 'role', new_value => '{boss}')",
        "SELECT evil.become()",
        "DO $$ BEGIN SET ROLE {boss}; END $$",
        "DO LANGUAGE plpgsql 'BEGIN PERFORM set_config(''role'', ''{boss}'', false); END'",
        "PREPARE r AS SELECT set_config('role', '{boss}', false); EXECUTE r",
        "EXPLAIN ANALYZE SELECT set_config('role', '{boss}', false)",
        "COPY (SELECT set_config('role', '{boss}', false)) TO STDOUT",
        "UPDATE pg_settings SET setting = '{boss}' WHERE name = 'role'",
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
fn broken() -> Vec<Trick> {
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

/// One play: what was said, rows included. A login that is refused is part of it.
async fn play(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: Vec<u8>,
    password: Option<&str>,
    steps: &[Step],
) -> String {
    let mut said = String::new();
    stream.write_all(&login).await.unwrap();
    if let Some(password) = password {
        let password = [password.as_bytes(), b"\0"].concat();
        stream.write_all(&message(b'p', &password)).await.unwrap();
    }
    let mut ends = 1;
    for step in std::iter::once(None).chain(steps.iter().map(Some)) {
        if let Some(step) = step {
            let answered = |bytes: &&Vec<u8>| matches!(bytes[0], b'Q' | b'S' | b'c' | b'f');
            ends = step.iter().filter(answered).count();
            if stream.write_all(&step.concat()).await.is_err() {
                break;
            }
        }
        // The end of a step that ends with nothing, or with less than usual, is silence.
        let silence = Duration::from_millis(if ends == 0 { 200 } else { 1500 });
        loop {
            let Ok(Some((kind, body))) = timeout(silence, read(stream)).await else {
                break;
            };
            said.push(char::from(kind));
            if matches!(kind, b'E' | b'D') {
                let text = String::from_utf8_lossy(&body).replace('\0', " ");
                said.push_str(&format!("[{text}]"));
            }
            ends -= usize::from(kind == b'Z' && ends > 0);
            if kind == b'G' || kind == b'Z' && ends == 0 {
                break;
            }
        }
        said.push_str(" | ");
    }
    said
}

struct World {
    gateway: Gateway,
    database: Database,
    /// The owner's own connection.
    owner: tokio_postgres::Client,
    boss: String,
}

impl World {
    async fn new(server: Arc<PgServer>) -> Self {
        let database = server.database();
        let boss = format!("boss_{}", database.user);
        let settings = Settings {
            rules: format!(
                "{SCRATCH}{}",
                SHIPPED.replace("\"group:holdpoint-reviewers\"", "")
            ),
            ..Settings::default()
        };
        let gateway = Gateway::with(&database, settings).await;
        let (owner, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(server.address().port())
            .user(&database.user)
            .dbname(&database.name)
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let this = Self {
            gateway,
            database,
            owner,
            boss,
        };
        this.as_superuser(THERE);
        this
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{app}", &self.database.user)
            .replace("{boss}", &self.boss)
            .replace("{database}", &self.database.name)
    }

    fn as_superuser(&self, sql: &str) {
        let psql = self.database.server.superuser(&self.database.name);
        psql.run(&self.fill(sql)).unwrap_done();
    }

    fn steps(&self, trick: &Trick) -> Vec<Step> {
        // The length in front is that of the text as it is then.
        let fill = |bytes: &Vec<u8>| {
            let text = String::from_utf8_lossy(bytes);
            if !text.contains("{boss}") {
                return bytes.clone();
            }
            q(self.fill(&text[5..]).trim_end_matches('\0'))
        };
        let each = |step: &Step| step.iter().map(fill).collect();
        trick.steps.iter().map(each).collect()
    }

    async fn again(&self) {
        self.owner.batch_execute(AGAIN).await.unwrap();
    }

    /// What a play did, if anything.
    async fn harm(&self, said: &str) -> Option<String> {
        let left = self.owner.query("SELECT FROM victims", &[]).await.unwrap();
        if left.len() != 2 {
            return Some(format!("rows are gone: {said}"));
        }
        said.contains(CANARY)
            .then(|| format!("a secret was shown: {said}"))
    }

    async fn straight(&self, trick: &Trick) -> String {
        let mut stream = TcpStream::connect(self.database.server.address())
            .await
            .unwrap();
        let mut parameters = vec![
            ("user", self.database.user.as_str()),
            ("database", self.database.name.as_str()),
        ];
        parameters.extend(&trick.startup);
        play(
            &mut stream,
            wire::startup(&parameters),
            None,
            &self.steps(trick),
        )
        .await
    }

    async fn through(&self, token: &str, number: usize, trick: &Trick) -> String {
        let ca = self.gateway.dir.join("ca.pem");
        let mut stream = wire::tls(self.gateway.address, &ca).await;
        let mut parameters = vec![("user", "agent"), ("database", "shop")];
        parameters.extend(&trick.startup);
        // Many sessions would look alike to the oracle.
        let first = vec![q(&format!("SELECT {number}"))];
        let steps = [vec![first], self.steps(trick)].concat();
        play(&mut stream, wire::startup(&parameters), Some(token), &steps).await
    }

    /// All of it; those that should do harm straight are checked to, where that can be asked.
    async fn none_works(&self, tricks: Vec<Trick>, real: bool) {
        let token = self.gateway.agent("ada");
        self.gateway.keep_secret(&token);
        let mut wrong = Vec::new();
        for (number, trick) in tricks.iter().enumerate() {
            let name = &trick.name;
            if !trick.before.is_empty() {
                self.as_superuser(trick.before);
            }
            if real {
                self.again().await;
                let said = self.straight(trick).await;
                if self.harm(&said).await.is_none() {
                    wrong.push(format!(
                        "{name}: does nothing even without a gateway: {said}"
                    ));
                }
            }
            self.again().await;
            let said = self.through(&token, number, trick).await;
            if let Some(harm) = self.harm(&said).await {
                wrong.push(format!("{name}: {harm}"));
            }
            if let Some((whose, _)) = trick.before.split_once(" SET ") {
                self.as_superuser(&format!("{whose} RESET ALL"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn all() -> Vec<Trick> {
    [roles(), strings(), encodings(), ends(), meanings(), names()]
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_harm_straight_does_none_through_the_gateway() {
    let Some(server) = need!(PgServer::start("trust"), "postgresql") else {
        return;
    };
    let world = World::new(Arc::new(server)).await;
    world.none_works(all(), true).await;
    world.none_works(broken(), false).await;
}

const DOC: &str = include_str!("../../docs/postgres.md");

/// Code that is there already and that no text shows. It writes where only `{boss}` may.
const UNPROVABLE: &str = r"
CREATE ROLE {boss} NOLOGIN;
GRANT {boss} TO {app};
CREATE SCHEMA hr AUTHORIZATION {boss};
CREATE TABLE hr.victims (id int);
INSERT INTO hr.victims VALUES (1), (2);
ALTER TABLE hr.victims OWNER TO {boss};
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO {app};
CREATE TABLE shop.items (id int);
INSERT INTO shop.items VALUES (1);
CREATE FUNCTION shop.boom(int) RETURNS int LANGUAGE plpgsql
  AS 'BEGIN DELETE FROM hr.victims; RETURN 1; END';
CREATE VIEW shop.v AS SELECT shop.boom(id) FROM shop.items;
CREATE DOMAIN shop.d AS int CHECK (shop.boom(VALUE) > 0);
CREATE FUNCTION shop.gone(shop.items) RETURNS int LANGUAGE sql AS 'SELECT shop.boom(1)';
CREATE FUNCTION shop.lower(int) RETURNS int LANGUAGE sql AS 'SELECT shop.boom($1)';
CREATE FUNCTION shop.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT shop.boom($1) = 1';
CREATE OPERATOR shop.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = shop.same);
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {app};
ALTER ROLE {app} SET search_path = pg_catalog, shop;
";

/// The page says that these pass for what they look like, and that an account of its own
/// bounds them. Both are so.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_parser_can_prove_passes_as_documented_and_the_documented_account_bounds_it() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let database = server.database();
    let boss = format!("boss_{}", database.user);
    let superuser = server.superuser(&database.name);
    let there = UNPROVABLE.replace("{app}", &database.user);
    superuser.run(&there.replace("{boss}", &boss)).unwrap_done();

    // The account as the page makes it.
    let mut account = database.clone();
    account.user = format!("holdpoint_{}", database.user);
    account.password = "upstream-of-the-page-5e11".to_owned();
    let sql = DOC
        .split("```sql\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let sql = sql
        .replace("holdpoint_shop", &account.user)
        .replace("DATABASE shop", &format!("DATABASE {}", database.name))
        .replace("'…'", &format!("'{}'", account.password));
    superuser.run(&sql).unwrap_done();

    let victims = || {
        let done = superuser.run("SELECT count(*) FROM hr.victims");
        done.unwrap_done();
        done.stdout.trim().to_owned()
    };
    let texts = [
        "SELECT * FROM shop.v",
        "SELECT 1::shop.d",
        "SELECT i.gone FROM shop.items i",
        "SELECT lower(1)",
        "SELECT 1 === 2",
    ];
    for (who, bounded) in [(&database, false), (&account, true)] {
        let settings = Settings {
            rules: SHIPPED.replace("\"group:holdpoint-reviewers\"", ""),
            ..Settings::default()
        };
        let gateway = Gateway::with(who, settings).await;
        let mut stream = gateway.wire(&gateway.agent("ada")).await;
        for text in texts {
            stream.write_all(&q(text)).await.unwrap();
            let (kinds, said) = wire::read_all(&mut stream).await;
            assert!(!said.contains("HP-"), "{text} was not let through: {said}");
            assert_eq!(
                said.contains("permission denied"),
                bounded,
                "{text}: {kinds} {said}"
            );
            let left = victims();
            assert_eq!(left, if bounded { "2" } else { "0" }, "{text}: {said}");
            let again = "TRUNCATE hr.victims; INSERT INTO hr.victims VALUES (1), (2)";
            superuser.run(again).unwrap_done();
        }
        if bounded {
            let done = gateway.holdpoint(&["doctor", "--json"]);
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(!said.contains("\"warning\""), "{said}");
        }
    }
    // Nor could it make any of that, were it approved.
    for text in [
        "CREATE TABLE shop.t (n int)".to_owned(),
        "CREATE TABLE public.t (n int)".to_owned(),
        "CREATE TEMP TABLE t (n int)".to_owned(),
        "CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        "CREATE SCHEMA mine".to_owned(),
        "CREATE OR REPLACE VIEW shop.v AS SELECT 1 AS boom".to_owned(),
        "COPY shop.items TO '/tmp/items'".to_owned(),
        "COPY shop.items TO PROGRAM 'cat'".to_owned(),
        format!("SET ROLE {boss}"),
        "SELECT * FROM hr.victims".to_owned(),
    ] {
        let done = account.direct().run(&text);
        assert!(
            ["permission denied", "must be owner", "must be superuser"]
                .iter()
                .any(|why| done.stderr.contains(why)),
            "{text}: {}{}",
            done.stdout,
            done.stderr
        );
    }
}
