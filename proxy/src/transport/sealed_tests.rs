//! Against rustls's buffered side, in both versions, through a pipe that is narrow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// A server and the client that trusts it.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.self_signed(&key).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    let mut roots = RootCertStore::empty();
    roots.add(leaf.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server.unwrap()), Arc::new(client))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

type Ours = Sealed<UnbufferedServerConnection>;
type Theirs = tokio_rustls::client::TlsStream<DuplexStream>;

/// Ours is the server.
async fn pair(version: &'static SupportedProtocolVersion, width: usize) -> (Ours, Theirs) {
    let (server, client) = configs(version);
    let (near, far) = duplex(width);
    let ours = Sealed::handshake(
        Box::new(near),
        UnbufferedServerConnection::new(server).unwrap(),
    );
    let connector = TlsConnector::from(client);
    let (ours, theirs) = tokio::join!(ours, connector.connect(localhost(), far));
    (ours.unwrap(), theirs.unwrap())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Sends in pieces of many sizes while it reads what the other one sends.
async fn talk<I>(io: impl Future<Output = io::Result<I>>, sends: usize, hears: usize)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (mut read, mut write) = tokio::io::split(io.await.unwrap());
    let sent = pattern(sends);
    let sending = async {
        let mut rest = &sent[..];
        for size in (1..).map(|n| n * n * 3) {
            let (now, later) = rest.split_at(rest.len().min(size));
            write.write_all(now).await.unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        write.flush().await.unwrap();
    };
    let mut heard = vec![0; hears];
    let ((), heard_all) = tokio::join!(sending, read.read_exact(&mut heard));
    heard_all.unwrap();
    assert_eq!(heard, pattern(hears));
    write.shutdown().await.unwrap();
    // The other's goodbye.
    assert_eq!(read.read(&mut [0; 9]).await.unwrap(), 0);
}

/// Each goes on as soon as its own handshake is over, whatever of it is still on its way.
async fn both_ways<O, T>(
    ours: impl Future<Output = io::Result<O>>,
    theirs: impl Future<Output = io::Result<T>>,
) where
    O: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    tokio::join!(talk(ours, 300_000, 200_000), talk(theirs, 200_000, 300_000));
}

#[tokio::test]
async fn bytes_go_both_ways_at_once_through_a_narrow_pipe() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for width in [61, 100_000] {
            let (server, client) = configs(version);
            let (near, far) = duplex(width);
            let side = UnbufferedServerConnection::new(server.clone()).unwrap();
            let connector = TlsConnector::from(client.clone());
            let theirs = connector.connect(localhost(), far);
            both_ways(Sealed::handshake(Box::new(near), side), theirs).await;
            // And with the parts exchanged.
            let (near, far) = duplex(width);
            let side = UnbufferedClientConnection::new(client, localhost()).unwrap();
            let theirs = TlsAcceptor::from(server).accept(far);
            both_ways(Sealed::handshake(Box::new(near), side), theirs).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_while_nothing_moves() {
    let (mut ours, mut theirs) = pair(&rustls::version::TLS13, 1 << 20).await;
    let mut heard = vec![0; 50_000];
    for _ in 0..3 {
        theirs.write_all(&pattern(50_000)).await.unwrap();
        theirs.flush().await.unwrap();
        ours.read_exact(&mut heard).await.unwrap();
        ours.write_all(&heard).await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut heard).await.unwrap();
    }
    assert!(futures_are_idle(&mut ours).await);
    let Moving { plain, sealed, .. } = &ours.moving;
    let kept = [ours.left.capacity(), plain.capacity(), sealed.capacity()];
    assert_eq!(kept, [0, 0, 0]);
}

/// Nothing is there to be read.
async fn futures_are_idle(ours: &mut Ours) -> bool {
    let mut room = [0; 9];
    let mut room = ReadBuf::new(&mut room);
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *ours).poll_read(cx, &mut room).is_pending())).await
}

#[tokio::test]
async fn small_slices_become_one_record() {
    let (mut ours, theirs) = pair(&rustls::version::TLS13, 1 << 20).await;
    let slices = [
        IoSlice::new(b"one"),
        IoSlice::new(b""),
        IoSlice::new(b"two"),
    ];
    assert_eq!(ours.write_vectored(&slices).await.unwrap(), 6);
    ours.flush().await.unwrap();
    drop(ours);
    let (mut raw, mut session) = theirs.into_inner();
    let mut records = Vec::new();
    raw.read_to_end(&mut records).await.unwrap();
    let mut rest = &records[..];
    while !rest.is_empty() {
        session.read_tls(&mut rest).unwrap();
        session.process_new_packets().unwrap();
    }
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut session.reader(), &mut said);
    assert_eq!(said, b"onetwo");
    // Tickets of the handshake stand before it. A record has 17 bytes beside its text.
    let mut lengths = Vec::new();
    let mut rest = &records[..];
    while let Some((head, more)) = rest.split_at_checked(5) {
        let length = usize::from(head[3]) << 8 | usize::from(head[4]);
        lengths.push(length);
        rest = &more[length..];
    }
    assert_eq!(lengths.last(), Some(&(6 + 17)), "{lengths:?}");
}

#[tokio::test]
async fn an_end_without_a_goodbye_is_no_orderly_one() {
    let (mut ours, theirs) = pair(&rustls::version::TLS13, 1 << 20).await;
    drop(theirs);
    let end = ours.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_broken_record_ends_it_and_the_peer_is_told() {
    let (mut ours, theirs) = pair(&rustls::version::TLS13, 1 << 20).await;
    let (mut raw, mut session) = theirs.into_inner();
    raw.write_all(b"\x17\x03\x03\0\x1athis is not a record of it")
        .await
        .unwrap();
    let end = ours.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::InvalidData);
    // It stays so.
    assert!(ours.read(&mut [0; 9]).await.is_err());
    assert!(ours.write(b"more").await.is_err());
    let _ = ours.shutdown().await;
    drop(ours);
    let mut records = Vec::new();
    raw.read_to_end(&mut records).await.unwrap();
    session.read_tls(&mut &records[..]).unwrap();
    let told = session.process_new_packets().unwrap_err();
    let alert = rustls::AlertDescription::BadRecordMac;
    assert_eq!(told, rustls::Error::AlertReceived(alert));
}

#[tokio::test]
async fn a_stranger_is_told_that_it_does_not_speak_tls() {
    let (server, _) = configs(&rustls::version::TLS13);
    let (near, mut far) = duplex(1 << 20);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let side = UnbufferedServerConnection::new(server).unwrap();
    let failed = Sealed::handshake(Box::new(near), side).await.err().unwrap();
    assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
    let mut alert = Vec::new();
    far.read_to_end(&mut alert).await.unwrap();
    // Content type 21, fatal.
    assert_eq!((alert[0], alert[5]), (21, 2), "{alert:?}");
}

#[tokio::test]
async fn keys_may_be_renewed_in_between() {
    let (mut ours, mut theirs) = pair(&rustls::version::TLS13, 1 << 20).await;
    for round in 0..3u8 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(&[round; 100]).await.unwrap();
        theirs.flush().await.unwrap();
        let mut heard = [0; 100];
        ours.read_exact(&mut heard).await.unwrap();
        // With it goes our new key.
        ours.write_all(&heard).await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [round; 100]);
    }
}

/// A socket whose peer stops reading, and then resets.
struct Deaf(DuplexStream, Arc<AtomicU8>);

const HEARS: u8 = 0;
const STUCK: u8 = 1;
const RESET: u8 = 2;

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.1.load(Ordering::Relaxed) {
            HEARS => Pin::new(&mut self.0).poll_write(cx, buf),
            STUCK => Poll::Pending,
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_last_word_is_heard_where_nothing_can_be_said_any_more() {
    let (server, client) = configs(&rustls::version::TLS13);
    let (near, far) = duplex(1 << 20);
    let hears = Arc::new(AtomicU8::new(HEARS));
    let ours = Sealed::handshake(
        Box::new(Deaf(near, Arc::clone(&hears))),
        UnbufferedServerConnection::new(server).unwrap(),
    );
    let connector = TlsConnector::from(client);
    let (ours, theirs) = tokio::join!(ours, connector.connect(localhost(), far));
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    hears.store(STUCK, Ordering::Relaxed);
    ours.write_all(b"a result").await.unwrap();
    hears.store(RESET, Ordering::Relaxed);
    // To be answered, which cannot be done either.
    theirs.get_mut().1.refresh_traffic_keys().unwrap();
    theirs.write_all(b"cancel it").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut heard = Vec::new();
    ours.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"cancel it");
    let end = ours.flush().await.unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
}
