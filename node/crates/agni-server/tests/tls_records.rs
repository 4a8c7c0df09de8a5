//! What gathers in a turn leaves as few TLS records, and what is large arrives whole.
#![allow(missing_docs)]

#[path = "tls/authority.rs"]
#[allow(dead_code)]
mod authority;
mod support;

use authority::{Authority, Files};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use support::{Running, Sender, connect_on, start_with};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const HEAD: usize = 5;

/// Counts the TLS records that are read.
struct Counting {
    stream: TcpStream,
    records: Arc<AtomicUsize>,
    /// The head of the next record as far as it was read, and what is left of the one before.
    head: Vec<u8>,
    rest: usize,
}

impl Counting {
    fn note(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken =
                bytes.len().min(if self.rest > 0 { self.rest } else { HEAD - self.head.len() });
            let (now, later) = bytes.split_at(taken);
            bytes = later;
            if self.rest > 0 {
                self.rest -= taken;
                continue;
            }
            self.head.extend_from_slice(now);
            if self.head.len() == HEAD {
                self.rest = usize::from(u16::from_be_bytes([self.head[3], self.head[4]]));
                self.head.clear();
                self.records.fetch_add(1, Relaxed);
            }
        }
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let new = buffer.filled()[before..].to_vec();
        self.note(&new);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

struct Setting {
    _running: Running,
    _folder: tempfile::TempDir,
    sender: Sender,
    records: Arc<AtomicUsize>,
}

async fn setting() -> Setting {
    let authority = Authority::new("root");
    let folder = tempfile::tempdir().expect("folder");
    let pair = authority.leaf("/registry/node/1");
    let files = Files::new(folder.path(), &authority, &pair);
    let running = start_with(|config| config.tls = Some(files.config()));
    let stream = TcpStream::connect(running.server.local_address()).await.expect("connect");
    let records = Arc::new(AtomicUsize::new(0));
    let stream = Counting { stream, records: records.clone(), head: Vec::new(), rest: 0 };
    let client = authority.client(Some(&authority.leaf("/operator")), "h2");
    let name = "127.0.0.1".try_into().expect("name");
    let stream = client.connect(name, stream).await.expect("handshake");
    Setting { _running: running, _folder: folder, sender: connect_on(stream).await, records }
}

async fn call(sender: &Sender, method: &str, path: &str, body: String) -> (u16, Bytes) {
    let request = http::Request::builder().method(method).uri(format!("http://localhost{path}"));
    let request = request.body(Full::new(Bytes::from(body))).expect("request");
    let response = sender.clone().send_request(request).await.expect("answer");
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.expect("body").to_bytes())
}

#[tokio::test]
async fn small_answers_share_records() {
    const CALLS: usize = 64;
    let setting = setting().await;
    // Large enough that hyper writes each answer's data by itself.
    let note = "x".repeat(200);
    let body = format!(
        "{{\"name\":\"g\",\"region\":\"eu\",\"gateway_ip\":\"12.34.56.78\",\
         \"gateway_port\":4000,\"labels\":{{\"a\":\"{note}\",\"b\":\"{note}\"}}}}"
    );
    assert_eq!(call(&setting.sender, "POST", "/v1/gateways", body).await.0, 201);
    let before = setting.records.load(Relaxed);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let sender = setting.sender.clone();
        calls.spawn(async move { call(&sender, "GET", "/v1/gateways/g", String::new()).await.0 });
    }
    assert!(calls.join_all().await.into_iter().all(|status| status == 200));
    let records = setting.records.load(Relaxed) - before;
    assert!(records < CALLS / 2, "{records} records for {CALLS} answers");
}

#[tokio::test]
async fn a_large_answer_arrives_whole_in_full_records() {
    let setting = setting().await;
    let note = "x".repeat(200);
    let operations: Vec<String> = (0..1_000)
        .map(|i| {
            format!(
                "{{\"register\":{{\"kind\":\"gateway\",\"name\":\"g{i}\",\"region\":\"eu\",\
                 \"gateway_ip\":\"12.34.56.78\",\"gateway_port\":4000,\
                 \"labels\":{{\"note\":\"{note}\"}}}}}}"
            )
        })
        .collect();
    let body = format!("{{\"operations\":[{}]}}", operations.join(","));
    let (status, said) = call(&setting.sender, "POST", "/v1/batch", body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
    let before = setting.records.load(Relaxed);
    let (status, body) =
        call(&setting.sender, "GET", "/v1/gateways?page_size=1000", String::new()).await;
    assert_eq!(status, 200);
    let page: serde_json::Value = serde_json::from_slice(&body).expect("whole");
    assert_eq!(page["instances"].as_array().map(Vec::len), Some(1_000));
    let records = setting.records.load(Relaxed) - before;
    assert!(records <= body.len() / (8 << 10) + 8, "{records} records for {} bytes", body.len());
}
