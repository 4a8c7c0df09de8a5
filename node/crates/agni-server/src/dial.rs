//! Connections to other nodes.

use crate::limits;
use http::Uri;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// What a connection between nodes is like.
fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address} is no address: {error}"))?
        .connect_timeout(Duration::from_millis(limits::PEER_CONNECT_MS_MAX))
        .http2_keep_alive_interval(Duration::from_millis(limits::PEER_PING_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::PEER_PING_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES);
    Ok(endpoint)
}

async fn connect(address: String) -> std::io::Result<TokioIo<TcpStream>> {
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

/// Connects to another node.
///
/// # Errors
/// Says what stands against it.
pub async fn dial(address: &str) -> Result<Channel, String> {
    let endpoint = endpoint(address)?;
    let address = address.to_owned();
    let connected =
        endpoint.connect_with_connector(tower::service_fn(move |_: Uri| connect(address.clone())));
    let timeout = Duration::from_millis(limits::PEER_CONNECT_MS_MAX);
    match tokio::time::timeout(timeout, connected).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("no connection within {} ms", timeout.as_millis())),
    }
}

/// A way to another node that connects when it is used, and again when the connection broke.
///
/// # Errors
/// When the address is none.
pub fn dial_lazily(address: &str) -> Result<Channel, String> {
    let endpoint = endpoint(address)?;
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| connect(address.clone()));
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The innermost cause, which says most.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Waits for an answer of another node, not for ever.
///
/// # Errors
/// Says what stands against it.
pub async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<tonic::Response<T>, String> {
    let limit = Duration::from_millis(limits::PEER_ANSWER_MS_MAX);
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
    }
}
