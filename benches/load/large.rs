//! One large result, read and thrown away.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use holdpoint_tests::{Database, Gateway, wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::splice::Splice;
use crate::{Args, median};

pub(crate) async fn run(
    args: &Args,
    database: &Database,
    splice: &Splice,
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let rows = args.large * 1024 * 1024 / 8000;
    let sql = format!("SELECT repeat('x', 8000) FROM generate_series(1, {rows})");
    let mut measured = [const { Vec::new() }; 4];
    for _ in 0..args.rounds {
        measured[0].push(clear(database, database.address, &sql).await?);
        measured[1].push(clear(database, splice.clear, &sql).await?);
        measured[2].push(over_tls(database, splice, &sql).await?);
        measured[3].push(through(gateway, &sql).await?);
    }
    let [direct, clear, tls, holdpoint] = measured.map(median);
    println!(
        "| {} MiB result, MB/s | direct | splice | splice with TLS | holdpoint (TLS, recorded) |",
        args.large
    );
    println!("|---|---|---|---|---|");
    println!(
        "| | {direct:.0} | {clear:.0} | {tls:.0} | {holdpoint:.0} [{:.2} of splice, {:.2} with TLS] |\n",
        holdpoint / clear,
        holdpoint / tls,
    );
    Ok(())
}

/// MB/s without TLS.
async fn clear(database: &Database, address: SocketAddr, sql: &str) -> anyhow::Result<f64> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    drain(&connect(database, stream).await?, sql).await
}

/// MB/s through the splice that ends TLS.
async fn over_tls(database: &Database, splice: &Splice, sql: &str) -> anyhow::Result<f64> {
    let stream = wire::tls(splice.tls, &splice.ca).await;
    drain(&connect(database, stream).await?, sql).await
}

async fn connect<S>(database: &Database, stream: S) -> anyhow::Result<Client>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut config = Config::new();
    config
        .user(&database.user)
        .dbname(&database.name)
        .password(&database.password)
        .ssl_mode(SslMode::Disable);
    let connected = config.connect_raw(stream, NoTls).await;
    let (client, connection) = connected.context("cannot connect")?;
    tokio::spawn(connection);
    Ok(client)
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
