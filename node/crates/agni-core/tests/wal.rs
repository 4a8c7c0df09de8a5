//! The log from outside: what was acknowledged survives, damage is seen, space comes back.

use agni_core::env::RealDisk;
use agni_core::wal::{
    Batch, Identity, Op, RecoverError, Recovered, WalOptions, WalWriter, recover_on,
};
use std::path::{Path, PathBuf};

const IDENTITY: Identity = Identity { cluster_id: [7; 16], node_id: 42, salt: 0x0102030405060708 };
const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, reserve_bytes: 0 };

type Log = Vec<(u32, u64, Vec<u8>)>;

fn open(dir: &Path) -> Result<(WalWriter, Log), RecoverError> {
    let mut log = Vec::new();
    let disk = RealDisk::shared();
    let writer = recover_on(disk, dir, &IDENTITY, OPTIONS, &mut |record| {
        if let Recovered::Entry { partition, index, data, .. } = record {
            log.push((partition, index, data.to_vec()));
        }
    })?;
    Ok((writer, log))
}

fn append(writer: &mut WalWriter, log: &mut Log, from: u64, count: u64, bytes: usize) {
    let mut batch = Batch::new();
    for index in from..from + count {
        let data = vec![index as u8; bytes];
        batch.entry(1, 3, index, Op::Put, &data);
        log.push((1, index, data));
    }
    batch.hard_state(1, 3, 42, from + count - 1);
    writer.append(&mut batch, true).unwrap();
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

/// Where the written part of a segment ends.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn a_tail_cut_at_any_byte_recovers_exactly_the_batches_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    let mut ends = Vec::new();
    for round in 0..4 {
        append(&mut writer, &mut log, 1 + round * 2, 2, 20);
        let bytes = std::fs::read(segment(dir.path(), 1)).unwrap();
        ends.push((used(&bytes), log.clone()));
    }
    drop(writer);
    let whole = std::fs::read(segment(dir.path(), 1)).unwrap();
    for cut in ends[0].0..ends[3].0 {
        let torn = copy(dir.path());
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        std::fs::write(segment(torn.path(), 1), &bytes).unwrap();
        let (mut writer, mut found) = open(torn.path()).unwrap();
        let expected = ends.iter().rfind(|(end, _)| *end <= cut).unwrap();
        assert_eq!(found, expected.1, "cut at {cut}");
        // It goes on from there as if nothing had been.
        let next = found.len() as u64 + 1;
        append(&mut writer, &mut found, next, 1, 5);
        drop(writer);
        assert_eq!(open(torn.path()).unwrap().1, found, "appended after a cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_before_the_last_batch_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    for round in 0..3 {
        append(&mut writer, &mut log, 1 + round, 1, 10);
    }
    let before_last = used(&std::fs::read(segment(dir.path(), 1)).unwrap());
    append(&mut writer, &mut log, 4, 1, 10);
    drop(writer);
    let whole = std::fs::read(segment(dir.path(), 1)).unwrap();
    let damaged = copy(dir.path());
    for bit in 0..before_last * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(segment(damaged.path(), 1), &bytes).unwrap();
        match open(damaged.path()) {
            Err(RecoverError::Corrupt { file, offset, remedy, .. }) => {
                assert_eq!(file, segment(damaged.path(), 1));
                assert!(offset as usize <= bit / 8 && !remedy.is_empty(), "bit {bit}: {offset}");
            }
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(_) => panic!("bit {bit} was not seen"),
        }
        let after = std::fs::read(segment(damaged.path(), 1)).unwrap();
        assert!(after == bytes, "bit {bit}: a refused log is left as it was");
    }
}

#[test]
fn a_damaged_last_batch_is_cut_and_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    append(&mut writer, &mut log, 1, 3, 30);
    let kept = log.clone();
    let start = used(&std::fs::read(segment(dir.path(), 1)).unwrap());
    append(&mut writer, &mut log, 4, 3, 30);
    drop(writer);
    let path = segment(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes);
    bytes[start + 9] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open(dir.path()).unwrap().1, kept);
    let broken = format!("{}.{start}.broken", path.display());
    assert_eq!(std::fs::read(broken).unwrap(), bytes[start..end]);
}

/// A client may store any bytes. Ones that look like an intact batch of the future once made a
/// torn tail count as damage, so that the node refused to start.
#[test]
fn a_batch_planted_in_a_record_does_not_make_a_torn_tail_corrupt() {
    let elsewhere = tempfile::tempdir().unwrap();
    let strangers = Identity { salt: 99, ..IDENTITY };
    let open_strangers = |visit: &mut dyn FnMut(Recovered<'_>)| {
        recover_on(RealDisk::shared(), elsewhere.path(), &strangers, OPTIONS, visit).unwrap()
    };
    let (mut writer, mut log) = (open_strangers(&mut |_| {}), Vec::new());
    for index in 1..9 {
        append(&mut writer, &mut log, index, 1, 5);
    }
    drop(writer);
    let planted = std::fs::read(segment(elsewhere.path(), 1)).unwrap();
    let planted = &planted[..used(&planted)];

    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path()).unwrap();
    let mut batch = Batch::new();
    batch.entry(1, 3, 1, Op::Put, planted);
    writer.append(&mut batch, true).unwrap();
    drop(writer);
    let path = segment(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes);
    bytes[end - 1] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(open(dir.path()).unwrap().1.is_empty(), "cut as torn");
}

/// A last batch that a newer version made durable was once cut as torn by an older one.
#[test]
fn a_frame_of_a_newer_version_is_refused_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    append(&mut writer, &mut log, 1, 1, 10);
    drop(writer);
    let path = segment(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes);
    let mut newer = vec![0xCA, 0xFE, 1, 77, 0, 0, 0, 1, 9];
    newer.extend_from_slice(&crc32fast::hash(&newer).to_be_bytes());
    bytes[end..end + newer.len()].copy_from_slice(&newer);
    std::fs::write(&path, &bytes).unwrap();
    match open(dir.path()).map(|_| ()) {
        Err(RecoverError::Foreign { message, .. }) => {
            assert!(message.contains("op 77") && message.contains("newer"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "nothing was changed");
}

/// A kill right after a rotation once left a segment without hard states; when older segments
/// went, a quiet partition's vote went with them.
#[test]
fn a_segment_has_its_hard_states_from_the_moment_it_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    let mut quiet = Batch::new();
    quiet.hard_state(9, 5, 42, 0);
    writer.append(&mut quiet, true).unwrap();
    let mut index = 1;
    while writer.segments() == 1 {
        append(&mut writer, &mut log, index, 1, 400);
        index += 1;
    }
    drop(writer);
    // The kill: what was appended after the rotation never reached the disk.
    let path = segment(dir.path(), 2);
    let bytes = std::fs::read(&path).unwrap();
    let killed = copy(dir.path());
    let appended = bytes.windows(400).position(|window| window == [(index - 1) as u8; 400]);
    let appended = appended.expect("the batch is there");
    let put = [0xCA, 0xFE, 1, Op::Put as u8];
    let cut = bytes[..appended].windows(4).rposition(|window| window == put).unwrap();
    let mut torn = bytes.clone();
    torn[cut..].fill(0);
    std::fs::write(segment(killed.path(), 2), &torn).unwrap();
    let (mut writer, _) = open(killed.path()).unwrap();
    writer.release(&|_| u64::MAX).unwrap();
    assert_eq!(writer.segments(), 1);
    drop(writer);
    let mut votes = Vec::new();
    recover_on(RealDisk::shared(), killed.path(), &IDENTITY, OPTIONS, &mut |record| {
        if let Recovered::HardState { partition: 9, term, vote, .. } = record {
            votes.push((term, vote));
        }
    })
    .unwrap();
    assert_eq!(votes, [(5, 42)]);
}

#[test]
fn segments_rotate_carry_the_hard_states_and_are_released_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    let mut cold = Batch::new();
    cold.hard_state(9, 5, 42, 0);
    writer.append(&mut cold, true).unwrap();
    for round in 0..40 {
        append(&mut writer, &mut log, 1 + round * 10, 10, 50);
    }
    let before = writer.segments();
    assert!(before > 5);
    writer.release(&|_| 200).unwrap();
    assert!(writer.segments() < before);
    writer.release(&|_| u64::MAX).unwrap();
    assert_eq!(writer.segments(), 1, "the active one stays");
    drop(writer);
    let mut cold_state = None;
    recover_on(RealDisk::shared(), dir.path(), &IDENTITY, OPTIONS, &mut |record| {
        if let Recovered::HardState { partition: 9, term, .. } = record {
            cold_state = Some(term);
        }
    })
    .unwrap();
    assert_eq!(cold_state, Some(5), "a quiet partition's vote outlives its segment");
}

#[test]
fn a_batch_above_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    append(&mut writer, &mut log, 1, 1, 10);
    append(&mut writer, &mut log, 2, 3, 10_000);
    append(&mut writer, &mut log, 5, 1, 10);
    drop(writer);
    assert_eq!(open(dir.path()).unwrap().1, log);
}

#[test]
fn a_missing_segment_and_a_foreign_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut log) = open(dir.path()).unwrap();
    for round in 0..20 {
        append(&mut writer, &mut log, 1 + round * 10, 10, 50);
    }
    drop(writer);
    let foreign = Identity { node_id: 43, ..IDENTITY };
    let refused = recover_on(RealDisk::shared(), dir.path(), &foreign, OPTIONS, &mut |_| {});
    assert!(matches!(refused, Err(RecoverError::Foreign { .. })));
    std::fs::remove_file(segment(dir.path(), 2)).unwrap();
    assert!(matches!(open(dir.path()), Err(RecoverError::Corrupt { .. })));
}
