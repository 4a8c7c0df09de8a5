//! What a broken or hostile client gets: an answer that names the fault, and no damage.
#![allow(missing_docs)]

mod support;

use agni_core::proto::api;
use bytes::Bytes;
use prost::Message;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{frame, raw_call, register, start, start_with};
use tonic::Code;

const GET: &str = "/agniregistry.api.v1.RegistryService/Get";
const REGISTER: &str = "/agniregistry.api.v1.RegistryService/Register";

#[tokio::test]
async fn every_kind_of_broken_call_has_its_answer() {
    let running = start();
    let address = running.address();
    let good = frame(&api::GetRequest { key: Some(support::key("a")), read: None }.encode_to_vec());
    let mut compressed = good.to_vec();
    compressed[0] = 1;
    let mut flag = good.to_vec();
    flag[0] = 7;
    let announced = |length: u32| Bytes::from([&[0u8][..], &length.to_be_bytes()].concat());
    let cases: Vec<(&str, &str, Bytes, Code, &str)> = vec![
        ("malformed protobuf", GET, frame(&[0xff; 9]), Code::InvalidArgument, "INVALID_FIELD"),
        ("bad UTF-8", GET, frame(&[10, 3, 26, 1, 0xff]), Code::InvalidArgument, "INVALID_FIELD"),
        ("empty body", GET, Bytes::new(), Code::InvalidArgument, "INVALID_FIELD"),
        ("half a prefix", GET, Bytes::from_static(&[0, 0]), Code::InvalidArgument, "INVALID_FIELD"),
        ("cut message", GET, good.slice(..good.len() - 1), Code::InvalidArgument, "INVALID_FIELD"),
        (
            "two messages",
            GET,
            [&good[..], &good[..]].concat().into(),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        ("compressed", GET, compressed.into(), Code::Unimplemented, "UNIMPLEMENTED"),
        ("unknown flag", GET, flag.into(), Code::InvalidArgument, "INVALID_FIELD"),
        (
            "64 MiB announced",
            GET,
            announced(64 << 20),
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
        ),
        (
            "4 GiB announced",
            REGISTER,
            announced(u32::MAX),
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
        ),
        (
            "no such method",
            "/agniregistry.api.v1.RegistryService/Nothing",
            good.clone(),
            Code::Unimplemented,
            "UNIMPLEMENTED",
        ),
        ("no such service", "/x.Y/Z", good.clone(), Code::Unimplemented, "UNIMPLEMENTED"),
    ];
    for (what, path, body, code, reason) in cases {
        let answer = raw_call(&address, path, &[], body).await;
        assert_eq!(answer.http_status, 200, "{what}");
        assert_eq!(answer.grpc_status, Some(code as i32), "{what}");
        assert_eq!(answer.reason.as_deref(), Some(reason), "{what}");
    }
    let plain = raw_call(&address, GET, &[("content-type", "text/plain")], good.clone()).await;
    assert_eq!(plain.http_status, 415);
    let timeout = raw_call(&address, GET, &[("grpc-timeout", "soon")], good.clone()).await;
    assert_eq!(timeout.reason.as_deref(), Some("INVALID_FIELD"));
    let fine = raw_call(&address, GET, &[("grpc-timeout", "5S")], good).await;
    assert_eq!(fine.reason.as_deref(), Some("NOT_FOUND"));
}

#[tokio::test]
async fn every_invalid_field_is_named() {
    let running = start();
    let mut client = running.client().await;
    type Change = fn(&mut api::RegisterRequest);
    let cases: [(&str, Change); 13] = [
        ("key", |r| r.key = None),
        ("key.kind", |r| r.key.as_mut().unwrap().kind = 9),
        ("key.name", |r| r.key.as_mut().unwrap().name = "x".repeat(254)),
        ("key.name", |r| r.key.as_mut().unwrap().name = "a\u{7}b".into()),
        ("key.namespace", |r| r.key.as_mut().unwrap().namespace = "x".repeat(254)),
        ("spec", |r| r.spec = None),
        ("spec.region", |r| r.spec.as_mut().unwrap().region.clear()),
        ("spec.ip", |r| r.spec.as_mut().unwrap().ip = "1.2.3.456".into()),
        ("spec.port", |r| r.spec.as_mut().unwrap().port = 0),
        ("spec.port", |r| r.spec.as_mut().unwrap().port = 65_536),
        ("spec.capacity.cpu", |r| {
            r.spec.as_mut().unwrap().capacity.as_mut().unwrap().cpu = f64::NAN;
        }),
        ("ttl_ms", |r| r.ttl_ms = 999),
        ("ttl_ms", |r| r.ttl_ms = -1),
    ];
    for (field, change) in cases {
        let mut request = register("a", "eu");
        change(&mut request);
        let status = client.register(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(details.contains(field), "{field}: {details:?}");
    }
    // Nothing of it was stored.
    let list = client.list(api::ListRequest::default()).await.expect("list").into_inner();
    assert!(list.instances.is_empty());
}

fn until_closed(mut stream: TcpStream, limit: Duration) -> Option<Duration> {
    let started = Instant::now();
    stream.set_read_timeout(Some(limit)).ok()?;
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return Some(started.elapsed()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Some(started.elapsed());
            }
            Err(_) => return None,
        }
    }
}

#[test]
fn who_never_finishes_its_headers_is_cut_off() {
    let running = start_with(|config| config.header_timeout_ms = 300);
    let beginnings: [&[u8]; 5] = [
        b"",
        b"PRI * HT",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"G",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
    ];
    for beginning in beginnings {
        let mut stream = TcpStream::connect(running.server.local_address()).expect("connect");
        stream.write_all(beginning).expect("write");
        let after = until_closed(stream, Duration::from_secs(5));
        assert!(after.is_some(), "still open after {beginning:?}");
    }
    assert!(running.server.ready());
}

#[test]
fn rubbish_frames_end_only_their_own_connection() {
    let running = start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let rubbish: [&[u8]; 4] = [
        &[0xff; 64],
        // A HEADERS frame that says more than it brings, then the end.
        &[0, 0, 200, 1, 4, 0, 0, 0, 1, 0x82],
        // A frame of 16 MiB.
        &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
        // Settings for a stream.
        &[0, 0, 0, 4, 0, 0, 0, 0, 1],
    ];
    for bytes in rubbish {
        let mut stream = TcpStream::connect(running.server.local_address()).expect("connect");
        let _ = stream.write_all(&[&preface[..], bytes].concat());
        stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
        assert!(until_closed(stream, Duration::from_secs(5)).is_some(), "{bytes:?}");
    }
    let (status, _, _) = running.http("GET", "/readyz", None);
    assert_eq!(status, 200);
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let running = start_with(|config| config.max_connections = 2);
    let connect = || TcpStream::connect(running.server.local_address()).expect("connect");
    let held = [connect(), connect()];
    // The limit counts accepted connections, so wait until both are.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let third = connect();
        if until_closed(third, Duration::from_millis(200)).is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "a third connection stays open");
    }
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while running.http("GET", "/healthz", None).0 != 200 {
        assert!(Instant::now() < deadline, "no place after the others have gone");
    }
}
