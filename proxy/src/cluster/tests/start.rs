//! What a gateway finds in a store that it cannot use, and what it says then.

use holdpoint_tests::need;

use super::*;

async fn refusal(server: &RedisServer) -> String {
    match Node::with("a", server, |_, _| {}).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_drops_what_it_holds_is_refused() {
    let settings = ["--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"];
    let Some(server) = need!(RedisServer::with(&settings), "redis-server") else {
        return;
    };
    let said = refusal(&server).await;
    assert!(
        said.contains("`allkeys-lru`") && said.contains("noeviction"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_refused() {
    let Some(server) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let copy = RedisServer::start().unwrap();
    copy.ask(&["REPLICAOF", "127.0.0.1", &server.address.port().to_string()]);
    let said = refusal(&copy).await;
    assert!(said.contains("replica"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forbids_info_in_scripts_is_explained() {
    let Some(server) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    server.ask(&[
        "ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-info",
    ]);
    let opened = Node::with("a", &server, |dir, config| {
        config.username = Some("limited".to_owned());
        config.password = Some(SecretRef::File(dir.write("password", "pw")));
    });
    let Err(error) = opened.await else {
        panic!("it started");
    };
    let said = error.to_string();
    assert!(
        said.contains("forbids INFO in scripts") && said.contains("+info"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused_without_showing_it() {
    let Some(server) = need!(
        RedisServer::with(&["--requirepass", "right"]),
        "redis-server"
    ) else {
        return;
    };
    let opened = Node::with("a", &server, |dir, config| {
        config.password = Some(SecretRef::File(dir.write("password", "hunter2")));
    });
    let Err(error) = opened.await else {
        panic!("it started");
    };
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("credentials") && !said.contains("hunter2"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_gateway_bears_is_refused_and_free_once_it_ends() {
    let Some(server) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let first = Node::start("a", &server).await;
    let said = refusal(&server).await;
    assert!(
        said.contains("another gateway is running as node `a`"),
        "{said}"
    );
    first.cluster.close().await;
    let start = Instant::now();
    Node::start("a", &server).await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_a_gateway_starts_alone_and_joins_later() {
    let Some(mut server) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let b = Node::start("b", &server).await;
    server.kill();
    let a = Node::start("a", &server).await;
    assert!(
        a.cluster
            .health()
            .unwrap_err()
            .contains("cannot be reached")
    );
    let draft = command(60);
    let session = a.hold(draft.clone()).await;
    server.restart_empty();
    shown(&b, &draft).await;
    assert_eq!(a.cluster.health(), Ok(()));
    assert_eq!(
        settled(&cast(&b, &draft, "rita", Verdict::Approve).await),
        Some("approved")
    );
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    a.reconcile();
}
