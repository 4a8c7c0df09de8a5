//! What a read allocates does not grow with the record: nothing of its size is made on the way
//! from the store to the socket, neither by decoding nor by copying.
#![allow(missing_docs)]

mod support;

use agni_core::proto::api;
use agni_server::connection;
use prost::Message;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use support::Alone;

/// Reads that are measured, after as many that only warm up.
const READS: usize = 50;
/// What one read may allocate more for a large record: bookkeeping of its HTTP/2 frames.
const GROWTH_BYTES_MAX: usize = 4 << 10;
const SMALL_BYTES: usize = 300;
const LARGE_BYTES: usize = 60 << 10;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn count(bytes: usize) {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATED.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: all is left to the system's allocator; counting touches an atomic and a plain cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Bytes that the serving thread allocates for one call, on average.
async fn cost(sender: &mut support::Sender, call: &str, request: &impl Message) -> usize {
    let path = format!("/agniregistry.api.v1.RegistryService/{call}");
    let body = support::frame(&request.encode_to_vec());
    let mut before = 0;
    for turn in 0..READS * 2 {
        if turn == READS {
            before = ALLOCATED.load(Relaxed);
        }
        let answer = support::raw_call_on(sender, &path, &[], body.clone()).await;
        assert_eq!(answer.grpc_status, Some(0));
    }
    (ALLOCATED.load(Relaxed) - before) / READS
}

#[test]
fn a_large_record_costs_a_read_no_more_memory_than_a_small_one() {
    let (address_sender, address) = channel();
    // The server has a thread of its own: only what that allocates counts.
    std::thread::spawn(move || {
        current_thread().block_on(async move {
            let alone = Alone::start();
            for (name, bytes) in [("small", SMALL_BYTES), ("large", LARGE_BYTES)] {
                let spec = api::Spec { payload: vec![7; bytes].into(), ..support::spec("eu") };
                support::put(&alone.node, name, spec.encode_to_vec().into()).await;
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
            address_sender.send(listener.local_addr().expect("address")).expect("send");
            let (stream, _) = listener.accept().await.expect("accept");
            stream.set_nodelay(true).expect("nodelay");
            COUNTED.set(true);
            connection::serve(alone.node.clone(), stream).await;
            COUNTED.set(false);
        });
    });
    let address = address.recv().expect("address");
    current_thread().block_on(async move {
        let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        let mut sender = support::connect_on(stream).await;
        let get = |name| api::GetRequest { key: Some(support::key(name)), read: None };
        let small = cost(&mut sender, "Get", &get("small")).await;
        let large = cost(&mut sender, "Get", &get("large")).await;
        assert!(small > 0, "nothing was counted");
        assert!(large <= small + GROWTH_BYTES_MAX, "Get: {small} bytes, then {large}");

        let list = |prefix: &str| api::ListRequest {
            filter: Some(api::Filter { name_prefix: prefix.into(), ..api::Filter::default() }),
            ..api::ListRequest::default()
        };
        let small = cost(&mut sender, "List", &list("small")).await;
        let large = cost(&mut sender, "List", &list("large")).await;
        assert!(large <= small + GROWTH_BYTES_MAX, "List: {small} bytes, then {large}");
    });
}
