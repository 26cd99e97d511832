//! What the page about PostgreSQL says of what no parser can prove, and of the account that
//! bounds it.

use holdpoint_tests::{Gateway, PgServer, Settings, need, wire};
use tokio::io::AsyncWriteExt as _;

use super::tricks::q;
use super::unasked;

const DOC: &str = include_str!("../../../docs/postgres.md");

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
            rules: unasked(),
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
    }
    // Its own look says nothing against that account.
    let gateway = Gateway::prepare(&account, Settings::default()).await;
    let done = gateway.holdpoint(&["doctor", "--json"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let well = format!("`{}` may do nothing it should not", account.user);
    assert!(said.contains(&well), "{said}");
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
