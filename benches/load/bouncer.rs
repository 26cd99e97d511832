//! PgBouncer in session mode, with TLS to its clients.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use holdpoint_tests::certs::Authority;
use holdpoint_tests::pg::Account;
use holdpoint_tests::{Database, TestDir, eventually, needs};

use crate::Way;

pub(crate) struct Bouncer {
    pub(crate) address: SocketAddr,
    database: Database,
    child: Child,
    /// Holds what PgBouncer reads.
    _dir: TestDir,
}

impl Bouncer {
    pub(crate) fn start(database: &Database) -> anyhow::Result<Self> {
        let program = needs::program("pgbouncer")
            .or_else(|| Some("/usr/sbin/pgbouncer".into()))
            .filter(|path: &std::path::PathBuf| path.is_file())
            .context("PgBouncer is missing: run `make bench`")?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let dir = TestDir::passable("bouncer");
        let leaf = Authority::new("bench").leaf(&dir, "bouncer");
        let users = dir.write(
            "users.txt",
            format!("\"{}\" \"{}\"\n", database.user, database.password),
        );
        let ini = dir.write(
            "pgbouncer.ini",
            format!(
                "[databases]\n{name} = host=127.0.0.1 port={port} dbname={name}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\n\
                 auth_type = scram-sha-256\nauth_file = {users}\npool_mode = session\n\
                 default_pool_size = 64\nmax_client_conn = 200\nlog_connections = 0\n\
                 log_disconnections = 0\nserver_tls_sslmode = disable\n\
                 client_tls_sslmode = require\nclient_tls_cert_file = {cert}\nclient_tls_key_file = {key}\n",
                name = database.name,
                port = database.address.port(),
                listen = address.port(),
                users = users.display(),
                cert = leaf.cert.display(),
                key = leaf.key.display(),
            ),
        );
        let account = Account::for_servers();
        for path in [&users, &ini, &leaf.cert, &leaf.key] {
            account.own(path);
        }
        let mut command = account.command(program);
        let child = command
            .arg("-q")
            .arg(&ini)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        eventually("PgBouncer", 10, || TcpStream::connect(address).ok());
        Ok(Self {
            address,
            database: database.clone(),
            child,
            _dir: dir,
        })
    }

    pub(crate) fn way(&self) -> Way {
        Way {
            name: "PgBouncer",
            ..crate::encrypted(crate::clear(&self.database, self.address))
        }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
