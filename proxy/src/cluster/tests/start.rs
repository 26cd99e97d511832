//! What a gateway finds in a store that it cannot use, and what it says then.

use holdpoint_tests::certs::Authority;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_that_the_documentation_names_is_enough() {
    let Some(server) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let manual = include_str!("../../../../docs/several-nodes.md");
    let named = manual
        .split("or: `")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    let rights: Vec<&str> = named.split_whitespace().collect();
    assert!(rights.contains(&"+eval"), "{rights:?}");
    let account = ["ACL", "SETUSER", "holdpoint", "on", ">pw", "~hp:*", "-@all"];
    let made = server.ask(&[&account[..], &rights, &["+hello", "+client"]].concat());
    assert_eq!(made, "OK");
    let node = async |name| {
        let opened = Node::with(name, &server, |dir, config| {
            config.username = Some("holdpoint".to_owned());
            config.password = Some(SecretRef::File(dir.write("password", "pw")));
        });
        opened.await.unwrap()
    };
    works(&node("a").await, &node("b").await).await;
}

/// A vote goes from one node to the other.
async fn works(a: &Node, b: &Node) {
    let draft = command(60);
    let session = a.hold(draft.clone()).await;
    shown(b, &draft).await;
    let voted = cast(b, &draft, "rita", Verdict::Approve).await;
    assert_eq!(settled(&voted), Some("approved"), "{voted:?}");
    assert_eq!(session.await.unwrap(), Settlement::Approved);
    a.reconcile();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_carries_votes() {
    let Some(server) = need!(RedisServer::cluster(), "redis-server") else {
        return;
    };
    let node = async |name| {
        let opened = Node::with(name, &server, |_, config| {
            config.place = RedisPlace::Cluster(vec![at(server.address)]);
        });
        opened.await.unwrap()
    };
    works(&node("a").await, &node("b").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_several_shards_carries_votes_both_ways() {
    let Some(shards) = need!(RedisServer::shards(), "redis-server") else {
        return;
    };
    // Any one leads to all.
    let node = async |name, first: usize| {
        let opened = Node::with(name, &shards[first], |_, config| {
            config.place = RedisPlace::Cluster(vec![at(shards[first].address)]);
        });
        opened.await.unwrap()
    };
    let (a, b) = (node("a", 0).await, node("b", 1).await);
    works(&a, &b).await;
    works(&b, &a).await;
    // What is one node's lies with one shard, and the two nodes' with two.
    let keys = |node: &str| {
        let lies = |server: &RedisServer| server.ask(&["EXISTS", &format!("hp:{{{node}}}:lease")]);
        let places: Vec<_> = shards.iter().map(lies).collect();
        places.iter().position(|there| *there == 1).unwrap()
    };
    assert_ne!(keys("a"), keys("b"));
    a.neighbour.revoke("ada");
    until("b to have it", || b.neighbour.has("ada")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_master_before_and_after_a_failover() {
    let Some(mut old) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let sentinel = RedisServer::sentinel(&old);
    let node = async |name| {
        let opened = Node::with(name, &old, |_, config| {
            config.place = RedisPlace::Sentinel {
                master: "holdpoint".to_owned(),
                sentinels: vec![at(sentinel.address)],
            };
        });
        opened.await.unwrap()
    };
    let (a, b) = (node("a").await, node("b").await);
    works(&a, &b).await;
    let new = RedisServer::start().unwrap();
    new.ask(&["REPLICAOF", "127.0.0.1", &old.address.port().to_string()]);
    holdpoint_tests::eventually("the Sentinel to know the copy", 30, || {
        let master = sentinel
            .ask(&["SENTINEL", "REPLICAS", "holdpoint"])
            .to_string();
        (master.contains(&new.address.port().to_string()) && master.contains("\"ok\""))
            .then_some(())
    });
    holdpoint_tests::eventually("the Sentinel to fail over", 30, || {
        let said = sentinel.ask(&["SENTINEL", "FAILOVER", "holdpoint"]);
        (said == "OK").then_some(())
    });
    let port = new.address.port().to_string();
    holdpoint_tests::eventually("the copy to be the master", 30, || {
        let at = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "holdpoint"]);
        (at[1] == port.as_str()).then_some(())
    });
    old.kill();
    until("both to have found it", || {
        [&a, &b].iter().all(|node| node.cluster.health() == Ok(()))
            && new.ask(&["EXISTS", "hp:{a}:lease", "hp:{b}:lease"]) == 2
    })
    .await;
    works(&a, &b).await;
}

/// What a server needs to speak TLS at `port` as well.
fn tls(certs: &TestDir, authority: &Authority, port: u16) -> Vec<(&'static str, String)> {
    let leaf = authority.leaf(certs, "redis");
    let ca = certs.write("ca.pem", authority.pem());
    let text = |path: &std::path::Path| path.display().to_string();
    vec![
        ("tls-port", port.to_string()),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-cert-file", text(&leaf.cert)),
        ("tls-key-file", text(&leaf.key)),
        ("tls-ca-cert-file", text(&ca)),
    ]
}

fn arguments(settings: &[(&str, String)]) -> Vec<String> {
    let pair = |(key, value): &(&str, String)| [format!("--{key}"), value.clone()];
    settings.iter().flat_map(pair).collect()
}

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    free.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_the_master_they_name_are_reached_over_tls() {
    crate::app::install_crypto();
    let certs = TestDir::new("certs");
    let authority = Authority::new("holdpoint tests");
    let (port, sentinel_port) = (free_port(), free_port());
    let settings = arguments(&tls(&certs, &authority, port));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Some(server) = need!(RedisServer::with(&settings), "redis-server") else {
        return;
    };
    let lines = tls(&certs, &authority, sentinel_port).into_iter();
    let mut lines: Vec<_> = lines.map(|(key, value)| format!("{key} {value}")).collect();
    lines.push("tls-replication yes".to_owned());
    let sentinel = RedisServer::sentinel_with(port, &lines.join("\n"));
    let node = async |name, ca: &str| {
        let ca = certs.join(ca);
        Node::with(name, &server, |_, config| {
            config.place = RedisPlace::Sentinel {
                master: "holdpoint".to_owned(),
                sentinels: vec![RedisUrl {
                    tls: true,
                    port: sentinel_port,
                    ..at(sentinel.address)
                }],
            };
            config.ca = Some(ca);
        })
        .await
        .unwrap()
    };
    works(&node("a", "ca.pem").await, &node("b", "ca.pem").await).await;
    certs.write("other.pem", Authority::new("somebody else").pem());
    let stranger = node("c", "other.pem").await;
    assert!(stranger.cluster.health().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_against_the_configured_authority() {
    crate::app::install_crypto();
    let certs = TestDir::new("certs");
    let authority = Authority::new("holdpoint tests");
    let port = free_port();
    let settings = arguments(&tls(&certs, &authority, port));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let ca = certs.join("ca.pem");
    let Some(server) = need!(RedisServer::with(&settings), "redis-server") else {
        return;
    };
    let node = async |name, ca: Option<PathBuf>| {
        Node::with(name, &server, |_, config| {
            config.place = RedisPlace::Single(RedisUrl {
                tls: true,
                port,
                ..at(server.address)
            });
            config.ca = ca;
        })
        .await
    };
    works(
        &node("a", Some(ca.clone())).await.unwrap(),
        &node("b", Some(ca)).await.unwrap(),
    )
    .await;
    // By other authorities it is nobody: as good as down.
    let other = certs.write("other.pem", Authority::new("somebody else").pem());
    let stranger = node("c", Some(other)).await.unwrap();
    let said = stranger.cluster.health().unwrap_err();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

fn at(address: SocketAddr) -> RedisUrl {
    RedisUrl {
        tls: false,
        host: address.ip().to_string(),
        port: address.port(),
        db: 0,
    }
}
