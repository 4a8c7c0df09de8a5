//! One connection: which protocol it speaks, and its life until its end.

use crate::io::{Connection, Corked};
use crate::limits;
use crate::node::{Node, Phase};
use crate::router;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends. The stream may be anything, so that a test can see what is
/// handed to a socket.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(node: Arc<Node>, mut stream: S) {
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    let Ok(Ok((first, is_http2))) = tokio::time::timeout(limit, first_bytes(&mut stream)).await
    else {
        return;
    };
    let (io, corked) = Connection::new(stream, first);
    // A connection that fails has told its client all that it could.
    match is_http2 {
        true => {
            let service = service_fn(|request| router::serve(node.clone(), request));
            let connection = http2_builder(&node).serve_connection(io, service);
            drive(&node, corked.around(connection), |c| c.graceful_shutdown()).await;
        }
        false => {
            let service = service_fn(|request| router::serve(node.clone(), request));
            let connection = http1_builder(&node).serve_connection(io, service);
            drive(&node, corked.around(connection), |c| c.graceful_shutdown()).await;
        }
    }
}

/// Runs a connection; says goodbye once the server drains, and ends at once when it stops.
async fn drive<C: Future, S: AsyncWrite + Unpin>(
    node: &Node,
    connection: Corked<C, S>,
    goodbye: impl FnOnce(Pin<&mut C>),
) {
    let mut life = node.follow();
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = life.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    goodbye(connection.as_mut().inner());
    tokio::select! {
        _ = connection => {}
        _ = life.wait_for(|phase| *phase == Phase::Stopping) => {}
    }
}

/// Reads until it is sure which protocol is spoken.
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(Vec<u8>, bool)> {
    let mut first = vec![0; PREFACE.len()];
    let mut len = 0;
    while len < first.len() {
        let read = stream.read(&mut first[len..]).await?;
        len += read;
        if read == 0 || first[..len] != PREFACE[..len] {
            first.truncate(len);
            return Ok((first, false));
        }
    }
    Ok((first, true))
}

fn http2_builder(node: &Node) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(node.config.max_concurrent_streams)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS_MAX)
        .keep_alive_interval(Duration::from_millis(node.config.ping_interval_ms))
        .keep_alive_timeout(Duration::from_millis(node.config.ping_timeout_ms))
        // Nobody reads it, and it costs a clock and a header each time.
        .auto_date_header(false);
    builder
}

fn http1_builder(node: &Node) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(node.config.header_timeout_ms))
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HTTP1_BUFFER_BYTES);
    builder
}
