//! Bytes that wait to be written to a connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite as _;

use super::Duplex;

/// Slices given to the kernel at once.
const SLICES: usize = 16;

/// Not bounded by itself: whoever fills it stops reading the other side while
/// [`Outbox::len`] is high.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    len: usize,
    /// Written, but perhaps still in a buffer of TLS.
    unflushed: bool,
}

impl Outbox {
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Everything is with the kernel.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    /// Gives memory back that it has no use for while nothing is written.
    pub fn rest(&mut self) {
        self.queue.shrink_to_fit();
    }

    /// Writes as much as there is; ready once all of it is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Duplex) -> Poll<io::Result<()>> {
        while let Some(first) = self.queue.front() {
            let written = if self.queue.len() == 1 {
                ready!(Pin::new(&mut *io).poll_write(cx, first))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut used = 0;
                for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                    *slice = IoSlice::new(bytes);
                    used += 1;
                }
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..used]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.written(written);
        }
        if self.unflushed {
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(first) = self.queue.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn everything_leaves_in_order_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(7);
        let mut near: Duplex = Box::new(near);
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for part in 0..40u8 {
            let bytes = vec![part; usize::from(part)];
            expected.extend_from_slice(&bytes);
            outbox.push(bytes.into());
        }
        assert_eq!(outbox.len(), expected.len());
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        poll_fn(|cx| outbox.poll_flush(cx, &mut near))
            .await
            .unwrap();
        assert!(outbox.is_empty());
        drop(near);
        assert_eq!(reader.await.unwrap(), expected);
    }
}
