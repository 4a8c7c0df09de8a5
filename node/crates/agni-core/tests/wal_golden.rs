//! The log's format does not change by accident: what this version writes is, to the byte, what is
//! committed below `tests/golden/wal/`, which other readers are tested against, and what the page
//! `docs/formats/wal.md` shows.
//! `AGNI_BLESS=1 cargo test --test wal_golden` writes the files anew.

#[path = "support/document.rs"]
mod document;

use agni_core::proto::api::{Capacity, Key, Kind, Spec};
use agni_core::proto::node::{Command, Expire, ExpiredLease, Put, ReplicaSet, command::Operation};
use agni_core::wal::{Batch, Identity, Op, Recovered, SnapshotMark, WalOptions, recover};
use prost::Message as _;
use std::path::{Path, PathBuf};

const IDENTITY: Identity = Identity { cluster_id: [7; 16], node_id: 42, salt: 0x0102030405060708 };
const OPTIONS: WalOptions = WalOptions { segment_bytes: 1024, reserve_bytes: 0 };

fn golden() -> PathBuf {
    document::repository("tests/golden/wal")
}

fn put() -> Vec<u8> {
    let name = "global.gateway.agnistack.online".to_owned();
    let kind = Kind::Gateway.into();
    let key = Key { namespace: "default".into(), kind, name: name.clone() };
    let capacity = Capacity { cpu: 1.0, bandwidth: 20.0, memory: 4096.0, storage: 40960.0 };
    let spec = Spec {
        region: "global".into(),
        ip: "12.34.56.78".into(),
        domain: name,
        port: 4000,
        capacity: Some(capacity),
        ..Spec::default()
    };
    let put = Put {
        key: Some(key),
        spec: spec.encode_to_vec().into(),
        ttl_ms: 30_000,
        incarnation: 9,
        expected_revision: Some(0),
    };
    let operation = Some(Operation::Put(put));
    Command { proposed_unix_ms: 1_700_000_000_000, operation }.encode_to_vec()
}

fn expire() -> Vec<u8> {
    let lease = ExpiredLease { slot: 0, lease_id: 3 << 53 | 1, incarnation: 9, revision: 1 };
    let operation =
        Some(Operation::Expire(Expire { proposer_term: 2, leases: vec![lease], claim: None }));
    Command { proposed_unix_ms: 1_700_000_030_000, operation }.encode_to_vec()
}

fn write(dir: &Path) {
    let mut writer = recover(dir, &IDENTITY, OPTIONS, &mut |_| {}).unwrap();
    let mut batch = Batch::new();
    batch.entry(3, 2, 1, Op::NoOp, b"");
    batch.hard_state(3, 2, 42, 0);
    writer.append(&mut batch, true).unwrap();
    batch.clear();
    batch.entry(3, 2, 2, Op::Put, &put());
    batch.entry(3, 2, 3, Op::Expire, &expire());
    batch.hard_state(3, 2, 42, 1);
    writer.append(&mut batch, true).unwrap();
    batch.clear();
    let replicas = ReplicaSet { voters: vec![42], learners: vec![43], ..ReplicaSet::default() };
    let file = "p0003-00000000000000000003.snap".to_owned();
    let mark =
        SnapshotMark { index: 3, term: 2, file, replicas: replicas.clone(), installed: false };
    batch.snapshot_mark(3, mark);
    batch.hard_state(3, 2, 42, 3);
    writer.append(&mut batch, true).unwrap();
    batch.clear();
    batch.replica_set(5, 1, 1, replicas);
    batch.discard(5, 1);
    for index in 4..8 {
        batch.entry(3, 2, index, Op::Put, &put());
    }
    writer.append(&mut batch, true).unwrap();
}

fn listing(dir: &Path) -> String {
    let mut lines = Vec::new();
    recover(dir, &IDENTITY, OPTIONS, &mut |record| {
        lines.push(match record {
            Recovered::Entry { partition, term, index, op, data } => format!(
                "{{\"record\": \"{op:?}\", \"partition\": {partition}, \"term\": {term}, \
                 \"index\": {index}, \"data_bytes\": {}}}",
                data.len()
            ),
            Recovered::HardState { partition, term, vote, commit, .. } => format!(
                "{{\"record\": \"HardState\", \"partition\": {partition}, \"term\": {term}, \
                 \"vote\": {vote}, \"commit\": {commit}}}"
            ),
            Recovered::SnapshotMark { partition, index, term, file, installed } => format!(
                "{{\"record\": \"SnapshotMark\", \"partition\": {partition}, \"term\": {term}, \
                 \"index\": {index}, \"file\": \"{file}\", \"installed\": {installed}}}"
            ),
            Recovered::ReplicaSet { partition, index, term, replicas } => format!(
                "{{\"record\": \"ReplicaSet\", \"partition\": {partition}, \"term\": {term}, \
                 \"index\": {index}, \"voters\": {:?}, \"learners\": {:?}}}",
                replicas.voters, replicas.learners
            ),
            Recovered::Discard { partition, index } => format!(
                "{{\"record\": \"Discard\", \"partition\": {partition}, \"index\": {index}}}"
            ),
        });
    })
    .unwrap();
    format!("[\n  {}\n]\n", lines.join(",\n  "))
}

fn segments(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".wal"))
        .collect();
    names.sort();
    names
}

#[test]
fn the_log_on_disk_is_the_one_that_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let listing = listing(dir.path());
    if std::env::var_os("AGNI_BLESS").is_some() {
        for name in segments(dir.path()) {
            std::fs::copy(dir.path().join(&name), golden().join(&name)).unwrap();
        }
        std::fs::write(golden().join("records.json"), &listing).unwrap();
    }
    assert_eq!(segments(dir.path()), segments(&golden()));
    assert_eq!(segments(dir.path()).len(), 2);
    for name in segments(dir.path()) {
        let (now, then) = (dir.path().join(&name), golden().join(&name));
        assert!(std::fs::read(now).unwrap() == std::fs::read(then).unwrap(), "{name} differs");
    }
    assert_eq!(listing, std::fs::read_to_string(golden().join("records.json")).unwrap());
    let first = std::fs::read(golden().join(&segments(&golden())[0])).unwrap();
    let documented = document::examples("docs/formats/wal.md").concat();
    assert!(!documented.is_empty() && first.starts_with(&documented), "the page differs");
}
