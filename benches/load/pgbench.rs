//! Point reads by pgbench.

use std::process::Command;

use anyhow::{Context as _, bail};
use holdpoint_tests::Database;
use holdpoint_tests::needs::postgres_program;

use crate::{Args, Way, median};

pub(crate) fn prepare(database: &Database) -> anyhow::Result<()> {
    let way = crate::direct(database);
    let done = command(&way)?.args(["-i", "-q", "-s", "5"]).output()?;
    if !done.status.success() {
        bail!("pgbench -i: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

pub(crate) fn run(args: &Args, ways: &[Way]) -> anyhow::Result<()> {
    println!(
        "| pgbench -S, transactions/s | clients | {} |",
        names(ways).join(" | ")
    );
    println!("|---|---|{}", "---|".repeat(ways.len()));
    for mode in ["simple", "prepared"] {
        for &clients in &args.clients {
            let mut measured = vec![Vec::new(); ways.len()];
            for _ in 0..args.rounds {
                for (way, results) in ways.iter().zip(&mut measured) {
                    results.push(once(way, mode, clients, args.seconds)?);
                }
            }
            let medians: Vec<f64> = measured.into_iter().map(median).collect();
            let bouncer = ways
                .iter()
                .position(|way| way.name == "PgBouncer")
                .map_or(f64::NAN, |at| medians[at]);
            let cells: Vec<_> = medians
                .iter()
                .map(|tps| format!("{tps:.0} [{:.2}]", tps / bouncer))
                .collect();
            println!("| {mode} | {clients} | {} |", cells.join(" | "));
        }
    }
    println!();
    Ok(())
}

fn names(ways: &[Way]) -> Vec<&'static str> {
    ways.iter().map(|way| way.name).collect()
}

/// Transactions a second, without the time to connect.
fn once(way: &Way, mode: &str, clients: u32, seconds: u32) -> anyhow::Result<f64> {
    let done = command(way)?
        .args([
            "-S",
            "-n",
            "-M",
            mode,
            "-c",
            &clients.to_string(),
            "-j",
            &clients.min(2).to_string(),
        ])
        .args(["-T", &seconds.to_string()])
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
    tps.with_context(|| format!("pgbench printed no tps: {said}"))
}

fn command(way: &Way) -> anyhow::Result<Command> {
    let program = postgres_program("pgbench").context("pgbench is missing: run `make bench`")?;
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").envs(&way.env);
    Ok(command)
}
