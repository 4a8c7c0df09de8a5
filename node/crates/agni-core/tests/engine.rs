//! The engine from outside: real threads, real files, restarts.

use agni_core::engine::{Engine, EngineConfig, Freshness, NoPeers};
use agni_core::key::KeyRef;
use agni_core::proto::api::{Key, Kind, Record, Spec};
use agni_core::proto::node::{Command, Delete, Put, command::Operation};
use agni_core::raft::work::{Answer, Deliver, Refuse, Submission, Ticket, Work};
use agni_core::store::{Outcome, Refusal};
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

struct Post {
    answers: Sender<(Ticket, Answer)>,
}

impl Deliver for Post {
    fn answers(&mut self, answers: &mut Vec<(Ticket, Answer)>) {
        for answer in answers.drain(..) {
            let _ = self.answers.send(answer);
        }
    }

    fn changed(&mut self, partitions: &[u32]) {
        assert!(!partitions.is_empty());
    }
}

/// An engine and the answers that it gives.
struct Node {
    engine: Engine,
    answers: Receiver<(Ticket, Answer)>,
    next: Ticket,
}

impl Node {
    fn start(config: &EngineConfig) -> Node {
        let (answers, receiver) = channel();
        let engine =
            Engine::start(config.clone(), Box::new(Post { answers }), Box::new(NoPeers)).unwrap();
        Node { engine, answers: receiver, next: 0 }
    }

    fn send(&mut self, partition: u32, work: Work) -> Ticket {
        self.next += 1;
        let mut batch = vec![Submission { ticket: self.next, partition, work }];
        self.engine.submit(&mut batch);
        assert!(batch.is_empty());
        self.next
    }

    fn answer(&mut self, partition: u32, work: Work) -> Answer {
        let ticket = self.send(partition, work);
        let (answered, answer) = self.answers.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(answered, ticket);
        answer
    }

    fn write(&mut self, name: &str, operation: Operation) -> Outcome {
        let partition = self.engine.partition_of(&key_ref(name));
        let command = Command { proposed_unix_ms: 0, operation: Some(operation) };
        match self.answer(partition, Work::Write(command)) {
            Answer::Written { outcome, .. } => outcome,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn get(&self, name: &str) -> Option<Record> {
        let key = key_ref(name);
        let partition = self.engine.partition_of(&key);
        self.engine
            .read(partition, Freshness::Linearizable, |store, _, now_ms| {
                store.get(&key, now_ms).map(|view| view.record.clone())
            })
            .unwrap()
            .map(|bytes: Bytes| Record::decode(bytes).unwrap())
    }

    fn records(&self) -> u64 {
        self.engine.status().partitions.iter().map(|partition| partition.records).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

fn key_ref(name: &str) -> KeyRef<'_> {
    KeyRef { namespace: "default", kind: Kind::Gateway, name }
}

fn put(name: &str, port: u32, ttl_ms: i64) -> Operation {
    let key = Key { namespace: "default".into(), kind: Kind::Gateway.into(), name: name.into() };
    let spec = Spec { region: "global".into(), port, ..Spec::default() };
    let spec = Bytes::from(spec.encode_to_vec());
    Operation::Put(Put { key: Some(key), spec, ttl_ms, incarnation: 0, expected_revision: None })
}

fn config(dir: &tempfile::TempDir) -> EngineConfig {
    EngineConfig {
        data_dir: dir.path().to_path_buf(),
        partitions: 4,
        wal_segment_bytes: 256 << 10,
        disk_reserve_bytes: 0,
        ..EngineConfig::default()
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_with_its_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let mut revisions: HashMap<String, u64> = HashMap::new();
    for round in 0..3_u32 {
        let mut node = Node::start(&config(&dir));
        assert_eq!(node.records(), u64::from(round) * 100);
        for (name, revision) in &revisions {
            assert_eq!(node.get(name).unwrap().revision, *revision, "{name}");
        }
        for i in 0..100 {
            let name = format!("gateway-{round}-{i}");
            match node.write(&name, put(&name, 4000 + i, 0)) {
                Outcome::Put { revision, created: true, .. } => revisions.insert(name, revision),
                other => panic!("{other:?}"),
            };
        }
    }
}

#[test]
fn a_snapshot_shortens_the_log_and_both_restore_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let small = EngineConfig { partitions: 1, ..config(&dir) };
    {
        let mut node = Node::start(&small);
        for round in 0..3 {
            for i in 0..2_000 {
                let name = format!("gateway-{i}");
                node.write(&name, put(&name, 1 + i + round, 0));
            }
            match node.answer(0, Work::Snapshot) {
                Answer::Snapshot(meta) => assert!(meta.bytes > 0),
                other => panic!("{other:?}"),
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while node.engine.status().wal_bytes > 8 * (256 << 10) {
            assert!(Instant::now() < deadline, "segments behind both snapshots must go");
            std::thread::sleep(Duration::from_millis(5));
        }
        node.write("gateway-7", put("gateway-7", 9_999, 0));
    }
    let node = Node::start(&small);
    assert_eq!(node.records(), 2_000);
    assert_eq!(node.get("gateway-7").unwrap().spec.unwrap().port, 9_999);
    assert_eq!(node.get("gateway-8").unwrap().spec.unwrap().port, 11);
    assert_eq!(node.get("gateway-8").unwrap().version, 3);
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_older_one_and_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let one = EngineConfig { partitions: 1, ..config(&dir) };
    let mut files = Vec::new();
    {
        let mut node = Node::start(&one);
        for round in 0..2 {
            for i in 0..500 {
                let name = format!("gateway-{i}");
                node.write(&name, put(&name, 1 + i + round, 0));
            }
            match node.answer(0, Work::Snapshot) {
                Answer::Snapshot(meta) => files.push(meta.file),
                other => panic!("{other:?}"),
            }
        }
    }
    for file in files.iter().rev() {
        let path = dir.path().join("snapshots").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let node = Node::start(&one);
        assert_eq!(node.records(), 500);
        assert_eq!(node.get("gateway-8").unwrap().spec.unwrap().port, 10);
    }
}

#[test]
fn expected_revisions_are_checked_when_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(&config(&dir));
    let Outcome::Put { revision, .. } = node.write("a", put("a", 1, 0)) else { panic!() };
    let Operation::Put(mut wrong) = put("a", 2, 0) else { panic!() };
    wrong.expected_revision = Some(revision + 1);
    match node.write("a", Operation::Put(wrong.clone())) {
        Outcome::Refused(Refusal::RevisionMismatch { stored, .. }) => assert_eq!(stored, revision),
        other => panic!("{other:?}"),
    }
    wrong.expected_revision = Some(revision);
    assert!(matches!(node.write("a", Operation::Put(wrong)), Outcome::Put { .. }));
    let key = Key { namespace: "default".into(), kind: 1, name: "a".into() };
    let delete = Delete { key: Some(key), ..Delete::default() };
    let gone = node.write("a", Operation::Delete(delete.clone()));
    assert!(matches!(gone, Outcome::Deleted { existed: true, .. }), "{gone:?}");
    let again = node.write("a", Operation::Delete(delete));
    assert!(matches!(again, Outcome::Deleted { existed: false, .. }), "{again:?}");
    assert!(node.get("a").is_none());
}

#[test]
fn a_lease_that_is_not_renewed_ends_at_its_deadline_and_one_that_is_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(&EngineConfig { partitions: 1, ..config(&dir) });
    node.write("silent", put("silent", 1, 1_000));
    let Outcome::Put { lease_id, .. } = node.write("renewed", put("renewed", 1, 1_000)) else {
        panic!()
    };
    let started = Instant::now();
    while node.records() == 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "the silent one must be removed");
        match node.answer(0, Work::Renew(vec![(lease_id, None)])) {
            Answer::Renewed { renewed: 1, lost, next_renewal_ms } => {
                assert!(lost.is_empty());
                assert!((200..=334).contains(&next_renewal_ms), "{next_renewal_ms}");
            }
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(started.elapsed() >= Duration::from_millis(900), "never before its deadline");
    assert!(node.get("silent").is_none());
    assert!(node.get("renewed").is_some());
    match node.answer(0, Work::Renew(vec![(1 << 20, None)])) {
        Answer::Renewed { renewed: 0, lost, .. } => assert_eq!(lost, [1 << 20]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_finds_no_place_is_answered_as_overload_and_renewals_find_one_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(&EngineConfig { queue_limit: 8, ..config(&dir) });
    let count = 5_000;
    let mut batch: Vec<Submission> = (0..count)
        .map(|ticket| {
            let operation = Some(put(&format!("gateway-{ticket}"), 1, 0));
            let command = Command { proposed_unix_ms: 0, operation };
            Submission { ticket, partition: 0, work: Work::Write(command) }
        })
        .collect();
    node.engine.submit(&mut batch);
    let (mut written, mut refused) = (0, 0);
    for _ in 0..count {
        match node.answers.recv_timeout(Duration::from_secs(20)).unwrap().1 {
            Answer::Written { .. } => written += 1,
            Answer::Refused(Refuse::Overloaded { retry_ms }) if retry_ms > 0 => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((written, refused), (6, count - 6), "three quarters of eight");
    let answer = node.answer(0, Work::Renew(vec![(1, None)]));
    assert!(matches!(answer, Answer::Renewed { .. }));
}

#[test]
fn a_stopped_engine_refuses_and_has_written_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(&config(&dir));
    for i in 0..50 {
        let name = format!("gateway-{i}");
        let partition = node.engine.partition_of(&key_ref(&name));
        let operation = Some(put(&name, 1, 0));
        node.send(partition, Work::Write(Command { proposed_unix_ms: 0, operation }));
    }
    node.engine.stop();
    let written = node.answers.try_iter().filter(|(_, a)| matches!(a, Answer::Written { .. }));
    assert_eq!(written.count(), 50, "what was accepted before the stop is answered");
    assert!(!node.engine.is_ready());
    assert_eq!(Node::start(&config(&dir)).records(), 50);
}
