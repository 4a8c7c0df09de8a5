//! Snapshots while writes go on, and restoring them.
//!
//! A snapshot shows the revision at which it began. It goes through the slots block by block; a
//! write to a slot that it hasn't reached yet first saves what the slot held.

use bytes::Bytes;
use hashbrown::HashMap;
use std::sync::Arc;

use super::Store;
use super::record::{self, SpecParts};
use super::tombstones::Tombstone;
use crate::planted::{Bug, is_planted};
use crate::proto::node::{
    ReplicaSet, SnapshotBlock, SnapshotFooter, SnapshotHeader, SnapshotRecord, SnapshotTombstone,
    SystemState,
};
use crate::validate::DRAIN_MS_MAX;

/// The bytes that a record or tombstone takes in a block besides its own.
const ITEM_BYTES: usize = 16;

/// A snapshot that is being taken. Hand it back to `end_snapshot`, finished or not.
#[derive(Debug)]
pub struct SnapshotCursor {
    id: u64,
    next_slot: u32,
    end_slot: u32,
    tombstones: std::vec::IntoIter<Tombstone>,
    system: Option<Arc<SystemState>>,
    /// The partition.
    pub partition: u32,
    /// The newest log index that it contains.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The revision that it shows.
    pub revision: u64,
    /// Removals at or below this revision are no longer known one by one.
    pub compacted_revision: u64,
    /// How many records it will have.
    pub records: u64,
    /// How many tombstones it will have.
    pub tombstone_count: u64,
}

impl SnapshotCursor {
    /// Whether all of it has been handed out, this much of it; not so when the store was replaced
    /// meanwhile by what the leader sent.
    pub fn is_whole(&self, written: &SnapshotFooter) -> bool {
        let counted = (written.records, written.tombstones);
        counted == (self.records, self.tombstone_count) && self.system.is_none()
    }

    /// The snapshot's first block.
    pub fn header(&self, cluster_id: [u8; 16], replicas: ReplicaSet) -> SnapshotHeader {
        SnapshotHeader {
            cluster_id: Bytes::copy_from_slice(&cluster_id),
            partition: self.partition,
            index: self.index,
            term: self.term,
            revision: self.revision,
            compacted_revision: self.compacted_revision,
            replicas: Some(replicas),
        }
    }
}

/// The store's side of a snapshot that is being taken.
pub(super) struct ActiveSnapshot {
    id: u64,
    next_slot: u32,
    saved: HashMap<u32, Option<Bytes>>,
}

/// A snapshot's block that can't be what a store wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot record in slot {slot} {reason}")]
pub struct RestoreError {
    /// The slot.
    pub slot: u32,
    /// What is wrong.
    pub reason: &'static str,
}

impl Store {
    /// Begins a snapshot of this moment.
    pub fn begin_snapshot(&mut self) -> SnapshotCursor {
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        self.snapshots.push(ActiveSnapshot { id, next_slot: 0, saved: HashMap::new() });
        let tombstones: Vec<Tombstone> = self.tombstones.after(0).cloned().collect();
        SnapshotCursor {
            id,
            next_slot: 0,
            end_slot: self.slots.end(),
            tombstone_count: tombstones.len() as u64,
            tombstones: tombstones.into_iter(),
            system: self.system.clone(),
            partition: self.partition,
            index: self.applied_index,
            term: self.applied_term,
            revision: self.revision,
            compacted_revision: self.compacted_revision(),
            records: self.len() as u64,
        }
    }

    /// The next block of about that many bytes; none when all is written.
    pub fn snapshot_block(
        &mut self,
        cursor: &mut SnapshotCursor,
        max_bytes: usize,
    ) -> Option<SnapshotBlock> {
        let active = self.snapshots.iter_mut().find(|active| active.id == cursor.id)?;
        let (mut block, mut bytes) = (SnapshotBlock::default(), 0);
        while cursor.next_slot < cursor.end_slot && bytes < max_bytes {
            let slot = cursor.next_slot;
            cursor.next_slot += 1;
            let saved = active.saved.remove(&slot);
            let record = saved.unwrap_or_else(|| self.slots.get(slot).cloned());
            if let Some(record) = record {
                bytes += record.len() + ITEM_BYTES;
                block.records.push(SnapshotRecord { slot, record });
            }
        }
        active.next_slot = cursor.next_slot;
        while cursor.next_slot == cursor.end_slot && bytes < max_bytes {
            let Some(tombstone) = cursor.tombstones.next() else { break };
            bytes += tombstone.key.len() + ITEM_BYTES;
            block.tombstones.push(SnapshotTombstone {
                revision: tombstone.revision,
                key: Bytes::copy_from_slice(&tombstone.key),
                expired: tombstone.expired,
            });
        }
        block.system = cursor.system.take().map(Arc::unwrap_or_clone);
        (bytes > 0 || block.system.is_some()).then_some(block)
    }

    /// Ends a snapshot, whether it is complete or given up.
    pub fn end_snapshot(&mut self, cursor: SnapshotCursor) {
        self.snapshots.retain(|active| active.id != cursor.id);
    }

    /// Saves what a slot holds for the snapshots that have yet to come by.
    pub(super) fn save_for_snapshots(&mut self, slot: u32, record: Option<&Bytes>) {
        for active in &mut self.snapshots {
            if slot >= active.next_slot {
                active.saved.entry(slot).or_insert_with(|| record.cloned());
            }
        }
    }

    /// Sets an empty store to the point that a snapshot shows; its blocks follow.
    pub fn restore_header(&mut self, header: &SnapshotHeader) {
        debug_assert!(self.is_empty(), "a snapshot is restored into an empty store");
        (self.applied_index, self.applied_term) = (header.index, header.term);
        let counts_anew = is_planted(Bug::RevisionReusedAfterSnapshot);
        self.revision = if counts_anew { 0 } else { header.revision };
        self.tombstones.set_compacted(header.compacted_revision);
        self.events.restart(header.revision);
    }

    /// Adds a block. Leases have no deadline until `grant_all`.
    pub fn restore_block(&mut self, block: SnapshotBlock) -> Result<(), RestoreError> {
        for SnapshotRecord { slot, record } in block.records {
            let wrong = |reason| RestoreError { slot, reason };
            // An allocation of its own: a slice would keep the whole block in memory.
            let record = Bytes::from(record.to_vec());
            let parts = record::parse(&record).ok_or(wrong("is malformed"))?;
            let spec = SpecParts::parse(parts.spec).ok_or(wrong("has a malformed spec"))?;
            if is_planted(Bug::RevisionReusedAfterSnapshot) {
                self.revision = self.revision.max(parts.meta.revision);
            }
            if parts.meta.revision == 0 || parts.meta.revision > self.revision {
                return Err(wrong("has a revision that the snapshot doesn't reach"));
            }
            if self.slots.get(slot).is_some() || self.slots.find(&parts.key).is_some() {
                return Err(wrong("is there twice"));
            }
            if parts.meta.lease_id != 0 {
                let ttl_ms = u32::try_from(parts.meta.ttl_ms)
                    .map_err(|_| wrong("has a time to live out of bounds"))?;
                let home = spec.home(&parts.key);
                self.leases.grant(slot, parts.meta.lease_id, ttl_ms, home, None);
            }
            if let Some(draining) = parts.meta.draining {
                // How long it was to drain, as far as the record tells; a full time again.
                let drain_ms = draining.deadline_unix_ms.saturating_sub(parts.meta.updated_unix_ms);
                self.leases.drain(slot, drain_ms.clamp(0, DRAIN_MS_MAX) as u64, None);
            }
            self.place(slot, &record, None);
        }
        if let Some(system) = block.system {
            self.system = Some(Arc::new(system));
        }
        if is_planted(Bug::SnapshotForgetsRemovals) {
            return Ok(());
        }
        for SnapshotTombstone { revision, key, expired } in block.tombstones {
            self.tombstones.push(Tombstone { revision, key: key.as_ref().into(), expired });
        }
        Ok(())
    }
}
