//! From a data directory to groups that can run: newest valid snapshot, then the log.

#![allow(clippy::disallowed_methods)] // makes the data directory

use super::config::EngineConfig;
use super::meta::Meta;
use super::seed::Seed;
use crate::clock::Clock;
use crate::error::StartError;
use crate::lease::LeaseSettings;
use crate::proto::node::SystemState;
use crate::raft::cell::PartitionCell;
use crate::raft::group::{Group, GroupSettings, Snapshots};
use crate::raft::recovery::{GroupRecovery, RecoveredGroup, RecoverySettings};
use crate::snapshot::{self, SnapshotError, SnapshotItem, SnapshotMeta};
use crate::system::{self, FOUNDING_INDEX, FOUNDING_TERM, SYSTEM_PARTITION};
use crate::wal::{self, Batch, Identity, RecoverError, Recovered, WalWriter};
use std::path::Path;
use std::sync::Arc;

/// A recovered data directory.
pub struct Opened {
    /// Whose it is.
    pub meta: Meta,
    /// How it began.
    pub seed: Seed,
    /// The log, ready to be appended to.
    pub writer: WalWriter,
    /// The partitions in their order, then the system group.
    pub groups: Vec<Group>,
}

/// Recovers a data directory.
pub fn open(config: &EngineConfig, clock: &Arc<dyn Clock>) -> Result<Opened, StartError> {
    for folder in ["", "wal", "snapshots"] {
        let path = config.data_dir.join(folder);
        std::fs::create_dir_all(&path).map_err(|error| StartError::io(path, error))?;
    }
    let (meta, seed) = Meta::open(config)?;
    let settings = RecoverySettings {
        node_id: meta.node_id,
        leases: LeaseSettings { guard: config.mass_expiry_guard, ..LeaseSettings::default() },
        now_ms: clock.boot_us() / 1000,
        founding: seed.is_founding.then(|| Arc::new(seed.state.clone())),
    };
    let (mut recoveries, kept) = restore_snapshots(config, &meta, &settings)?;
    let mut writer = replay(config, &meta, &mut recoveries)?;
    if writer.sequence() == 0 && seed.is_founding {
        found(&seed.state, &meta, &mut recoveries, &mut writer)?;
    }
    let mut groups = Vec::with_capacity(recoveries.len());
    let numbers = group_numbers(meta.partitions);
    for ((partition, recovery), snapshots) in numbers.zip(recoveries).zip(kept) {
        let RecoveredGroup { store, tail, applied } = recovery.finish()?;
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
    Ok(Opened { meta, seed, writer, groups })
}

/// The partitions in their order, then the system group.
fn group_numbers(partitions: u32) -> impl Iterator<Item = u32> {
    (0..partitions).chain([SYSTEM_PARTITION])
}

/// Begins the groups that a new cluster gives to this node. It is one batch: all or nothing.
fn found(
    state: &SystemState,
    meta: &Meta,
    recoveries: &mut [GroupRecovery],
    writer: &mut WalWriter,
) -> Result<(), StartError> {
    let mut batch = Batch::new();
    let (index, term) = (FOUNDING_INDEX, FOUNDING_TERM);
    for (partition, recovery) in group_numbers(meta.partitions).zip(recoveries) {
        let set = system::founding_replicas(state, partition);
        if set.voters.contains(&meta.node_id) || set.learners.contains(&meta.node_id) {
            batch.replica_set(partition, index, term, set.clone());
            batch.hard_state(partition, term, 0, index);
            recovery.replica_set(index, term, &set)?;
        }
    }
    match writer.append(&mut batch, true) {
        Ok(_) => Ok(()),
        Err(error) => Err(StartError::DataDirectory {
            path: "wal".into(),
            message: format!("the log can't be begun: {error}"),
        }),
    }
}

type Restored = (Vec<GroupRecovery>, Vec<Snapshots>);

/// Loads each group's newest valid snapshot, on all cores.
fn restore_snapshots(
    config: &EngineConfig,
    meta: &Meta,
    settings: &RecoverySettings,
) -> Result<Restored, StartError> {
    let dir = config.data_dir.join("snapshots");
    let listed = snapshot::list(&dir).map_err(|error| StartError::io(&dir, error))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let groups: Vec<u32> = group_numbers(meta.partitions).collect();
    let chunk = groups.len().div_ceil(cores);
    let restored: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = groups
            .chunks(chunk)
            .map(|share| {
                let listed = &listed;
                let dir = &dir;
                let restore = move |partition: &u32| {
                    let files = listed.get(partition).map_or(&[][..], Vec::as_slice);
                    restore_group(dir, settings, *partition, files)
                };
                scope.spawn(move || share.iter().map(restore).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    Ok(restored.into_iter().unzip())
}

/// Tries the newest snapshot, then the older one, then none: the log is kept back to the older
/// one, and a hole between what was restored and the log is found by the replay.
fn restore_group(
    dir: &Path,
    settings: &RecoverySettings,
    partition: u32,
    files: &[SnapshotMeta],
) -> (GroupRecovery, Snapshots) {
    for (position, file) in files.iter().enumerate() {
        let path = dir.join(&file.file);
        match load(&path, GroupRecovery::new(partition, settings.clone())) {
            Ok(recovery) => {
                let older = files.get(position + 1).map_or(0, |older| older.index);
                let newest = file.index;
                return (recovery, Snapshots { newest, older, file: Some(file.file.clone()) });
            }
            Err(error) => {
                let message = format!("{}: an older state is used", path.display());
                crate::fatal::warn(&message, &error);
            }
        }
    }
    (GroupRecovery::new(partition, settings.clone()), Snapshots::default())
}

/// Loads a snapshot's file.
pub(super) fn load(
    path: &Path,
    mut recovery: GroupRecovery,
) -> Result<GroupRecovery, SnapshotError> {
    snapshot::read(path, &mut |item| match item {
        SnapshotItem::Header(header) => {
            recovery.snapshot_header(&header);
            Ok(())
        }
        SnapshotItem::Block(block) => {
            recovery.snapshot_block(block).map_err(|error| error.to_string())
        }
    })?;
    Ok(recovery)
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

fn replay_record(record: Recovered<'_>, groups: &mut [GroupRecovery]) -> Result<(), StartError> {
    match record {
        Recovered::Entry { partition, term, index, op, data } => {
            group(groups, partition)?.entry(term, index, op, data);
            Ok(())
        }
        Recovered::HardState { partition, term, vote, commit } => {
            group(groups, partition)?.hard_state(term, vote, commit)
        }
        Recovered::ReplicaSet { partition, index, term, replicas } => {
            group(groups, partition)?.replica_set(index, term, &replicas)
        }
        Recovered::SnapshotMark { partition, index, installed, .. } => {
            group(groups, partition)?.snapshot_mark(index, installed);
            Ok(())
        }
        Recovered::Discard { partition, index } => {
            group(groups, partition)?.discard(index);
            Ok(())
        }
    }
}

fn group(groups: &mut [GroupRecovery], partition: u32) -> Result<&mut GroupRecovery, StartError> {
    let partitions = groups.len() - 1;
    let position = match partition {
        SYSTEM_PARTITION => partitions,
        _ if (partition as usize) < partitions => partition as usize,
        _ => {
            let message = format!("the log speaks of it, but there are only {partitions}");
            return Err(StartError::Inconsistent { partition, message });
        }
    };
    Ok(&mut groups[position])
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
