//! What the account may do that holdpoint uses at a PostgreSQL target.
//!
//! A rule can only hold what the gateway sees. What runs inside of the server (functions,
//! triggers, views) is bounded by the account alone, so an account that may do more than
//! its agents need is worth a word. Everything asked here is a read of the catalog.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdpoint_core::config::{Target, UpstreamTls};
use holdpoint_core::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::transport::{ClientTls, Duplex};

/// For one target, all questions together.
const PATIENCE: Duration = Duration::from_secs(10);

/// `SSLRequest` of the protocol's start.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Each question answers with the names of what is wrong, in its only column.
const QUESTIONS: [(&str, &str, &str); 8] = [
    (
        "SELECT 'superuser' FROM pg_catalog.pg_roles \
         WHERE rolname OPERATOR(pg_catalog.=) current_user AND rolsuper",
        "is a superuser: no permission of the server bounds it, and it can write the server's files",
        "ALTER ROLE … NOSUPERUSER, or give the target an account of its own",
    ),
    (
        "SELECT unnest(ARRAY[CASE WHEN rolcreaterole THEN 'CREATEROLE' END, \
         CASE WHEN rolcreatedb THEN 'CREATEDB' END, \
         CASE WHEN rolreplication THEN 'REPLICATION' END, \
         CASE WHEN rolbypassrls THEN 'BYPASSRLS' END]) FROM pg_catalog.pg_roles \
         WHERE rolname OPERATOR(pg_catalog.=) current_user AND NOT rolsuper",
        "has attributes that agents do not need",
        "ALTER ROLE … NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS",
    ),
    (
        "SELECT r.rolname FROM pg_catalog.pg_roles r, pg_catalog.pg_roles me \
         WHERE me.rolname OPERATOR(pg_catalog.=) current_user AND NOT me.rolsuper \
         AND pg_catalog.pg_has_role(me.oid, r.oid, 'member') \
         AND r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_write_server_files', \
         'pg_read_server_files', 'pg_execute_server_program', 'pg_write_all_data', \
         'pg_signal_backend', 'pg_checkpoint', 'pg_create_subscription', \
         'pg_maintain']::pg_catalog.name[])",
        "is a member of roles of the server itself",
        "REVOKE those roles from it; files and programs of the server are never an agent's",
    ),
    (
        "SELECT d.datname FROM pg_catalog.pg_database d, pg_catalog.pg_roles me \
         WHERE me.rolname OPERATOR(pg_catalog.=) current_user \
         AND d.datdba OPERATOR(pg_catalog.=) me.oid",
        "owns databases: it can drop them and change their settings",
        "ALTER DATABASE … OWNER TO an account that nobody logs in with",
    ),
    (
        "SELECT n.nspname FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles me \
         WHERE me.rolname OPERATOR(pg_catalog.=) current_user AND NOT me.rolsuper \
         AND n.nspowner OPERATOR(pg_catalog.=) me.oid \
         AND n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast_)?temp_'",
        "owns schemas",
        "ALTER SCHEMA … OWNER TO an account that nobody logs in with",
    ),
    (
        "SELECT pg_catalog.count(*) || ' in ' || n.nspname \
         FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n, pg_catalog.pg_roles me \
         WHERE me.rolname OPERATOR(pg_catalog.=) current_user AND NOT me.rolsuper \
         AND c.relowner OPERATOR(pg_catalog.=) me.oid \
         AND n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         AND n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast|temp)' \
         AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r','p','v','m','f']::\"char\"[]) \
         GROUP BY n.nspname",
        "owns tables: it can drop them, add triggers, and switch row security off",
        "ALTER TABLE … OWNER TO an account that nobody logs in with, and GRANT what agents need",
    ),
    (
        "SELECT n.nspname FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles me \
         WHERE me.rolname OPERATOR(pg_catalog.=) current_user AND NOT me.rolsuper \
         AND n.nspowner OPERATOR(pg_catalog.<>) me.oid \
         AND n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast_)?temp_' \
         AND pg_catalog.has_schema_privilege(me.oid, n.oid, 'CREATE')",
        "may create functions and operators where others look them up by name",
        "REVOKE CREATE ON SCHEMA … FROM PUBLIC",
    ),
    (
        "SELECT n.nspname || '.' || p.proname FROM pg_catalog.pg_proc p, \
         pg_catalog.pg_namespace n, pg_catalog.pg_roles me, pg_catalog.pg_roles o \
         WHERE me.rolname OPERATOR(pg_catalog.=) current_user AND NOT me.rolsuper \
         AND p.prosecdef AND o.oid OPERATOR(pg_catalog.=) p.proowner AND o.rolsuper \
         AND n.oid OPERATOR(pg_catalog.=) p.pronamespace \
         AND n.nspname OPERATOR(pg_catalog.<>) ALL (ARRAY['pg_catalog', \
         'information_schema']::pg_catalog.name[]) \
         AND pg_catalog.has_function_privilege(me.oid, p.oid, 'EXECUTE') LIMIT 20",
        "may call functions that run as a superuser",
        "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC, or let a rule hold them by name",
    ),
];

/// Something that the account should not be able to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) says: String,
    pub(crate) mend: &'static str,
}

/// Logs in as the target's account, and asks.
///
/// # Errors
/// The target cannot be reached, refuses the account, or does not answer in time.
pub(crate) async fn excesses(
    target: &Target,
    password: Option<&Secret>,
) -> anyhow::Result<Vec<Excess>> {
    let asked = timeout(PATIENCE, ask(target, password)).await;
    asked.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn ask(target: &Target, password: Option<&Secret>) -> anyhow::Result<Vec<Excess>> {
    let client = log_in(target, password).await?;
    let mut found = Vec::new();
    for (question, wrong, mend) in QUESTIONS {
        let names = column(&client, question).await?;
        if names.is_empty() {
            continue;
        }
        let account = &target.user;
        let says = match names.as_slice() {
            [one] if one == "superuser" => format!("the account `{account}` {wrong}"),
            names => format!("the account `{account}` {wrong}: {}", names.join(", ")),
        };
        found.push(Excess { says, mend });
    }
    Ok(found)
}

async fn log_in(target: &Target, password: Option<&Secret>) -> anyhow::Result<Client> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    let mut io: Duplex = Box::new(stream);
    if let UpstreamTls::Verify { ca } = &target.tls {
        io.write_all(&SSL_REQUEST).await?;
        if io.read_u8().await? != b'S' {
            bail!("the target does not speak TLS: set it up there, or `tls = \"off\"` on loopback");
        }
        io = tls(target, ca.as_deref())?.connect(io).await?;
    }
    let mut config = tokio_postgres::Config::new();
    let database = target.settings.get("database").unwrap_or(&target.user);
    config
        .user(&target.user)
        .dbname(database)
        .application_name("holdpoint doctor")
        // The stream has its TLS already.
        .ssl_mode(SslMode::Disable);
    if let Some(password) = password {
        config.password(password.expose());
    }
    let (client, connection) = config.connect_raw(io, NoTls).await.map_err(plain)?;
    tokio::spawn(connection);
    Ok(client)
}

fn tls(target: &Target, ca: Option<&Path>) -> anyhow::Result<ClientTls> {
    Ok(ClientTls::load(&target.host, ca)?)
}

/// The first column of all rows that have one.
async fn column(client: &Client, question: &str) -> anyhow::Result<Vec<String>> {
    let answer = client.simple_query(question).await.map_err(plain)?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(rows.collect())
}

/// The server's own words, which the library hides behind `db error`.
fn plain(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => anyhow::anyhow!("{} ({})", said.message(), said.code().code()),
        None => error.into(),
    }
}
