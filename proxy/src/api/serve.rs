//! Serves the admin listener, over TLS unless it is loopback only.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
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

use super::crowd::Crowd;

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
    let peers = Crowd::new(MAX_OF_ONE);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let (stream, peer) = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match peers.enter(peer(from.ip())) {
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

/// What counts as one peer.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::from(network.to_be_bytes())
        }
        address => address,
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
    fn a_network_of_ipv6_is_one_peer() {
        let six = |end: u128| peer(IpAddr::from((0x2001_0db8u128 << 96 | end).to_be_bytes()));
        assert_eq!(six(1), six(1 << 63));
        assert_ne!(six(1), six(1 << 64));
        let four = |last: u8| peer(IpAddr::from([192, 0, 2, last]));
        assert_ne!(four(1), four(2));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert_eq!(peer(IpAddr::V6(mapped)), four(1));
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
