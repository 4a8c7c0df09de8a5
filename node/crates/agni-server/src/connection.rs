//! One connection: which protocol it speaks, and its life until its end.

use crate::header_blocks::HeaderBlocks;
use crate::heads::Heads;
use crate::io::{Connection, Corked};
use crate::limits;
use crate::node::{Node, Phase};
use crate::router;
use crate::tls::{Identity, Port};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Who the other side of a connection has proven to be, and how long that holds.
struct Proven {
    identity: Identity,
    valid_for: Duration,
}

/// Serves what was accepted, over TLS where the node speaks it.
pub async fn greet(node: Arc<Node>, stream: TcpStream) {
    let Some(tls) = node.tls.clone() else {
        return serve(node, stream).await;
    };
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    let mut life = node.follow();
    let secured = tokio::select! {
        secured = tls.accept(stream, Port::Client, limit) => secured,
        _ = life.wait_for(|phase| *phase == Phase::Stopping) => return,
    };
    // A handshake that failed was counted and logged.
    if let Ok(secured) = secured {
        let Some(_place) = node.place_of(&secured.identity) else {
            node.metrics.refused.fetch_add(1, Relaxed);
            return;
        };
        let proven = Proven { identity: secured.identity, valid_for: secured.valid_for };
        serve_to(node, secured.stream, Some(proven)).await;
    }
}

/// Serves a connection of somebody unknown until it ends. The stream may be anything, so that a
/// test can see what is handed to a socket.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(node: Arc<Node>, stream: S) {
    serve_to(node, stream, None).await;
}

async fn serve_to<S: AsyncRead + AsyncWrite + Unpin>(
    node: Arc<Node>,
    mut stream: S,
    proven: Option<Proven>,
) {
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    let Ok(Ok((first, is_http2))) = tokio::time::timeout(limit, first_bytes(&mut stream)).await
    else {
        return;
    };
    let blocks = is_http2.then(HeaderBlocks::default);
    let (io, corked) = Connection::new(stream, first, blocks);
    let (identity, valid_for) = proven.map(|proven| (proven.identity, proven.valid_for)).unzip();
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        router::serve(node.clone(), request)
    });
    // A connection that fails has told its client all that it could.
    match is_http2 {
        true => {
            let connection = http2_builder(&node).serve_connection(io, service);
            let connection = corked.around(connection, limit);
            drive(&node, connection, valid_for, |c| c.graceful_shutdown()).await;
        }
        false => {
            let heads = Heads::begun();
            let service = service_fn(|request| {
                heads.request();
                let answered = service.call(request);
                async { Ok::<_, Infallible>(answered.await?.map(|body| heads.answer(body))) }
            });
            let io = io.telling(heads.clone());
            let connection = http1_builder(&node).serve_connection(io, service);
            let connection = corked.around(connection, limit);
            tokio::select! {
                () = drive(&node, connection, valid_for, |c| c.graceful_shutdown()) => {}
                () = heads.overdue(limit) => {}
            }
        }
    }
}

/// Runs a connection. It says goodbye once the server drains or the other side's certificate has
/// expired, and ends at once when the server stops, or soon after the certificate's end.
async fn drive<C: Future, S: AsyncWrite + Unpin>(
    node: &Node,
    connection: Corked<C, S>,
    valid_for: Option<Duration>,
    goodbye: impl FnOnce(Pin<&mut C>),
) {
    let mut life = node.follow();
    let mut connection = pin!(connection);
    let grace = Duration::from_millis(limits::TLS_EXPIRED_GRACE_MS);
    let expires = valid_for.and_then(|valid_for| Instant::now().checked_add(valid_for));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = life.wait_for(|phase| *phase != Phase::Serving) => {}
        () = sleep_until(expires) => {}
    }
    goodbye(connection.as_mut().inner());
    tokio::select! {
        _ = connection => {}
        _ = life.wait_for(|phase| *phase == Phase::Stopping) => {}
        () = sleep_until(expires.and_then(|expires| expires.checked_add(grace))) => {}
    }
}

/// Waits until then, or for ever.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
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
        // From the end of the request before: `heads` sees to it that a head ends sooner.
        .header_read_timeout(Duration::from_millis(node.config.idle_timeout_ms))
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HTTP1_BUFFER_BYTES);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;
    use crate::metrics::ServerMetrics;
    use crate::runtime::{Delivery, Mailbox};
    use agni_core::engine::{Engine, NoPeers};
    use std::sync::OnceLock;
    use tokio::io::AsyncWriteExt;

    /// What a handler found in the extensions of two requests.
    static FOUND: OnceLock<Option<Identity>> = OnceLock::new();
    static FOUND_PLAIN: OnceLock<Option<Identity>> = OnceLock::new();

    async fn ask(node: Arc<Node>, path: &str, proven: Option<Proven>) {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let request =
            format!("GET /grpc.test/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("write");
        serve_to(node, server, proven).await;
    }

    #[tokio::test]
    async fn a_handler_sees_who_asks() {
        let directory = tempfile::tempdir().expect("directory");
        let mut config = ServerConfig::default();
        config.engine.data_dir = directory.path().join("data");
        config.engine.disk_reserve_bytes = 1 << 20;
        let (mailbox, _receiver) = Mailbox::new();
        let delivery = Box::new(Delivery::new(vec![mailbox]));
        let engine = Engine::start(config.engine.clone(), delivery, Box::new(NoPeers));
        let node = Node::new(
            config,
            engine.expect("engine"),
            ([127, 0, 0, 1], 1).into(),
            None,
            ServerMetrics::default(),
        );
        let note = |place: &'static OnceLock<Option<Identity>>| {
            axum::routing::get(move |request: axum::extract::Request| async move {
                let _ = place.set(request.extensions().get::<Identity>().cloned());
            })
        };
        router::set_standard(
            axum::Router::new()
                .route("/grpc.test/proven", note(&FOUND))
                .route("/grpc.test/plain", note(&FOUND_PLAIN)),
        );
        let identity = Identity::parse("spiffe://eu/registry/node/1").expect("identity");
        let proven = Proven { identity: identity.clone(), valid_for: Duration::from_secs(60) };
        ask(node.clone(), "proven", Some(proven)).await;
        ask(node.clone(), "plain", None).await;
        assert_eq!(FOUND.get(), Some(&Some(identity)));
        assert_eq!(FOUND_PLAIN.get(), Some(&None));
        node.engine.stop();
    }
}
