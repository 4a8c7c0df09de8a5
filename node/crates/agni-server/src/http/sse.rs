//! A watch as Server-Sent Events, for browsers and for curl.

use crate::body::{Body, BoxError, Chunk, Stream};
use crate::http::print;
use crate::node::Node;
use crate::status::RpcError;
use crate::token;
use crate::watch::encode::WatchMessage;
use crate::watch::handle::Handle;
use agni_core::proto::api::{self, WatchPhase};
use bytes::{Buf, Bytes};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Frame;
use prost::Message;
use std::task::{Context, Poll};

/// How long a browser waits before it connects again, in milliseconds.
const RETRY_MS: u64 = 1_000;

struct Events {
    handle: Handle,
    begun: bool,
    ended: bool,
}

/// The last id that a client has seen, as it says when it connects again.
pub fn last_event_id(headers: &HeaderMap) -> Option<String> {
    headers.get("last-event-id").map(|id| id.to_str().unwrap_or("\u{fffd}").to_owned())
}

/// Opens a watch for an HTTP client.
pub async fn open(node: &Node, request: api::WatchRequest) -> Result<Response<Body>, RpcError> {
    let handle = Handle::open(node, request).await?;
    let events = Events { handle, begun: false, ended: false };
    let mut response = Response::new(Body::Stream(Box::new(events)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn name_of(phase: WatchPhase) -> &'static str {
    match phase {
        WatchPhase::Created => "created",
        WatchPhase::Live => "live",
        WatchPhase::Progress => "progress",
        WatchPhase::Gap => "gap",
        WatchPhase::Sync => "sync",
        WatchPhase::Synced => "synced",
        WatchPhase::Unspecified => "message",
    }
}

fn text_of(message: WatchMessage) -> Result<String, BoxError> {
    let mut parts = Chunk::from(message.parts);
    let response = api::WatchResponse::decode(parts.copy_to_bytes(parts.remaining()))?;
    let id = token::to_text(&response.resume_token);
    // Without a token there is nothing to resume from: the id before it stays.
    let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
    Ok(format!("event: {}\n{id}data: {}\n\n", name_of(message.phase), print::watch(response)))
}

impl Stream for Events {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.begun {
            self.begun = true;
            let text = format!("retry: {RETRY_MS}\n\n");
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(text).into()))));
        }
        let text = match std::task::ready!(self.handle.poll(context)) {
            Some(Ok(message)) => text_of(message)?,
            Some(Err(error)) => {
                self.ended = true;
                format!("event: error\ndata: {}\n\n", error.json())
            }
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text).into()))))
    }
}
