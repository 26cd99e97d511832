//! Many sessions at once: what they cost while they idle, what held commands cost,
//! and how long it takes from a vote to the target.
//!
//! Clients and reviewers are this process, the target and the gateway one each, so
//! that each has its own descriptors. Every command has a number, and the target says
//! which came: a command that came twice, or before its vote, ends the run.
//!
//! `cargo bench -p holdpoint-benches --bench crowd -- --help`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at what it did not expect"
)]

mod target;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use holdpoint_tests::{Database, Gateway, PgServer, Settings};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use target::{Target, monotonic};
use tokio::task::JoinHandle;

/// Many sessions, many held commands.
#[derive(Parser)]
struct Args {
    /// Sessions that idle; 0 leaves them out
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    /// Commands held at once; each needs two descriptors of the gateway
    #[arg(long, default_value_t = 9_900)]
    held: usize,
    /// Bytes of a held command
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Votes one after the other while 1,000 commands wait
    #[arg(long, default_value_t = 300)]
    votes: usize,
    /// Clients leave once they are answered, which is work, too
    #[arg(long)]
    leave: bool,
    /// Seconds over which idleness is measured
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
    /// The child's part
    #[arg(long = "be-the-target", hide = true)]
    target: bool,
}

const RULES: &str = r#"
[[rule]]
name = "all"
match = { confidence = "proven" }
hold = { reviewers = ["group:reviewers"], expires_in = "30m" }
"#;

const LIMITS: &str = "[limits]\nmax_sessions = 20000\nmax_sessions_per_principal = 20000\n";

const HOLD: &str = r#"
inline_wait = { agent = "30m", person = "30m" }
max_hold = "30m"
max_pending = 20000
max_pending_per_principal = 20000
"#;

/// Connections that are being opened, or votes that are being cast, at a time.
const AT_A_TIME: usize = 32;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if args.target {
        return runtime.block_on(target::serve());
    }
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let server = PgServer::shared().context("PostgreSQL is missing: run `make bench`")?;
    if args.idle > 0 {
        let mut crowd = Crowd::start(server.database()).await?;
        idle(&mut crowd, args).await?;
    }
    if args.votes > 0 {
        let mut crowd = Crowd::start(server.database()).await?;
        votes(&mut crowd, args).await?;
    }
    if args.held > 0 {
        let mut crowd = Crowd::start(server.database()).await?;
        crowd.leave = args.leave;
        held(&mut crowd, args).await?;
    }
    Ok(())
}

async fn idle(crowd: &mut Crowd, args: &Args) -> anyhow::Result<()> {
    crowd.connect(1).await?;
    let before = crowd.resident()?;
    let began = Instant::now();
    crowd.connect(args.idle).await?;
    let opening = began.elapsed();
    let each = |all: u64| all.saturating_sub(before) as f64 / args.idle as f64;
    let opened = each(crowd.resident()?);
    let cpu = crowd.cpu_over(args.seconds).await?;
    let after = crowd.resident()?;
    println!(
        "{} idle sessions over TLS: {opened:.1} KiB each when opened, {:.1} KiB after {} s of quiet ({} MiB in all), {cpu:.2} % of a core, opened in {:.1} s",
        args.idle,
        each(after),
        args.seconds,
        after / 1024,
        opening.as_secs_f64()
    );
    Ok(())
}

async fn votes(crowd: &mut Crowd, args: &Args) -> anyhow::Result<()> {
    crowd.connect(1_000 + args.votes).await?;
    crowd.hold(args.bytes).await?;
    // Not the burst in which they came is measured.
    crowd.quiet().await?;
    let waiting = crowd.pending().await?;
    let mut cast = HashMap::new();
    for view in waiting.iter().take(args.votes) {
        cast.insert(number(view)?, monotonic());
        crowd.http.approve(view).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut took: Vec<u64> = Vec::new();
    for (number, at) in crowd.target.arrivals()? {
        let vote = cast
            .remove(&number)
            .with_context(|| format!("command {number} came twice, or without a vote"))?;
        took.push(at - vote);
    }
    ensure!(
        cast.is_empty(),
        "{} approved commands never came",
        cast.len()
    );
    took.sort_unstable();
    let part = |of: usize| took[took.len() * of / 100] as f64 / 1e6;
    println!(
        "vote to the target, {} pending: p50 {:.2} ms, p99 {:.2} ms ({} votes, one after the other)",
        waiting.len() - args.votes,
        part(50),
        part(99),
        args.votes
    );
    Ok(())
}

async fn held(crowd: &mut Crowd, args: &Args) -> anyhow::Result<()> {
    crowd.connect(args.held).await?;
    let began = Instant::now();
    crowd.hold(args.bytes).await?;
    let holding = began.elapsed();
    let resident = crowd.resident()?;
    let cpu = crowd.cpu_over(args.seconds).await?;
    println!(
        "{} commands of {} bytes held over TLS: {} MiB resident, {} MiB after {} s of quiet, {cpu:.2} % of a core, held within {:.1} s",
        args.held,
        args.bytes,
        resident / 1024,
        crowd.resident()? / 1024,
        args.seconds,
        holding.as_secs_f64()
    );
    ensure!(
        crowd.target.arrivals()?.is_empty(),
        "a held command went forward"
    );
    let waiting = crowd.pending().await?;
    ensure!(waiting.len() == args.held, "{} are pending", waiting.len());
    let (began, first) = (Instant::now(), monotonic());
    let mut under_way = FuturesUnordered::new();
    let mut slowest = Duration::ZERO;
    for view in &waiting {
        if under_way.len() == AT_A_TIME {
            let took: anyhow::Result<Duration> = under_way.next().await.context("no vote")?;
            slowest = slowest.max(took?);
        }
        let http = crowd.http.clone();
        under_way.push(async move {
            let began = Instant::now();
            http.approve(view).await?;
            Ok(began.elapsed())
        });
    }
    while let Some(took) = under_way.next().await {
        slowest = slowest.max(took?);
    }
    let voting = began.elapsed();
    let answered = crowd.answers().await?;
    let all = began.elapsed();
    let arrivals = crowd.target.arrivals()?;
    let last = arrivals.iter().map(|(_, at)| at - first).max().unwrap_or(0);
    let mut came: Vec<u64> = arrivals.into_iter().map(|(n, _)| n).collect();
    let total = came.len();
    came.sort_unstable();
    came.dedup();
    ensure!(came.len() == total, "a command went forward twice");
    ensure!(
        total == args.held && answered == total,
        "{total} came, {answered} were answered"
    );
    println!(
        "all approved: votes cast in {:.1} s (slowest {:.0} ms), the last one at the target after {:.1} s and answered after {:.1} s, each forwarded exactly once",
        voting.as_secs_f64(),
        slowest.as_secs_f64() * 1e3,
        last as f64 / 1e9,
        all.as_secs_f64()
    );
    Ok(())
}

/// Absent where that failed; the client, where it stays.
type Answered = Option<Option<tokio_postgres::Client>>;

/// Hundredths of a second of CPU in two seconds.
const BUSY: u64 = 50;

/// A gateway before the stand-in, and its clients.
struct Crowd {
    target: Target,
    gateway: Gateway,
    token: String,
    clients: Vec<tokio_postgres::Client>,
    running: Vec<JoinHandle<Answered>>,
    leave: bool,
    http: Reviewer,
}

impl Crowd {
    async fn start(database: Database) -> anyhow::Result<Self> {
        let target = Target::start()?;
        let settings = Settings {
            rules: RULES.to_owned(),
            hold: HOLD.to_owned(),
            more: LIMITS.to_owned(),
            journal: "segment = \"64MiB\"\n".to_owned(),
            log: "warn".to_owned(),
            tapped: false,
            ..Settings::default()
        };
        let database = Database {
            address: target.address,
            ..database
        };
        let gateway = Gateway::with(&database, settings).await;
        // The stand-in has no transcript to reconcile; numbers are checked instead.
        gateway.waive("all");
        let claims = gateway
            .issuer
            .claims("ada", "holdpoint.connect", &["agents"], 7200);
        let token = gateway.issuer.sign(&claims);
        let mut reviewer = gateway
            .issuer
            .claims("rita", "holdpoint.review", &["reviewers"], 7200);
        // A client that is its own subject would be a service, which does not review.
        reviewer["client_id"] = json!("reviewer-cli");
        let http = Reviewer {
            base: format!("http://{}", gateway.admin),
            token: gateway.issuer.sign(&reviewer),
            client: Arc::new(Http::builder(TokioExecutor::new()).build_http()),
        };
        Ok(Self {
            target,
            gateway,
            token,
            clients: Vec::new(),
            running: Vec::new(),
            leave: false,
            http,
        })
    }

    async fn connect(&mut self, count: usize) -> anyhow::Result<()> {
        let mut left = count;
        while left > 0 {
            let now = left.min(AT_A_TIME);
            let opening = (0..now).map(|_| self.gateway.tokio_postgres(&self.token));
            self.clients
                .extend(futures_util::future::join_all(opening).await);
            left -= now;
        }
        Ok(())
    }

    /// Each client sends a command of its own; returns once all are pending.
    async fn hold(&mut self, bytes: usize) -> anyhow::Result<()> {
        for (number, client) in self.clients.drain(..).enumerate() {
            let mut sql = format!("DELETE FROM crowd WHERE id = {number} AND pad = '");
            let pad = bytes.saturating_sub(sql.len() + 1);
            let _ = write!(sql, "{}'", "x".repeat(pad));
            let leave = self.leave;
            self.running.push(tokio::spawn(async move {
                let answered = client.simple_query(&sql).await.is_ok();
                answered.then_some((!leave).then_some(client))
            }));
        }
        let wanted = self.running.len();
        for _ in 0..1200 {
            if self.http.count("holdpoint_approvals_pending").await? == wanted {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("{wanted} commands are not pending after two minutes");
    }

    /// How many clients were answered.
    async fn answers(&mut self) -> anyhow::Result<usize> {
        let mut count = 0;
        for running in self.running.drain(..) {
            let answered = running.await?;
            count += usize::from(answered.is_some());
            self.clients.extend(answered.flatten());
        }
        Ok(count)
    }

    async fn pending(&self) -> anyhow::Result<Vec<Value>> {
        let list = self
            .http
            .call(Method::GET, "/v1/approvals?state=pending", Bytes::new())
            .await?;
        let list: Value = serde_json::from_slice(&list)?;
        Ok(list["approvals"].as_array().cloned().unwrap_or_default())
    }

    /// KiB that are the gateway's alone or its part of what is shared (`Pss`): the
    /// sessions of a plugin share the pages of its image, which `VmRSS` counts for each.
    fn resident(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.gateway.pid());
        let rollup = std::fs::read_to_string(path)?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no Pss")?;
        Ok(kib.trim().parse()?)
    }

    /// The gateway's CPU so far, in hundredths of a second on every Linux.
    fn ticks(&self) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.gateway.pid()))?;
        let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields 14 and 15, counted from 1; two stand before the name's end.
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }

    /// Waits until what opening and holding left to do is done; heartbeats are not that much.
    async fn quiet(&self) -> anyhow::Result<()> {
        let by = Instant::now() + Duration::from_secs(60);
        let mut before = self.ticks()?;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = self.ticks()?;
            if now - before < BUSY || Instant::now() > by {
                return Ok(());
            }
            before = now;
        }
    }

    /// Percent of one core, once it is quiet.
    async fn cpu_over(&self, seconds: u64) -> anyhow::Result<f64> {
        self.quiet().await?;
        let before = self.ticks()?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok((self.ticks()? - before) as f64 / seconds as f64)
    }
}

/// The command's number, from what reviewers are shown.
fn number(view: &Value) -> anyhow::Result<u64> {
    let text = view["shown"]["text"].as_str().context("no text")?;
    let (_, rest) = text.split_once("id = ").context("no number")?;
    Ok(rest.split(' ').next().unwrap_or_default().parse()?)
}

#[derive(Clone)]
struct Reviewer {
    base: String,
    token: String,
    client: Arc<Http<HttpConnector, Full<Bytes>>>,
}

impl Reviewer {
    async fn approve(&self, view: &Value) -> anyhow::Result<()> {
        let id = view["id"].as_str().context("no id")?;
        let body = json!({ "decision": "approve", "digest": view["digest"] });
        let path = format!("/v1/approvals/{id}/decision");
        self.call(Method::POST, &path, body.to_string().into())
            .await?;
        Ok(())
    }

    async fn count(&self, name: &str) -> anyhow::Result<usize> {
        let text = self.call(Method::GET, "/metrics", Bytes::new()).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.context("no such metric")?.parse()?)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(body))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        Ok(bytes)
    }
}
