//! The floor: what any hop in user space costs, without TLS and with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use holdpoint::transport::{Duplex, ServerTls};
use holdpoint_tests::TestDir;
use holdpoint_tests::certs::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BUFFER: usize = 64 * 1024;

pub(crate) struct Splice {
    /// Copies as it is.
    pub(crate) clear: SocketAddr,
    /// Ends the client's TLS, as holdpoint does.
    pub(crate) tls: SocketAddr,
    /// The authority of its certificate.
    pub(crate) ca: PathBuf,
    _dir: TestDir,
}

impl Splice {
    /// Copies between clients and `target` until the program ends.
    pub(crate) async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let dir = TestDir::new("splice");
        let authority = Authority::new("bench");
        let ca = dir.write("ca.pem", authority.pem());
        let leaf = authority.leaf(&dir, "splice");
        let tls = ServerTls::load(&leaf.cert, &leaf.key, None)?;
        Ok(Self {
            clear: listen(target, None).await?,
            tls: listen(target, Some(tls)).await?,
            ca,
            _dir: dir,
        })
    }
}

async fn listen(target: SocketAddr, tls: Option<ServerTls>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, target, tls.clone()));
        }
    });
    Ok(address)
}

async fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    tls: Option<ServerTls>,
) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let mut client: Duplex = match tls {
        None => Box::new(client),
        Some(tls) => {
            // SSLRequest, of which there is one form.
            client.read_exact(&mut [0; 8]).await?;
            client.write_all(b"S").await?;
            tls.accept(Box::new(client)).await?.0
        }
    };
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
    Ok(())
}
