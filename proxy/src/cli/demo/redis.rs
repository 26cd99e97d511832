//! A real Redis in the demo's directory, where several nodes meet.
//!
//! It ends with the demo, as PostgreSQL does: a shell stands between and stops the server
//! when its standard input closes.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::files::private;

const KEEPER: &str = r#"
    exec 3<&0
    "$@" </dev/null >>server.log 2>&1 &
    server=$!
    trap '' INT TERM
    read -r _ <&3
    kill -TERM "$server"
    wait "$server"
"#;

pub(super) struct Redis {
    pub(super) address: SocketAddr,
    keeper: Child,
}

impl Redis {
    /// Its password, and what proves that a vote comes from a node, are in `place`.
    pub(super) fn start(place: &Path) -> anyhow::Result<Self> {
        let server = program()?;
        let dir = place.join("redis");
        fs::create_dir(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        let password = secret()?;
        private(&place.join("redis-password"), &password)?;
        private(&place.join("cluster-secret"), &secret()?)?;
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            let address = super::ports::free(1)?[0];
            // In a file: arguments are for everybody to see.
            private(
                &dir.join("redis.conf"),
                &format!(
                    "bind 127.0.0.1\nport {}\nrequirepass {password}\nmaxmemory-policy noeviction\n\
                     save \"\"\nappendonly no\n",
                    address.port()
                ),
            )?;
            let mut keeper = Command::new("sh")
                .args(["-c", KEEPER, "keeper"])
                .arg(&server)
                .arg("redis.conf")
                .current_dir(&dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .context("cannot start Redis")?;
            if ready(&dir.join("server.log"), address) {
                return Ok(Self { address, keeper });
            }
            drop(keeper.stdin.take());
            keeper.wait()?;
        }
        bail!(
            "Redis did not start; its log: {}",
            fs::read_to_string(dir.join("server.log")).unwrap_or_default()
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn ready(log: &Path, address: SocketAddr) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.contains("Ready to accept connections") && TcpStream::connect(address).is_ok() {
            return true;
        }
        if text.contains("Failed listening") {
            return false;
        }
    }
    false
}

fn secret() -> anyhow::Result<String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no randomness")?;
    Ok(hex::encode(random))
}

fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin")])
        .map(|dir| dir.join("redis-server"))
        .find(|path| path.is_file())
        .context(
            "`redis-server` is missing, and `--nodes 2` needs it: install Redis \
             (Debian: apt-get install redis-server), or leave out `--nodes`",
        )
}
