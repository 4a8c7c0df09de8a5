//! A stored record goes from the store to the socket without being copied or decoded: what a real
//! gRPC connection hands to its stream are slices of the stored allocation itself.
//!
//! Two things are the socket's own buffers, and only they may hold copies: HTTP/2's frame head,
//! which takes the first bytes of a frame's data along, and the buffer in which small writes
//! gather (`limits::SMALL_WRITE_BYTES_MAX`).
#![allow(missing_docs)]

mod support;

use agni_core::engine::Freshness;
use agni_core::key::KeyRef;
use agni_core::proto::api;
use agni_server::body::Chunk;
use agni_server::node::Node;
use agni_server::ops::read;
use agni_server::{connection, limits, wire};
use bytes::{Buf, Bytes};
use prost::Message;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use support::{Alone, frame};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Bytes of an HTTP/2 data frame that the frame's head takes along (h2's chain threshold).
const FRAME_HEAD_BYTES: usize = 256;
/// The length of a full HTTP/2 data frame.
const FRAME_BYTES: usize = 16 << 10;
/// Room between server and client; what is tested never fills it.
const PIPE_BYTES: usize = 8 << 20;
const SERVICE: &str = "/agniregistry.api.v1.RegistryService/";

type Written = Arc<Mutex<Vec<(usize, usize)>>>;

/// Stands for the socket: takes what is written, and notes where in memory it lay.
struct Socket {
    pipe: DuplexStream,
    written: Written,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.pipe).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = result {
            self.written.lock().expect("lock").push((bytes.as_ptr() as usize, count));
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        for slice in slices {
            match self.as_mut().poll_write(context, slice) {
                Poll::Ready(Ok(count)) if count == slice.len() => total += count,
                Poll::Ready(Ok(count)) => return Poll::Ready(Ok(total + count)),
                // A task's share of time may end between two slices.
                Poll::Pending if total > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

/// How many of a record's bytes were not written from where the record is stored.
fn copied(record: &Bytes, written: &[(usize, usize)]) -> usize {
    let (begin, end) = (record.as_ptr() as usize, record.as_ptr() as usize + record.len());
    let inside = |(at, len): &(usize, usize)| (at + len).min(end).saturating_sub(begin.max(*at));
    record.len() - written.iter().map(inside).sum::<usize>()
}

/// A spec as a newer version might write it: its known fields in an order that this version
/// would not choose, and a field that this version does not know. Decoding and encoding it once
/// would show.
fn foreign_spec(payload: usize) -> Bytes {
    let payload = api::Spec { payload: vec![0xa5; payload].into(), ..api::Spec::default() };
    let mut spec = payload.encode_to_vec();
    support::spec("eu").encode(&mut spec).expect("room");
    prost::encoding::encode_varint(999 << 3 | 2, &mut spec);
    spec.extend(b"\x07unknown");
    spec.into()
}

/// The record as it is stored.
fn stored(node: &Node, name: &str) -> Bytes {
    let key = support::key(name);
    let partition = node.engine.partition_of(&KeyRef::of(&key));
    let read = node.engine.read(partition, Freshness::Local, |store, _, now_ms| {
        store.get(&KeyRef::of(&key), now_ms).expect("record").record.clone()
    });
    read.expect("read")
}

/// Asks over a connection of its own: the answer's message, and what was written for it.
async fn ask(alone: &Alone, call: &str, request: impl Message) -> (Bytes, Vec<(usize, usize)>) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let written = Written::default();
    let socket = Socket { pipe: theirs, written: written.clone() };
    let served = tokio::spawn(connection::serve(alone.node.clone(), socket));
    let mut sender = support::connect_on(ours).await;
    let body = frame(&request.encode_to_vec());
    let answer = support::raw_call_on(&mut sender, &format!("{SERVICE}{call}"), &[], body).await;
    drop(sender);
    served.await.expect("served");
    assert_eq!(answer.grpc_status, Some(0));
    let written = std::mem::take(&mut *written.lock().expect("lock"));
    (answer.data.slice(5..), written)
}

#[tokio::test]
async fn get_hands_the_stored_bytes_to_the_socket() {
    let alone = Alone::start();
    support::put(&alone.node, "a", foreign_spec(60 << 10)).await;
    let record = stored(&alone.node, "a");
    let request = api::GetRequest { key: Some(support::key("a")), read: None };
    let (message, written) = ask(&alone, "Get", request).await;
    let frames = message.len() / FRAME_BYTES + 1;
    let copied = copied(&record, &written);
    // The end of the record leaves with the trailers, as a small write, if it is one.
    let allowed = frames * FRAME_HEAD_BYTES + limits::SMALL_WRITE_BYTES_MAX;
    assert!(copied <= allowed, "{copied} of {} bytes were copied", record.len());
    assert!(contains(&message, &record), "the record has changed on its way");
}

#[tokio::test]
async fn list_hands_the_stored_bytes_to_the_socket() {
    let alone = Alone::start();
    let names: Vec<String> = (0..60).map(|i| format!("g{i}")).collect();
    for name in &names {
        support::put(&alone.node, name, foreign_spec(8 << 10)).await;
    }
    let (message, written) = ask(&alone, "List", api::ListRequest::default()).await;
    let frames = message.len() / FRAME_BYTES + 1;
    let (mut all, mut total) = (0, 0);
    for name in &names {
        let record = stored(&alone.node, name);
        assert!(contains(&message, &record), "{name} has changed on its way");
        all += copied(&record, &written);
        total += record.len();
    }
    assert!(total > 60 * (8 << 10));
    let allowed = frames * FRAME_HEAD_BYTES + limits::SMALL_WRITE_BYTES_MAX;
    assert!(all <= allowed, "{all} of {total} bytes were copied");
}

fn contains(message: &[u8], record: &[u8]) -> bool {
    message.windows(record.len()).any(|window| window == record)
}

#[tokio::test]
async fn small_records_too_are_the_stored_ones_until_small_writes_gather() {
    let alone = Alone::start();
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        support::put(&alone.node, name, foreign_spec(0)).await;
    }
    let node = &alone.node;
    let records: Vec<Bytes> = names.iter().map(|name| stored(node, name)).collect();
    let is_part = |chunk: &Chunk, record: &Bytes| {
        let same = |part: &Bytes| (part.as_ptr(), part.len()) == (record.as_ptr(), record.len());
        chunk.parts().iter().any(same)
    };

    let request = api::GetRequest { key: Some(support::key("a")), read: None };
    let found = read::get(node, request).await.expect("get");
    let get = wire::get_response(node.header(found.partition, found.point), &found.instance);
    let mut chunk = Chunk::from(get);
    assert!(is_part(&chunk, &records[0]), "Get has copied");
    chunk.advance(5);
    let decoded = api::GetResponse::decode(&mut chunk).expect("decode");
    let record = decoded.instance.and_then(|instance| instance.record).expect("record");
    assert_eq!(record.spec, Some(support::spec("eu")));

    let page = read::list(node, api::ListRequest::default()).await.expect("list");
    let headers: Vec<_> = page.points.iter().map(|(p, point)| node.header(*p, *point)).collect();
    let list = wire::list_response(&headers, &page.instances, "next", b"resume");
    let mut chunk = Chunk::from(list);
    for (name, record) in names.iter().zip(&records) {
        assert!(is_part(&chunk, record), "List has copied {name}");
    }
    chunk.advance(5);
    let decoded = api::ListResponse::decode(&mut chunk).expect("decode");
    assert_eq!(decoded.instances.len(), names.len());
    assert_eq!((&*decoded.next_page_token, &decoded.resume_token[..]), ("next", &b"resume"[..]));
}
