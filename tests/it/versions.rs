//! The oldest and the newest PostgreSQL that are served; the distribution's is everywhere else.

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::{Gateway, PgServer, eventually, need};
use hyper::StatusCode;

async fn smoke(server: PgServer, major: &str) {
    let database = Arc::new(server).database();
    assert_eq!(
        database.value("SELECT current_setting('server_version_num')::int / 10000"),
        major
    );
    let gateway = Gateway::start(&database).await;
    let rita = gateway.reviewer("rita");

    let done = gateway
        .psql()
        .run("SELECT customer FROM invoices ORDER BY id");
    assert_eq!(done.stdout, "ada\nbob\ncyd\n", "{}", done.stderr);
    let done = gateway.psql().run("COPY invoices (id) TO STDOUT");
    assert_eq!(done.stdout, "1\n2\n3\n", "{}", done.stderr);
    let (through, direct) = (gateway.psql(), database.direct());
    for sql in ["SELECT * FROM absent", "SELECT 1 / 0"] {
        assert_eq!(through.run(sql).stderr, direct.run(sql).stderr);
    }

    let client = gateway.tokio_postgres(&gateway.agent("ada")).await;
    let row = client.query_one("SELECT 1 + $1::int4", &[&6i32]).await;
    assert_eq!(row.unwrap().get::<_, i32>(0), 7);
    let error = client.query("SELECT 1 / $1::int", &[&0i32]).await;
    assert_eq!(error.unwrap_err().code().unwrap().code(), "22012");
    let approval = async {
        let view = rita.pending("DELETE FROM victims").await;
        assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    };
    let held = client.execute("DELETE FROM victims WHERE id = $1", &[&2i32]);
    let (done, ()) = tokio::join!(held, approval);
    assert_eq!(done.unwrap(), 1);
    assert_eq!(database.value("SELECT count(*) FROM victims"), "1");

    // Cancelled where it runs. Even a read may take its time.
    let long = "SELECT count(*) FROM generate_series(1, 10000000000)";
    let psql = gateway.psql().start(&[long]);
    eventually("the query", 10, || {
        gateway.tap.saw("10000000000").then_some(())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    psql.signal("INT");
    let done = psql.wait();
    assert!(done.stderr.contains("canceling"), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_server_is_served() {
    if let Some(server) = need!(PgServer::of_version(13), "PostgreSQL 13") {
        smoke(server, "13").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_server_is_served() {
    if let Some(server) = need!(PgServer::of_version(18), "PostgreSQL 18") {
        smoke(server, "18").await;
    }
}
