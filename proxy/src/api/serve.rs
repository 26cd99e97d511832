//! Serves the admin listener, over TLS unless it is loopback only.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// For the TLS handshake, and again for each request's head and for its body.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 2_048;

/// Of which one peer may have so many, so that nobody has all of them. Callers behind one proxy
/// are one peer, and so is a network of IPv6 that is given to one customer.
const MAX_OF_ONE: usize = MAX_CONNECTIONS / 2;

/// More than any route takes; each has its own limit below it.
const MAX_BODY: usize = 1 << 20;

/// The admin listener cannot be served as it is.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the admin listener on {0} would send tokens in clear: give it `tls`, or loopback")]
    Clear(SocketAddr),
    #[error("the admin listener has no address: {0}")]
    Address(#[from] io::Error),
}

/// Serves `router` until `stop` resolves. Connections then end by themselves.
///
/// # Errors
/// Without `tls` the listener has to be on loopback.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(ServeError::Clear(address));
    }
    let router = router.layer(from_fn(whole_body));
    let tls = tls.map(TlsAcceptor::from);
    let peers = Arc::new(Peers::default());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let (stream, peer) = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match Peers::enter(&peers, from.ip()) {
                    Some(peer) => (stream, peer),
                    None => continue,
                },
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            let (_place, _peer) = (place, peer);
            // Small answers should not wait for each other.
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, router).await,
                Some(tls) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router).await,
                    Ok(Err(error)) => tracing::debug!(%error, "admin: TLS failed"),
                    Err(_) => tracing::debug!("admin: TLS took too long"),
                },
            }
        });
    }
}

/// Who is connected how often.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address.
struct Peer(Arc<Peers>, IpAddr);

impl Peers {
    /// `None` for one connection too many.
    fn enter(this: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::from(network.to_be_bytes())
            }
            address => address,
        };
        let mut counts = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Peer(Arc::clone(this), address))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// Reads the body before anything waits for it: who sends it slowly holds a connection for
/// as long as he likes otherwise, and needs no token for that.
async fn whole_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "admin: a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use hyper::body::Frame;

    use super::*;

    #[test]
    fn one_address_cannot_have_every_connection() {
        let peers = Arc::new(Peers::default());
        let (one, other) = (
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from(Ipv4Addr::LOCALHOST),
        );
        let mut open: Vec<Peer> = (0..MAX_OF_ONE)
            .map(|_| Peers::enter(&peers, one).unwrap())
            .collect();
        assert!(Peers::enter(&peers, one).is_none());
        assert!(Peers::enter(&peers, other).is_some());
        open.pop();
        assert!(Peers::enter(&peers, one).is_some());
        let sixes = |end: u128| IpAddr::from((0x2001_0db8u128 << 96 | end).to_be_bytes());
        open.extend((0..MAX_OF_ONE).map(|n| Peers::enter(&peers, sixes(n as u128)).unwrap()));
        assert!(Peers::enter(&peers, sixes(1 << 63)).is_none());
        assert!(Peers::enter(&peers, sixes(1 << 64)).is_some());
        drop(open);
        assert!(peers.0.lock().unwrap().is_empty());
    }

    /// A body of which nothing comes.
    struct Never;

    impl hyper::body::Body for Never {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_ends_the_request() {
        let router = Router::new()
            .route("/", axum::routing::post(|body: String| async { body }))
            .layer(from_fn(whole_body));
        let service = TowerToHyperService::new(router);
        for (body, status) in [
            (Body::from("a"), StatusCode::OK),
            (Body::new(Never), StatusCode::REQUEST_TIMEOUT),
            (
                Body::from(vec![b'a'; MAX_BODY + 1]),
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
        ] {
            let request = Request::post("/").body(body).unwrap();
            let response = hyper::service::Service::call(&service, request).await;
            assert_eq!(response.unwrap().status(), status);
        }
    }
}
