//! The process dies at each point of a held command's way. Afterwards the target
//! has seen the command at most once, the journal is whole, and what nobody can
//! know is said to be unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use holdpoint_tests::{Gateway, PgServer, Settings, need};

/// Where it dies, how often the target sees the command, and whether its end is
/// unknown: by luck where the record of the result is on its way.
const POINTS: &[(&str, usize, Option<bool>)] = &[
    ("P0", 0, Some(false)), // before the hold is recorded
    ("P1", 0, Some(false)), // after that, before reviewers are told
    ("P2", 0, Some(false)), // a vote has come and is not recorded
    ("P3", 0, Some(false)), // the approval is recorded
    ("P4", 0, Some(true)),  // the intent is recorded, no byte was sent
    ("P5", 1, Some(true)),  // the bytes were sent
    ("P6", 1, Some(true)),  // the target has answered, the result is not recorded
    ("P7", 1, None),        // the answer is recorded, the client was not told
];

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_forwards_at_most_once_and_resumes_nothing() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    for (point, forwards, unknown) in POINTS {
        let env = BTreeMap::from([("HOLDPOINT_CRASH_AT".to_owned(), (*point).to_owned())]);
        let settings = Settings {
            env,
            ..Settings::default()
        };
        let mut gateway = Gateway::with(&server.database(), settings).await;
        let sql = "DELETE FROM victims WHERE id = 1";
        let psql = gateway.psql().start(&[sql]);
        let rita = gateway.reviewer("rita");
        if !["P0", "P1"].contains(point) {
            let view = rita.pending(sql).await;
            // The answer may be lost with the process.
            let _ = tokio::time::timeout(
                Duration::from_secs(5),
                tokio::spawn(async move { rita.approve(&view).await }),
            )
            .await;
        }
        gateway.wait_exit(20);
        psql.wait();
        // A killed process does not end the target's work at once.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(gateway.tap.count(sql), *forwards, "{point}");

        gateway.forget_env();
        gateway.spawn();
        gateway.wait_ready().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(
            gateway.tap.count(sql),
            *forwards,
            "{point}: sent again after the restart"
        );
        gateway.stop();
        let verified =
            gateway.holdpoint(&["verify", &gateway.journal().display().to_string(), "--json"]);
        let report = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(
            verified.status.success(),
            "{point}: {report}{}",
            String::from_utf8_lossy(&verified.stderr)
        );
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let alarms = report["unknown"].as_array().map_or(0, Vec::len);
        assert!(
            unknown.is_none_or(|unknown| unknown == (alarms > 0)),
            "{point}: {report}"
        );
    }
}
