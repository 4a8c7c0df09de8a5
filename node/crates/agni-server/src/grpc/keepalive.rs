//! The `KeepAlive` stream: renewals in, answers out, one to each, in order.

use crate::grpc::frame::{Messages, decode};
use crate::grpc::pieces::Pieces;
use crate::limits;
use crate::node::{Node, Phase};
use crate::ops::write;
use crate::status::RpcError;
use crate::wire;
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};

/// Answers renewals until the client ends the stream or one of them can't be answered.
pub fn serve(node: Arc<Node>, messages: Messages) -> Pieces {
    let (sender, answers) = channel(limits::KEEPALIVE_ANSWERS_MAX);
    tokio::spawn(renewals(node, messages, sender));
    Pieces::new(answers)
}

/// The next message. It may come whenever it likes, but once begun it has to end.
async fn next(node: &Node, messages: &mut Messages) -> Result<Option<Bytes>, RpcError> {
    let whole = poll_fn(|context| match messages.poll_next(context) {
        Poll::Pending if messages.begun() => Poll::Ready(None),
        other => other.map(Some),
    });
    if let Some(message) = whole.await {
        return message;
    }
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    let rest = poll_fn(|context| messages.poll_next(context));
    tokio::time::timeout(limit, rest).await.unwrap_or_else(|_| Err(RpcError::too_slow()))
}

async fn renewals(
    node: Arc<Node>,
    mut messages: Messages,
    answers: Sender<Result<Bytes, RpcError>>,
) {
    let mut life = node.follow();
    loop {
        let message = tokio::select! {
            message = next(&node, &mut messages) => message,
            _ = life.wait_for(|phase| *phase != Phase::Serving) => Err(RpcError::shutting_down()),
            // The client no longer listens.
            () = answers.closed() => return,
        };
        let answer = match message {
            Ok(None) => return,
            Ok(Some(bytes)) => match decode(bytes) {
                Ok(request) => write::renew(&node, request).await.map(|r| wire::message(&r)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let failed = answer.is_err();
        if answers.send(answer).await.is_err() || failed {
            return;
        }
    }
}
