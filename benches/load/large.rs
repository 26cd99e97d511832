//! One large result, read and thrown away.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use holdpoint_tests::{Database, Gateway};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::{Args, median};

pub(crate) async fn run(
    args: &Args,
    database: &Database,
    splice: SocketAddr,
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let rows = args.large * 1024 * 1024 / 8000;
    let sql = format!("SELECT repeat('x', 8000) FROM generate_series(1, {rows})");
    let mut measured = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..args.rounds {
        measured[0].push(clear(database, database.address, &sql).await?);
        measured[1].push(clear(database, splice, &sql).await?);
        measured[2].push(through(gateway, &sql).await?);
    }
    let [direct, splice, holdpoint] = measured.map(median);
    println!(
        "| {} MiB result, MB/s | direct | splice | holdpoint (TLS, recorded) |",
        args.large
    );
    println!("|---|---|---|---|");
    println!(
        "| | {direct:.0} | {splice:.0} | {holdpoint:.0} [{:.2} of splice] |\n",
        holdpoint / splice
    );
    Ok(())
}

/// MB/s without TLS.
async fn clear(database: &Database, address: SocketAddr, sql: &str) -> anyhow::Result<f64> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(address.port());
    config
        .user(&database.user)
        .dbname(&database.name)
        .password(&database.password);
    let (client, connection) = config.connect(NoTls).await.context("cannot connect")?;
    tokio::spawn(connection);
    drain(&client, sql).await
}

/// MB/s through holdpoint.
async fn through(gateway: &Gateway, sql: &str) -> anyhow::Result<f64> {
    let claims = gateway
        .issuer
        .claims("ada", "holdpoint.connect", &["agents"], 7200);
    let client = gateway.tokio_postgres(&gateway.issuer.sign(&claims)).await;
    drain(&client, sql).await
}

async fn drain(client: &Client, sql: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut stream = pin!(client.simple_query_raw(sql).await?);
    let mut bytes = 0;
    while let Some(message) = stream.next().await {
        if let SimpleQueryMessage::Row(row) = message? {
            bytes += row.get(0).map_or(0, str::len);
        }
    }
    ensure!(bytes > 0, "no rows came");
    Ok(bytes as f64 / began.elapsed().as_secs_f64() / 1e6)
}
