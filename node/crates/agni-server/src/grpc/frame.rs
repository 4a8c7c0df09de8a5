//! Messages out of a request's body: `compressed flag (1) ‖ length (4) ‖ message`.

use crate::node::{Arriving, Node};
use crate::status::{Code, RpcError};
use crate::wire::GRPC_PREFIX_BYTES;
use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Takes messages out of a body one by one.
pub struct Messages {
    body: Incoming,
    buffer: BytesMut,
    /// A data frame that nothing was taken from yet: most requests are one.
    whole: Bytes,
    ended: bool,
    arriving: Arriving,
}

impl Messages {
    /// The messages of a request to this node.
    pub fn new(body: Incoming, node: Arc<Node>) -> Self {
        let arriving = Arriving::new(node);
        Messages { body, buffer: BytesMut::new(), whole: Bytes::new(), ended: false, arriving }
    }

    /// Whether some of a message is here, but not all of it.
    pub fn begun(&self) -> bool {
        !self.buffer.is_empty() || !self.whole.is_empty()
    }

    /// The length of the next message, if its prefix is here.
    fn announced(&self) -> Result<Option<usize>, RpcError> {
        let bytes: &[u8] = if self.whole.is_empty() { &self.buffer } else { &self.whole };
        let Some((flag, mut rest)) = bytes.split_first() else { return Ok(None) };
        if *flag > 1 {
            let message = "the body is no gRPC message: its first byte must be 0";
            return Err(RpcError::field("message", message));
        }
        if *flag == 1 {
            return Err(RpcError::unimplemented(
                "compressed messages aren't supported, send them as they are",
            )
            .with("field", "grpc-encoding"));
        }
        if rest.len() < GRPC_PREFIX_BYTES - 1 {
            return Ok(None);
        }
        let length = rest.get_u32() as usize;
        let limit = self.arriving.node().config.max_message_bytes;
        match length > limit {
            true => Err(RpcError::too_large(limit)),
            false => Ok(Some(length)),
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, RpcError> {
        let Some(length) = self.announced()? else { return Ok(None) };
        let end = GRPC_PREFIX_BYTES + length;
        if !self.whole.is_empty() {
            if self.whole.len() < end {
                let whole = std::mem::take(&mut self.whole);
                self.buffer.reserve(end);
                self.buffer.extend_from_slice(&whole);
                self.arriving.hold(self.buffer.len())?;
                return Ok(None);
            }
            let mut message = self.whole.split_to(end);
            message.advance(GRPC_PREFIX_BYTES);
            return Ok(Some(message));
        }
        if self.buffer.len() < end {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(end);
        self.arriving.hold(self.buffer.len())?;
        message.advance(GRPC_PREFIX_BYTES);
        Ok(Some(message.freeze()))
    }

    /// The next message; none at a clean end.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RpcError>> {
        loop {
            match self.take() {
                Ok(None) => {}
                other => return Poll::Ready(other),
            }
            if self.ended {
                let left = self.buffer.len() + self.whole.len();
                return Poll::Ready(match left {
                    0 => Ok(None),
                    _ => Err(RpcError::field("message", "ends in the middle")),
                });
            }
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.buffer.is_empty() && self.whole.is_empty() {
                        self.whole = data;
                    } else {
                        let whole = std::mem::take(&mut self.whole);
                        self.buffer.extend_from_slice(&whole);
                        self.buffer.extend_from_slice(&data);
                        if let Err(error) = self.arriving.hold(self.buffer.len()) {
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                Some(Err(error)) => {
                    let message = format!("the request broke off: {error}");
                    let error = RpcError::new(Code::Cancelled, "REQUEST_BROKEN", message);
                    return Poll::Ready(Err(error));
                }
                None => self.ended = true,
            }
        }
    }

    /// The one message of a unary call.
    pub async fn only(mut self) -> Result<Bytes, RpcError> {
        let message = poll_fn(|context| self.poll_next(context)).await?;
        let message =
            message.ok_or_else(|| RpcError::field("message", "is missing, the body is empty"))?;
        if self.ended
            || (self.whole.is_empty() && self.buffer.is_empty() && self.body.is_end_stream())
        {
            return Ok(message);
        }
        match poll_fn(|context| self.poll_next(context)).await? {
            None => Ok(message),
            Some(_) => Err(RpcError::field("message", "is followed by another, send one a call")),
        }
    }
}

/// Decodes a message.
pub fn decode<M: prost::Message + Default>(bytes: Bytes) -> Result<M, RpcError> {
    M::decode(bytes).map_err(|error| RpcError::field("message", format!("is malformed: {error}")))
}
