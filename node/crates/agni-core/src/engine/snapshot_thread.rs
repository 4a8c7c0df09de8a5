//! The thread that writes and loads snapshots. It writes block by block: the partition's lock is
//! held for one block at a time, and writes go on in between.

use super::{Shared, open};
use crate::env::{Disk, RealDisk};
use crate::fatal::AbortOnPanic;
use crate::limits;
use crate::proto::node::{SnapshotFooter, SnapshotHeader};
use crate::raft::core::Event;
use crate::raft::group::ArrivedSnapshot;
use crate::raft::log_tail::TailLimits;
use crate::raft::recovery::{GroupRecovery, RecoveredGroup, RecoverySettings};
use crate::raft::snapshots::{SnapshotDone, SnapshotJob};
use crate::snapshot::{self, SnapshotError, SnapshotMeta, SnapshotWriter};
use crate::store::{SnapshotCursor, StoreLimits};
use parking_lot::{Condvar, Mutex};
use raft::eraftpb::Message;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

#[derive(Default)]
struct Orders {
    job: Option<SnapshotJob>,
    /// What other nodes sent: the group, the message, the file.
    arrived: VecDeque<(u32, Message, String)>,
    forget: VecDeque<u32>,
    stop: bool,
}

enum Order {
    Write(SnapshotJob),
    Load(u32, Message, String),
    Forget(u32),
}

/// Where it is put what is to be done with snapshots.
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

    /// Loads a file that another node sent. Too many are refused by passing them over: Raft asks
    /// for another one.
    pub fn arrived(&self, partition: u32, message: Message, file: String) {
        let mut orders = self.orders.lock();
        if orders.arrived.len() < limits::SNAPSHOT_REQUESTS_MAX {
            orders.arrived.push_back((partition, message, file));
        }
        drop(orders);
        self.wake.notify_one();
    }

    /// Removes a group's files.
    pub fn forget(&self, partition: u32) {
        self.orders.lock().forget.push_back(partition);
        self.wake.notify_one();
    }

    /// Ends the thread after the block that it is writing.
    pub fn stop(&self) {
        self.orders.lock().stop = true;
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Order> {
        let mut orders = self.orders.lock();
        loop {
            if orders.stop {
                return None;
            }
            // What frees space first, then what somebody waits for.
            if let Some(partition) = orders.forget.pop_front() {
                return Some(Order::Forget(partition));
            }
            if let Some((partition, message, file)) = orders.arrived.pop_front() {
                return Some(Order::Load(partition, message, file));
            }
            if let Some(job) = orders.job.take() {
                return Some(Order::Write(job));
            }
            self.wake.wait(&mut orders);
        }
    }

    fn is_stopping(&self) -> bool {
        self.orders.lock().stop
    }
}

/// What the thread needs to know.
pub struct SnapshotSettings {
    /// Where the files are.
    pub dir: PathBuf,
    /// This node.
    pub node_id: u64,
    /// What a store keeps besides its records.
    pub store: StoreLimits,
}

/// Starts the thread.
pub fn spawn_snapshots(
    settings: SnapshotSettings,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("agni-snapshot".into()).spawn(move || {
        let _abort = AbortOnPanic;
        let thread = SnapshotThread { settings, shared, disk: RealDisk::shared() };
        while let Some(order) = thread.shared.snapshots.take() {
            match order {
                Order::Write(job) => thread.take(job),
                Order::Load(partition, message, file) => thread.load(partition, message, file),
                Order::Forget(partition) => thread.forget(partition),
            }
        }
    })
}

struct SnapshotThread {
    settings: SnapshotSettings,
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
}

impl SnapshotThread {
    fn take(&self, job: SnapshotJob) {
        let SnapshotJob { mut cursor, header, ticket } = job;
        let started_us = self.shared.clock.boot_us();
        let written = self.write(&mut cursor, &header);
        let took_us = self.shared.clock.boot_us().saturating_sub(started_us);
        self.shared.metrics.snapshot_us.observe(took_us);
        if let Err(error @ (SnapshotError::Io { .. } | SnapshotError::BlockTooLarge { .. })) =
            &written
        {
            crate::fatal::warn("a snapshot could not be written; the log is kept", error);
        }
        let result = written.map_err(|error| error.to_string());
        self.remove_old(header.partition, limits::SNAPSHOTS_KEPT);
        self.shared.inbox.snapshot_done(SnapshotDone { header, cursor, ticket, result });
    }

    fn write(
        &self,
        cursor: &mut SnapshotCursor,
        header: &SnapshotHeader,
    ) -> Result<SnapshotMeta, SnapshotError> {
        let mut writer = SnapshotWriter::create(self.disk.clone(), &self.settings.dir, header)?;
        let mut footer = SnapshotFooter::default();
        let Some(cell) = self.shared.cell(header.partition) else {
            return Err(SnapshotError::Cancelled);
        };
        loop {
            if self.shared.snapshots.is_stopping() {
                return Err(SnapshotError::Cancelled);
            }
            let block = cell.store.write().snapshot_block(cursor, limits::SNAPSHOT_BLOCK_BYTES_MAX);
            let Some(block) = block else { break };
            footer.records += block.records.len() as u64;
            footer.tombstones += block.tombstones.len() as u64;
            writer.write_block(&block)?;
        }
        if !cursor.is_whole(&footer) {
            return Err(SnapshotError::Replaced);
        }
        writer.finish(&footer)
    }

    fn load(&self, partition: u32, message: Message, file: String) {
        let settings = RecoverySettings {
            node_id: self.settings.node_id,
            now_ms: self.shared.clock.boot_us() / 1000,
            founding: None,
            store: self.settings.store.clone(),
            tail: TailLimits::default(),
        };
        let path = self.settings.dir.join(&file);
        let loaded = open::load(&path, GroupRecovery::new(partition, settings))
            .map_err(|error| error.to_string())
            .and_then(|recovery| recovery.finish().map_err(|error| error.to_string()));
        match loaded {
            Ok(RecoveredGroup { store, .. }) => {
                let arrived = ArrivedSnapshot { message, file, store };
                self.shared
                    .inbox
                    .event(Event::SnapshotArrived { partition, arrived: Box::new(arrived) });
            }
            Err(error) => {
                crate::fatal::warn("a snapshot of another node can't be used", &error);
            }
        }
        self.remove_old(partition, limits::SNAPSHOTS_KEPT);
    }

    fn forget(&self, partition: u32) {
        self.remove_old(partition, 0);
        self.shared.inbox.event(Event::Forgotten(partition));
    }

    fn remove_old(&self, partition: u32, keep: usize) {
        let removed = snapshot::remove_old(&*self.disk, &self.settings.dir, partition, keep);
        if let Err(error) = removed {
            crate::fatal::warn("old snapshots could not be removed", &error);
        }
    }
}
