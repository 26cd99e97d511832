//! Point reads by pgbench.

use std::process::Command;

use anyhow::{Context as _, bail};
use holdpoint_tests::needs::postgres_program;
use holdpoint_tests::{Database, TestDir};

use crate::{Args, Way, median};

pub(crate) fn prepare(database: &Database) -> anyhow::Result<()> {
    let way = crate::direct(database);
    let done = command(&way)?.args(["-i", "-q", "-s", "5"]).output()?;
    if !done.status.success() {
        bail!("pgbench -i: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// Medians of the rounds: transactions a second, and what one takes.
struct Measured {
    tps: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

pub(crate) fn run(args: &Args, ways: &[Way]) -> anyhow::Result<()> {
    let mut latencies = Vec::new();
    heading("pgbench -S, transactions/s", ways);
    for mode in &args.modes {
        for &clients in &args.clients {
            let mut measured: Vec<_> = ways.iter().map(|_| Measured::default()).collect();
            for _ in 0..args.rounds {
                for (way, results) in ways.iter().zip(&mut measured) {
                    once(way, mode, clients, args.seconds)?.join(results);
                }
            }
            let rows: Vec<_> = measured.into_iter().map(Measured::medians).collect();
            let of = |name| ways.iter().position(|way| way.name == name);
            let bouncer = of("PgBouncer").map_or(f64::NAN, |at| rows[at].0);
            let cells = rows
                .iter()
                .map(|(tps, ..)| format!("{tps:.0} [{:.2}]", tps / bouncer));
            line(mode, clients, cells);
            let direct = of("direct").map_or(f64::NAN, |at| rows[at].2);
            let cells: Vec<_> = rows
                .iter()
                .map(|(_, p50, p99)| format!("{p50:.0}, {p99:.0} [{:+.0}]", p99 - direct))
                .collect();
            latencies.push((mode, clients, cells));
        }
    }
    println!();
    heading("p50, p99 of a transaction, µs [p99 added to direct]", ways);
    for (mode, clients, cells) in latencies {
        line(mode, clients, cells.into_iter());
    }
    println!();
    Ok(())
}

fn heading(what: &str, ways: &[Way]) {
    let names: Vec<_> = ways.iter().map(|way| way.name).collect();
    println!("| {what} | clients | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(ways.len()));
}

fn line(mode: &str, clients: u32, cells: impl Iterator<Item = String>) {
    let cells: Vec<_> = cells.collect();
    println!("| {mode} | {clients} | {} |", cells.join(" | "));
}

impl Default for Measured {
    fn default() -> Self {
        let (tps, p50, p99) = (Vec::new(), Vec::new(), Vec::new());
        Self { tps, p50, p99 }
    }
}

/// One run of pgbench.
struct Run {
    /// Without the time to connect.
    tps: f64,
    /// Microseconds of some of the transactions, in rising order.
    taken: Vec<f64>,
}

impl Run {
    fn join(self, to: &mut Measured) {
        let at = |part: f64| {
            let index = (self.taken.len() as f64 * part) as usize;
            self.taken.get(index).copied().unwrap_or(f64::NAN)
        };
        to.tps.push(self.tps);
        to.p50.push(at(0.5));
        to.p99.push(at(0.99));
    }
}

impl Measured {
    fn medians(self) -> (f64, f64, f64) {
        (median(self.tps), median(self.p50), median(self.p99))
    }
}

fn once(way: &Way, mode: &str, clients: u32, seconds: u32) -> anyhow::Result<Run> {
    let dir = TestDir::new("pgbench");
    let done = command(way)?
        .args(["-S", "-n", "-M", mode, "-c", &clients.to_string()])
        .args(["-j", &clients.min(2).to_string()])
        .args(["-T", &seconds.to_string()])
        .args(["-l", "--sampling-rate=0.2", "--log-prefix"])
        .arg(dir.path().join("log"))
        .output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!(
            "pgbench through {}: {said}{}",
            way.name,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let tps = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let tps = tps.with_context(|| format!("pgbench printed no tps: {said}"))?;
    let mut taken = Vec::new();
    for log in std::fs::read_dir(dir.path())? {
        let text = std::fs::read_to_string(log?.path())?;
        // client, transaction, microseconds, …
        let times = text.lines().filter_map(|line| line.split(' ').nth(2));
        taken.extend(times.filter_map(|time| time.parse::<f64>().ok()));
    }
    taken.sort_by(f64::total_cmp);
    Ok(Run { tps, taken })
}

fn command(way: &Way) -> anyhow::Result<Command> {
    let program = postgres_program("pgbench").context("pgbench is missing: run `make bench`")?;
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").envs(&way.env);
    Ok(command)
}
