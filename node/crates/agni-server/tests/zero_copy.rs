//! A stored record goes from the store to the body of an answer without being copied.
#![allow(missing_docs)]

mod support;

use agni_core::engine::{Engine, Freshness};
use agni_core::key::KeyRef;
use agni_core::proto::{api, node};
use agni_core::raft::work::{Answer, Deliver, Submission, Ticket, Work};
use agni_server::body::Chunk;
use agni_server::node::Node;
use agni_server::ops::read;
use agni_server::wire;
use bytes::{Buf, Bytes};
use prost::Message;
use std::sync::mpsc::{Sender, channel};

struct Answers(Sender<Answer>);

impl Deliver for Answers {
    fn answers(&mut self, answers: &mut Vec<(Ticket, Answer)>) {
        for (_, answer) in answers.drain(..) {
            let _ = self.0.send(answer);
        }
    }

    fn changed(&mut self, _: &[u32]) {}
}

fn put(name: &str) -> node::Command {
    let put = node::Put {
        key: Some(support::key(name)),
        spec: Bytes::from(support::spec("eu").encode_to_vec()),
        ..Default::default()
    };
    node::Command { operation: Some(node::command::Operation::Put(put)), proposed_unix_ms: 1 }
}

#[test]
fn the_bytes_of_an_answer_are_the_stored_ones() {
    let directory = tempfile::tempdir().expect("directory");
    let config = support::config(&directory);
    let (sender, answers) = channel();
    let engine = Engine::start(config.engine.clone(), Box::new(Answers(sender))).expect("engine");
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        let partition = engine.partition_of(&KeyRef::of(&support::key(name)));
        let work = Work::Write(put(name));
        engine.submit(&mut vec![Submission { ticket: 1, partition, work }]);
        assert!(matches!(answers.recv().expect("answer"), Answer::Written { .. }));
    }
    let node = Node::new(config, engine.clone(), ([127, 0, 0, 1], 1).into());
    let stored: Vec<*const u8> = names
        .iter()
        .map(|name| {
            let key = support::key(name);
            let partition = engine.partition_of(&KeyRef::of(&key));
            let read = engine.read(partition, Freshness::Local, |store, _, now_ms| {
                store.get(&KeyRef::of(&key), now_ms).expect("record").record.as_ptr()
            });
            read.expect("read")
        })
        .collect();

    let request = api::GetRequest { key: Some(support::key("a")), read: None };
    let found = read::get(&node, request).expect("get");
    let get = wire::get_response(node.header(found.partition, found.point), &found.instance);
    let mut chunk = Chunk::from(get);
    assert!(chunk.parts().iter().any(|part| part.as_ptr() == stored[0]), "Get has copied");
    chunk.advance(5);
    let decoded = api::GetResponse::decode(&mut chunk).expect("decode");
    let record = decoded.instance.and_then(|instance| instance.record).expect("record");
    assert_eq!(record.spec, Some(support::spec("eu")));

    let page = read::list(&node, api::ListRequest::default()).expect("list");
    let headers: Vec<_> = page.points.iter().map(|(p, point)| node.header(*p, *point)).collect();
    let list = wire::list_response(&headers, &page.instances, "next", b"resume");
    let mut chunk = Chunk::from(list);
    let parts = chunk.parts();
    for (name, pointer) in names.iter().zip(&stored) {
        assert!(parts.iter().any(|part| part.as_ptr() == *pointer), "List has copied {name}");
    }
    chunk.advance(5);
    let decoded = api::ListResponse::decode(&mut chunk).expect("decode");
    assert_eq!(decoded.instances.len(), names.len());
    assert_eq!((&*decoded.next_page_token, &decoded.resume_token[..]), ("next", &b"resume"[..]));
    engine.stop();
}
