//! The engine on a disk of its own that is full: it starts, serves what needs no space, and heals.
//! The disk is a small tmpfs, so these tests need root, and say so where they are left out.

use agni_core::engine::{Engine, EngineConfig, Freshness, NoPeers};
use agni_core::key::KeyRef;
use agni_core::proto::api::{Key, Kind, Spec};
use agni_core::proto::node::{Command, Delete, Put, command::Operation};
use agni_core::raft::work::{Answer, Deliver, Refuse, Submission, Ticket, Work};
use agni_core::store::Outcome;
use agni_core::wal::DiskState;
use bytes::Bytes;
use prost::Message as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const DISK_MIB: usize = 8;

/// A small file system; none where it can't be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_MIB}m");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        if mount.is_ok_and(|done| done.status.success()) {
            return Some(SmallDisk(dir));
        }
        eprintln!("left out: a tmpfs can't be mounted here, which needs root");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Fills it up but for so many bytes.
    fn fill(&self, but_for: usize) {
        let mut filler = fs::File::create(self.path("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        let bytes = filler.metadata().unwrap().len();
        filler.set_len(bytes - but_for as u64).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

struct Post(Sender<Answer>);

impl Deliver for Post {
    fn answers(&mut self, answers: &mut Vec<(Ticket, Answer)>) {
        for (_, answer) in answers.drain(..) {
            let _ = self.0.send(answer);
        }
    }

    fn changed(&mut self, _partitions: &[u32]) {}
}

struct Node {
    engine: Engine,
    answers: Receiver<Answer>,
}

impl Node {
    fn start(disk: &SmallDisk) -> Node {
        let config = EngineConfig {
            data_dir: disk.path("data"),
            partitions: 1,
            wal_segment_bytes: 64 << 10,
            disk_reserve_bytes: 128 << 10,
            ..EngineConfig::default()
        };
        let (sender, answers) = channel();
        let engine = Engine::start(config, Box::new(Post(sender)), Box::new(NoPeers)).unwrap();
        Node { engine, answers }
    }

    fn send(&self, work: Work) {
        self.engine.submit(&mut vec![Submission { ticket: 1, partition: 0, work }]);
    }

    fn answer(&self, work: Work) -> Answer {
        self.send(work);
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    /// The lease, or none when the disk is full.
    fn put(&self, name: &str, ttl_ms: i64) -> Option<u64> {
        match self.answer(put(name, ttl_ms)) {
            Answer::Written { outcome: Outcome::Put { lease_id, .. }, .. } => Some(lease_id),
            Answer::Refused(Refuse::DiskFull) => None,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Serves what needs no space, and refuses what does.
    fn serves_but_takes_no_more(&self, lease_id: u64) {
        match self.answer(Work::Renew(vec![(lease_id, None)])) {
            Answer::Renewed { renewed: 1, .. } => {}
            other => panic!("{other:?}"),
        }
        assert!(self.has("first"));
        assert_eq!(self.put("refused", 0), None);
        assert_ne!(self.engine.status().disk, DiskState::Ok);
    }

    fn has(&self, name: &str) -> bool {
        let key = KeyRef { namespace: "default", kind: Kind::Gateway, name };
        let read = |store: &agni_core::store::Store, _, now_ms| store.get(&key, now_ms).is_some();
        self.engine.read(0, Freshness::Linearizable, read).unwrap()
    }

    fn heals(&self) {
        wait_for("writes are accepted again", || self.put("after", 0).is_some());
        wait_for("the state says so", || self.engine.status().disk == DiskState::Ok);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// A record of 4 KiB that doesn't pack.
fn put(name: &str, ttl_ms: i64) -> Work {
    let mut payload = vec![0; 4096];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut payload)).unwrap();
    let payload = Bytes::from(payload);
    let key = Key { namespace: "default".into(), kind: Kind::Gateway.into(), name: name.into() };
    let spec = Spec { region: "global".into(), port: 1, payload, ..Spec::default() };
    let spec = Bytes::from(spec.encode_to_vec());
    let put = Put { key: Some(key), spec, ttl_ms, incarnation: 0, expected_revision: None };
    Work::Write(Command { proposed_unix_ms: 0, operation: Some(Operation::Put(put)) })
}

fn delete(name: &str) -> Work {
    let key = Key { namespace: "default".into(), kind: Kind::Gateway.into(), name: name.into() };
    let operation = Some(Operation::Delete(Delete { key: Some(key), ..Delete::default() }));
    Work::Write(Command { proposed_unix_ms: 0, operation })
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_torn_tail_on_a_full_disk_is_cut_and_the_node_serves_and_heals() {
    let Some(disk) = SmallDisk::mount() else { return };
    let wal = disk.path("data/wal");
    let lease_id = Node::start(&disk).put("first", 60_000).unwrap();
    let segment = wal.join("00000000000000000001.wal");
    let mut bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[used..used + 100].fill(0xAB);
    fs::write(&segment, bytes).unwrap();
    for spare in ["next.tmp", "reserve", "reserve.tmp"] {
        let _ = fs::remove_file(wal.join(spare));
    }
    disk.fill(0);
    let node = Node::start(&disk);
    node.serves_but_takes_no_more(lease_id);
    assert!(!names(&wal).iter().any(|name| name.contains("broken")), "{:?}", names(&wal));
    disk.empty();
    node.heals();
    drop(node);
    let node = Node::start(&disk);
    assert!(node.has("first") && node.has("after") && !node.has("refused"));
}

#[test]
fn a_log_that_filled_the_disk_to_the_last_byte_is_started_serves_and_heals() {
    let Some(disk) = SmallDisk::mount() else { return };
    let node = Node::start(&disk);
    let lease_id = node.put("first", 60_000).unwrap();
    disk.fill(0);
    // Puts are refused; what shrinks the data goes on, and each attempt takes its place in the log.
    loop {
        node.send(delete("nobody"));
        match node.answers.recv_timeout(Duration::from_secs(2)) {
            Ok(Answer::Written { .. }) => {}
            Err(RecvTimeoutError::Timeout) => break,
            other => panic!("{other:?}"),
        }
    }
    drop(node);
    for spare in ["next.tmp", "reserve", "reserve.tmp"] {
        let _ = fs::remove_file(disk.path("data/wal").join(spare));
    }
    disk.fill(0);
    let node = Node::start(&disk);
    node.serves_but_takes_no_more(lease_id);
    disk.empty();
    node.heals();
    drop(node);
    let node = Node::start(&disk);
    assert!(node.has("first") && node.has("after") && !node.has("refused"));
}

#[test]
fn a_snapshot_that_finds_no_room_leaves_no_trace_and_the_node_goes_on() {
    let Some(disk) = SmallDisk::mount() else { return };
    let node = Node::start(&disk);
    for number in 0..200 {
        node.put(if number == 0 { "first" } else { "many" }, 0).unwrap();
        node.put(&format!("record{number}"), 0).unwrap();
    }
    let segments = |node: &Node| node.engine.status().wal_bytes / (64 << 10);
    let before = segments(&node);
    disk.fill(500 << 10);
    match node.answer(Work::Snapshot) {
        Answer::SnapshotFailed(message) => assert!(message.contains("No space"), "{message}"),
        other => panic!("{other:?}"),
    }
    let snapshots = disk.path("data/snapshots");
    assert!(names(&snapshots).is_empty(), "{:?}", names(&snapshots));
    assert_eq!(segments(&node), before, "the log is needed and kept");
    node.heals();
    assert!(node.has("first"));
    disk.empty();
    assert!(matches!(node.answer(Work::Snapshot), Answer::Snapshot(_)));
    assert_eq!(names(&snapshots).len(), 1);
}

/// A folder in the snapshot's place makes its rename fail.
#[test]
fn a_snapshot_that_can_not_have_its_name_is_not_counted() {
    let Some(disk) = SmallDisk::mount() else { return };
    let node = Node::start(&disk);
    node.put("first", 0).unwrap();
    let index = node.engine.status().partitions[0].applied_index;
    let snapshots = disk.path("data/snapshots");
    let name = format!("p0000-{index:020}.snap");
    fs::create_dir(snapshots.join(&name)).unwrap();
    assert!(matches!(node.answer(Work::Snapshot), Answer::SnapshotFailed(_)));
    assert_eq!(names(&snapshots), std::slice::from_ref(&name), "the temporary file is gone");
    assert_eq!(node.engine.status().partitions[0].snapshot_index, 0);
    fs::remove_dir(snapshots.join(&name)).unwrap();
    assert!(matches!(node.answer(Work::Snapshot), Answer::Snapshot(_)));
    assert_eq!(node.engine.status().partitions[0].snapshot_index, index);
    drop(node);
    assert!(Node::start(&disk).has("first"));
}
