//! Connections to other nodes.

use crate::limits;
use crate::tcp::{self, Probe};
use crate::tls::{PeerName, Port, Tls};
use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
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

/// A connection's bytes, with TLS or without.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Whom to connect to, and how.
#[derive(Clone)]
pub struct Way {
    /// With which identity; none where nodes speak without TLS.
    pub tls: Option<Arc<Tls>>,
    /// Which of its ports.
    pub port: Port,
    /// host:port.
    pub address: String,
    /// What the node there must be called; none where any node will do.
    pub name: Option<String>,
}

/// A connection to another node.
pub struct Connection {
    /// For calls.
    pub channel: Channel,
    probe: Arc<OnceLock<Probe>>,
}

impl Connection {
    /// How often TCP has tried in vain to get through what is on its way: 0 if nothing is held up.
    pub fn tries(&self) -> u32 {
        self.probe.get().map_or(0, Probe::tries)
    }
}

async fn connect(way: &Way) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(&way.address).await?;
    stream.set_nodelay(true)?;
    tcp::retry_soon(&SockRef::from(&stream));
    Ok(stream)
}

async fn secure(way: &Way, stream: TcpStream) -> std::io::Result<TokioIo<Box<dyn Wire>>> {
    let Some(tls) = &way.tls else { return Ok(TokioIo::new(Box::new(stream))) };
    let name = way.name.as_deref().map(PeerName::new).transpose();
    let name = name.map_err(std::io::Error::other)?;
    let limit = Duration::from_millis(limits::PEER_CONNECT_MS_MAX);
    let secured = tls.connect(stream, name.as_ref(), way.port, limit).await;
    let secured = secured.map_err(|refusal| std::io::Error::other(refusal.message))?;
    Ok(TokioIo::new(Box::new(secured.stream)))
}

/// Connects to another node.
///
/// # Errors
/// Says what stands against it.
pub async fn dial(way: Way) -> Result<Connection, String> {
    let endpoint = endpoint(&way.address)?;
    let probe = Arc::new(OnceLock::new());
    let connection_probe = probe.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (way, probe) = (way.clone(), probe.clone());
        async move {
            let stream = connect(&way).await?;
            let _ = probe.set(Probe::new(&stream)?);
            secure(&way, stream).await
        }
    });
    let connected = endpoint.connect_with_connector(connector);
    let timeout = Duration::from_millis(limits::PEER_CONNECT_MS_MAX);
    match tokio::time::timeout(timeout, connected).await {
        Ok(Ok(channel)) => Ok(Connection { channel, probe: connection_probe }),
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("no connection within {} ms", timeout.as_millis())),
    }
}

/// A way to another node that connects when it is used, and again when the connection broke.
///
/// # Errors
/// When the address is none.
pub fn dial_lazily(way: Way) -> Result<Channel, String> {
    let endpoint = endpoint(&way.address)?;
    let connector = tower::service_fn(move |_: Uri| {
        let way = way.clone();
        async move { secure(&way, connect(&way).await?).await }
    });
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
