//! A real PostgreSQL in the demo's directory.
//!
//! PostgreSQL refuses to run as root; as root it runs as `postgres` or `nobody`.
//! It ends with the demo, even one that is killed: a shell stands between and
//! stops the server when its standard input closes.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

const KEEPER: &str = r#"
    exec 3<&0
    "$@" </dev/null >>server.log 2>&1 &
    server=$!
    trap '' INT TERM
    read -r _ <&3
    kill -INT "$server"
    wait "$server"
"#;

const SCHEMA: &str = "
CREATE TABLE invoices (id int PRIMARY KEY, customer text NOT NULL, amount numeric NOT NULL);
INSERT INTO invoices VALUES (1, 'Ada', 120), (2, 'Grace', 75), (3, 'Edsger', 230);
CREATE TABLE drafts (id int PRIMARY KEY, note text);
INSERT INTO drafts VALUES (1, 'old'), (2, 'older');
";

pub(super) struct Postgres {
    pub(super) address: SocketAddr,
    pub(super) database: &'static str,
    pub(super) user: &'static str,
    /// What only the gateway should hold.
    pub(super) password: String,
    log: PathBuf,
    keeper: Child,
}

impl Postgres {
    pub(super) fn start(place: &Path) -> anyhow::Result<Self> {
        let initdb = program("initdb")?;
        let server = program("postgres")?;
        let account = Account::for_servers()?;
        let dir = place.join("postgres");
        let data = dir.join("data");
        fs::create_dir(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let password = secret()?;
        let password_file = dir.join("password");
        super::files::private(&password_file, &password)?;
        let log = dir.join("server.log");
        fs::write(&log, "")?;
        for path in [&dir, &data, &password_file, &log] {
            account.own(path)?;
        }
        let made = account
            .command(&initdb)
            .args([
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
                "-U",
                "holdpoint",
                "-A",
                "scram-sha-256",
            ])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg("-D")
            .arg(&data)
            .current_dir(&dir)
            .output()
            .with_context(|| format!("cannot run {}", initdb.display()))?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        fs::remove_file(&password_file)?;
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))?
            .write_all(
                b"listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
              shared_buffers = 16MB\nlog_statement = all\nlog_line_prefix = '%u '\n",
            )?;
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            let address = super::ports::free(1)?[0];
            let mut keeper = account
                .command(Path::new("sh"))
                .args(["-c", KEEPER, "keeper"])
                .arg(&server)
                .arg("-D")
                .arg(&data)
                .args(["-p", &address.port().to_string()])
                .current_dir(&dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .context("cannot start PostgreSQL")?;
            if ready(&log, &mut keeper) {
                let this = Self {
                    address,
                    database: "postgres",
                    user: "holdpoint",
                    password,
                    log,
                    keeper,
                };
                this.direct(SCHEMA)
                    .context("cannot make the demo's tables")?;
                return Ok(this);
            }
            drop(keeper.stdin.take());
            keeper.wait()?;
        }
        bail!(
            "PostgreSQL did not start; its log: {}",
            fs::read_to_string(&log).unwrap_or_default()
        )
    }

    /// Runs SQL past the gateway, as the demo's stage hand, and gives the first column.
    pub(super) fn direct(&self, sql: &str) -> anyhow::Result<String> {
        let done = Command::new(psql()?)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .env("PGHOST", self.address.ip().to_string())
            .env("PGPORT", self.address.port().to_string())
            .env("PGUSER", self.user)
            .env("PGDATABASE", self.database)
            .env("PGPASSWORD", &self.password)
            .env("PGSSLMODE", "disable")
            .output()
            .context("cannot run psql")?;
        if !done.status.success() {
            bail!("{}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// How often the server says it ran this statement.
    pub(super) fn ran(&self, statement: &str) -> usize {
        fs::read_to_string(&self.log)
            .unwrap_or_default()
            .matches(statement)
            .count()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn ready(log: &Path, keeper: &mut Child) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.contains("database system is ready to accept connections") {
            return true;
        }
        if text.contains("could not bind") || !matches!(keeper.try_wait(), Ok(None)) {
            return false;
        }
    }
    false
}

fn secret() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("no randomness")?;
    Ok(hex::encode(random))
}

pub(super) fn psql() -> anyhow::Result<PathBuf> {
    program("psql")
}

/// Finds a program of PostgreSQL: the newest in the distribution's folders, or on `PATH`.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(name);
            path.is_file().then_some((version, path))
        })
        .collect();
    found.sort();
    let on_path = || {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    };
    found.pop().map(|(_, path)| path).or_else(on_path).with_context(|| {
        format!("`{name}` is missing: install PostgreSQL (Debian: apt-get install postgresql), or use `make demo`")
    })
}

/// Whom the server runs as: somebody else when we are root.
struct Account(Option<(u32, u32)>);

impl Account {
    fn for_servers() -> anyhow::Result<Self> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let find = |name: &str| {
            let line = users
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line
                .split(':')
                .skip(2)
                .map_while(|field| field.parse::<u32>().ok());
            Some((ids.next()?, ids.next()?))
        };
        let ids = find("postgres").or_else(|| find("nobody"));
        Ok(Self(Some(ids.context(
            "root cannot run PostgreSQL, and there is no user `postgres` or `nobody`",
        )?)))
    }

    fn own(&self, path: &Path) -> std::io::Result<()> {
        match self.0 {
            Some((user, group)) => chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_remove("PGDATA");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}
