//! Somebody with the `holdpoint` command and a home of their own, in front of a gateway.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

use crate::Gateway;
use crate::gateway::binary;

pub struct Desk {
    pub gateway: Gateway,
    pub home: PathBuf,
}

/// A `holdpoint login` under way.
pub struct Login {
    pub child: Child,
    out: BufReader<ChildStdout>,
}

impl Desk {
    pub fn new(gateway: Gateway) -> Self {
        let home = gateway.dir.join("home");
        Self { gateway, home }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOLDPOINT_HOME", &self.home)
            .env("HOLDPOINT_SERVER", format!("http://{}", self.gateway.admin))
            .current_dir(self.gateway.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Begins a login; gives what it said first.
    pub fn begin(&self, args: &[&str]) -> (Login, Value) {
        let mut child = self
            .command(&["login", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        if line.is_empty() {
            panic!("login said nothing: {}", Login { child, out }.end().1);
        }
        let said = serde_json::from_str(&line).unwrap();
        (Login { child, out }, said)
    }

    /// `holdpoint token`, or its exit code and what it said.
    pub fn token(&self, args: &[&str]) -> Result<String, (Option<i32>, String)> {
        let mut all = vec!["token"];
        all.extend(args);
        let output = self.run(&all);
        if output.status.success() {
            let token = text(&output.stdout).trim().to_owned();
            self.gateway.keep_secret(&token);
            Ok(token)
        } else {
            assert!(output.stdout.is_empty());
            Err((output.status.code(), text(&output.stderr)))
        }
    }

    /// What is kept of the first sign-in.
    pub fn kept(&self, what: &str) -> String {
        let file = std::fs::read(self.home.join("tokens.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        let kept = file["tokens"][0][what].as_str().unwrap_or_default();
        if !kept.is_empty() {
            self.gateway.keep_secret(kept);
        }
        kept.to_owned()
    }

    /// Lets the kept access token end now.
    pub fn age(&self) {
        let path = self.home.join("tokens.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        file["tokens"][0]["expires_at"] = file["tokens"][0]["issued_at"].clone();
        std::fs::write(&path, file.to_string()).unwrap();
    }
}

impl Login {
    /// Whether it went well, and all that it said.
    pub fn end(mut self) -> (bool, String) {
        let mut text = String::new();
        let mut err = self.child.stderr.take().unwrap();
        err.read_to_string(&mut text).unwrap();
        self.out.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().success(), text)
    }

    /// What it says when somebody has signed in.
    #[track_caller]
    pub fn signed_in(self) -> Value {
        let (good, text) = self.end();
        assert!(good, "{text}");
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
