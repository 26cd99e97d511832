//! Ways past the rules as shipped, by what is said and not by the order of messages: other
//! roles, settings that move the ends of literals, names that mean something else, code that
//! is made first and run by a read.
//!
//! Each is played twice. Straight to the server it must do its harm, or it would show
//! nothing; through the gateway it must not. The rules are the shipped ones, and what they
//! hold is refused here, since nobody is asked.

mod account;
mod tricks;

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::wire::{self, message, read};
use holdpoint_tests::{Database, Gateway, PgServer, Settings, need};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use tricks::{Step, Trick, all, broken, pretended_writes, q};

const SHIPPED: &str = include_str!("../../../policies/postgres.toml");

/// One table may be written to, so that something can be brought to stand for it.
const SCRATCH: &str = r#"
[[rule]]
name = "scratch"
match = { classes = ["copy_in", "write"], objects = ["scratch"], confidence = "proven" }
allow = true
"#;

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
GRANT CREATE, USAGE ON SCHEMA public TO {app};
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
    async fn new(server: Arc<PgServer>, rules: String) -> Self {
        let database = server.database();
        let boss = format!("boss_{}", database.user);
        let settings = Settings {
            rules,
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
            message(bytes[0], self.fill(&text[5..]).as_bytes())
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

/// The shipped rules, where nobody is asked.
fn unasked() -> String {
    SHIPPED.replace("\"group:holdpoint-reviewers\"", "")
}

const WRITES: &str = r#"
[[rule]]
name = "rows"
match = { classes = ["read", "write", "session", "transaction"], effects = [], confidence = "proven" }
allow = true

[[rule]]
name = "the-rest"
deny = "not here"
"#;

async fn none_works(server: PgServer) {
    let server = Arc::new(server);
    let rules = format!("{SCRATCH}{}", unasked());
    let world = World::new(server.clone(), rules).await;
    world.none_works(all(), true).await;
    world.none_works(broken(), false).await;
    // Where all rows may be changed, settings still may not: what follows at once is judged
    // before the server says what it has set.
    let world = World::new(server, WRITES.to_owned()).await;
    world.none_works(pretended_writes(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_harm_straight_does_none_through_the_gateway() {
    if let Some(server) = need!(PgServer::start("trust"), "postgresql") {
        none_works(server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_harm_at_the_oldest_server_does_none_through_the_gateway() {
    if let Some(server) = need!(PgServer::of_version_with(13, "trust"), "PostgreSQL 13") {
        none_works(server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_harm_at_the_newest_server_does_none_through_the_gateway() {
    if let Some(server) = need!(PgServer::of_version_with(18, "trust"), "PostgreSQL 18") {
        none_works(server).await;
    }
}
