//! What a Rust program with sqlx does in a day, through one connection. What each
//! line must say is in tests/it/drivers.rs.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

type Failure = Box<dyn std::error::Error>;

/// The SQLSTATE of what must fail.
fn code<T>(result: Result<T, sqlx::Error>) -> String {
    let error = result.err().and_then(sqlx::Error::into_database_error);
    let code = error.and_then(|error| error.code().map(|code| code.into_owned()));
    code.unwrap_or_else(|| "none".to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name);
    let mut client = PgConnectOptions::new_without_pgpass()
        .host(&variable("PGHOST")?)
        .port(variable("PGPORT")?.parse()?)
        .username("agent")
        .password(&variable("PGPASSWORD")?)
        .database("shop")
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(variable("HOLDPOINT_CA")?)
        .connect()
        .await?;
    let count = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM scratch");
    let insert = |n: i32| sqlx::query("INSERT INTO scratch VALUES ($1)").bind(n);
    let delete = || sqlx::query("DELETE FROM victims");

    // In the simple protocol; all else is prepared, described, kept and read in binary.
    let rows = sqlx::raw_sql("SELECT id FROM invoices").fetch_all(&mut client);
    println!("rows {}", rows.await?.len());
    let mut sums = Vec::new();
    for value in [2, 5] {
        let add = sqlx::query_scalar::<_, i32>("SELECT $1::int + 10").bind(value);
        sums.push(add.fetch_one(&mut client).await?.to_string());
    }
    println!("prepared {}", sums.join(" "));
    let mut transaction = client.begin().await?;
    insert(1).execute(&mut *transaction).await?;
    transaction.commit().await?;
    let mut transaction = client.begin().await?;
    insert(2).execute(&mut *transaction).await?;
    transaction.rollback().await?;
    println!("scratch {}", count().fetch_one(&mut client).await?);
    let mut transaction = client.begin().await?;
    let failed = sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await;
    println!("error {}", code(failed));
    // Rolled back when the connection is used next.
    drop(transaction);
    let large = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    let rows: Vec<String> = sqlx::query_scalar(large).fetch_all(&mut client).await?;
    println!("large {}", rows.iter().map(String::len).sum::<usize>());
    let held = sqlx::query("UPDATE invoices SET amount = amount + $1::int WHERE id = 1").bind(5);
    println!("held {}", held.execute(&mut client).await?.rows_affected());
    println!("denied {}", code(delete().execute(&mut client).await));
    let mut transaction = client.begin().await?;
    println!("denied inside {}", code(delete().execute(&mut *transaction).await));
    transaction.rollback().await?;
    let mut transaction = client.begin().await?;
    insert(3).execute(&mut *transaction).await?;
    code(delete().execute(&mut *transaction).await);
    transaction.commit().await?;
    println!("given up {}", count().fetch_one(&mut client).await?);
    let seven: i32 = sqlx::query_scalar("SELECT 7").fetch_one(&mut client).await?;
    println!("usable {seven}");
    let both = sqlx::query_as::<_, (Vec<u8>, i64)>("SELECT $1::bytea, $2::int8")
        .bind(&b"\0\xff\x7f"[..])
        .bind(9_007_199_254_740_993_i64);
    let (data, number) = both.fetch_one(&mut client).await?;
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("binary {hex} {number}");
    client.close().await?;
    Ok(())
}
