//! How many statements a second one core judges, natively.
//!
//! ```text
//! cargo test --release -p holdpoint-plugin-postgres --test speed -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

use std::time::{Duration, Instant};

use holdpoint_plugin_postgres::classify;

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GENERATED: &str = include_str!("data/generated.sql");

/// What programs send. Each names another table, so that nothing is remembered.
fn ordinary(number: usize) -> String {
    let t = number;
    match number % 8 {
        0 => format!("SELECT id, name, email FROM customers_{t} WHERE id = $1"),
        1 => format!(
            "SELECT o.id, o.total, c.name FROM orders_{t} o JOIN customers c ON c.id = o.customer_id \
             WHERE o.created_at > now() - interval '7 days' AND o.status IN ('open', 'paid') \
             ORDER BY o.created_at DESC LIMIT 50"
        ),
        2 => format!("INSERT INTO events_{t} (kind, body, at) VALUES ($1, $2, now()) RETURNING id"),
        3 => format!(
            "UPDATE accounts_{t} SET balance = balance - $1, updated_at = now() WHERE id = $2"
        ),
        4 => format!("SELECT count(*) FROM sessions_{t} WHERE expires_at < now()"),
        5 => format!("DELETE FROM carts_{t} WHERE id = $1 AND owner = $2"),
        6 => format!(
            "WITH recent AS (SELECT * FROM logins_{t} WHERE at > now() - interval '1 hour') \
             SELECT user_id, count(*) FROM recent GROUP BY user_id HAVING count(*) > 5"
        ),
        _ => "BEGIN".to_owned(),
    }
}

/// The same statements with other constants: what a program sends all day.
fn repeated(number: usize) -> String {
    match number % 4 {
        0 => format!("SELECT id, name, email FROM customers WHERE id = {number}"),
        1 => format!("UPDATE accounts SET balance = balance - {number} WHERE id = {number}"),
        2 => format!("INSERT INTO events (kind, body) VALUES ('seen', 'number {number}')"),
        _ => format!(
            "SELECT o.id, o.total FROM orders o JOIN customers c ON c.id = o.customer_id \
             WHERE c.name = 'name {number}' ORDER BY o.created_at DESC LIMIT 50"
        ),
    }
}

fn rate(name: &str, texts: &[String]) {
    let fields: Vec<_> = texts
        .iter()
        .map(|text| vec![("sql".to_owned(), text.clone().into_bytes())])
        .collect();
    let (start, mut judged) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(2) {
        for field in &fields {
            let _ = std::hint::black_box(classify(field.clone()));
        }
        judged += fields.len();
    }
    let rate = judged as f64 / start.elapsed().as_secs_f64();
    let bytes: usize = texts.iter().map(String::len).sum();
    println!(
        "{name}: {rate:.0} texts/s of {} bytes on average",
        bytes / texts.len()
    );
}

#[test]
#[ignore = "a measurement, meant for --release"]
fn statements_a_second() {
    let ordinary: Vec<String> = (0..2000).map(ordinary).collect();
    let repeated: Vec<String> = (0..2000).map(repeated).collect();
    let generated: Vec<String> = GENERATED.lines().map(str::to_owned).collect();
    rate("the corpus", &generated);
    rate("ordinary statements", &ordinary);
    rate("statements that differ in constants", &repeated);
}
