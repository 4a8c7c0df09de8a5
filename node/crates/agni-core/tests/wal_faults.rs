//! The log on a disk that is full, slow or broken: what was acknowledged stays, what was not
//! never half counts, and a node starts.

mod support;

use agni_core::limits::DISK_SLICE_BYTES;
use agni_core::wal::{
    Batch, DiskState, Identity, Op, RecoverError, Recovered, WalError, WalOptions, WalWriter,
    recover_on,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use support::FaultyDisk;

const IDENTITY: Identity = Identity { cluster_id: [7; 16], node_id: 42, salt: 0x0102030405060708 };
const SEGMENT_BYTES: u64 = 64 << 10;
const OPTIONS: WalOptions = WalOptions { segment_bytes: SEGMENT_BYTES, reserve_bytes: 0 };
const PATIENCE: Duration = Duration::from_secs(20);

type Log = Vec<(u64, Vec<u8>)>;

fn open_with(
    disk: &FaultyDisk,
    dir: &Path,
    options: WalOptions,
) -> Result<(WalWriter, Log), RecoverError> {
    let mut log = Vec::new();
    let writer = recover_on(disk.shared(), dir, &IDENTITY, options, &mut |record| {
        if let Recovered::Entry { index, op: Op::Put, data, .. } = record {
            log.push((index, data.to_vec()));
        }
    })?;
    Ok((writer, log))
}

fn open(disk: &FaultyDisk, dir: &Path) -> (WalWriter, Log) {
    open_with(disk, dir, OPTIONS).unwrap()
}

/// What is on disk, as a node would find it that starts on a healthy one.
fn seen(dir: &Path) -> Log {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    open(&FaultyDisk::default(), copy.path()).1
}

fn put(writer: &mut WalWriter, log: &mut Log, index: u64, bytes: usize) -> Result<(), WalError> {
    let data = vec![index as u8 | 1; bytes];
    let mut batch = Batch::new();
    batch.entry(1, 3, index, Op::Put, &data);
    writer.append(&mut batch, true)?;
    log.push((index, data));
    Ok(())
}

/// What a node writes when it becomes a leader.
fn lead(writer: &mut WalWriter, term: u64, index: u64) -> Result<u64, WalError> {
    let mut batch = Batch::new();
    batch.hard_state(1, term, 42, 0);
    batch.entry(1, term, index, Op::NoOp, b"");
    writer.append(&mut batch, true)
}

/// Appends until the disk is full; the index that found no room.
fn fill(writer: &mut WalWriter, log: &mut Log) -> u64 {
    for index in log.len() as u64 + 1.. {
        match put(writer, log, index, 1000) {
            Ok(()) => assert!(index < 10_000, "it must become full"),
            Err(WalError::DiskFull) => return index,
            Err(fatal) => panic!("{fatal}"),
        }
    }
    unreachable!()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Until the next segment is made, so that giving it up gives no space back.
fn wait_for_spare(disk: &FaultyDisk) {
    let mut done = Vec::new();
    wait_for("the spare is made", || {
        done.append(&mut disk.take_done());
        done.contains(&"sync next.tmp".into())
    });
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_refuses_keeps_the_log_intact_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut writer, mut log) = open(&disk, dir.path());
    put(&mut writer, &mut log, 1, 100).unwrap();
    disk.set_space(Some(0));
    let index = fill(&mut writer, &mut log);
    assert!(matches!(put(&mut writer, &mut log, index, 1000), Err(WalError::DiskFull)));
    assert_eq!(writer.disk_state(), DiskState::Full);
    assert_eq!(seen(dir.path()), log, "what was acknowledged is intact");
    disk.set_space(None);
    put(&mut writer, &mut log, index, 1000).unwrap();
    assert_eq!(writer.disk_state(), DiskState::Ok);
    drop(writer);
    assert_eq!(open(&disk, dir.path()).1, log);
}

#[test]
fn a_failed_sync_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut writer, mut log) = open(&disk, dir.path());
    put(&mut writer, &mut log, 1, 100).unwrap();
    disk.0.syncs_fail.store(true, SeqCst);
    assert!(matches!(put(&mut writer, &mut log, 2, 100), Err(WalError::Fatal { .. })));
}

/// A write may take fewer bytes than it is given. The rest follows, or nothing counts.
#[test]
fn a_short_write_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut writer, mut log) = open(&disk, dir.path());
    disk.0.write_bytes_max.store(7, SeqCst);
    for index in 1..20 {
        put(&mut writer, &mut log, index, 300).unwrap();
        assert_eq!(seen(dir.path()), log, "acknowledged means that all of it is there");
    }
}

#[test]
fn a_short_write_that_finds_no_more_room_is_erased() {
    for copies_on_write in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let (mut writer, mut log) = open(&disk, dir.path());
        put(&mut writer, &mut log, 1, 100).unwrap();
        wait_for_spare(&disk);
        // With the first, not even zeros find room afterwards.
        if copies_on_write {
            disk.0.copies_on_write.store(true, SeqCst);
            disk.set_space(Some(500));
        } else {
            *disk.0.next_write_takes.lock().unwrap() = Some(500);
        }
        disk.take_done();
        assert!(matches!(put(&mut writer, &mut log, 2, 1000), Err(WalError::DiskFull)));
        let found = std::fs::read(segment(dir.path(), 1)).unwrap();
        assert!(!found.windows(20).any(|window| window == [3; 20]), "nothing of it stays");
        let cut = disk.take_done().iter().any(|done| done.starts_with("truncate"));
        assert_eq!((cut, found.len() as u64 == SEGMENT_BYTES), (copies_on_write, !copies_on_write));
        assert_eq!(seen(dir.path()), log);
        disk.set_space(None);
        put(&mut writer, &mut log, 2, 30).unwrap();
        put(&mut writer, &mut log, 3, 1000).unwrap();
        drop(writer);
        assert_eq!(open(&disk, dir.path()).1, log, "a shorter batch in its place is no damage");
    }
}

#[test]
fn a_short_write_before_a_crash_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut writer, mut log) = open(&disk, dir.path());
    put(&mut writer, &mut log, 1, 100).unwrap();
    drop(writer);
    let (mut writer, _) = open(&disk, dir.path());
    // Half of it reaches the file, and then the disk dies, so that nothing can be erased.
    disk.0.write_bytes_max.store(64, SeqCst);
    let permits = disk.gate("00000000000000000001.wal");
    let death = disk.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            permits.send(()).unwrap();
            wait_for("the first part is written", || {
                death.take_done().iter().any(|done| done.starts_with("write 0"))
            });
            death.0.writes_fail.store(true, SeqCst);
        });
        disk.take_done();
        assert!(matches!(put(&mut writer, &mut log, 2, 1000), Err(WalError::Fatal { .. })));
    });
    drop(writer);
    let (_, found) = open(&FaultyDisk::default(), dir.path());
    assert_eq!(found, log);
    assert!(names(dir.path()).iter().any(|name| name.ends_with(".broken")));
}

/// Once the reserve was written anew on the thread that appends: 64 MiB stood before a write.
#[test]
fn a_write_never_waits_for_the_reserve() {
    const SLICES: u64 = 64;
    const SLICE_WRITES: u64 = 16;
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    disk.0.no_allocation.store(true, SeqCst);
    let permits = disk.gate("reserve");
    let options = WalOptions { reserve_bytes: SLICES * DISK_SLICE_BYTES, ..OPTIONS };
    let (mut writer, mut log) = open_with(&disk, dir.path(), options).unwrap();
    let (report, done) = channel();
    let watched = disk.clone();
    let path = dir.path().to_path_buf();
    let appender = std::thread::spawn(move || {
        assert_eq!(writer.disk_state(), DiskState::Ok);
        for index in 1..20 {
            put(&mut writer, &mut log, index, 1000).unwrap();
        }
        report.send("wrote").unwrap();
        // The next segment is made between two slices.
        while writer.segments() < 4 {
            let index = log.len() as u64 + 1;
            put(&mut writer, &mut log, index, 1000).unwrap();
        }
        report.send("rotated").unwrap();
        (writer, log)
    });
    assert_eq!(done.recv_timeout(PATIENCE).expect("a write must not wait"), "wrote");
    wait_for("the reserve is begun", || path.join("reserve.tmp").exists());
    // Whenever it seems to wait, a slice is let through: by far not all of the reserve.
    let mut rotated = done.recv_timeout(Duration::from_millis(50));
    for _ in 0..SLICES / 2 {
        if rotated.is_err() {
            (0..SLICE_WRITES).for_each(|_| permits.send(()).unwrap());
            rotated = done.recv_timeout(Duration::from_millis(50));
        }
    }
    assert_eq!(rotated.expect("nor for more than a slice"), "rotated");
    assert!(!path.join("reserve").exists(), "which was before the reserve was made");
    let (mut writer, log) = appender.join().unwrap();
    drop(permits);
    wait_for("the reserve is made", || path.join("reserve").exists());
    assert_eq!(std::fs::metadata(path.join("reserve")).unwrap().len(), options.reserve_bytes);
    assert_eq!(writer.disk_state(), DiskState::Ok);
    drop(writer);
    let made = |done: &&String| done.as_str() == "create reserve.tmp";
    assert_eq!(watched.take_done().iter().filter(made).count(), 1);
    assert_eq!(open_with(&watched, &path, options).unwrap().1, log);
    assert!(!watched.take_done().iter().any(|done| made(&done)), "a start takes over the old one");
}

#[test]
fn the_reserve_is_set_aside_in_one_step_where_that_is_possible_and_given_up_when_needed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let options = WalOptions { reserve_bytes: 2 << 20, ..OPTIONS };
    let (mut writer, mut log) = open_with(&disk, dir.path(), options).unwrap();
    let reserve = dir.path().join("reserve");
    for _ in 0..2 {
        disk.set_space(Some(9 << 20));
        disk.take_done();
        let index = log.len() as u64 + 1;
        put(&mut writer, &mut log, index, 1000).unwrap();
        assert_eq!(writer.disk_state(), DiskState::Ok);
        wait_for("the reserve is made", || reserve.exists());
        let done = disk.take_done();
        assert!(done.contains(&"allocate reserve.tmp".into()), "{done:?}");
        assert!(!done.contains(&"write reserve.tmp".into()), "{done:?}");
        disk.set_space(Some(0));
        let before = log.len();
        fill(&mut writer, &mut log);
        assert!(!reserve.exists());
        let more = log.len() - before;
        assert!(more > 1500, "what it held was written to: {more} KB");
    }
}

/// Removing a segment that was gone already once failed for ever after.
#[test]
fn a_removal_that_could_not_be_made_durable_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut writer, mut log) = open(&disk, dir.path());
    while writer.segments() < 4 {
        let index = log.len() as u64 + 1;
        put(&mut writer, &mut log, index, 1000).unwrap();
    }
    disk.0.next_removal_is_not_durable.store(true, SeqCst);
    assert!(writer.release(&|_| u64::MAX).is_err());
    assert!(!segment(dir.path(), 1).exists());
    writer.release(&|_| u64::MAX).unwrap();
    assert_eq!(writer.segments(), 1);
    let kept: Vec<_> = names(dir.path()).into_iter().filter(|n| n.ends_with(".wal")).collect();
    assert_eq!(kept.len(), 1);
}

/// Cutting a torn tail once began with a copy of it, for which a full disk has no room.
#[test]
fn a_torn_tail_does_not_keep_a_node_with_a_full_disk_from_starting() {
    for copies_on_write in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let (mut writer, mut log) = open(&disk, dir.path());
        put(&mut writer, &mut log, 1, 100).unwrap();
        let kept = log.clone();
        put(&mut writer, &mut log, 2, 5000).unwrap();
        drop(writer);
        let path = segment(dir.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::remove_file(dir.path().join("next.tmp")).unwrap_or_default();
        disk.set_space(Some(100));
        disk.0.copies_on_write.store(copies_on_write, SeqCst);
        let (mut writer, mut found) = open(&disk, dir.path());
        assert_eq!(found, kept);
        assert_eq!(writer.disk_state(), DiskState::Low);
        let left = names(dir.path());
        assert_eq!(left, ["00000000000000000001.wal"], "no copy, and no half one");
        disk.0.copies_on_write.store(false, SeqCst);
        disk.set_space(None);
        put(&mut writer, &mut found, 2, 100).unwrap();
        assert_eq!(writer.disk_state(), DiskState::Ok);
        drop(writer);
        assert_eq!(open(&disk, dir.path()).1, found);
    }
}

/// A node whose log was full to the last byte could not vote for itself after a restart, and so
/// could not even be read.
#[test]
fn a_node_can_lead_after_a_start_without_any_space() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut writer, mut log) = open(&disk, dir.path());
    lead(&mut writer, 1, 1).unwrap();
    disk.set_space(Some(0));
    let index = fill(&mut writer, &mut log);
    drop(writer);
    disk.set_space(Some(0));
    let (mut writer, _) = open(&disk, dir.path());
    std::fs::remove_file(dir.path().join("next.tmp")).unwrap_or_default();
    for term in 2..6 {
        lead(&mut writer, term, index + term).unwrap();
        let refused = put(&mut writer, &mut log, index + 10, 1000);
        assert!(matches!(refused, Err(WalError::DiskFull)), "the margin is not for writes");
        drop(writer);
        writer = open(&disk, dir.path()).0;
        assert_eq!(writer.disk_state(), DiskState::Low);
    }
    disk.set_space(None);
    put(&mut writer, &mut log, index + 10, 1000).unwrap();
    drop(writer);
    assert_eq!(open(&disk, dir.path()).1, log);
}

#[test]
fn where_a_whole_segment_finds_no_room_a_small_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    disk.set_space(Some(40 << 20));
    let options = WalOptions { segment_bytes: 16 << 20, reserve_bytes: 0 };
    let (mut writer, mut log) = open_with(&disk, dir.path(), options).unwrap();
    put(&mut writer, &mut log, 1, 15 << 20).unwrap();
    put(&mut writer, &mut log, 2, 15 << 20).unwrap();
    wait_for("the spare is given up for want of space", || {
        !disk.take_done().iter().any(|done| done.ends_with("next.tmp"))
    });
    assert_eq!(writer.disk_state(), DiskState::Low);
    for index in 3..8 {
        put(&mut writer, &mut log, index, 1 << 20).unwrap();
    }
    assert!(writer.bytes_on_disk() < 40 << 20);
    drop(writer);
    assert_eq!(open_with(&disk, dir.path(), options).unwrap().1, log);
}

/// Segments but the last may have no torn tail, so one is complete before the next has its name.
#[test]
fn what_was_appended_without_a_sync_is_synced_before_the_next_segment() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    drop(open(&disk, dir.path()));
    let (mut writer, _) = open(&disk, dir.path());
    disk.take_done();
    let mut batch = Batch::new();
    batch.entry(1, 3, 1, Op::Put, &[5; 60_000]);
    writer.append(&mut batch, false).unwrap();
    batch.clear();
    batch.entry(1, 3, 2, Op::Put, &[5; 9_000]);
    writer.append(&mut batch, false).unwrap();
    let done = disk.take_done();
    let at = |what: &str| done.iter().position(|done| done == what);
    let synced = at("sync 00000000000000000001.wal").expect("synced");
    assert!(synced < at("rename 00000000000000000002.wal").unwrap(), "{done:?}");
}
