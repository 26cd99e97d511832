//! The listening sockets: bound, or taken over from a running gateway.
//!
//! An upgrade loses no connection. The new process has read its configuration and
//! compiled its plugins when it asks; the old one gives it the sockets and stops
//! accepting. Who connects from then on waits in the kernel's queue until the old
//! process has drained and let go of the journal, which has one writer.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use holdpoint_core::config::Config;
use pingora::server::Fds;

use crate::recorder;

/// Connections that may wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 4096;
/// What one message between the processes carries, by pingora's `transfer_fd`.
const MOST: usize = 32;
const MOST_BYTES: usize = 2048;
/// Of a path of a Unix socket.
const PATH: usize = 107;

/// All sockets of a configuration, by their address there.
pub(super) struct Sockets(BTreeMap<SocketAddr, TcpListener>);

impl Sockets {
    /// Binds what `config` names.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        Self::fill(config, BTreeMap::new())
    }

    /// Asks the gateway that writes to the same journal for its sockets, and binds
    /// the rest. Without one there is nothing to take over, and all are bound.
    pub(super) fn take_over(config: &Config) -> anyhow::Result<Self> {
        let Some(pid) = recorder::writer_pid(&config.journal.dir) else {
            tracing::warn!(
                "no gateway writes to {}: starting afresh",
                config.journal.dir.display()
            );
            return Self::bind(config);
        };
        let path = meeting_point(&config.state)?;
        tracing::info!(pid, "taking over from the running gateway");
        signal(pid)?;
        let mut fds = Fds::new();
        fds.get_from_sock(path.as_str())
            .map_err(|error| anyhow::anyhow!("the running gateway (process {pid}) gave no sockets: {error}; it goes on, and its log says why"))?;
        let (addresses, raw) = fds.serialize();
        let mut taken = BTreeMap::new();
        for (address, fd) in addresses.into_iter().zip(raw) {
            let socket = own(fd);
            if let Ok(address) = address.parse() {
                taken.insert(address, TcpListener::from(socket));
            }
        }
        Self::fill(config, taken)
    }

    fn fill(config: &Config, mut taken: BTreeMap<SocketAddr, TcpListener>) -> anyhow::Result<Self> {
        let listeners = config.listeners.values().map(|listener| listener.listen);
        let admin = config.admin.as_ref().map(|admin| admin.listen);
        let mut sockets = BTreeMap::new();
        for address in listeners.chain(admin) {
            let socket = match taken.remove(&address) {
                Some(socket) => socket,
                None => bind(address).with_context(|| {
                    format!("cannot listen on {address}; is a gateway running already? `holdpoint serve --upgrade` takes over from it")
                })?,
            };
            sockets.insert(address, socket);
        }
        Ok(Self(sockets))
    }

    /// The socket for `address`; this keeps one too, to give away.
    pub(super) fn get(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let socket = self
            .0
            .get(&address)
            .with_context(|| format!("no socket for {address}"))?;
        let socket = socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Gives the sockets to the process that waits for them in `state`. Blocks for
    /// some seconds if none does.
    pub(super) fn hand_over(&self, state: &Path) -> anyhow::Result<()> {
        let path = meeting_point(state)?;
        let bytes: usize = self.0.keys().map(|at| at.to_string().len() + 1).sum();
        if self.0.len() > MOST || bytes > MOST_BYTES {
            bail!("more than {MOST} listeners cannot be handed over; stop and start instead");
        }
        let mut fds = Fds::new();
        for (address, socket) in &self.0 {
            fds.add(address.to_string(), socket.as_raw_fd());
        }
        fds.send_to_sock(path.as_str())
            .map_err(|error| anyhow::anyhow!("nobody took the sockets at {path}: {error}"))?;
        Ok(())
    }
}

/// Waits until the journal's writer has let go of it.
pub(super) fn wait_for_journal(config: &Config, patience: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    while recorder::is_live(&config.journal.dir) {
        if Instant::now() > until {
            bail!(
                "the old gateway did not let go of {} within {patience:?}",
                config.journal.dir.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    // A port whose last connections still fade away can be used again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn meeting_point(state: &Path) -> anyhow::Result<String> {
    let path = state.join("upgrade.sock");
    match path.to_str() {
        Some(path) if path.len() <= PATH => Ok(path.to_owned()),
        _ => bail!(
            "`{}` is too long for a Unix socket: choose a shorter `state` directory",
            path.display()
        ),
    }
}

fn signal(pid: i32) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).context("the journal names no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::QUIT)
        .with_context(|| format!("cannot signal the running gateway (process {pid:?})"))
}

#[expect(unsafe_code, reason = "descriptors arrive as numbers")]
fn own(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor when it was received, a moment ago;
    // nobody else in this process knows its number, and it is given out once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
