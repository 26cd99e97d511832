//! `holdpoint doctor`, and what `check` says of accounts.

use holdpoint_tests::{Database, Gateway, PgServer, Settings, need};
use serde_json::Value;

async fn prepared() -> Option<(Gateway, Database)> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let database = server.database();
    let gateway = Gateway::prepare(&database, Settings::default()).await;
    Some((gateway, database))
}

/// Exit code and findings, each as `STATE WHAT: SAYS`.
fn doctor(gateway: &Gateway) -> (Option<i32>, Vec<String>) {
    let done = gateway.holdpoint(&["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&done.stderr));
    });
    let findings = said["findings"].as_array().unwrap().iter().map(|one| {
        let word = |key: &str| one[key].as_str().unwrap().to_owned();
        format!("{} {}: {}", word("state"), word("what"), word("says"))
    });
    (done.status.code(), findings.collect())
}

#[track_caller]
fn says(findings: &[String], start: &str, part: &str) {
    let hit = findings
        .iter()
        .any(|one| one.starts_with(start) && one.contains(part));
    assert!(hit, "{start} … {part}: {findings:#?}");
}

fn as_superuser(database: &Database, sql: &str) {
    let psql = database.server.superuser(&database.name);
    psql.run(&sql.replace("{role}", &database.user))
        .unwrap_done();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_too_much_is_named_with_what_it_may() {
    let Some((gateway, database)) = prepared().await else {
        return;
    };
    // Of the harness's making: the account owns its database and its tables.
    let (code, findings) = doctor(&gateway);
    assert_eq!(code, Some(0), "{findings:#?}");
    says(&findings, "ok configuration", "1 targets");
    says(&findings, "ok issuer tests", "1 keys");
    says(
        &findings,
        "warning target shop",
        &format!(
            "owns databases: it can drop them and change their settings: {}",
            database.name
        ),
    );
    says(
        &findings,
        "warning target shop",
        "owns tables: it can drop them, add triggers, and switch row security off: 2 in public",
    );
    says(&findings, "ok journal", "MiB free");

    as_superuser(
        &database,
        &format!(
            "ALTER DATABASE {} OWNER TO postgres; ALTER TABLE invoices OWNER TO postgres; \
             ALTER TABLE victims OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            database.name
        ),
    );
    let (code, findings) = doctor(&gateway);
    assert_eq!(code, Some(0));
    says(&findings, "ok target shop", "may do nothing it should not");

    for (grant, undo, part) in [
        (
            "ALTER ROLE {role} SUPERUSER",
            "ALTER ROLE {role} NOSUPERUSER",
            "is a superuser",
        ),
        (
            "ALTER ROLE {role} CREATEROLE BYPASSRLS",
            "ALTER ROLE {role} NOCREATEROLE NOBYPASSRLS",
            "agents do not need: CREATEROLE, BYPASSRLS",
        ),
        (
            "GRANT pg_write_server_files TO {role}",
            "REVOKE pg_write_server_files FROM {role}",
            "roles of the server itself: pg_write_server_files",
        ),
        (
            "GRANT CREATE ON SCHEMA public TO {role}",
            "REVOKE CREATE ON SCHEMA public FROM {role}",
            "may create functions and operators where others look them up by name: public",
        ),
        (
            "CREATE SCHEMA mine AUTHORIZATION {role}",
            "DROP SCHEMA mine",
            "owns schemas: mine",
        ),
        (
            "CREATE FUNCTION public.root() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "DROP FUNCTION public.root()",
            "may call functions that run as a superuser: public.root",
        ),
    ] {
        as_superuser(&database, grant);
        let (code, findings) = doctor(&gateway);
        assert_eq!(code, Some(0), "a warning is no failure: {grant}");
        says(&findings, "warning target shop", part);
        let warnings = findings
            .iter()
            .filter(|one| one.starts_with("warning target"));
        assert_eq!(warnings.count(), 1, "{grant}: {findings:#?}");
        as_superuser(&database, undo);
    }

    as_superuser(&database, "ALTER ROLE {role} SUPERUSER");
    let checked = |more: &[&str]| {
        let done = gateway.holdpoint(&[&["check"], more].concat());
        assert!(done.status.success());
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let warned = "target shop: the account";
    assert!(checked(&[]).contains(warned), "{}", checked(&[]));
    assert!(!checked(&["--offline"]).contains(warned));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_a_failure() {
    let Some((gateway, database)) = prepared().await else {
        return;
    };
    gateway.rewrite("upstream-password", "not it");
    let (code, findings) = doctor(&gateway);
    assert_eq!(code, Some(1));
    says(
        &findings,
        "failed target shop",
        "password authentication failed",
    );
    assert!(!findings.concat().contains(&database.password));

    let config = gateway.read("holdpoint.toml");
    let nobody = config.replace(&gateway.issuer.url(), "http://127.0.0.1:9");
    gateway.rewrite("holdpoint.toml", &nobody);
    says(&doctor(&gateway).1, "failed issuer tests", "");

    gateway.rewrite("holdpoint.toml", "nonsense");
    let (code, findings) = doctor(&gateway);
    assert_eq!((code, findings.len()), (Some(1), 1), "{findings:#?}");
    says(&findings, "failed configuration", "holdpoint.toml");
}
