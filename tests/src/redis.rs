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
    let _ = fs::remove_file(dir.join("pid"));
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(program("redis-server")?)
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ])
        .args(["--maxmemory-policy", "noeviction"])
        .args(settings)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = (0..250).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_ok()
            && fs::read_to_string(dir.join("server.log"))
                .unwrap_or_default()
                .contains("Ready to accept connections")
    });
    if !ready {
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
