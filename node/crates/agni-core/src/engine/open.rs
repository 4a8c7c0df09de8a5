//! From a data directory to groups that can run: newest valid snapshot, then the log.

#![allow(clippy::disallowed_methods)] // makes the data directory

use super::config::EngineConfig;
use super::meta::Meta;
use super::seed::Seed;
use crate::clock::Clock;
use crate::error::StartError;
use crate::raft::cell::PartitionCell;
use crate::raft::group::{Group, GroupSettings, Snapshots};
use crate::raft::log_tail::TailLimits;
use crate::raft::recovery::{GroupRecovery, RecoveredGroup, RecoverySettings};
use crate::raft::restart::{NodeRecovery, group_numbers};
use crate::snapshot::{self, SnapshotError, SnapshotItem, SnapshotMeta};
use crate::wal::{self, Identity, RecoverError, Recovered, WalWriter};
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
        now_ms: clock.boot_us() / 1000,
        founding: seed.is_founding.then(|| Arc::new(seed.state.clone())),
        store: config.store.clone(),
        tail: TailLimits::default(),
    };
    let (recoveries, kept) = restore_snapshots(config, &meta, &settings)?;
    let mut recovery = NodeRecovery::new(recoveries);
    let mut writer = replay(config, &meta, &mut recovery)?;
    if writer.sequence() == 0 && seed.is_founding {
        let mut batch = recovery.found(&seed.state, meta.node_id)?;
        writer.append(&mut batch, true).map_err(|error| StartError::DataDirectory {
            path: config.data_dir.join("wal"),
            message: format!("the log can't be begun: {error}"),
        })?;
    }
    let mut groups = Vec::new();
    for ((partition, recovered), snapshots) in recovery.finish()?.into_iter().zip(kept) {
        let RecoveredGroup { store, tail, applied } = recovered;
        let cell = Arc::new(PartitionCell::new(store));
        let settings = GroupSettings {
            partition,
            node_id: meta.node_id,
            seed: meta.salt,
            started_us: clock.boot_us(),
            lease_reads: config.lease_reads,
            tail: TailLimits::default(),
        };
        let group = Group::new(settings, tail, applied, snapshots, cell);
        groups.push(group.map_err(|error| StartError::Inconsistent {
            partition,
            message: format!("Raft refuses the recovered state: {error}"),
        })?);
    }
    Ok(Opened { meta, seed, writer, groups })
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
    recovery: &mut NodeRecovery,
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
            fault = recovery.record(record).err();
        }
    };
    let writer = wal::recover(&dir, &identity, options, &mut visit).map_err(recover_error)?;
    fault.map_or(Ok(writer), Err)
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
