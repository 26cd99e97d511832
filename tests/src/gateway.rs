//! `holdpoint serve` as a child process, in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::certs::Authority;
use crate::issuer::{AUDIENCE, Issuer};
use crate::webhook::{WebhookLog, WebhookReceiver};
use crate::{Database, Psql, Reviewer, Tap, TestDir, compiled, needs, oracle, random};

/// Reads pass; what changes anything waits for one of the group `reviewers`.
pub const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction", "copy_out"], confidence = "proven" }
allow = true

[[rule]]
name = "changes"
match = { classes = ["write", "ddl", "dcl", "maintenance", "copy_in", "procedural", "function_effect"] }
hold = { reviewers = ["group:reviewers"], reason = "it changes something" }

[[rule]]
name = "unknown"
match = { confidence = "unknown" }
hold = { reviewers = ["group:reviewers"], reason = "nobody can tell what it does" }
"#;

/// What a test may change before the gateway starts.
pub struct Settings {
    pub node: String,
    /// Text of the one rule file.
    pub rules: String,
    /// The table `[hold]`, without its head.
    pub hold: String,
    /// Further tables.
    pub more: String,
    pub journal: String,
    /// `[identity]`, without its head.
    pub identity: String,
    /// The tables that say who is known, in place of the tests' own issuer.
    pub known: Option<String>,
    /// `tls` of the target.
    pub upstream_tls: String,
    /// Members of the target's `settings`, each with a comma in front.
    pub target_settings: String,
    /// Environment of the child.
    pub env: BTreeMap<String, String>,
    /// `HOLDPOINT_LOG` of the child.
    pub log: String,
    /// Whether a tap stands between gateway and target; the oracle needs it.
    pub tapped: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: "test".to_owned(),
            rules: RULES.to_owned(),
            hold: "heartbeat = \"1s\"\n".to_owned(),
            more: String::new(),
            journal: "segment = \"4MiB\"\n".to_owned(),
            identity: String::new(),
            known: None,
            upstream_tls: "\"off\"".to_owned(),
            target_settings: String::new(),
            env: BTreeMap::new(),
            log: "holdpoint=trace,info".to_owned(),
            tapped: true,
        }
    }
}

pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub issuer: Issuer,
    pub tap: Tap,
    pub dir: TestDir,
    pub database: Database,
    pub receiver: WebhookReceiver,
    child: Mutex<Option<Child>>,
    env: BTreeMap<String, String>,
    log_level: String,
    /// What must not appear in any log or record.
    secrets: Mutex<Vec<String>>,
    /// The oracle's checks that this test breaks on purpose.
    waived: Mutex<Vec<&'static str>>,
}

impl Gateway {
    /// One target behind a tap, one listener, the tests' issuer, one webhook.
    pub async fn start(database: &Database) -> Self {
        Self::with(database, Settings::default()).await
    }

    pub async fn with(database: &Database, settings: Settings) -> Self {
        let this = Self::prepare(database, settings).await;
        this.spawn();
        this.wait_ready().await;
        this
    }

    /// Everything but the process itself.
    pub async fn prepare(database: &Database, settings: Settings) -> Self {
        let dir = TestDir::new("gateway");
        let issuer = Issuer::start().await;
        let receiver = WebhookReceiver::start().await;
        let tap = Tap::start(database.address);
        let authority = Authority::new("holdpoint tests");
        let leaf = authority.leaf(&dir, "gateway");
        dir.write("ca.pem", authority.pem());
        dir.write("upstream-password", &database.password);
        dir.write("webhook-secret", receiver.secret());
        dir.write("rules.toml", &settings.rules);
        let [address, admin] = free_ports();
        let config = format!(
            r#"node = "{node}"
[identity]
{identity}
{known}
[target.shop]
protocol = "postgres"
address = "{upstream}"
tls = {upstream_tls}
user = "{user}"
password = "file:upstream-password"
settings = {{ database = "{database}"{target_settings} }}
[listener.shop]
listen = "{address}"
target = "shop"
tls = {{ cert = "{cert}", key = "{key}" }}
[policy]
files = ["rules.toml"]
[hold]
{hold}
[[review.webhook]]
name = "hook"
url = "{hook}"
secret = "file:webhook-secret"
[review.integration.robot]
secret = "file:webhook-secret"
reviewers = ["group:reviewers"{rita}]
[admin]
listen = "{admin}"
[journal]
dir = "journal"
{journal}
{more}
"#,
            node = settings.node,
            identity = settings.identity,
            rita = if settings.known.is_none() {
                r#", "person:tests|rita""#
            } else {
                ""
            },
            known = settings.known.unwrap_or_else(|| own_issuer(&issuer)),
            upstream = if settings.tapped {
                tap.address()
            } else {
                database.address
            },
            upstream_tls = settings.upstream_tls,
            target_settings = settings.target_settings,
            user = database.user,
            database = database.name,
            cert = leaf.cert.display(),
            key = leaf.key.display(),
            hold = settings.hold,
            hook = receiver.url(),
            journal = settings.journal,
            more = settings.more,
        );
        dir.write("holdpoint.toml", config);
        compiled::bring(&dir.join(compiled::INSIDE));
        let secrets = vec![database.password.clone(), receiver.secret().to_owned()];
        Self {
            address,
            admin,
            issuer,
            tap,
            dir,
            database: database.clone(),
            receiver,
            child: Mutex::new(None),
            env: settings.env,
            log_level: settings.log,
            secrets: Mutex::new(secrets),
            waived: Mutex::default(),
        }
    }

    /// Starts the process; it may end at once.
    pub fn spawn(&self) {
        *self.child.lock().unwrap() = Some(self.start_serving(&[]));
    }

    /// Starts a process that takes over from the one that runs, if one does. That one
    /// is given: its end is the caller's to await.
    pub fn upgrade(&self) -> Option<Child> {
        let successor = self.start_serving(&["--upgrade"]);
        self.child.lock().unwrap().replace(successor)
    }

    fn start_serving(&self, more: &[&str]) -> Child {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        Command::new(binary())
            .args(["serve", "--config"])
            .arg(self.dir.join("holdpoint.toml"))
            .args(more)
            .env("HOLDPOINT_LOG", &self.log_level)
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub async fn wait_ready(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.exited() {
                panic!("the gateway ended ({status}): {}", self.log());
            }
            let url = format!("http://{}/readyz", self.admin);
            if std::net::TcpStream::connect(self.admin).is_ok()
                && crate::reviewer::request(self.admin, hyper::Method::GET, "/readyz", &[], "")
                    .await
                    .0
                    == 200
            {
                compiled::keep(&self.dir.join(compiled::INSIDE));
                return;
            }
            assert!(
                Instant::now() < until,
                "{url} was not ready within 60 s: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An agent's psql: `ada` with a fresh token.
    pub fn psql(&self) -> Psql {
        self.psql_as(&self.agent("ada"))
    }

    pub fn psql_as(&self, token: &str) -> Psql {
        self.keep_secret(token);
        Psql::new(self.address, "shop", "agent", token)
            .env("PGSSLMODE", "verify-full")
            .env(
                "PGSSLROOTCERT",
                &self.dir.join("ca.pem").display().to_string(),
            )
    }

    pub fn agent(&self, subject: &str) -> String {
        let token = self.issuer.agent(subject);
        self.keep_secret(&token);
        token
    }

    /// A reviewer of the group `reviewers`.
    pub fn reviewer(&self, subject: &str) -> Reviewer {
        let token = self.issuer.reviewer(subject, &["reviewers"]);
        self.keep_secret(&token);
        Reviewer::new(self.admin, token)
    }

    /// The oracle will look for it in every log and record.
    pub fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// Leaves out one of the oracle's checks, for a test that breaks it on purpose.
    pub fn waive(&self, check: &'static str) {
        self.waived.lock().unwrap().push(check);
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("gateway.log")
    }

    pub fn rewrite(&self, file: &str, content: &str) {
        self.dir.write(file, content);
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap()
    }

    /// Sends a signal by name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let id = self
            .child
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .id()
            .to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().unwrap().id()
    }

    /// The process's end, if it has ended.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap()
            .as_mut()
            .and_then(|child| child.try_wait().unwrap())
    }

    /// Waits for the process's end.
    pub fn wait_exit(&self, seconds: u64) -> ExitStatus {
        crate::eventually("the gateway to end", seconds, || self.exited())
    }

    /// Stops it in order.
    pub fn stop(&self) -> ExitStatus {
        if self.exited().is_none() {
            self.signal("TERM");
        }
        self.wait_exit(30)
    }

    /// The next process gets no environment of the test's own.
    pub fn forget_env(&mut self) {
        self.env.clear();
    }

    pub fn kill(&self) {
        self.signal("KILL");
        self.wait_exit(10);
    }

    /// What `holdpoint verify` reports of the journal, which must be whole.
    #[track_caller]
    pub fn verified(&self) -> serde_json::Value {
        let done = self.holdpoint(&["verify", &self.journal().display().to_string(), "--json"]);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        serde_json::from_str(&said).unwrap()
    }

    /// `holdpoint` with these arguments, to its end.
    pub fn holdpoint(&self, args: &[&str]) -> std::process::Output {
        Command::new(binary())
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let running = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .is_some();
        if std::thread::panicking() {
            if let Some(mut child) = self
                .child
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take()
            {
                let _ = child.kill();
                let _ = child.wait();
            }
            eprintln!("the gateway's log:\n{}", tail(&self.log(), 80));
            return;
        }
        if !running {
            return;
        }
        self.stop();
        assert!(
            self.tap.quiet(Duration::from_secs(10)),
            "a connection to the target stays open"
        );
        let waived = self.waived.lock().unwrap().clone();
        oracle::reconcile(&oracle::Evidence {
            journal: &self.journal(),
            conversations: &self.tap.conversations(),
            receipts: &self.webhooks().receipts(),
            log: &self.log(),
            secrets: &self.secrets.lock().unwrap().clone(),
            waived: &waived,
        });
    }
}

impl Gateway {
    fn webhooks(&self) -> WebhookLog {
        self.receiver.log()
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The binary that `cargo build -p holdpoint` made beside this test.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test
        .ancestors()
        .find(|dir| dir.ends_with("deps"))
        .and_then(Path::parent)
        .unwrap();
    let path = profile.join("holdpoint");
    assert!(
        path.is_file(),
        "{} is missing: run `make test`, which builds it",
        path.display()
    );
    path
}

/// The tests' own issuer, and the agent `ada` of it.
pub fn own_issuer(issuer: &Issuer) -> String {
    format!(
        r#"[[identity.issuer]]
name = "tests"
issuer = "{}"
audiences = ["{AUDIENCE}"]
algorithms = ["ES256"]
[identity.agents.ada]
name = "ada"
groups = ["agents"]
owners = ["tests|olivia"]
"#,
        issuer.url()
    )
}

/// Ports below those that the kernel gives out by itself, each handed out once: a
/// gateway that starts late does not meet another test's listener on its own port.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let spread = u16::try_from(std::process::id() % 1000).unwrap();
        AtomicU16::new(12_000 + spread * 10)
    });
    let free = || loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed) % 20_000 + 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    };
    std::array::from_fn(|_| free())
}

/// Whether this machine can run the end-to-end tests at all.
pub fn possible() -> bool {
    needs::postgres_program("postgres").is_some()
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", random::hex(4))
}
