//! The thread that writes snapshots, block by block: the partition's lock is held for one block
//! at a time, and writes go on in between.

use super::Shared;
use crate::env::{Disk, RealDisk};
use crate::fatal::AbortOnPanic;
use crate::limits;
use crate::proto::node::SnapshotFooter;
use crate::raft::core::{SnapshotDone, SnapshotJob};
use crate::snapshot::{self, SnapshotError, SnapshotMeta, SnapshotWriter};
use crate::store::SnapshotCursor;
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

#[derive(Default)]
struct Orders {
    job: Option<SnapshotJob>,
    stop: bool,
}

/// Where the driver puts the next snapshot to be written.
#[derive(Default)]
pub struct SnapshotSlot {
    orders: Mutex<Orders>,
    wake: Condvar,
}

impl SnapshotSlot {
    /// Starts a snapshot. The one before must have been reported.
    pub fn start(&self, job: SnapshotJob) {
        self.orders.lock().job = Some(job);
        self.wake.notify_one();
    }

    /// Ends the thread after the block that it is writing.
    pub fn stop(&self) {
        self.orders.lock().stop = true;
        self.wake.notify_one();
    }

    fn take(&self) -> Option<SnapshotJob> {
        let mut orders = self.orders.lock();
        self.wake.wait_while(&mut orders, |orders| orders.job.is_none() && !orders.stop);
        if orders.stop { None } else { orders.job.take() }
    }

    fn is_stopping(&self) -> bool {
        self.orders.lock().stop
    }
}

/// Starts the thread.
pub fn spawn_snapshots(
    data_dir: PathBuf,
    shared: Arc<Shared>,
) -> std::io::Result<(Arc<SnapshotSlot>, JoinHandle<()>)> {
    let slot = Arc::new(SnapshotSlot::default());
    let orders = slot.clone();
    let dir = data_dir.join("snapshots");
    let thread = Builder::new().name("agni-snapshot".into()).spawn(move || {
        let _abort = AbortOnPanic;
        let disk = RealDisk::shared();
        while let Some(SnapshotJob { partition, mut cursor, header, ticket }) = orders.take() {
            let started_us = shared.clock.boot_us();
            let written = write(&disk, &dir, &shared, &mut cursor, &header, &orders);
            let took_us = shared.clock.boot_us().saturating_sub(started_us);
            shared.metrics.snapshot_us.observe(took_us);
            if let Err(error @ (SnapshotError::Io { .. } | SnapshotError::BlockTooLarge { .. })) =
                &written
            {
                crate::fatal::warn("a snapshot could not be written; the log is kept", error);
            }
            let result = written.map_err(|error| error.to_string());
            if let Err(error) =
                snapshot::remove_old(&*disk, &dir, partition, limits::SNAPSHOTS_KEPT)
            {
                crate::fatal::warn("old snapshots could not be removed", &error);
            }
            shared.inbox.snapshot_done(SnapshotDone { partition, cursor, ticket, result });
        }
    })?;
    Ok((slot, thread))
}

fn write(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shared: &Shared,
    cursor: &mut SnapshotCursor,
    header: &crate::proto::node::SnapshotHeader,
    slot: &SnapshotSlot,
) -> Result<SnapshotMeta, SnapshotError> {
    let mut writer = SnapshotWriter::create(disk.clone(), dir, header)?;
    let mut footer = SnapshotFooter::default();
    let cell = &shared.cells[header.partition as usize];
    loop {
        if slot.is_stopping() {
            return Err(SnapshotError::Cancelled);
        }
        let block = cell.store.write().snapshot_block(cursor, limits::SNAPSHOT_BLOCK_BYTES_MAX);
        let Some(block) = block else { break };
        footer.records += block.records.len() as u64;
        footer.tombstones += block.tombstones.len() as u64;
        writer.write_block(&block)?;
    }
    writer.finish(&footer)
}
