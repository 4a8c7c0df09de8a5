//! From a data directory to groups that can run: newest valid snapshot, then the log.

#![allow(clippy::disallowed_methods)] // makes the data directory

use super::config::EngineConfig;
use super::meta::Meta;
use crate::clock::Clock;
use crate::error::StartError;
use crate::lease::LeaseSettings;
use crate::raft::cell::PartitionCell;
use crate::raft::group::{Group, GroupSettings};
use crate::raft::recovery::GroupRecovery;
use crate::snapshot::{self, SnapshotItem, SnapshotMeta};
use crate::store::Store;
use crate::wal::{self, Identity, RecoverError, Recovered, WalWriter};
use std::sync::Arc;

/// A recovered data directory.
pub struct Opened {
    /// Whose it is.
    pub meta: Meta,
    /// The log, ready to be appended to.
    pub writer: WalWriter,
    /// One group a partition, in their order.
    pub groups: Vec<Group>,
}

/// Recovers a data directory.
pub fn open(config: &EngineConfig, clock: &Arc<dyn Clock>) -> Result<Opened, StartError> {
    for folder in ["", "wal", "snapshots"] {
        let path = config.data_dir.join(folder);
        std::fs::create_dir_all(&path).map_err(|error| StartError::io(path, error))?;
    }
    let meta = Meta::open(config)?;
    let now_ms = clock.boot_us() / 1000;
    let (mut partitions, kept) = restore_snapshots(config, &meta, now_ms)?;
    let writer = replay(config, &meta, &mut partitions)?;
    let mut groups = Vec::with_capacity(partitions.len());
    for (recovery, snapshots) in partitions.into_iter().zip(kept) {
        let partition = groups.len() as u32;
        let (store, tail, applied) = recovery.finish();
        let cell = Arc::new(PartitionCell::new(store));
        let settings = GroupSettings {
            partition,
            node_id: meta.node_id,
            seed: meta.salt,
            started_us: clock.boot_us(),
        };
        let group = Group::new(settings, tail, applied, snapshots, cell);
        groups.push(group.map_err(|error| StartError::Inconsistent {
            partition,
            message: format!("Raft refuses the recovered state: {error}"),
        })?);
    }
    Ok(Opened { meta, writer, groups })
}

type Restored = (Vec<GroupRecovery>, Vec<(u64, u64)>);

/// Loads each partition's newest valid snapshot, on all cores.
fn restore_snapshots(
    config: &EngineConfig,
    meta: &Meta,
    now_ms: u64,
) -> Result<Restored, StartError> {
    let dir = config.data_dir.join("snapshots");
    let listed = snapshot::list(&dir).map_err(|error| StartError::io(&dir, error))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let partitions: Vec<u32> = (0..meta.partitions).collect();
    let chunk = partitions.len().div_ceil(cores);
    let restored: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = partitions
            .chunks(chunk)
            .map(|share| {
                let listed = &listed;
                let restore = move |partition: &u32| {
                    let files = listed.get(partition).map_or(&[][..], Vec::as_slice);
                    restore_partition(config, meta, *partition, files, now_ms)
                };
                scope.spawn(move || share.iter().map(restore).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    let restored: Result<Vec<_>, StartError> = restored.into_iter().collect();
    Ok(restored?.into_iter().unzip())
}

/// Tries the newest snapshot, then the older one, then none: the log is kept back to the older
/// one, and a hole between what was restored and the log is found by the replay.
fn restore_partition(
    config: &EngineConfig,
    meta: &Meta,
    partition: u32,
    files: &[SnapshotMeta],
    now_ms: u64,
) -> Result<(GroupRecovery, (u64, u64)), StartError> {
    let lease = LeaseSettings { guard: config.mass_expiry_guard, ..LeaseSettings::default() };
    let fresh = || {
        let store = Store::with_settings(partition, lease.clone());
        GroupRecovery::new(partition, store, vec![meta.node_id], now_ms)
    };
    let dir = config.data_dir.join("snapshots");
    for (position, file) in files.iter().enumerate() {
        let mut recovery = fresh();
        let path = dir.join(&file.file);
        let read = snapshot::read(&path, &mut |item| match item {
            SnapshotItem::Header(header) => {
                recovery.snapshot_header(&header);
                Ok(())
            }
            SnapshotItem::Block(block) => {
                recovery.snapshot_block(block).map_err(|error| error.to_string())
            }
        });
        match read {
            Ok(_) => {
                let older = files.get(position + 1).map_or(0, |older| older.index);
                return Ok((recovery, (file.index, older)));
            }
            Err(error) => {
                let message = format!("{}: an older state is used", path.display());
                crate::fatal::warn(&message, &error);
            }
        }
    }
    Ok((fresh(), (0, 0)))
}

fn replay(
    config: &EngineConfig,
    meta: &Meta,
    partitions: &mut [GroupRecovery],
) -> Result<WalWriter, StartError> {
    let dir = config.data_dir.join("wal");
    let identity = Identity { cluster_id: meta.cluster_id, node_id: meta.node_id, salt: meta.salt };
    let options = wal::WalOptions {
        segment_bytes: config.wal_segment_bytes,
        reserve_bytes: config.disk_reserve_bytes,
    };
    let mut fault = None;
    let mut visit = |record: Recovered<'_>| {
        if fault.is_none() {
            fault = replay_record(record, partitions).err();
        }
    };
    let writer = wal::recover(&dir, &identity, options, &mut visit).map_err(recover_error)?;
    fault.map_or(Ok(writer), Err)
}

fn replay_record(
    record: Recovered<'_>,
    partitions: &mut [GroupRecovery],
) -> Result<(), StartError> {
    match record {
        Recovered::Entry { partition, term, index, op, data } => {
            group(partitions, partition)?.entry(term, index, op, data)
        }
        Recovered::HardState { partition, term, vote, commit } => {
            group(partitions, partition)?.hard_state(term, vote, commit)
        }
        Recovered::SnapshotMark { .. } => Ok(()),
    }
}

fn group(
    partitions: &mut [GroupRecovery],
    partition: u32,
) -> Result<&mut GroupRecovery, StartError> {
    let count = partitions.len();
    partitions.get_mut(partition as usize).ok_or_else(|| StartError::Inconsistent {
        partition,
        message: format!("the log speaks of it, but there are only {count} partitions"),
    })
}

fn recover_error(error: RecoverError) -> StartError {
    match error {
        RecoverError::Corrupt { file, offset, reason, remedy } => {
            StartError::Corrupt { file, offset, reason, remedy }
        }
        RecoverError::Foreign { file, message } => {
            StartError::DataDirectory { path: file, message }
        }
        RecoverError::Io { file, source } => StartError::Io { path: file, source },
    }
}
