//! A connection's bytes. Small writes of one turn of a connection leave with one system call.
//!
//! hyper writes each larger HTTP/2 data frame by itself. For many small answers that is a system
//! call each, which costs more than the answer. So writes up to `SMALL_BYTES` gather in a buffer
//! that goes out when the connection's turn ends; larger ones go straight from where they lie.

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Writes up to this size gather.
const SMALL_BYTES: usize = 4 << 10;
/// Gathered bytes that go out at once.
const GATHERED_BYTES_MAX: usize = 64 << 10;

struct State {
    stream: TcpStream,
    gathered: BytesMut,
}

type Shared = Arc<parking_lot::Mutex<State>>;

/// What hyper reads from and writes to.
pub struct Connection {
    first: BytesMut,
    state: Shared,
}

/// The end that sends what has gathered.
pub struct Cork(Shared);

impl Connection {
    /// A connection of which some bytes were read already.
    pub fn new(stream: TcpStream, first: Vec<u8>) -> (Connection, Cork) {
        let state = Arc::new(parking_lot::Mutex::new(State { stream, gathered: BytesMut::new() }));
        let first = BytesMut::from(&first[..]);
        (Connection { first, state: state.clone() }, Cork(state))
    }
}

impl State {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(wrote);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.gathered.len() + len > GATHERED_BYTES_MAX {
            ready!(self.poll_send(context))?;
        }
        if len <= SMALL_BYTES {
            slices.iter().for_each(|slice| self.gathered.extend_from_slice(slice));
            return Poll::Ready(Ok(len));
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let len = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(len));
            return Poll::Ready(Ok(()));
        }
        // SAFETY: tokio's buffer writes initialised bytes only and never de-initialises any; the
        // cursor advances by exactly what was filled.
        let filled = unsafe {
            let mut tokio_buffer = ReadBuf::uninit(buffer.as_mut());
            let mut state = self.state.lock();
            ready!(Pin::new(&mut state.stream).poll_read(context, &mut tokio_buffer))?;
            tokio_buffer.filled().len()
        };
        // SAFETY: as above.
        unsafe { buffer.advance(filled) };
        Poll::Ready(Ok(()))
    }
}

impl Write for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.state.lock().poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.state.lock().poll_write(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The cork sends at the end of the turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        ready!(state.poll_send(context))?;
        Pin::new(&mut state.stream).poll_shutdown(context)
    }
}

impl Cork {
    /// A connection that sends what has gathered whenever it has nothing more to do.
    pub fn around<C>(self, connection: C) -> Corked<C> {
        Corked { connection, state: self.0, ended: false }
    }
}

/// A connection and its cork.
pub struct Corked<C> {
    connection: C,
    state: Shared,
    ended: bool,
}

impl<C> Corked<C> {
    /// The connection itself.
    pub fn inner(self: Pin<&mut Self>) -> Pin<&mut C> {
        // SAFETY: `connection` is pinned whenever `self` is: nothing moves it out.
        unsafe { self.map_unchecked_mut(|corked| &mut corked.connection) }
    }
}

impl<C: Future> Future for Corked<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ended = self.ended || self.as_mut().inner().poll(context).is_ready();
        // SAFETY: a flag has no place to keep.
        unsafe { self.as_mut().get_unchecked_mut() }.ended = ended;
        let mut state = self.state.lock();
        match state.poll_send(context) {
            Poll::Ready(Ok(())) if !ended => Poll::Pending,
            // What can't be sent any more ends the connection.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }
}
