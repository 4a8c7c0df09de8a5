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
pub struct Messages<B = Incoming> {
    body: B,
    buffer: BytesMut,
    /// A data frame that nothing was taken from yet: most requests are one.
    whole: Bytes,
    ended: bool,
    arriving: Arriving,
}

impl<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin> Messages<B> {
    /// The messages of a request to this node.
    pub fn new(body: B, node: Arc<Node>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;
    use crate::metrics::ServerMetrics;
    use crate::process;
    use crate::runtime::{Delivery, Mailbox};
    use agni_core::engine::{Engine, NoPeers};
    use agni_core::proto::api;
    use http_body::Frame;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;

    /// A body in the pieces in which it arrived.
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn node() -> (tempfile::TempDir, Arc<Node>) {
        let directory = tempfile::tempdir().expect("directory");
        let mut config = ServerConfig::default();
        config.engine.data_dir = directory.path().join("data");
        config.engine.disk_reserve_bytes = 1 << 20;
        let (mailbox, _receiver) = Mailbox::new();
        let delivery = Box::new(Delivery::new(vec![mailbox]));
        let engine = Engine::start(config.engine.clone(), delivery, Box::new(NoPeers));
        let (engine, address) = (engine.expect("engine"), ([127, 0, 0, 1], 1).into());
        (directory, Node::new(config, engine, address, None, ServerMetrics::default()))
    }

    fn cut(bytes: &[u8], piece_bytes: usize) -> Pieces {
        Pieces(bytes.chunks(piece_bytes.max(1)).map(Bytes::copy_from_slice).collect())
    }

    /// All messages of a body, and how it ended.
    fn take(node: &Arc<Node>, body: Pieces) -> (Vec<Bytes>, Option<RpcError>) {
        let mut messages = Messages::new(body, node.clone());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut taken = Vec::new();
        loop {
            match messages.poll_next(&mut context) {
                Poll::Ready(Ok(Some(message))) => taken.push(message),
                Poll::Ready(Ok(None)) => return (taken, None),
                Poll::Ready(Err(error)) => return (taken, Some(error)),
                Poll::Pending => panic!("the pieces are all there"),
            }
        }
    }

    /// Reads a message as each of the requests.
    fn decode_all(message: &Bytes) {
        let _ = decode::<api::RegisterRequest>(message.clone());
        let _ = decode::<api::ListRequest>(message.clone());
        let _ = decode::<api::BatchRequest>(message.clone());
        let _ = decode::<api::RenewRequest>(message.clone());
        let _ = decode::<api::WatchRequest>(message.clone());
    }

    #[test]
    fn bytes_are_messages_or_refused_however_they_are_cut() {
        let (_directory, node) = node();
        let strategy = (
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
            proptest::collection::vec(any::<u8>(), 0..60),
            1_usize..50,
        );
        let mut runner = proptest::test_runner::TestRunner::default();
        let ran = runner.run(&strategy, |(sent, strange, piece_bytes)| {
            let mut whole = Vec::new();
            for message in &sent {
                whole.push(0);
                whole.extend((message.len() as u32).to_be_bytes());
                whole.extend(message);
            }
            let (taken, error) = take(&node, cut(&whole, piece_bytes));
            prop_assert!(error.is_none() && taken == sent);
            for bytes in [&strange[..], &[&whole[..], &strange].concat()] {
                let (taken, error) = take(&node, cut(bytes, piece_bytes));
                taken.iter().for_each(decode_all);
                if let Some(error) = error {
                    prop_assert!(error.code != Code::Internal, "{}", error.message);
                }
            }
            Ok(())
        });
        node.engine.stop();
        ran.expect("every case holds");
    }

    /// Ten million, unless AGNI_FUZZ_FRAMES says otherwise; run by `make soak`.
    #[test]
    #[ignore = "takes a minute"]
    fn frames_by_the_million_take_no_memory() {
        const GROWTH_BYTES_MAX: u64 = 10 << 20;
        let wanted = std::env::var("AGNI_FUZZ_FRAMES").ok().and_then(|text| text.parse().ok());
        let wanted: u64 = wanted.unwrap_or(10_000_000);
        let (_directory, node) = node();
        let mut state = 7;
        let mut random = || agni_core::random::next(&mut state);
        let mut frame = || {
            let len = random() as usize % 64;
            let mut bytes: Vec<u8> = (0..len).map(|_| random() as u8).collect();
            let (length, kind) = ((len as u32).to_be_bytes(), random() % 8);
            // Most are well framed, so that what is in them is looked at.
            let flag = u8::from(kind == 0);
            let length = if kind == 1 { (random() as u32).to_be_bytes() } else { length };
            bytes.splice(0..0, [flag, length[0], length[1], length[2], length[3]]);
            (bytes, 1 + random() as usize % 80)
        };
        let mut run = |count: u64| {
            for _ in 0..count {
                let (bytes, piece_bytes) = frame();
                let (taken, _) = take(&node, cut(&bytes, piece_bytes));
                taken.iter().for_each(decode_all);
            }
        };
        run(wanted / 100);
        let before = process::look().resident_bytes;
        run(wanted);
        let growth = process::look().resident_bytes.saturating_sub(before);
        println!("{wanted} fuzzed frames: resident memory grew by {growth} bytes");
        node.engine.stop();
        assert!(growth < GROWTH_BYTES_MAX);
    }
}
