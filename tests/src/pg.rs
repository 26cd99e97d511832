//! A real PostgreSQL of our own, in a temporary directory on a free port.
//!
//! PostgreSQL refuses to run as root, so as root it runs as `postgres` or
//! `nobody`. Tests that run at the same time share one server and have a
//! database and an account each; the last one stops it. A shell stands between: it ends the server
//! when its standard input closes, so that nothing is left even if the tests are killed.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::certs::Leaf;
use crate::needs::{postgres_program, postgres_version};
use crate::{Psql, TestDir, random};

/// Ends the program when standard input closes: `$0` is the pid of nothing else.
const KEEPER: &str = r#"
    exec 3<&0
    "$@" </dev/null >>server.log 2>&1 &
    server=$!
    read -r _ <&3
    kill -INT "$server"
    wait "$server"
"#;

pub struct PgServer {
    address: SocketAddr,
    password: String,
    next: AtomicU32,
    keeper: Child,
    dir: TestDir,
}

/// One test's database, and the account that the gateway logs in with.
#[derive(Clone)]
pub struct Database {
    pub server: Arc<PgServer>,
    pub address: SocketAddr,
    pub name: String,
    pub user: String,
    /// Never to be seen in any log or record: the oracle looks for it.
    pub password: String,
}

impl PgServer {
    /// The server that tests share. `None` where PostgreSQL is not installed.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<PgServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start("scram-sha-256")?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// A server of its own, with this authentication method for everybody.
    pub fn start(auth: &str) -> Option<Self> {
        Self::start_with(auth, None)
    }

    /// As [`PgServer::start`], and with TLS where there is a certificate for it.
    pub fn start_with(auth: &str, tls: Option<&Leaf>) -> Option<Self> {
        let programs = [postgres_program("postgres")?, postgres_program("initdb")?];
        let dir = TestDir::passable("pg");
        Some(Self::run(dir, programs, auth, tls))
    }

    /// A server of this major version, which `scripts/setup` installed.
    pub fn of_version(major: u32) -> Option<Self> {
        Self::of_version_with(major, "scram-sha-256")
    }

    pub fn of_version_with(major: u32, auth: &str) -> Option<Self> {
        let installed = postgres_version(major)?;
        let dir = TestDir::passable("pg");
        // Where it is installed the server's account may not look.
        let native = dir.join("native");
        copy(&installed, &native);
        let programs = ["postgres", "initdb"].map(|name| native.join("bin").join(name));
        Some(Self::run(dir, programs, auth, None))
    }

    fn run(dir: TestDir, [postgres, initdb]: [PathBuf; 2], auth: &str, tls: Option<&Leaf>) -> Self {
        let account = Account::for_servers();
        let data = dir.join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let password = random::hex(12);
        let password_file = dir.write("superuser", format!("{password}\n"));
        let log = dir.write("server.log", "");
        for path in [&data, &password_file, &log] {
            account.own(path);
        }
        let run = account
            .command(initdb)
            .args([
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
                "-U",
                "postgres",
                "-A",
                auth,
            ])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg("-D")
            .arg(&data)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        let mut conf = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        conf.write_all(
            b"listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
              shared_buffers = 16MB\nmax_connections = 200\nlog_statement = all\n",
        )
        .unwrap();

        if let Some(leaf) = tls {
            for (from, name) in [(&leaf.cert, "server.crt"), (&leaf.key, "server.key")] {
                let to = data.join(name);
                fs::copy(from, &to).unwrap();
                account.own(&to);
            }
            conf.write_all(b"ssl = on\n").unwrap();
        }

        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            let port = free_port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let server = account.command(postgres.clone());
            let mut keeper = Command::new("sh")
                .args(["-c", KEEPER, "keeper"])
                .arg(server.get_program())
                .args(server.get_args())
                .arg("-D")
                .arg(&data)
                .args(["-p", &port.to_string()])
                .current_dir(dir.path())
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let ready = (0..600).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                fs::read_to_string(&log)
                    .unwrap_or_default()
                    .contains("database system is ready to accept connections")
            });
            if ready {
                let next = AtomicU32::new(1);
                return Self {
                    address,
                    password,
                    next,
                    keeper,
                    dir,
                };
            }
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
        panic!(
            "PostgreSQL did not start: {}",
            fs::read_to_string(&log).unwrap_or_default()
        );
    }

    /// A new database with a table `invoices` of three rows and a table `victims` of two.
    pub fn database(self: &Arc<Self>) -> Database {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let database = Database {
            server: self.clone(),
            address: self.address,
            name: format!("db{number}"),
            user: format!("app{number}"),
            password: format!("upstream-{}", random::hex(12)),
        };
        let (name, user, password) = (&database.name, &database.user, &database.password);
        self.superuser("postgres")
            .run(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'"))
            .unwrap_done();
        self.superuser("postgres")
            .run(&format!("CREATE DATABASE {name} OWNER {user}"))
            .unwrap_done();
        database
            .direct()
            .run(
                "CREATE TABLE invoices (id int PRIMARY KEY, customer text, amount numeric);
                 INSERT INTO invoices VALUES (1, 'ada', 10), (2, 'bob', 20), (3, 'cyd', 30);
                 CREATE TABLE victims (id int); INSERT INTO victims VALUES (1), (2);",
            )
            .unwrap_done();
        database
    }

    pub fn superuser(&self, database: &str) -> Psql {
        Psql::new(self.address, database, "postgres", &self.password).env("PGSSLMODE", "disable")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Database {
    /// `psql` straight to the server, past the gateway.
    pub fn direct(&self) -> Psql {
        Psql::new(self.address, &self.name, &self.user, &self.password).env("PGSSLMODE", "disable")
    }

    /// One value, asked past the gateway.
    pub fn value(&self, sql: &str) -> String {
        let done = self.direct().run(sql);
        done.unwrap_done();
        done.stdout.trim().to_owned()
    }

    pub fn has_table(&self, table: &str) -> bool {
        self.value(&format!("SELECT to_regclass('{table}') IS NOT NULL")) == "t"
    }
}

/// Whom servers run as.
pub struct Account {
    /// User and group id to change to; `None` when we are an ordinary user.
    ids: Option<(u32, u32)>,
}

impl Account {
    pub fn for_servers() -> Self {
        let me = fs::metadata("/proc/self").map_or(1, |meta| meta.uid());
        if me != 0 {
            return Self { ids: None };
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let find = |name: &str| {
            let line = passwd
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line
                .split(':')
                .skip(2)
                .map_while(|field| field.parse::<u32>().ok());
            Some((fields.next()?, fields.next()?))
        };
        Self {
            ids: Some(find("postgres").or_else(|| find("nobody")).unwrap()),
        }
    }

    pub fn own(&self, path: &Path) {
        if let Some((user, group)) = self.ids {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some((user, group)) = self.ids else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={group}"))
            .args(["--clear-groups", "--"])
            .arg(program);
        command
    }
}

/// A folder with all that is in it, links as links.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.is_ok_and(|status| status.success()));
    let done = Command::new("chmod").args(["-R", "a+rX"]).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()));
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_its_own_answers_and_goes_away_with_the_last_user() {
        // Not the shared one, which other tests may be using.
        let server = PgServer::start("scram-sha-256").map(Arc::new);
        let Some(server) = crate::need!(server, "postgresql") else {
            return;
        };
        let one = server.database();
        let two = server.database();
        assert_eq!(one.value("SELECT count(*) FROM invoices"), "3");
        one.direct().run("DROP TABLE victims").unwrap_done();
        assert!(!one.has_table("victims"));
        assert!(two.has_table("victims"));
        let address = server.address;
        drop((server, one, two));
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
