//! A target for crowds, in a process of its own: it speaks PostgreSQL's protocol as
//! far as sessions go, answers every query at once, and keeps when each came.
//!
//! A real server would need a process for each of ten thousand sessions.

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What [`serve`] is started with.
pub(crate) const FLAG: &str = "--be-the-target";

/// The number in a statement, and the monotonic time at which it came.
type Arrivals = Arc<Mutex<Vec<(u64, u64)>>>;

/// The child process.
pub(crate) struct Target {
    child: Child,
    ask: ChildStdin,
    answers: std::io::BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = child.stdin.take().context("no standard input")?;
        let answers = child.stdout.take().context("no standard output")?;
        let mut answers = std::io::BufReader::new(answers);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().parse().context("the target's address")?;
        Ok(Self {
            child,
            ask,
            answers,
            address,
        })
    }

    /// All that has come since the last call.
    pub(crate) fn arrivals(&mut self) -> anyhow::Result<Vec<(u64, u64)>> {
        writeln!(self.ask, "arrivals")?;
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("the target is gone");
            }
            let Some((number, at)) = line.trim().split_once(' ') else {
                return Ok(all);
            };
            all.push((number.parse()?, at.parse()?));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's own work, until its parent is gone.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let arrivals = Arrivals::default();
    let kept = Arc::clone(&arrivals);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(session(stream, Arc::clone(&kept)));
        }
    });
    tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                return;
            }
            let all = std::mem::take(&mut *arrivals.lock().unwrap());
            let mut out = std::io::stdout().lock();
            for (number, at) in all {
                let _ = writeln!(out, "{number} {at}");
            }
            let _ = writeln!(out, "end");
            let _ = out.flush();
        }
    })
    .await?;
    Ok(())
}

async fn session(stream: TcpStream, arrivals: Arrivals) -> std::io::Result<()> {
    static KEYS: AtomicU32 = AtomicU32::new(1);
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(2048, stream);
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length.saturating_sub(4) as usize];
    stream.read_exact(&mut startup).await?;
    let mut hello = frame(b'R', &0u32.to_be_bytes());
    for (name, value) in [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("session_authorization", "crowd"),
        ("is_superuser", "off"),
        ("in_hot_standby", "off"),
        ("default_transaction_read_only", "off"),
    ] {
        hello.extend(frame(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    let key = KEYS.fetch_add(1, Ordering::Relaxed);
    let key = (u64::from(key) << 32 | 0x5eed).to_be_bytes();
    hello.extend(frame(b'K', &key));
    hello.extend(frame(b'Z', b"I"));
    stream.get_mut().write_all(&hello).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length.saturating_sub(4) as usize];
        stream.read_exact(&mut body).await?;
        match kind {
            b'Q' => {
                let text = String::from_utf8_lossy(&body);
                if let Some(number) = number(&text) {
                    arrivals.lock().unwrap().push((number, monotonic()));
                }
                let mut answer = frame(b'C', b"DELETE 1\0");
                answer.extend(frame(b'Z', b"I"));
                stream.get_mut().write_all(&answer).await?;
            }
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// The number of `… id = N …`.
fn number(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("id = ")?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Nanoseconds on the clock that all processes of a machine share.
pub(crate) fn monotonic() -> u64 {
    holdpoint::recorder::now().mono_ns
}
