//! A node's snapshots: what its snapshot thread does, in steps between which everything else goes
//! on, and how a file travels to another node.

use crate::disk::SimDisk;
use agni_core::env::Disk;
use agni_core::limits;
use agni_core::proto::node::{SnapshotFooter, SnapshotHeader};
use agni_core::raft::cell::PartitionCell;
use agni_core::raft::core::Event;
use agni_core::raft::group::{ArrivedSnapshot, Snapshots};
use agni_core::raft::recovery::{GroupRecovery, RecoveredGroup, RecoverySettings};
use agni_core::raft::snapshots::{SnapshotDone, SnapshotJob};
use agni_core::raft::work::Ticket;
use agni_core::snapshot::{self, SnapshotError, SnapshotItem, SnapshotMeta, SnapshotWriter};
use agni_core::store::SnapshotCursor;
use agni_core::system::SYSTEM_PARTITION;
use raft::eraftpb::Message;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// Where the files are.
pub const DIR: &str = "/snapshots";
/// Bytes of a block: few, so that a snapshot takes several steps.
const BLOCK_BYTES: usize = 512;

/// A snapshot that is being written.
struct Writing {
    cursor: SnapshotCursor,
    header: SnapshotHeader,
    ticket: Option<Ticket>,
    writer: SnapshotWriter,
    footer: SnapshotFooter,
}

/// What the snapshot thread of a process has to do.
#[derive(Default)]
pub struct Worker {
    forget: VecDeque<u32>,
    arrived: VecDeque<(u32, Message, String)>,
    job: Option<SnapshotJob>,
    writing: Option<Box<Writing>>,
    /// Whether its next step is planned already.
    is_awake: bool,
}

impl Worker {
    /// A group's files are to be removed.
    pub fn forget(&mut self, partition: u32) {
        self.forget.push_back(partition);
    }

    /// A file that another node sent is to be loaded.
    pub fn arrived(&mut self, partition: u32, message: Message, file: String) {
        self.arrived.push_back((partition, message, file));
    }

    /// A snapshot is to be taken.
    pub fn start(&mut self, job: SnapshotJob) {
        self.job = Some(job);
    }

    /// Whether somebody must see to its next step.
    pub fn wakes(&mut self) -> bool {
        !self.is_idle() && !std::mem::replace(&mut self.is_awake, true)
    }

    fn is_idle(&self) -> bool {
        self.forget.is_empty()
            && self.arrived.is_empty()
            && self.job.is_none()
            && self.writing.is_none()
    }

    /// One step, in the order that the thread keeps to; what the core hears of it.
    pub fn step(
        &mut self,
        disk: &SimDisk,
        cells: &[Arc<PartitionCell>],
        settings: &RecoverySettings,
    ) -> Option<Event> {
        self.is_awake = false;
        if let Some(writing) = self.writing.take() {
            return self.write(disk, cells, writing);
        }
        if let Some(partition) = self.forget.pop_front() {
            remove_old(disk, partition, 0);
            return Some(Event::Forgotten(partition));
        }
        if let Some((partition, message, file)) = self.arrived.pop_front() {
            let loaded = load(disk, &file, GroupRecovery::new(partition, settings.clone()))
                .ok()
                .and_then(|recovery| recovery.finish().ok());
            remove_old(disk, partition, limits::SNAPSHOTS_KEPT);
            let RecoveredGroup { store, .. } = loaded?;
            let arrived = Box::new(ArrivedSnapshot { message, file, store });
            return Some(Event::SnapshotArrived { partition, arrived });
        }
        let SnapshotJob { cursor, header, ticket } = self.job.take()?;
        match SnapshotWriter::create(Arc::new(disk.clone()), Path::new(DIR), &header) {
            Ok(writer) => {
                let footer = SnapshotFooter::default();
                self.writing = Some(Box::new(Writing { cursor, header, ticket, writer, footer }));
                None
            }
            Err(error) => Some(done(disk, header, cursor, ticket, Err(error))),
        }
    }

    fn write(
        &mut self,
        disk: &SimDisk,
        cells: &[Arc<PartitionCell>],
        mut writing: Box<Writing>,
    ) -> Option<Event> {
        let cell = &cells[position(writing.header.partition, cells.len())];
        let block = cell.store.write().snapshot_block(&mut writing.cursor, BLOCK_BYTES);
        if let Some(block) = block {
            writing.footer.records += block.records.len() as u64;
            writing.footer.tombstones += block.tombstones.len() as u64;
            if let Err(error) = writing.writer.write_block(&block) {
                let Writing { cursor, header, ticket, .. } = *writing;
                return Some(done(disk, header, cursor, ticket, Err(error)));
            }
            self.writing = Some(writing);
            return None;
        }
        let Writing { cursor, header, ticket, writer, footer } = *writing;
        let result = match cursor.is_whole(&footer) {
            true => writer.finish(&footer),
            false => Err(SnapshotError::Replaced),
        };
        Some(done(disk, header, cursor, ticket, result))
    }
}

fn done(
    disk: &SimDisk,
    header: SnapshotHeader,
    cursor: SnapshotCursor,
    ticket: Option<Ticket>,
    result: Result<SnapshotMeta, SnapshotError>,
) -> Event {
    remove_old(disk, header.partition, limits::SNAPSHOTS_KEPT);
    let result = result.map_err(|error| error.to_string());
    Event::SnapshotDone(Box::new(SnapshotDone { header, cursor, ticket, result }))
}

/// What can't be removed stays for a later time, as in the product.
fn remove_old(disk: &SimDisk, partition: u32, keep: usize) {
    let _ = snapshot::remove_old(disk, Path::new(DIR), partition, keep);
}

/// Where a group stands among a node's groups.
pub fn position(partition: u32, groups: usize) -> usize {
    if partition == SYSTEM_PARTITION { groups - 1 } else { partition as usize }
}

/// A group as its newest snapshot has it, or blank.
pub fn restore(
    disk: &SimDisk,
    partition: u32,
    settings: &RecoverySettings,
) -> Result<(GroupRecovery, Snapshots), String> {
    let listed = snapshot::list_on(disk, Path::new(DIR)).map_err(|error| error.to_string())?;
    let blank = GroupRecovery::new(partition, settings.clone());
    let Some(files) = listed.get(&partition) else { return Ok((blank, Snapshots::default())) };
    // Each was synced before it got its name: none may be damaged.
    let recovery = load(disk, &files[0].file, blank).map_err(|error| error.to_string())?;
    let older = files.get(1).map_or(0, |older| older.index);
    let file = Some(files[0].file.clone());
    Ok((recovery, Snapshots { newest: files[0].index, older, file }))
}

fn load(
    disk: &SimDisk,
    file: &str,
    mut recovery: GroupRecovery,
) -> Result<GroupRecovery, SnapshotError> {
    snapshot::read_on(disk, &Path::new(DIR).join(file), &mut |item| match item {
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

/// A file on its way from one node to another.
#[derive(Debug)]
pub struct Transfer {
    /// The sender's place among the machines.
    pub from: usize,
    /// The sending process.
    pub from_life: u64,
    /// The receiver's place.
    pub to: usize,
    /// The receiving process; none before the first piece has arrived.
    pub to_life: Option<u64>,
    /// The group.
    pub partition: u32,
    /// The message that announces it.
    pub message: Message,
    /// The file's name.
    pub file: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// How much of it is there.
    pub offset: usize,
}

impl Transfer {
    /// What ends at the receiver: a file that is durable under its name.
    ///
    /// # Errors
    /// Those of the receiver's disk.
    pub fn store(&self, disk: &SimDisk) -> std::io::Result<()> {
        let path = Path::new(DIR).join(&self.file);
        let temporary = path.with_extension("part");
        let file = disk.create(&temporary)?;
        file.write_at(&self.bytes, 0)?;
        file.sync()?;
        disk.rename(&temporary, &path)
    }
}
