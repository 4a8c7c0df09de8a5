//! Snapshot files from outside: what is published is whole, and whatever fails leaves nothing.

mod support;

use agni_core::env::RealDisk;
use agni_core::proto::node::{
    SnapshotBlock, SnapshotFooter, SnapshotHeader, SnapshotRecord, SnapshotTombstone,
};
use agni_core::snapshot::{
    SnapshotError, SnapshotItem, SnapshotMeta, SnapshotWriter, list, read, remove_old,
};
use bytes::Bytes;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use support::FaultyDisk;

fn header(index: u64) -> SnapshotHeader {
    SnapshotHeader { partition: 3, index, term: 2, ..SnapshotHeader::default() }
}

/// Fifty records that don't pack well.
fn block() -> SnapshotBlock {
    let mut noise = 1_u32;
    let mut byte = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let mut record = || Bytes::from((0..100).map(|_| byte()).collect::<Vec<_>>());
    SnapshotBlock {
        records: (0..50).map(|slot| SnapshotRecord { slot, record: record() }).collect(),
        tombstones: vec![SnapshotTombstone { revision: 9, ..SnapshotTombstone::default() }],
        system: None,
    }
}

fn write_on(disk: &FaultyDisk, dir: &Path, index: u64) -> Result<SnapshotMeta, SnapshotError> {
    let mut writer = SnapshotWriter::create(disk.shared(), dir, &header(index))?;
    writer.write_block(&block())?;
    writer.write_block(&block())?;
    writer.finish(&SnapshotFooter { records: 100, tombstones: 2 })
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn write(dir: &Path, index: u64) -> SnapshotMeta {
    write_on(&FaultyDisk::default(), dir, index).unwrap()
}

fn read_all(path: &Path) -> Result<(usize, usize), SnapshotError> {
    let (mut headers, mut records) = (0, 0);
    read(path, &mut |item| {
        match item {
            SnapshotItem::Header(header) => {
                assert_eq!((header.partition, header.term), (3, 2));
                headers += 1;
            }
            SnapshotItem::Block(block) => records += block.records.len(),
        }
        Ok(())
    })?;
    Ok((headers, records))
}

#[test]
fn what_is_written_is_listed_newest_first_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let metas: Vec<_> = [5, 70, 12].iter().map(|index| write(dir.path(), *index)).collect();
    let listed = list(dir.path()).unwrap();
    let indexes: Vec<u64> = listed[&3].iter().map(|meta| meta.index).collect();
    assert_eq!(indexes, [70, 12, 5]);
    assert_eq!(listed[&3][0].bytes, metas[1].bytes);
    assert_eq!(read_all(&dir.path().join(&metas[0].file)).unwrap(), (1, 100));
    remove_old(&RealDisk, dir.path(), 3, 2).unwrap();
    assert_eq!(list(dir.path()).unwrap()[&3].len(), 2);
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(RealDisk::shared(), dir.path(), &header(5)).unwrap();
    let record = SnapshotRecord { slot: 0, record: Bytes::from_static(b"a record") };
    writer.write_block(&SnapshotBlock { records: vec![record], ..block() }).unwrap();
    let meta = writer.finish(&SnapshotFooter { records: 1, tombstones: 1 }).unwrap();
    let path = dir.path().join(meta.file);
    let good = fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        assert!(read_all(&path).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(read_all(&path).is_err(), "cut to {length}");
    }
}

#[test]
fn an_unfinished_snapshot_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(SnapshotWriter::create(RealDisk::shared(), dir.path(), &header(1)).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("p0000-00000000000000000001.snap.tmp"), b"half").unwrap();
    assert!(list(dir.path()).unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_under_another_files_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let meta = write(dir.path(), 5);
    let other = dir.path().join("p0004-00000000000000000005.snap");
    fs::rename(dir.path().join(meta.file), &other).unwrap();
    assert!(read_all(&other).unwrap_err().to_string().contains("partition 3"));
}

/// Nothing that goes wrong leaves half a file, under any name, and the older ones stay.
fn fails_without_a_trace(break_it: impl Fn(&FaultyDisk), mend_it: impl Fn(&FaultyDisk)) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let older = write_on(&disk, dir.path(), 5).unwrap();
    break_it(&disk);
    let refused = write_on(&disk, dir.path(), 9).unwrap_err();
    assert!(matches!(refused, SnapshotError::Io { .. }), "{refused}");
    assert_eq!(names(dir.path()), std::slice::from_ref(&older.file));
    assert_eq!(read_all(&dir.path().join(&older.file)).unwrap(), (1, 100));
    mend_it(&disk);
    let newer = write_on(&disk, dir.path(), 9).unwrap();
    assert_eq!(read_all(&dir.path().join(&newer.file)).unwrap(), (1, 100));
}

#[test]
fn a_disk_that_becomes_full_at_any_byte_leaves_no_trace() {
    let whole = write(tempfile::tempdir().unwrap().path(), 5).bytes;
    for space in (0..whole).step_by(97) {
        fails_without_a_trace(|disk| disk.set_space(Some(space)), |disk| disk.set_space(None));
    }
}

#[test]
fn a_snapshot_that_could_not_be_synced_is_not_published() {
    fails_without_a_trace(
        |disk| disk.0.syncs_fail.store(true, SeqCst),
        |disk| disk.0.syncs_fail.store(false, SeqCst),
    );
}

#[test]
fn a_snapshot_that_could_not_be_renamed_leaves_no_trace() {
    fails_without_a_trace(
        |disk| disk.0.renames_fail.store(true, SeqCst),
        |disk| disk.0.renames_fail.store(false, SeqCst),
    );
}

#[test]
fn short_writes_are_completed_and_the_name_comes_after_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    disk.0.write_bytes_max.store(11, SeqCst);
    let meta = write_on(&disk, dir.path(), 5).unwrap();
    assert_eq!(read_all(&dir.path().join(&meta.file)).unwrap(), (1, 100));
    let done = disk.take_done();
    let (sync, rename) = (format!("sync {}.tmp", meta.file), format!("rename {}", meta.file));
    assert_eq!(done[done.len() - 2..], [sync, rename]);
}

/// A block above the readers' limit was once written and published, and could never be read.
#[test]
fn a_block_that_no_reader_takes_is_not_written() {
    const LIMIT: usize = 64 << 20;
    let block_of = |bytes: usize| {
        let record = SnapshotRecord { slot: 1, record: Bytes::from(vec![0; bytes]) };
        SnapshotBlock { records: vec![record], ..SnapshotBlock::default() }
    };
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(RealDisk::shared(), dir.path(), &header(5)).unwrap();
    let refused = writer.write_block(&block_of(LIMIT)).unwrap_err();
    assert!(matches!(refused, SnapshotError::BlockTooLarge { bytes, .. } if bytes > LIMIT));
    writer.write_block(&block_of(LIMIT - 100)).unwrap();
    let meta = writer.finish(&SnapshotFooter { records: 1, tombstones: 0 }).unwrap();
    assert_eq!(read_all(&dir.path().join(meta.file)).unwrap(), (1, 1));
}
