//! Connections to other nodes.

use crate::limits;
use http::Uri;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// Connects to a node's peer port.
///
/// # Errors
/// Says what stands against it.
pub async fn dial(address: &str) -> Result<Channel, String> {
    let timeout = Duration::from_millis(limits::PEER_CONNECT_MS_MAX);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address} is no address: {error}"))?
        .connect_timeout(timeout)
        .http2_keep_alive_interval(Duration::from_millis(limits::PEER_PING_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::PEER_PING_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES);
    let address = address.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let connected = endpoint.connect_with_connector(connect);
    match tokio::time::timeout(timeout, connected).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("no connection within {} ms", timeout.as_millis())),
    }
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
