//! A real Redis of our own, in a temporary directory on a free port.
//!
//! A shell stands between, as for PostgreSQL: it ends the server when its standard input
//! closes, so that nothing is left even if the tests are killed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::TestDir;
use crate::needs::program;

const KEEPER: &str = r#"
    exec 3<&0
    "$@" </dev/null >>server.log 2>&1 &
    server=$!
    echo "$server" >pid.part && mv pid.part pid
    read -r _ <&3
    kill -KILL "$server"
    wait "$server"
"#;

pub struct RedisServer {
    pub address: SocketAddr,
    settings: Vec<String>,
    keeper: Child,
    dir: TestDir,
}

impl RedisServer {
    /// `None` where Redis is not installed.
    pub fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With further settings, such as `--maxmemory-policy allkeys-lru`.
    pub fn with(settings: &[&str]) -> Option<Self> {
        program("redis-server")?;
        let dir = TestDir::new("redis");
        let settings: Vec<String> = settings.iter().map(|one| (*one).to_owned()).collect();
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            if let Some(keeper) = run(&dir, address, &settings) {
                return Some(Self {
                    address,
                    settings,
                    keeper,
                    dir,
                });
            }
        }
        panic!(
            "Redis did not start: {}",
            fs::read_to_string(dir.join("server.log")).unwrap_or_default()
        );
    }

    /// One node that is a whole cluster.
    pub fn cluster() -> Option<Self> {
        let server = Self::with(&["--cluster-enabled", "yes"])?;
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        crate::eventually("the cluster to be whole", 20, || {
            let info = server.ask(&["CLUSTER", "INFO"]).to_string();
            info.contains("cluster_state:ok").then_some(())
        });
        Some(server)
    }

    /// A cluster of three, each with a third of the slots.
    pub fn shards() -> Option<Vec<Self>> {
        let mut shards = Vec::new();
        for slots in [["0", "5460"], ["5461", "10922"], ["10923", "16383"]] {
            // The usual one is ten thousand above the other, which may be too much.
            let bus = free_port().to_string();
            let settings = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let server = Self::with(&settings)?;
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
            shards.push((server, bus));
        }
        let (first, rest) = shards.split_first()?;
        for (server, bus) in rest {
            let port = server.address.port().to_string();
            first.0.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
        }
        crate::eventually("the cluster to be whole", 30, || {
            let whole = |info: &str| {
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            let mut all = shards.iter();
            all.all(|(server, _)| whole(&server.ask(&["CLUSTER", "INFO"]).to_string()))
                .then_some(())
        });
        Some(shards.into_iter().map(|(server, _)| server).collect())
    }

    /// A Sentinel that watches `master` under the name `holdpoint`.
    pub fn sentinel(master: &Self) -> Self {
        Self::sentinel_with(master.address.port(), "")
    }

    /// One that watches who listens at `master`, with further lines of its configuration.
    pub fn sentinel_with(master: u16, more: &str) -> Self {
        let dir = TestDir::new("sentinel");
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let config = format!(
                "bind 127.0.0.1\nport {}\n{more}\nsentinel monitor holdpoint 127.0.0.1 {master} 1\n",
                address.port(),
            );
            let config = dir.write("sentinel.conf", config).display().to_string();
            let settings = vec![config, "--sentinel".to_owned()];
            if let Some(keeper) = launch(&dir, address, &settings, "+monitor master") {
                return Self {
                    address,
                    settings,
                    keeper,
                    dir,
                };
            }
        }
        panic!(
            "the Sentinel did not start: {}",
            fs::read_to_string(dir.join("server.log")).unwrap_or_default()
        );
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills it, as a power cut would. Nothing of what it held is kept.
    pub fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }

    /// The same server again at the same place, with nothing in it.
    pub fn restart_empty(&mut self) {
        self.kill();
        for _ in 0..100 {
            if let Some(keeper) = run(&self.dir, self.address, &self.settings) {
                self.keeper = keeper;
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("Redis did not start again");
    }

    /// Stops (`STOP`) or wakes (`CONT`) the process.
    pub fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.dir.join("pid")).unwrap();
        let done = Command::new("kill").args(["-s", name, pid.trim()]).status();
        assert!(done.unwrap().success());
    }

    /// One command, and its answer as JSON. Errors are texts that begin with `-`.
    pub fn ask(&self, command: &[&str]) -> Value {
        self.ask_as(None, command)
    }

    /// The same, with a password.
    pub fn ask_as(&self, password: Option<&str>, command: &[&str]) -> Value {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut reader = BufReader::new(stream);
        if let Some(password) = password {
            send(&mut reader, &["AUTH", password]);
        }
        send(&mut reader, command)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(dir: &TestDir, address: SocketAddr, settings: &[String]) -> Option<Child> {
    let port = address.port().to_string();
    let usual = [
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let more = [
        "--repl-diskless-sync-delay",
        "0",
        "--maxmemory-policy",
        "noeviction",
    ];
    let all: Vec<String> = usual
        .iter()
        .chain(&more)
        .map(|one| (*one).to_owned())
        .chain(settings.iter().cloned())
        .collect();
    launch(dir, address, &all, "Ready to accept connections")
}

/// Ready once its log says so.
fn launch(dir: &TestDir, address: SocketAddr, settings: &[String], ready: &str) -> Option<Child> {
    for old in ["pid", "server.log"] {
        let _ = fs::remove_file(dir.join(old));
    }
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(program("redis-server")?)
        .args(settings)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_ready = (0..250).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_ok()
            && fs::read_to_string(dir.join("server.log"))
                .unwrap_or_default()
                .contains(ready)
    });
    if !is_ready {
        drop(keeper.stdin.take());
        let _ = keeper.wait();
        return None;
    }
    Some(keeper)
}

fn send(stream: &mut BufReader<TcpStream>, command: &[&str]) -> Value {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    stream.get_mut().write_all(&bytes).unwrap();
    answer(stream)
}

fn answer(stream: &mut BufReader<TcpStream>) -> Value {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    let count = || rest.parse::<i64>().unwrap();
    match kind {
        "+" => Value::from(rest),
        "-" => Value::from(line),
        ":" => Value::from(count()),
        "$" if count() < 0 => Value::Null,
        "$" => {
            let mut bytes = vec![0; usize::try_from(count()).unwrap() + 2];
            stream.read_exact(&mut bytes).unwrap();
            bytes.truncate(bytes.len() - 2);
            Value::from(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" if count() < 0 => Value::Null,
        "*" => (0..count()).map(|_| answer(stream)).collect(),
        _ => panic!("{line}"),
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
