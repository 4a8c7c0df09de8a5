//! The `Watch` stream.

use crate::body::{BoxError, Chunk, Stream};
use crate::grpc::frame::{Messages, decode};
use crate::node::Node;
use crate::status::{RpcError, ok_trailers};
use crate::watch::handle::Handle;
use crate::wire::{Segments, put_grpc_prefix, scratch};
use http::HeaderMap;
use http_body::Frame;
use std::task::{Context, Poll};
use std::time::Duration;

/// The stream of a watch's messages.
pub struct WatchStream {
    handle: Handle,
    ended: bool,
}

/// Opens a watch for a gRPC client.
pub async fn serve(node: &Node, messages: Messages) -> Result<WatchStream, RpcError> {
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    let bytes =
        tokio::time::timeout(limit, messages.only()).await.map_err(|_| RpcError::too_slow())??;
    Ok(WatchStream { handle: Handle::open(node, decode(bytes)?).await?, ended: false })
}

impl Stream for WatchStream {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match std::task::ready!(self.handle.poll(context)) {
            Some(Ok(message)) => {
                let mut framed = Segments::default();
                framed.push(scratch(8, |out| put_grpc_prefix(out, message.parts.len)));
                framed.append(message.parts);
                Frame::data(framed.into())
            }
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
