//! Files of random bytes, and real ones with random damage: refused, never a panic, and no more
//! memory than the file is long.

#![allow(clippy::disallowed_methods)] // writes the files

use agni_core::env::RealDisk;
use agni_core::proto::node::{SnapshotBlock, SnapshotFooter, SnapshotHeader, SnapshotRecord};
use agni_core::snapshot::{SnapshotWriter, read};
use agni_core::wal::{self, Identity, Recovered, WalOptions};
use bytes::Bytes;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

const CASES: u32 = 256;
const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, reserve_bytes: 0 };
const IDENTITY: Identity = Identity { cluster_id: [7; 16], node_id: 1, salt: 9 };

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..600)
}

/// Where to damage a file, and with what.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..8)
}

fn damaged(mut whole: Vec<u8>, damage: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, mask) in damage {
        let at = at.index(whole.len());
        whole[at] ^= mask;
    }
    whole
}

fn snapshot_file(dir: &Path) -> PathBuf {
    let header = SnapshotHeader { partition: 3, index: 5, term: 2, ..SnapshotHeader::default() };
    let record = Bytes::from(vec![5; 200]);
    let records = (0..20).map(|slot| SnapshotRecord { slot, record: record.clone() }).collect();
    let block = SnapshotBlock { records, ..SnapshotBlock::default() };
    let mut writer = SnapshotWriter::create(RealDisk::shared(), dir, &header).unwrap();
    writer.write_block(&block).unwrap();
    let meta = writer.finish(&SnapshotFooter { records: 20, tombstones: 0 }).unwrap();
    dir.join(meta.file)
}

fn recover(dir: &Path) -> bool {
    wal::recover(dir, &IDENTITY, OPTIONS, &mut |_: Recovered<'_>| ()).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn random_bytes_are_no_snapshot(bytes in bytes()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, bytes).unwrap();
        prop_assert!(read(&path, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn a_damaged_snapshot_is_refused(damage in damage()) {
        let dir = tempfile::tempdir().unwrap();
        let path = snapshot_file(dir.path());
        prop_assert!(read(&path, &mut |_| Ok(())).is_ok());
        let whole = fs::read(&path).unwrap();
        let bad = damaged(whole.clone(), &damage);
        fs::write(&path, &bad).unwrap();
        prop_assert_eq!(read(&path, &mut |_| Ok(())).is_ok(), bad == whole);
    }

    #[test]
    fn random_bytes_as_a_log_are_refused_or_cut_off(bytes in bytes()) {
        let dir = tempfile::tempdir().unwrap();
        prop_assert!(recover(dir.path()), "an empty directory begins a log");
        let mut segments: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "wal"))
            .collect();
        segments.sort();
        let first = segments.first().cloned().unwrap();
        let begun = fs::read(&first).unwrap();
        // In place of all of it, and behind its header.
        fs::write(&first, &bytes).unwrap();
        let _ = recover(dir.path());
        let mut torn = begun;
        let header_bytes = torn.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        torn.splice(header_bytes.., bytes);
        fs::write(&first, &torn).unwrap();
        let _ = recover(dir.path());
    }
}
