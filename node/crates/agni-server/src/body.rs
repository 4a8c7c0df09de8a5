//! The body of every answer: segments of bytes of which some are stored records, then trailers.

use crate::wire::Segments;
use axum::body::Body as AxumBody;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What can go wrong while an answer is produced.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One piece of an answer. Each part is handed on from where it lies; `io` says what the socket
/// makes of small ones.
#[derive(Debug)]
pub enum Chunk {
    /// One part.
    One(Bytes),
    /// Several.
    Many {
        /// The parts that are left.
        parts: VecDeque<Bytes>,
        /// Their bytes.
        remaining: usize,
    },
}

impl From<Segments> for Chunk {
    fn from(segments: Segments) -> Self {
        Chunk::Many { remaining: segments.len, parts: segments.parts.into() }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Chunk::One(bytes)
    }
}

impl Chunk {
    /// The parts that are left, for tests of where they lie.
    pub fn parts(&self) -> Vec<Bytes> {
        match self {
            Chunk::One(bytes) => vec![bytes.clone()],
            Chunk::Many { parts, .. } => parts.iter().cloned().collect(),
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Chunk::One(bytes) => bytes.len(),
            Chunk::Many { remaining, .. } => *remaining,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Chunk::One(bytes) => bytes,
            Chunk::Many { parts, .. } => parts.front().map_or(&[], |part| part),
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        match self {
            Chunk::One(bytes) => bytes.chunks_vectored(into),
            Chunk::Many { parts, .. } => {
                let count = parts.len().min(into.len());
                for (slot, part) in into.iter_mut().zip(parts) {
                    *slot = IoSlice::new(part);
                }
                count
            }
        }
    }

    fn advance(&mut self, mut count: usize) {
        match self {
            Chunk::One(bytes) => bytes.advance(count),
            Chunk::Many { parts, remaining } => {
                *remaining = remaining.checked_sub(count).expect("advance within what remains");
                while count > 0 {
                    let Some(front) = parts.front_mut() else { break };
                    if count < front.len() {
                        front.advance(count);
                        break;
                    }
                    count -= front.len();
                    parts.pop_front();
                }
            }
        }
    }
}

/// Something that produces an answer piece by piece.
pub trait Stream: Send {
    /// The next piece; `None` at the end.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>>;
}

/// The body of an answer.
pub enum Body {
    /// Nothing, or nothing any more.
    Empty,
    /// All data at once, then perhaps trailers.
    Full {
        /// The data, until it is taken.
        data: Option<Chunk>,
        /// The trailers, until they are taken.
        trailers: Option<Box<HeaderMap>>,
    },
    /// A stream of ours.
    Stream(Box<dyn Stream>),
    /// An answer of a service that isn't ours: health, reflection.
    Other(AxumBody),
}

impl Body {
    /// Data without trailers.
    pub fn data(data: impl Into<Chunk>) -> Self {
        Body::Full { data: Some(data.into()), trailers: None }
    }

    /// Data with trailers.
    pub fn with_trailers(data: impl Into<Chunk>, trailers: HeaderMap) -> Self {
        Body::Full { data: Some(data.into()), trailers: Some(Box::new(trailers)) }
    }
}

impl HttpBody for Body {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        match &mut *self {
            Body::Empty => Poll::Ready(None),
            Body::Full { data, trailers } => Poll::Ready(match data.take() {
                Some(data) => Some(Ok(Frame::data(data))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))),
            }),
            Body::Stream(stream) => stream.poll_next(context),
            Body::Other(body) => Pin::new(body)
                .poll_frame(context)
                .map_ok(|frame| frame.map_data(Chunk::One))
                .map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full { data, trailers } => data.is_none() && trailers.is_none(),
            Body::Stream(_) => false,
            Body::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.remaining() as u64))
            }
            Body::Stream(_) => SizeHint::default(),
            Body::Other(body) => body.size_hint(),
        }
    }
}
