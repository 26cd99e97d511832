//! A connection inside of TLS that keeps no buffers while nothing moves.
//!
//! rustls's own would be 4 KiB and more for each connection for as long as it lives, and
//! thousands of sessions only wait. So a read goes to memory of the thread and is decrypted
//! there; what is left of a record is copied out. What is written is encrypted there and
//! handed to the kernel; what the kernel does not take is copied out.
//!
//! All that is TLS is done by [`rustls::unbuffered`]; this moves bytes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Duplex;

/// Plaintext that is encrypted at once.
const PART: usize = 4 * RECORD;

/// Plaintext of a whole record.
///
/// RFC 8446, section 5.1, allows 16 KiB, a multiple of the page. rustls copies into memory that
/// begins a header's length behind a page; where that is a page's start plus 1 to 31 and the
/// source lies at one, which then held for each record, `memcpy` of glibc before 2.39 takes
/// twenty times as long on processors with Zen cores.
const RECORD: usize = 16_000;

/// What rustls is to be configured with: a record with its header.
pub(super) const FRAGMENT: usize = RECORD + 5;

/// For a part in records, or for a read and what was left of the one before.
const ROOM: usize = PART + 16 * 1024;

/// What may be left of a read. A record is much shorter; a message of a handshake that takes
/// several records may be as long as rustls itself would let it be.
const LEFT: usize = 64 * 1024 - 1;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends memory of the thread, [`ROOM`] bytes or more.
fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            let room = scratch.len().max(ROOM);
            scratch.resize(room, 0);
            work(&mut scratch)
        }
        // TLS inside of TLS, which nobody asks for today.
        Err(_) => work(&mut vec![0; ROOM]),
    })
}

/// One side of a connection.
pub(super) trait Side: Unpin + Send {
    type Data;
    fn common(&self) -> &CommonState;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn common(&self) -> &CommonState {
        self.deref()
    }

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn common(&self) -> &CommonState {
        self.deref()
    }

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

pub(super) struct Sealed<S> {
    io: Duplex,
    side: S,
    /// Of the peer, and not a whole record yet.
    left: Vec<u8>,
    moving: Moving,
    /// We have said that we send no more.
    said_goodbye: bool,
    /// The peer broke TLS, and was told so.
    broken: bool,
}

/// Bytes that wait for somebody. There are none most of the time.
#[derive(Default)]
struct Moving {
    /// Decrypted and not read.
    plain: BytesMut,
    /// Encrypted and not with the kernel.
    sealed: BytesMut,
    /// The peer has said that it sends no more.
    closed: bool,
}

/// Where rustls stands once it has seen some bytes.
enum Next<'c, D> {
    /// Show it the rest of them.
    Again,
    /// It needs more.
    Blocked,
    /// It needs more, or something to encrypt.
    Open(WriteTraffic<'c, D>),
}

impl<S: Side> Sealed<S> {
    /// # Errors
    /// The handshake failed; the peer was told why, as far as it listens.
    pub(super) async fn handshake(io: Duplex, side: S) -> io::Result<Self> {
        let mut this = Self {
            io,
            side,
            left: Vec::new(),
            moving: Moving::default(),
            said_goodbye: false,
            broken: false,
        };
        // A client speaks first.
        this.see(&mut [], &mut ReadBuf::new(&mut []))?;
        poll_fn(|cx| this.poll_handshake(cx)).await?;
        Ok(this)
    }

    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.side.common().alpn_protocol()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let drained = self.poll_drain(cx)?;
            if !self.side.common().is_handshaking() {
                // What is left, such as tickets, goes with whatever comes next: a client need
                // not read them to go on.
                return Poll::Ready(Ok(()));
            }
            ready!(drained);
            if self.moving.closed {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads once, and decrypts that into `into` as far as it has room.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_scratch(|scratch| {
            // Shorter than the room by far, see below.
            let (before, room) = scratch.split_at_mut(self.left.len());
            let mut read = ReadBuf::new(room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let count = read.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed the connection without closing TLS",
                )));
            }
            before.copy_from_slice(&self.left);
            let all = &mut scratch[..self.left.len() + count];
            let seen = self.see(all, into);
            // An alert or an answer. It need not leave now: the next write takes it along, or
            // says why it cannot. What the peer has said is no less true for that.
            let _ = self.poll_drain(cx);
            let rest = &all[seen?..];
            if rest.len() > LEFT {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.left = rest.to_vec();
            Poll::Ready(Ok(()))
        })
    }

    /// Shows rustls what has come. Gives how much of it is done with.
    fn see(&mut self, incoming: &mut [u8], into: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let status = self.side.process(&mut incoming[done..]);
            match self.moving.take(status, into) {
                Ok((discard, Next::Again)) => done += discard,
                Ok((discard, _)) => return Ok(done + discard),
                Err(error) => {
                    self.broken = true;
                    self.last_words();
                    return Err(broken(error));
                }
            }
        }
    }

    /// The alert that goes with an error.
    fn last_words(&mut self) {
        let mut none = ReadBuf::new(&mut []);
        while let Ok((_, Next::Again)) = self.moving.take(self.side.process(&mut []), &mut none) {}
    }

    /// Encrypts what `work` wants to say, and writes as much as the kernel takes at once.
    fn seal(
        &mut self,
        cx: &mut Context<'_>,
        work: impl Fn(&mut WriteTraffic<'_, S::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        with_scratch(|scratch| {
            let count = loop {
                let mut none = ReadBuf::new(&mut []);
                let status = self.side.process(&mut self.left);
                let (discard, next) = self.moving.take(status, &mut none).map_err(broken)?;
                let sealed = match next {
                    Next::Again => None,
                    Next::Blocked => return Err(io::ErrorKind::NotConnected.into()),
                    Next::Open(mut traffic) => Some(work(&mut traffic, scratch)),
                };
                self.left.drain(..discard);
                match sealed {
                    None => {}
                    Some(Ok(count)) => break count,
                    Some(Err(EncryptError::InsufficientSize(more))) => {
                        scratch.resize(more.required_size.max(scratch.len() + 1), 0);
                    }
                    Some(Err(error)) => return Err(io::Error::other(error)),
                }
            };
            let mut sealed = &scratch[..count];
            // Behind what waits already.
            while !sealed.is_empty() && self.moving.sealed.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, sealed) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => sealed = &sealed[count..],
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
            self.moving.sealed.extend_from_slice(sealed);
            Ok(())
        })
    }

    /// Writes what is encrypted.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sealed = &mut self.moving.sealed;
        while !sealed.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, sealed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => sealed.advance(count),
            }
        }
        *sealed = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl Moving {
    /// Does what rustls asks. Gives how much of what it saw is done with.
    fn take<'c, D>(
        &mut self,
        status: UnbufferedStatus<'c, '_, D>,
        into: &mut ReadBuf<'_>,
    ) -> Result<(usize, Next<'c, D>), rustls::Error> {
        let UnbufferedStatus {
            mut discard, state, ..
        } = status;
        let next = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    let room = into.remaining();
                    let room = if self.plain.is_empty() { room } else { 0 };
                    let (now, later) = record.payload.split_at(room.min(record.payload.len()));
                    into.put_slice(now);
                    self.plain.extend_from_slice(later);
                }
                Next::Again
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let at = self.sealed.len();
                if let Err(EncodeError::InsufficientSize(more)) = data.encode(&mut []) {
                    self.sealed.resize(at + more.required_size, 0);
                    data.encode(&mut self.sealed[at..])
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                }
                Next::Again
            }
            // It stands where the next write begins.
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Next::Again
            }
            ConnectionState::PeerClosed => {
                self.closed = true;
                Next::Again
            }
            ConnectionState::WriteTraffic(traffic) => Next::Open(traffic),
            ConnectionState::BlockedHandshake | ConnectionState::Closed => Next::Blocked,
            // Early data, which no configuration of ours lets in.
            _ => return Err(rustls::Error::General("a state without a name".to_owned())),
        };
        Ok((discard, next))
    }
}

impl<S: Side> AsyncRead for Sealed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        // What a handshake or an answer left behind. That it cannot be sent is for the next
        // write to say: there may be a last word to read.
        let _ = this.poll_drain(cx);
        loop {
            let plain = &mut this.moving.plain;
            if !plain.is_empty() {
                let count = plain.len().min(buf.remaining());
                buf.put_slice(&plain.split_to(count));
                if plain.is_empty() {
                    *plain = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.moving.closed || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            ready!(this.poll_receive(cx, buf))?;
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Side> AsyncWrite for Sealed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let part = &buf[..buf.len().min(PART)];
        this.seal(cx, |traffic, room| traffic.encrypt(part, room))?;
        Poll::Ready(Ok(part.len()))
    }

    /// In one piece, so that small slices do not become a record each.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
            && first.len() >= RECORD
        {
            return self.poll_write(cx, first);
        }
        let mut part =
            Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum::<usize>().min(PART));
        for buf in bufs {
            let room = PART - part.len();
            part.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        self.poll_write(cx, &part)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // There was an alert instead where the peer broke TLS.
        if !mem::replace(&mut this.said_goodbye, true) && !this.broken {
            let _ = this.seal(cx, |traffic, room| traffic.queue_close_notify(room));
        }
        ready!(this.poll_drain(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
