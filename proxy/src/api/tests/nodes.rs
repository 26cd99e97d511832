//! What concerns all nodes, of which one answers and one does not.

use crate::approvals::{Errand, NoAnswer, Others};

use super::*;

/// Node `b` has session 2 and a window, and does what it is asked; node `c` is silent if it
/// is there.
struct Two {
    silent: bool,
    done: Mutex<Vec<Errand>>,
}

impl Others for Two {
    fn names(&self) -> Vec<String> {
        let names = ["b".to_owned(), "c".to_owned()];
        names
            .into_iter()
            .take(1 + usize::from(self.silent))
            .collect()
    }

    fn ask<'a>(&'a self, node: &'a str, errand: Errand) -> Later<'a, Result<Value, NoAnswer>> {
        if node == "c" {
            return Box::pin(async { Err(NoAnswer("no answer within 5s".to_owned())) });
        }
        self.done.lock().unwrap().push(errand.clone());
        let theirs = SessionId::from_random(2);
        let said = match errand {
            Errand::Sessions => json!([{
                "id": theirs.to_string(), "target": "shop", "protocol": "postgres", "commands": 3,
                "source": "192.0.2.1:5", "opened_at": "2026-05-01T10:00:00Z",
                "principal": PrincipalView::from(&principal("ada")),
            }]),
            Errand::Windows | Errand::Reviews => json!([]),
            Errand::Kill { session, .. } => json!(session == theirs),
            Errand::EndWindow { .. } => json!(false),
            Errand::Revoke { .. } => json!({"sessions": 2, "approvals": 1, "warning": null}),
            Errand::Prove { .. } => json!(null),
        };
        Box::pin(async move { Ok(said) })
    }
}

async fn gateway(silent: bool) -> (Gateway, Arc<Two>) {
    let two = Arc::new(Two {
        silent,
        done: Mutex::default(),
    });
    (Gateway::beside(Some(two.clone())).await, two)
}

#[tokio::test]
async fn sessions_and_windows_are_those_of_all_nodes_and_the_silent_ones_are_named() {
    let (gateway, _) = gateway(true).await;
    let get = async |path| {
        gateway
            .json("GET", path, "review-rita", Value::Null)
            .await
            .1
    };
    let listed = get("/v1/sessions").await;
    assert_eq!(
        (
            &listed["sessions"][0]["node"],
            &listed["sessions"][0]["commands"]
        ),
        (&json!("b"), &json!(3)),
        "{listed}"
    );
    assert_eq!(listed["missing"], json!(["c"]));
    let listed = get("/v1/windows").await;
    assert_eq!(
        (&listed["windows"], &listed["missing"]),
        (&json!([]), &json!(["c"]))
    );
}

#[tokio::test]
async fn a_session_of_another_node_ends_and_one_that_nobody_may_have_is_not_called_gone() {
    let path = |id: u128| format!("/v1/sessions/{}/kill", SessionId::from_random(id));
    for silent in [false, true] {
        let (gateway, two) = gateway(silent).await;
        let kill = async |id| {
            gateway
                .json("POST", &path(id), "review-rita", Value::Null)
                .await
        };
        let (status, here) = kill(1).await;
        assert_eq!((status, &here["node"]), (200, &Value::Null));
        assert!(two.done.lock().unwrap().is_empty(), "it was here");
        let (status, there) = kill(2).await;
        assert_eq!((status, &there["node"]), (200, &json!("b")));
        let (status, nowhere) = kill(3).await;
        let expected = if silent {
            (503, "HP-STORE")
        } else {
            (404, "HP-NOT-FOUND")
        };
        assert_eq!(
            (status, nowhere["code"].as_str().unwrap()),
            expected,
            "{nowhere}"
        );
        let end = "/v1/windows/hp-000000000000/revoke";
        let (status, _) = gateway.json("POST", end, "review-rita", Value::Null).await;
        assert_eq!(status, expected.0);
    }
}

#[tokio::test]
async fn a_revocation_says_what_it_ended_where_and_who_has_not_answered() {
    let (gateway, two) = gateway(true).await;
    let whom = json!({ "issuer": "https://issuer.example", "subject": "agent" });
    let (status, done) = gateway
        .json("POST", "/v1/revoke", "review-rita", whom)
        .await;
    assert_eq!((status, &done["sessions"]), (200, &json!(1)), "{done}");
    assert_eq!(
        done["nodes"],
        json!([
            {"node": "b", "done": true, "sessions": 2, "approvals": 1},
            {"node": "c", "done": false, "sessions": 0, "approvals": 0,
             "warning": "no answer within 5s"},
        ])
    );
    let asked = two.done.lock().unwrap().clone();
    assert_eq!(
        asked,
        [Errand::Revoke {
            identity: identity("agent"),
            by: identity("rita"),
        }]
    );
}
