//! The real `psql`, as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::needs::postgres_program;

/// How to call it. No settings of the user's own reach it.
#[derive(Clone)]
pub struct Psql {
    env: BTreeMap<String, String>,
    args: Vec<String>,
}

/// What it said, when it has ended.
#[derive(Debug)]
pub struct Done {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Done {
    #[track_caller]
    pub fn unwrap_done(&self) {
        assert_eq!(
            self.code,
            Some(0),
            "psql failed: {}{}",
            self.stdout,
            self.stderr
        );
    }
}

impl Psql {
    pub fn new(address: SocketAddr, database: &str, user: &str, password: &str) -> Self {
        let env = [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", address.port().to_string()),
            ("PGDATABASE", database.to_owned()),
            ("PGUSER", user.to_owned()),
            ("PGPASSWORD", password.to_owned()),
            ("PGCONNECT_TIMEOUT", "20".to_owned()),
        ];
        Self {
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            args: Vec::new(),
        }
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Another argument, such as `-1` or `--set=X=1`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Runs one `-c` and waits for its end.
    pub fn run(&self, sql: &str) -> Done {
        self.start(&[sql]).wait()
    }

    /// Starts with one `-c` per statement.
    pub fn start(&self, statements: &[&str]) -> Running {
        let program = postgres_program("psql").unwrap_or_else(|| "psql".into());
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .envs(&self.env)
            .args(["-X", "-A", "-t"]);
        command.args(&self.args);
        for sql in statements {
            command.args(["-c", sql]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql starts");
        let out = Stream::read(child.stdout.take().unwrap());
        let err = Stream::read(child.stderr.take().unwrap());
        Running { child, out, err }
    }
}

/// A running `psql`, whose output can be read while it waits.
pub struct Running {
    child: Child,
    out: Stream,
    err: Stream,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far on standard error.
    pub fn stderr(&self) -> String {
        self.err.so_far()
    }

    pub fn stdout(&self) -> String {
        self.out.so_far()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until standard error has this text.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str, seconds: u64) {
        for _ in 0..seconds * 100 {
            if self.stderr().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!(
            "psql did not say {text:?} within {seconds} s, but: {}",
            self.stderr()
        );
    }

    /// Sends a signal by name, such as `INT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Waits for the end, at most a minute.
    #[track_caller]
    pub fn wait(mut self) -> Done {
        for _ in 0..6000 {
            if let Ok(Some(status)) = self.child.try_wait() {
                let done = Done {
                    stdout: self.out.end(),
                    stderr: self.err.end(),
                    code: status.code(),
                };
                return done;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!(
            "psql did not end within a minute; it said: {}",
            self.stderr()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gathers one output of a child.
struct Stream {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn read(source: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let into = text.clone();
        let reader = std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
                into.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.so_far()
    }
}
