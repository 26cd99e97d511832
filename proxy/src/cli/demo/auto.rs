//! Plays agent and reviewer, and checks that each step is as promised.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::files::Files;
use super::gateway::Gateway;
use super::postgres::Postgres;
use super::receiver::Receiver;
use crate::cli::style::Style;

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn play(
    files: &Files,
    other: Option<&Files>,
    postgres: &Postgres,
    receiver: &Receiver,
    gateway: &mut Gateway,
    style: Style,
) -> anyhow::Result<()> {
    let stage = Stage {
        files,
        postgres,
        receiver,
        style,
    };
    stage.read_passes().await.context("step `a read passes`")?;
    stage
        .drop_waits_and_runs_once()
        .await
        .context("step `a DROP waits, and runs once`")?;
    stage
        .denial_reaches_the_agent()
        .await
        .context("step `a denial reaches the agent`")?;
    stage
        .nobody_approves_their_own()
        .await
        .context("step `nobody approves their own request`")?;
    if let Some(other) = other {
        stage
            .the_other_node_approves(other)
            .await
            .context("step `the other node approves`")?;
    }
    gateway.stop().await?;
    stage
        .journal_proves_it()
        .await
        .context("step `the journal proves it`")?;
    println!("\n{}", style.green("All steps were as promised."));
    Ok(())
}

struct Stage<'a> {
    files: &'a Files,
    postgres: &'a Postgres,
    receiver: &'a Receiver,
    style: Style,
}

impl Stage<'_> {
    async fn read_passes(&self) -> anyhow::Result<()> {
        self.title("A read passes");
        let sql = "SELECT customer FROM invoices ORDER BY id";
        self.agent_types(sql);
        let done = finish(self.psql(sql)?).await?;
        self.says(&done.stdout);
        ensure!(done.status.success(), "psql failed: {}", text(&done.stderr));
        ensure!(
            text(&done.stdout) == "Ada\nGrace\nEdsger\n",
            "other rows than expected"
        );
        self.good("allowed at once");
        Ok(())
    }

    async fn drop_waits_and_runs_once(&self) -> anyhow::Result<()> {
        self.title("A DROP TABLE waits on the open connection until a reviewer approves");
        let sql = "DROP TABLE drafts";
        self.agent_types(sql);
        let mut psql = self.psql(sql)?;

        let message = self.receiver.pending(sql).await?;
        let id = string(&message, "/approval/id")?;
        let digest = string(&message, "/approval/digest")?;
        println!(
            "  reviewer gets a signed webhook: {}",
            self.style.yellow(&id)
        );
        println!("    {}", string(&message, "/approval/shown/text")?);
        println!("    digest {digest}");

        let notice = next_line(&mut psql).await?;
        println!("  agent sees: {}", self.style.dim(&notice));
        ensure!(notice.contains(&id), "the notice does not name {id}");
        ensure!(psql.try_wait()?.is_none(), "psql did not wait");
        ensure!(
            self.exists("drafts")?,
            "the table is gone although nobody approved"
        );
        ensure!(
            self.postgres.ran(sql) == 0,
            "the target saw the statement before approval"
        );
        self.good("held: the target has not seen a byte of it");

        println!("  reviewer types: holdpoint approvals approve {id}");
        let approved = self
            .reviewer(&["approvals", "approve", &id, "--yes", "--digest", &digest])
            .await?;
        ensure!(
            approved.status.success(),
            "approving failed: {}",
            text(&approved.stderr)
        );
        let done = finish(psql).await?;
        self.says(&done.stdout);
        ensure!(done.status.success(), "psql failed: {}", text(&done.stderr));
        ensure!(
            !self.exists("drafts")?,
            "approved, but the table is still there"
        );
        let ran = self.postgres.ran(sql);
        ensure!(ran == 1, "the target ran it {ran} times");
        self.good("approved: the same bytes went through, once");
        Ok(())
    }

    async fn denial_reaches_the_agent(&self) -> anyhow::Result<()> {
        self.title("A denial reaches the agent with its reason");
        let sql = "DELETE FROM invoices";
        let reason = "invoices are kept for ten years";
        self.agent_types(sql);
        let psql = self.psql(sql)?;
        let id = string(&self.receiver.pending(sql).await?, "/approval/id")?;
        println!("  reviewer types: holdpoint approvals deny {id} --reason '{reason}'");
        let denied = self
            .reviewer(&["approvals", "deny", &id, "--yes", "--reason", reason])
            .await?;
        ensure!(
            denied.status.success(),
            "denying failed: {}",
            text(&denied.stderr)
        );
        let done = finish(psql).await?;
        self.says(&done.stderr);
        ensure!(!done.status.success(), "psql succeeded");
        ensure!(
            text(&done.stderr).contains(reason),
            "the agent was not told the reason"
        );
        ensure!(
            self.postgres.direct("SELECT count(*) FROM invoices")? == "3",
            "rows are missing"
        );
        ensure!(
            self.postgres.ran(sql) == 0,
            "the target saw a denied statement"
        );
        self.good("denied: nothing was sent");
        Ok(())
    }

    async fn nobody_approves_their_own(&self) -> anyhow::Result<()> {
        self.title("Who answers for the agent cannot approve for it");
        let sql = "DROP TABLE invoices";
        self.agent_types(sql);
        let mut psql = self.psql(sql)?;
        let id = string(&self.receiver.pending(sql).await?, "/approval/id")?;
        let olivia = super::gateway::token(self.files, "olivia", "holdpoint.review").await?;
        let tried = self
            .reviewer_as(&olivia, &["approvals", "approve", &id, "--yes"])
            .await?;
        self.says(&tried.stderr);
        ensure!(!tried.status.success(), "the agent's owner could approve");
        psql.start_kill()?;
        psql.wait().await?;
        self.gone(&id).await?;
        ensure!(self.exists("invoices")?, "the table is gone");
        ensure!(
            self.postgres.ran(sql) == 0,
            "the target saw a statement that nobody approved"
        );
        self.good("refused; and when the agent left, its command was not sent");
        Ok(())
    }

    async fn the_other_node_approves(&self, other: &Files) -> anyhow::Result<()> {
        self.title("A command held at one node is approved through the other");
        let sql = "DELETE FROM invoices WHERE id = 3";
        self.agent_types(sql);
        let psql = self.psql(sql)?;
        let message = self.receiver.pending(sql).await?;
        let id = string(&message, "/approval/id")?;
        let digest = string(&message, "/approval/digest")?;
        let token = fs::read_to_string(&self.files.reviewer_token)?;
        let at_other = |args: Vec<String>| {
            let mut command = self.holdpoint(&args.iter().map(String::as_str).collect::<Vec<_>>());
            command
                .env("HOLDPOINT_SERVER", other.admin_url())
                .env("HOLDPOINT_TOKEN", &token);
            command
        };
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let mut shown = serde_json::Value::Null;
        for _ in 0..200 {
            let asked = at_other(words(&["approvals", "show", &id, "--json"]))
                .output()
                .await?;
            if asked.status.success() {
                shown = serde_json::from_slice(&asked.stdout)?;
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure!(
            shown["digest"] == digest.as_str(),
            "the other node does not show {id}"
        );
        println!(
            "  the other node shows it, held by node {}: {}",
            string(&shown, "/node")?,
            string(&shown, "/shown/text")?
        );
        println!("  reviewer types, at the other node: holdpoint approvals approve {id}");
        let approved = at_other(words(&[
            "approvals",
            "approve",
            &id,
            "--yes",
            "--digest",
            &digest,
        ]))
        .output()
        .await?;
        self.says(&approved.stdout);
        ensure!(
            approved.status.success(),
            "approving failed: {}",
            text(&approved.stderr)
        );
        let done = finish(psql).await?;
        ensure!(done.status.success(), "psql failed: {}", text(&done.stderr));
        let ran = self.postgres.ran(sql);
        ensure!(ran == 1, "the target ran it {ran} times");
        ensure!(
            self.postgres.direct("SELECT count(*) FROM invoices")? == "2",
            "approved, but the row is still there"
        );
        self.good("the vote is in the journal of the node that held it, and it ran once");
        Ok(())
    }

    async fn journal_proves_it(&self) -> anyhow::Result<()> {
        self.title("The journal proves it");
        let whole = self
            .holdpoint(&["verify"])
            .arg(&self.files.journal)
            .output()
            .await?;
        self.says(&whole.stdout);
        ensure!(
            whole.status.success(),
            "a sound journal fails: {}",
            text(&whole.stderr)
        );
        let copy = self.files.dir.join("tampered");
        copy_dir(&self.files.journal, &copy)?;
        let place = flip_a_byte(&copy)?;
        println!("  one bit of a copy is changed, at byte {place}");
        let tampered = self.holdpoint(&["verify"]).arg(&copy).output().await?;
        self.says(&tampered.stdout);
        self.says(&tampered.stderr);
        ensure!(
            tampered.status.code() == Some(1),
            "the change was not found"
        );
        fs::remove_dir_all(&copy)?;
        self.good("whole; and one changed bit is found");
        Ok(())
    }

    /// Waits until an approval is no longer pending.
    async fn gone(&self, id: &str) -> anyhow::Result<()> {
        for _ in 0..200 {
            let shown = self.reviewer(&["approvals", "show", id, "--json"]).await?;
            let view: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
            if view["state"] != "pending" || view["waiting"] == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{id} is still waited for although the agent left")
    }

    fn exists(&self, table: &str) -> anyhow::Result<bool> {
        let sql = format!("SELECT to_regclass('{table}') IS NOT NULL");
        Ok(self.postgres.direct(&sql)? == "t")
    }

    /// The agent's psql: it holds a token and nothing else.
    fn psql(&self, sql: &str) -> anyhow::Result<Child> {
        self.holdpoint(&["psql", "shop", "--ca"])
            .arg(&self.files.ca)
            .args(["--", "-X", "-A", "-t", "-q", "-c", sql])
            .env("HOLDPOINT_SERVER", self.files.admin_url())
            .env("HOLDPOINT_TOKEN_FILE", &self.files.agent_token)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start psql")
    }

    async fn reviewer(&self, args: &[&str]) -> anyhow::Result<Output> {
        let token = fs::read_to_string(&self.files.reviewer_token)?;
        self.reviewer_as(&token, args).await
    }

    async fn reviewer_as(&self, token: &str, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.holdpoint(args);
        command
            .env("HOLDPOINT_SERVER", self.files.admin_url())
            .env("HOLDPOINT_TOKEN", token);
        tokio::time::timeout(PATIENCE, command.output())
            .await?
            .context("cannot run holdpoint")
    }

    fn holdpoint(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.files.program);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.style.bold(text));
    }

    fn agent_types(&self, sql: &str) {
        println!("  agent types: {sql}");
    }

    fn says(&self, bytes: &[u8]) {
        for line in text(bytes).lines() {
            println!("    {}", self.style.dim(line));
        }
    }

    fn good(&self, what: &str) {
        println!("  {} {what}", self.style.green("ok"));
    }
}

async fn finish(child: Child) -> anyhow::Result<Output> {
    tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .context("psql did not end within 30 s")?
        .context("cannot read from psql")
}

/// The next line on standard error; what follows stays readable.
async fn next_line(child: &mut Child) -> anyhow::Result<String> {
    let pipe = child.stderr.take().context("psql has no standard error")?;
    let mut reader = BufReader::with_capacity(1, pipe);
    let mut line = String::new();
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line))
        .await
        .context("psql showed no notice within 30 s")??;
    child.stderr = Some(reader.into_inner());
    Ok(line.trim().to_owned())
}

fn string(message: &serde_json::Value, pointer: &str) -> anyhow::Result<String> {
    let found = message.pointer(pointer).and_then(|value| value.as_str());
    Ok(found
        .with_context(|| format!("the message has no `{pointer}`"))?
        .to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Changes the lowest bit of one byte in the middle of what was recorded.
fn flip_a_byte(journal: &Path) -> anyhow::Result<usize> {
    let mut segments: Vec<_> = fs::read_dir(journal)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    let segment = segments.first().context("the journal has no segment")?;
    let mut bytes = fs::read(segment)?;
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .context("the journal is empty")?;
    let place = used / 2;
    bytes[place] ^= 1;
    fs::write(segment, bytes)?;
    Ok(place)
}
