//! The snapshot's format does not change by accident: what this version writes is, to the byte,
//! the file below `tests/golden/snapshot/` and the example of `docs/formats/snapshot.md`.
//! `AGNI_BLESS=1 cargo test --test snapshot_golden` writes the file anew.

#[path = "support/document.rs"]
mod document;

use agni_core::env::RealDisk;
use agni_core::proto::api::{Key, Kind, Record, Spec};
use agni_core::proto::node::{
    ReplicaSet, SnapshotBlock, SnapshotFooter, SnapshotHeader, SnapshotRecord, SnapshotTombstone,
};
use agni_core::snapshot::{SnapshotItem, SnapshotWriter, read};
use prost::Message as _;

const FILE: &str = "p0003-00000000000000000042.snap";

fn header() -> SnapshotHeader {
    SnapshotHeader {
        cluster_id: vec![7; 16].into(),
        partition: 3,
        index: 42,
        term: 2,
        revision: 40,
        compacted_revision: 12,
        replicas: Some(ReplicaSet { voters: vec![42, 300], ..ReplicaSet::default() }),
    }
}

fn key(name: &str) -> Key {
    Key { namespace: "default".into(), kind: Kind::Agent.into(), name: name.into() }
}

fn block() -> SnapshotBlock {
    let record = Record {
        key: Some(key("a")),
        spec: Some(Spec { region: "global".into(), ..Spec::default() }),
        create_revision: 39,
        revision: 39,
        version: 1,
        ..Record::default()
    };
    let tombstone =
        SnapshotTombstone { revision: 40, key: key("b").encode_to_vec().into(), expired: true };
    SnapshotBlock {
        records: vec![SnapshotRecord { slot: 5, record: record.encode_to_vec().into() }],
        tombstones: vec![tombstone],
        system: None,
    }
}

#[test]
fn the_snapshot_on_disk_is_the_one_that_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(RealDisk::shared(), dir.path(), &header()).unwrap();
    writer.write_block(&block()).unwrap();
    let meta = writer.finish(&SnapshotFooter { records: 1, tombstones: 1 }).unwrap();
    assert_eq!(meta.file, FILE);
    let golden = document::repository("tests/golden/snapshot").join(FILE);
    let written = std::fs::read(dir.path().join(FILE)).unwrap();
    if std::env::var_os("AGNI_BLESS").is_some() {
        std::fs::write(&golden, &written).unwrap();
    }
    assert!(written == std::fs::read(&golden).unwrap(), "the file differs");
    let mut items = Vec::new();
    read(&golden, &mut |item| {
        items.push(item);
        Ok(())
    })
    .unwrap();
    match &items[..] {
        [SnapshotItem::Header(first), SnapshotItem::Block(second)] => {
            assert_eq!((first, second), (&header(), &block()));
        }
        other => panic!("{other:?}"),
    }
    let footer = SnapshotFooter { records: 1, tombstones: 1 };
    let plain = [header().encode_to_vec(), block().encode_to_vec(), footer.encode_to_vec()];
    let documented = document::examples("docs/formats/snapshot.md");
    assert!(documented[0] == written, "the page shows another file");
    assert_eq!(documented[1..], plain, "the page shows other contents");
}
