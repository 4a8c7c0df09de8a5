//! A stream of framed messages that a task makes.

use crate::body::{BoxError, Chunk, Stream};
use crate::status::{RpcError, ok_trailers};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use std::task::{Context, Poll};
use tokio::sync::mpsc::Receiver;

/// The messages of a channel, until it ends or one of them is an error.
pub struct Pieces {
    messages: Receiver<Result<Bytes, RpcError>>,
    ended: bool,
}

impl Pieces {
    /// What comes out of this channel.
    pub fn new(messages: Receiver<Result<Bytes, RpcError>>) -> Self {
        Pieces { messages, ended: false }
    }
}

impl Stream for Pieces {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match std::task::ready!(self.messages.poll_recv(context)) {
            Some(Ok(bytes)) => Frame::data(Chunk::One(bytes)),
            end => {
                self.ended = true;
                let mut trailers = HeaderMap::new();
                match end {
                    Some(Err(error)) => error.put(&mut trailers),
                    _ => trailers = ok_trailers(),
                }
                Frame::trailers(trailers)
            }
        })))
    }
}
