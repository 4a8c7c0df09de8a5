//! Connections are bounded in number, in what each may ask for, and in how long a silent one lasts.
#![allow(missing_docs)]

mod support;

use agni_core::proto::api;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{Running, key, register, start_with};
use tonic::{Code, Status, Streaming};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An HTTP/2 frame without content: empty settings, and their acknowledgement.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A value of `/metrics`. The connection that asks counts itself.
fn metric(running: &Running, name: &str) -> u64 {
    let (status, _, text) = running.http_raw("GET", "/metrics", "", "");
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).expect("metric")
}

fn impatient(config: &mut agni_server::ServerConfig) {
    config.ping_interval_ms = 200;
    config.ping_timeout_ms = 1_000;
}

/// An HTTP/2 client of the barest kind.
fn http2(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.server.local_address()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(&[PREFACE, SETTINGS, SETTINGS_ACK].concat()).expect("write");
    stream
}

/// Begins a call on stream 1: complete headers with literals, then data of less than 256 bytes.
fn call(stream: &mut TcpStream, method: &str, data: &[u8], is_all: bool) {
    let path = format!("/agniregistry.api.v1.RegistryService/{method}");
    // POST and http are in HPACK's table.
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [(":path", &*path), ("content-type", "application/grpc")] {
        headers.extend([0, name.len() as u8]);
        headers.extend(name.bytes());
        headers.push(value.len() as u8);
        headers.extend(value.bytes());
    }
    let mut request = vec![0, 0, headers.len() as u8, HEADERS, END_HEADERS, 0, 0, 0, 1];
    request.extend(headers);
    request.extend([0, 0, data.len() as u8, DATA, u8::from(is_all) * END_STREAM, 0, 0, 0, 1]);
    request.extend(data);
    stream.write_all(&request).expect("write");
}

/// One frame: its kind, its flags and its content; none at the end of the connection.
fn frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut content).ok()?;
    Some((head[3], head[4], content))
}

#[test]
fn a_client_that_answers_no_ping_is_let_go() {
    let running = start_with(impatient);
    let mut stream = http2(&running);
    let started = Instant::now();
    let mut pings = 0;
    while let Some((kind, flags, _)) = frame(&mut stream) {
        pings += usize::from(kind == PING && flags & ACK == 0);
    }
    assert_eq!(pings, 1, "it must be asked once");
    assert!(started.elapsed() < PATIENCE / 2, "it took {:?}", started.elapsed());
    wait_until("its place is free", || metric(&running, "agni_connections") == 1);
}

#[test]
fn a_client_that_answers_pings_stays_although_it_asks_for_nothing() {
    let running = start_with(impatient);
    let mut stream = http2(&running);
    // Longer than the interval and the timeout together, several times.
    let mut answered = 0;
    while answered < 8 {
        let (kind, flags, content) = frame(&mut stream).expect("it was let go");
        if kind == PING && flags & ACK == 0 {
            stream.write_all(&[0, 0, 8, PING, ACK, 0, 0, 0, 0]).expect("head");
            stream.write_all(&content).expect("content");
            answered += 1;
        }
    }
    assert_eq!(metric(&running, "agni_connections"), 2);
}

#[test]
fn a_watch_ends_with_its_silent_client() {
    let running = start_with(impatient);
    let mut stream = http2(&running);
    call(&mut stream, "Watch", &[0; 5], true);
    wait_until("the watch is open", || running.server.watches() == 1);
    // It reads nothing, answers nothing and closes nothing.
    wait_until("the watch has ended", || running.server.watches() == 0);
    drop(stream);
}

#[test]
fn an_http1_connection_without_a_request_is_closed() {
    let running = start_with(|config| config.idle_timeout_ms = 300);
    let mut stream = TcpStream::connect(running.server.local_address()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("write");
    let started = Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a clean end");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(started.elapsed() < PATIENCE / 2, "it took {:?}", started.elapsed());
}

#[test]
fn an_http1_connection_may_rest_longer_than_a_head_may_take() {
    let running = start_with(|config| config.header_timeout_ms = 300);
    let mut stream = TcpStream::connect(running.server.local_address()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("write");
        let read = stream.read(&mut buffer).expect("an answer");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(900));
    }
    // A head that has begun has to come to its end.
    let started = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").expect("write");
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    assert!(started.elapsed() < PATIENCE / 2, "it took {:?}", started.elapsed());
}

async fn watch(running: &Running) -> Result<Streaming<api::WatchResponse>, Status> {
    running
        .client()
        .await
        .watch(api::WatchRequest::default())
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn watches_beyond_the_limit_are_refused_until_one_ends() {
    let running = start_with(|config| {
        config.runtimes = 1;
        config.max_watches = 2;
    });
    let first = watch(&running).await.expect("first");
    let _second = watch(&running).await.expect("second");
    let refused = watch(&running).await.expect_err("third");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(support::reason_in(refused.details()).as_deref(), Some("OVERLOADED"));
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while watch(&running).await.is_err() {
        assert!(Instant::now() < deadline, "its place was not given on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_it_may() {
    let running = start_with(|config| config.max_concurrent_streams = 2);
    let mut client = running.client().await;
    // An answer means that the client has seen the server's settings.
    client.register(register("a", "eu")).await.expect("register");
    let open = api::WatchRequest::default;
    let first = client.watch(open()).await.expect("first").into_inner();
    let _second = client.watch(open()).await.expect("second");
    let get = api::GetRequest { key: Some(key("a")), read: None };
    let mut waiting = tokio::spawn(async move { client.get(get).await });
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(waited.is_err(), "a third stream was let in");
    drop(first);
    let answer = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").expect("task");
    assert!(answer.is_ok(), "the place of the first was not given on");
}

#[test]
fn a_keep_alive_that_stops_in_the_middle_of_a_message_is_ended() {
    let running = start_with(|config| config.header_timeout_ms = 300);
    let mut stream = http2(&running);
    // A message of 100 bytes of which 3 come.
    call(&mut stream, "KeepAlive", &[0, 0, 0, 0, 100, 1, 2, 3], false);
    let started = Instant::now();
    loop {
        let (kind, flags, _) = frame(&mut stream).expect("an answer");
        if kind == HEADERS && flags & END_STREAM != 0 {
            break;
        }
    }
    assert!(started.elapsed() < PATIENCE / 2, "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn large_requests_share_what_may_arrive_at_once() {
    let running = start_with(|config| {
        config.max_arriving_bytes = 100_000;
        config.header_timeout_ms = 60_000;
    });
    // A body of 90,000 bytes of which the last never comes.
    let mut first = TcpStream::connect(running.server.local_address()).expect("connect");
    let head = "POST /v1/gateways HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n";
    first.write_all(head.as_bytes()).expect("write");
    first.write_all(&[b' '; 89_999]).expect("write");

    let mut client = running.client().await;
    let mut large = register("a", "eu");
    large.spec.as_mut().expect("spec").payload = vec![0; 60_000].into();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = client.register(large.clone()).await.expect_err("too large a payload");
        if support::reason_in(refused.details()).as_deref() == Some("OVERLOADED") {
            break;
        }
        assert!(Instant::now() < deadline, "the bytes of the first don't count");
    }
    // Small ones pass all the same, and all pass once the first has gone.
    client.register(register("a", "eu")).await.expect("small");
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = client.register(large.clone()).await.expect_err("too large a payload");
        if support::reason_in(refused.details()).as_deref() == Some("INVALID_FIELD") {
            break;
        }
        assert!(Instant::now() < deadline, "the bytes of the first were not given back");
    }
}
