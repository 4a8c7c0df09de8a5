//! A connection's bytes. Small writes of one turn of a connection leave with one system call.
//!
//! hyper writes each larger HTTP/2 data frame by itself. For many small answers that is a system
//! call each, which costs more than the answer. So writes up to `SMALL_WRITE_BYTES_MAX` gather in
//! a buffer that goes out when the connection's turn ends: this is the one place of ours where a
//! stored record may be copied, and from here the kernel takes it. Larger writes go straight from
//! where they lie.

use crate::header_blocks::HeaderBlocks;
use crate::heads::Heads;
use crate::limits;
use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

struct State<S> {
    stream: S,
    gathered: BytesMut,
    /// Whether the stream may still hold bytes that it has taken: TLS does, until it is flushed.
    unflushed: bool,
    /// What an HTTP/2 client has sent of its headers.
    blocks: Option<HeaderBlocks>,
}

type Shared<S> = Arc<parking_lot::Mutex<State<S>>>;

/// What hyper reads from and writes to.
pub struct Connection<S> {
    first: BytesMut,
    state: Shared<S>,
    heads: Option<Heads>,
}

/// The end that sends what has gathered.
pub struct Cork<S>(Shared<S>);

impl<S> Connection<S> {
    /// A connection of which some bytes were read already. `blocks` is given what comes after them.
    pub fn new(
        stream: S,
        first: Vec<u8>,
        blocks: Option<HeaderBlocks>,
    ) -> (Connection<S>, Cork<S>) {
        let state = State { blocks, ..State::new(stream) };
        let state = Arc::new(parking_lot::Mutex::new(state));
        let first = BytesMut::from(&first[..]);
        (Connection { first, state: state.clone(), heads: None }, Cork(state))
    }

    /// Tells when bytes come.
    pub fn telling(mut self, heads: Heads) -> Connection<S> {
        self.heads = Some(heads);
        self
    }
}

impl<S> State<S> {
    fn new(stream: S) -> Self {
        State { stream, gathered: BytesMut::new(), unflushed: false, blocks: None }
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Hands what has gathered to the stream.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(wrote);
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends a turn: everything leaves.
    fn poll_uncork(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.gathered.len() + len > limits::GATHERED_BYTES_MAX {
            ready!(self.poll_send(context))?;
        }
        if len <= limits::SMALL_WRITE_BYTES_MAX {
            slices.iter().for_each(|slice| self.gathered.extend_from_slice(slice));
            return Poll::Ready(Ok(len));
        }
        ready!(self.poll_send(context))?;
        self.unflushed = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

impl<S: AsyncRead + Unpin> Read for Connection<S> {
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
            if let Some(blocks) = &mut state.blocks {
                blocks.follow(tokio_buffer.filled());
            }
            tokio_buffer.filled().len()
        };
        // SAFETY: as above.
        unsafe { buffer.advance(filled) };
        if filled > 0
            && let Some(heads) = &self.heads
        {
            heads.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for Connection<S> {
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

impl<S> Cork<S> {
    /// A connection that sends what has gathered whenever it has nothing more to do, and ends when
    /// its client has owed the rest of its headers for so long.
    pub fn around<C>(self, connection: C, headers_limit: Duration) -> Corked<C, S> {
        Corked { connection, state: self.0, ended: false, headers_limit, owed: None }
    }
}

/// A connection and its cork.
pub struct Corked<C, S> {
    connection: C,
    state: Shared<S>,
    ended: bool,
    headers_limit: Duration,
    /// The end of a client's patience that owes headers.
    owed: Option<Pin<Box<Sleep>>>,
}

impl<C, S> Corked<C, S> {
    /// The connection itself.
    pub fn inner(self: Pin<&mut Self>) -> Pin<&mut C> {
        // SAFETY: `connection` is pinned whenever `self` is: nothing moves it out.
        unsafe { self.map_unchecked_mut(|corked| &mut corked.connection) }
    }

    /// Whether the client has owed the rest of its headers for too long; wakes when it will have.
    fn is_overdue(self: Pin<&mut Self>, context: &mut Context<'_>) -> bool {
        // SAFETY: nothing that is pinned is touched.
        let corked = unsafe { self.get_unchecked_mut() };
        let since = corked.state.lock().blocks.as_ref().and_then(HeaderBlocks::open_since);
        let Some(since) = since else {
            corked.owed = None;
            return false;
        };
        let end = since + corked.headers_limit;
        let owed = corked.owed.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if owed.deadline() != end {
            owed.as_mut().reset(end);
        }
        owed.as_mut().poll(context).is_ready()
    }
}

impl<C: Future, S: AsyncWrite + Unpin> Future for Corked<C, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ended = self.ended || self.as_mut().inner().poll(context).is_ready();
        if !ended && self.as_mut().is_overdue(context) {
            return Poll::Ready(());
        }
        // SAFETY: a flag has no place to keep.
        unsafe { self.as_mut().get_unchecked_mut() }.ended = ended;
        let mut state = self.state.lock();
        match state.poll_uncork(context) {
            Poll::Ready(Ok(())) if !ended => Poll::Pending,
            // What can't be sent any more ends the connection.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    /// Takes everything, and notes where each write began. What it took leaves when it is
    /// flushed, as with TLS over a socket that was full.
    #[derive(Default)]
    struct Taker {
        writes: Vec<(*const u8, usize)>,
        flushes: usize,
        is_full: bool,
    }

    impl AsyncWrite for Taker {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.push((bytes.as_ptr(), bytes.len()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.writes.extend(slices.iter().map(|slice| (slice.as_ptr(), slice.len())));
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.is_full {
                return Poll::Pending;
            }
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn small_writes_leave_together_and_large_ones_from_where_they_lie() {
        let mut state = State::new(Taker::default());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let small = vec![1; limits::SMALL_WRITE_BYTES_MAX / 2];
        let large = vec![2; limits::SMALL_WRITE_BYTES_MAX];
        for _ in 0..3 {
            let both = [IoSlice::new(&small), IoSlice::new(&small)];
            assert!(state.poll_write(&mut context, &both).is_ready());
        }
        assert!(state.stream.writes.is_empty(), "small writes wait for the end of the turn");
        let slices = [IoSlice::new(&small), IoSlice::new(&large)];
        assert!(state.poll_write(&mut context, &slices).is_ready());
        let (gathered, straight) = state.stream.writes.split_at(1);
        assert_eq!(gathered[0].1, small.len() * 6, "what came before goes first");
        assert_eq!(straight, [(small.as_ptr(), small.len()), (large.as_ptr(), large.len())]);
    }

    #[test]
    fn what_the_stream_holds_leaves_at_the_end_of_a_turn() {
        let (mut connection, cork) = Connection::new(Taker::default(), Vec::new(), None);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut turn = pin!(cork.around(std::future::pending::<()>(), Duration::ZERO));
        for bytes in [&[1; 16][..], &[2; 2 * limits::SMALL_WRITE_BYTES_MAX]] {
            assert!(Pin::new(&mut connection).poll_write(&mut context, bytes).is_ready());
            connection.state.lock().stream.is_full = true;
            assert!(turn.as_mut().poll(&mut context).is_pending());
            connection.state.lock().stream.is_full = false;
            // The socket has room again: the turn has nothing to write, and ends nevertheless.
            let before = connection.state.lock().stream.flushes;
            for _ in 0..2 {
                assert!(turn.as_mut().poll(&mut context).is_pending());
                assert_eq!(connection.state.lock().stream.flushes, before + 1);
            }
        }
    }

    #[test]
    fn what_gathers_is_bounded() {
        let mut state = State::new(Taker::default());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let small = vec![1; limits::SMALL_WRITE_BYTES_MAX];
        for _ in 0..100 {
            assert!(state.poll_write(&mut context, &[IoSlice::new(&small)]).is_ready());
            assert!(state.gathered.len() <= limits::GATHERED_BYTES_MAX);
        }
        assert!(!state.stream.writes.is_empty());
    }
}
