//! A server on a port of its own and the simplest clients that can speak to it.
#![allow(dead_code, missing_docs)]

use agni_core::engine::{Engine, NoPeers};
use agni_core::key::KeyRef;
use agni_core::proto::api::{self, Kind};
use agni_core::proto::node::{Command, Put, command::Operation};
use agni_core::raft::work::{Answer, Work};
use agni_server::metrics::ServerMetrics;
use agni_server::node::Node;
use agni_server::runtime::{self, Delivery, Mailbox};
use agni_server::services::registry_service_client::RegistryServiceClient;
use agni_server::{Server, ServerConfig};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tonic::transport::Channel;

pub struct Running {
    pub server: Server,
    _directory: tempfile::TempDir,
}

/// What serves connections, on this very thread and without a port of its own.
pub struct Alone {
    pub node: Arc<Node>,
    _directory: tempfile::TempDir,
}

impl Alone {
    /// Call it within a runtime of one thread.
    pub fn start() -> Alone {
        let directory = tempfile::tempdir().expect("directory");
        let config = config(&directory);
        let (mailbox, receiver) = Mailbox::new();
        let delivery = Box::new(Delivery::new(vec![mailbox]));
        let engine =
            Engine::start(config.engine.clone(), delivery, Box::new(NoPeers)).expect("engine");
        let address = ([127, 0, 0, 1], 1).into();
        let node = Node::new(config, engine.clone(), address, None, ServerMetrics::default());
        runtime::enter(0);
        tokio::spawn(runtime::flush(engine));
        tokio::spawn(runtime::receive(receiver, |_| (), |_, _| ()));
        Alone { node, _directory: directory }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.node.engine.stop();
    }
}

/// Stores a spec as it is, without the checks of a request.
pub async fn put(node: &Node, name: &str, spec: Bytes) {
    let put = Put { key: Some(key(name)), spec, ..Default::default() };
    let operation = Some(Operation::Put(put));
    let command = Command { operation, proposed_unix_ms: 1 };
    let partition = node.engine.partition_of(&KeyRef::of(&key(name)));
    let answer = runtime::ask(partition, Work::Write(command)).await;
    assert!(matches!(answer, Answer::Written { .. }));
}

/// An address of loopback for a node that has to be known by it before it listens. The system
/// gives none of these ports to whoever asks for any, nor to a connection's own end, so nobody
/// takes it in between; each is given once in a process.
pub fn free_address() -> String {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes beside each other begin apart.
    let first = std::process::id().wrapping_mul(61);
    let port = std::iter::repeat_with(|| GIVEN.fetch_add(1, Ordering::Relaxed))
        .map(|given| PORTS.start + (first.wrapping_add(given) % PORTS.len() as u32) as u16)
        .take(PORTS.len())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", port.expect("a free port"))
}

pub fn config(directory: &tempfile::TempDir) -> ServerConfig {
    let mut config = ServerConfig {
        listen: "127.0.0.1:0".into(),
        log_level: "error".into(),
        runtimes: 2,
        ..ServerConfig::default()
    };
    config.engine.data_dir = directory.path().join("data");
    config.engine.partitions = 4;
    config.engine.disk_reserve_bytes = 1 << 20;
    config
}

pub fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let directory = tempfile::tempdir().expect("directory");
    let mut config = config(&directory);
    change(&mut config);
    let server = Server::start(config).expect("server");
    Running { server, _directory: directory }
}

pub fn start() -> Running {
    start_with(|_| ())
}

impl Running {
    pub fn address(&self) -> String {
        self.server.local_address().to_string()
    }

    pub async fn client(&self) -> RegistryServiceClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address())).expect("uri");
        RegistryServiceClient::new(channel.connect().await.expect("connect"))
            .max_decoding_message_size(64 << 20)
    }

    /// One HTTP/1 request: status, headers in lower case, body.
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String, Value) {
        let (status, head, body) = self.http_raw(method, path, body.unwrap_or(""), "");
        (status, head, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    pub fn http_raw(
        &self,
        method: &str,
        path: &str,
        body: &str,
        more: &str,
    ) -> (u16, String, String) {
        http_raw(self.server.local_address(), method, path, body, more)
    }
}

/// One HTTP/1 request to whoever listens there: status, headers in lower case, body.
pub fn http_raw(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    more: &str,
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\
         connection: close\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).expect("write");
    // A server that refuses early closes before it has read all.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), body.to_owned())
}

pub struct RawAnswer {
    pub http_status: u16,
    pub grpc_status: Option<i32>,
    pub reason: Option<String>,
    pub metadata: Vec<u8>,
    pub headers: http::HeaderMap,
    pub data: Bytes,
}

pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// A gRPC call of which every byte is ours.
pub async fn raw_call(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> RawAnswer {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    raw_call_on(&mut connect_on(stream).await, path, headers, body).await
}

pub type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection over any stream.
pub async fn connect_on<S>(stream: S) -> Sender
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("handshake");
    tokio::spawn(connection);
    sender
}

/// The same as `raw_call` on a connection that there is already.
pub async fn raw_call_on(
    sender: &mut Sender,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> RawAnswer {
    let mut request = http::Request::post(format!("http://localhost{path}"));
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).expect("request");
    let answer = tokio::time::timeout(Duration::from_secs(10), sender.send_request(request));
    let response = answer.await.expect("in time").expect("answer");
    let (parts, body) = response.into_parts();
    let collected = body.collect().await;
    let trailers = collected.as_ref().ok().and_then(|c| c.trailers().cloned()).unwrap_or_default();
    let all = |name: &str| parts.headers.get(name).or(trailers.get(name)).cloned();
    let status = all("grpc-status").and_then(|v| v.to_str().ok()?.parse().ok());
    let details = all("grpc-status-details-bin").map(|v| v.as_bytes().to_vec());
    let details = details.and_then(|text| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok()
    });
    let details = details.unwrap_or_default();
    RawAnswer {
        http_status: parts.status.as_u16(),
        grpc_status: status,
        reason: reason_in(&details),
        metadata: details,
        headers: parts.headers,
        data: collected.map(|c| c.to_bytes()).unwrap_or_default(),
    }
}

/// The reason in an encoded `google.rpc.Status`: field 1 of the ErrorInfo of its first detail.
pub fn reason_in(details: &[u8]) -> Option<String> {
    let url = b"google.rpc.ErrorInfo";
    let at = details.windows(url.len()).position(|window| window == url)? + url.len();
    // value: tag, length; reason: tag, length, text. All lengths here are below 128 or skipped.
    let rest = &details[at..];
    let at = rest.iter().position(|byte| *byte == 0x0a)?;
    let length = usize::from(*rest.get(at + 1)?);
    Some(String::from_utf8_lossy(rest.get(at + 2..at + 2 + length)?).into_owned())
}

pub fn key(name: &str) -> api::Key {
    api::Key { namespace: "default".into(), kind: Kind::Gateway as i32, name: name.into() }
}

pub fn spec(region: &str) -> api::Spec {
    api::Spec {
        region: region.into(),
        ip: "12.34.56.78".into(),
        domain: "g.example.org".into(),
        port: 4000,
        capacity: Some(api::Capacity {
            cpu: 1.0,
            bandwidth: 20.0,
            memory: 4096.0,
            storage: 40960.0,
        }),
        ..api::Spec::default()
    }
}

pub fn register(name: &str, region: &str) -> api::RegisterRequest {
    api::RegisterRequest {
        key: Some(key(name)),
        spec: Some(spec(region)),
        ..api::RegisterRequest::default()
    }
}
