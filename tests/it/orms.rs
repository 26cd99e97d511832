//! ORMs under the rules as shipped: nothing that one does to set itself up is held or refused.
//!
//! The programs are in `tests/drivers`. Each connects, looks at the tables that are there, and
//! at their columns and keys, makes tables of its own by its migrations, and writes and reads
//! a row. Only what changes tables or rows is allowed by a rule of its own here.

use std::process::Command;

use holdpoint_tests::needs::{self, workspace};
use holdpoint_tests::{Gateway, PgServer, Settings, need};

use crate::drivers::{day, node, python};

const SHIPPED: &str = include_str!("../../policies/postgres.toml");

/// For tables `orm_*` alone; numbers of their rows come from sequences.
const OWN: &str = r#"
[[rule]]
name = "own-tables"
match = { classes = ["ddl", "write"], objects = ["orm_*", "ix_orm_*"], confidence = "proven" }
allow = true

[[rule]]
name = "own-numbers"
match = { classes = ["function_effect"], functions = ["nextval"], text = "orm_", confidence = "proven" }
allow = true
"#;

/// What each program says.
const SAID: &str = "\
tables invoices victims
columns id customer amount
key id
rows 3
rows 3
note 1 changed 0
";

/// Those of one language share a gateway and a database, one after the other.
async fn work(programs: Vec<(&str, Option<Command>)>) {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let settings = Settings {
        rules: format!(
            "{OWN}{}",
            SHIPPED.replace("holdpoint-reviewers", "reviewers")
        ),
        ..Settings::default()
    };
    let database = server.database();
    let gateway = Gateway::with(&database, settings).await;
    for (orm, command) in programs {
        let Some(command) = command else { continue };
        assert_eq!(day(&gateway, orm, command, false).await, SAID, "{orm}");
        let made = database.value("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'orm%'");
        assert_ne!(made, "0", "{orm}");
        let drop = "DO $$ DECLARE name text; BEGIN \
            FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'orm%' \
            LOOP EXECUTE format('DROP TABLE %I CASCADE', name); END LOOP; END $$";
        database.direct().run(drop).unwrap_done();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_with_alembic_and_django_work() {
    let orms = ["sqlalchemy", "django"];
    work(orms.map(|orm| (orm, python("orms.py", orm))).into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequelize_knex_typeorm_and_prisma_work() {
    let orms = ["sequelize", "knex", "typeorm", "prisma"];
    let command = |orm| {
        let mut command = node("orms.mjs")?;
        command.arg(orm);
        Some(command)
    };
    work(orms.map(|orm| (orm, command(orm))).into()).await;
}

/// Only where a JDK and Maven are already there, as with pgjdbc.
#[tokio::test(flavor = "multi_thread")]
async fn hibernate_works() {
    let jars = workspace().join("target/hibernate");
    let there = jars.join("pom.xml").is_file();
    let jdk = [needs::program("java"), needs::program("javac")];
    let ([Some(java), Some(_)], true) = (jdk, there) else {
        eprintln!("skipped: there is no JDK, or no Maven to have got Hibernate with");
        return;
    };
    let mut command = Command::new(java);
    command.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp"]);
    command
        .arg(jars.join("*"))
        .arg(workspace().join("tests/drivers/hibernate/Orm.java"));
    work(vec![("hibernate", Some(command))]).await;
}
