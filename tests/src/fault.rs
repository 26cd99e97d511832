//! A network between two programs that can be broken in the ways that networks break.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Well,
    /// Connections end, and no new one is taken.
    Down,
    /// Each chunk takes this long.
    Slow(Duration),
    /// What the client sends is never delivered; answers are. The client sees nothing wrong.
    ClientUnheard,
    /// Requests are delivered; no answer is.
    ServerUnheard,
    /// Nothing is delivered, and nobody is told.
    Silent,
}

/// Between a client and a server. What is held up while the network is bad is lost with
/// the connection, or delivered when it is well again.
pub struct FaultProxy {
    pub address: SocketAddr,
    state: watch::Sender<(Network, SocketAddr)>,
}

impl FaultProxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new((Network::Well, target));
        let seen = state.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (network, target) = *seen.borrow();
                if network == Network::Down {
                    continue;
                }
                let seen = seen.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        join(client, server, seen).await;
                    }
                });
            }
        });
        Self { address, state }
    }

    pub fn set(&self, network: Network) {
        self.state.send_modify(|(now, _)| *now = network);
    }

    /// New connections go to another server; those that there are end.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|(_, now)| *now = target);
    }
}

async fn join(client: TcpStream, server: TcpStream, seen: watch::Receiver<(Network, SocketAddr)>) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let target = seen.borrow().1;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut watching = seen.clone();
    let over = async move {
        let gone =
            |(network, to): &(Network, SocketAddr)| *network == Network::Down || *to != target;
        let _ = watching.wait_for(gone).await;
    };
    let up =
        Arc::new(|network: Network| !matches!(network, Network::ClientUnheard | Network::Silent));
    let down =
        Arc::new(|network: Network| !matches!(network, Network::ServerUnheard | Network::Silent));
    tokio::select! {
        () = over => {}
        () = carry(from_client, to_server, seen.clone(), &*up) => {}
        () = carry(from_server, to_client, seen, &*down) => {}
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut seen: watch::Receiver<(Network, SocketAddr)>,
    passes: &(impl Fn(Network) -> bool + Sync),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if seen
            .wait_for(|(network, _)| passes(*network))
            .await
            .is_err()
        {
            return;
        }
        let network = seen.borrow().0;
        if let Network::Slow(delay) = network {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
