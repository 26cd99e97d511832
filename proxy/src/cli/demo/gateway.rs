//! `holdpoint serve` as a process of its own, as an operator would run it.

use std::fs;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use super::files::{Files, private};

pub(super) struct Gateway {
    child: Child,
}

impl Gateway {
    /// Starts it, and waits until it is ready.
    pub(super) async fn start(files: &Files) -> anyhow::Result<Self> {
        let log = fs::File::create(&files.gateway_log)
            .with_context(|| format!("cannot write `{}`", files.gateway_log.display()))?;
        let child = Command::new(&files.program)
            .args(["serve", "--config"])
            .arg(&files.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which then stops the gateway in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the gateway")?;
        let mut this = Self { child };
        if let Err(error) = this.ready(files).await {
            let log = fs::read_to_string(&files.gateway_log).unwrap_or_default();
            return Err(error.context(format!("the gateway did not start; its log:\n{log}")));
        }
        Ok(this)
    }

    /// Gets both identities their tokens.
    pub(super) async fn tokens(files: &Files) -> anyhow::Result<()> {
        for (user, scope, file) in [
            ("agent", "holdpoint.connect", &files.agent_token),
            ("rita", "holdpoint.review", &files.reviewer_token),
        ] {
            private(file, &token(files, user, scope).await?)?;
        }
        Ok(())
    }

    async fn ready(&mut self, files: &Files) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            let ready = format!("{}/readyz", files.admin_url());
            if crate::cli::client::status(&ready)
                .await
                .is_ok_and(|status| status == 200)
            {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("it was not ready within 60 s");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks it to stop, and waits.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) else {
            return Ok(());
        };
        if let Some(process) = rustix::process::Pid::from_raw(id) {
            rustix::process::kill_process(process, rustix::process::Signal::TERM)
                .context("cannot stop the gateway")?;
        }
        let status: ExitStatus = tokio::time::timeout(Duration::from_secs(60), self.child.wait())
            .await
            .context("the gateway did not stop within 60 s")??;
        if !status.success() {
            bail!("the gateway ended with {status}");
        }
        Ok(())
    }
}

pub(super) async fn token(files: &Files, user: &str, scope: &str) -> anyhow::Result<String> {
    let done = Command::new(&files.program)
        .args(["token", "--user", user, "--scope", scope, "--config"])
        .arg(&files.config)
        .output()
        .await?;
    if !done.status.success() {
        bail!(
            "no token for {user}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}
