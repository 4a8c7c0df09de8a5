//! MemStore: the records of one partition, and everything that is answered from them.
//!
//! A record is one shared allocation, made when it is applied and handed out as it is. Applying is
//! deterministic: it depends on the commands alone. Times (`now_ms`, CLOCK_BOOTTIME milliseconds
//! from the caller) touch nothing but leases, which are soft state of the partition's leader.

mod apply;
mod difference;
mod discover;
mod events;
mod filter;
mod index;
mod list;
mod patch;
mod record;
mod slots;
mod snapshot;
mod state_hash;
#[cfg(test)]
mod tests;
mod tombstones;

use bytes::Bytes;
use std::sync::Arc;

use crate::capacity;
use crate::key::KeyRef;
use crate::lease::{Domain, LeaseTable, Liveness, Tally, Verdict};
use crate::proto::api::{Capacity, Status};
use crate::proto::node::{ExpiredLease, SystemState};

pub use apply::{Outcome, Refusal};
pub use difference::{Change, DifferenceCursor, DifferencePage};
pub use discover::{RankRequest, Sample, rank};
pub use events::{Compacted, Event, Events};
pub use filter::CompiledFilter;
pub use list::{ListPage, ListPosition, PageExpired};
pub use record::key_bytes_of;
pub use snapshot::{RestoreError, SnapshotCursor};
pub use state_hash::STATE_HASH_FORM;

use events::EventLog;
use index::Index;
use slots::Slots;
use snapshot::ActiveSnapshot;
use tombstones::Tombstones;

/// What a store keeps besides its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Events kept for watches and stable pages. Default: 8,192.
    pub events_max: usize,
    /// Their bytes, with the records that they hold on to. Default: 4 MiB.
    pub event_bytes_max: usize,
    /// Tombstones kept. Default: 100,000.
    pub tombstones_max: usize,
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits { events_max: 8_192, event_bytes_max: 4 << 20, tombstones_max: 100_000 }
    }
}

/// The records of one partition.
pub struct Store {
    partition: u32,
    applied_index: u64,
    applied_term: u64,
    revision: u64,
    slots: Slots,
    index: Index,
    leases: LeaseTable,
    events: EventLog,
    tombstones: Tombstones,
    snapshots: Vec<ActiveSnapshot>,
    next_snapshot: u64,
    /// Whether this is the leader's store: only it knows of renewals, so only it tells the living
    /// from the dead.
    leading: bool,
    /// What the system group holds in place of records; none in a partition.
    system: Option<Arc<SystemState>>,
    limits: StoreLimits,
}

/// A record as readers see it at a moment, borrowed from the store.
#[derive(Clone, Debug)]
pub struct InstanceView<'a> {
    /// The encoded `api::Record`: the stored allocation itself.
    pub record: &'a Bytes,
    /// How alive it is.
    pub status: Status,
    /// Milliseconds until its lease runs out, negative while suspect; none without a lease.
    pub lease_remaining_ms: Option<i64>,
    /// What was last reported to be free, and how many milliseconds ago.
    pub load: Option<(Capacity, i64)>,
}

/// The same with a share in the record.
#[derive(Clone, Debug)]
pub struct InstanceOwned {
    /// The encoded `api::Record`: the stored allocation itself.
    pub record: Bytes,
    /// How alive it is.
    pub status: Status,
    /// Milliseconds until its lease runs out, negative while suspect; none without a lease.
    pub lease_remaining_ms: Option<i64>,
    /// What was last reported to be free, and how many milliseconds ago.
    pub load: Option<(Capacity, i64)>,
}

impl InstanceView<'_> {
    /// Takes a share in the record; copies no byte of it.
    pub fn to_owned(&self) -> InstanceOwned {
        InstanceOwned {
            record: self.record.clone(),
            status: self.status,
            lease_remaining_ms: self.lease_remaining_ms,
            load: self.load,
        }
    }
}

impl Store {
    /// An empty store with the default limits.
    pub fn new(partition: u32) -> Store {
        Store::with_limits(partition, StoreLimits::default())
    }

    /// An empty store.
    pub fn with_limits(partition: u32, limits: StoreLimits) -> Store {
        Store {
            partition,
            applied_index: 0,
            applied_term: 0,
            revision: 0,
            slots: Slots::default(),
            index: Index::default(),
            leases: LeaseTable::new(),
            events: EventLog::new(limits.events_max, limits.event_bytes_max),
            tombstones: Tombstones::new(limits.tombstones_max),
            snapshots: Vec::new(),
            next_snapshot: 1,
            leading: true,
            system: None,
            limits,
        }
    }

    /// An empty store with the same limits.
    pub fn emptied(&self) -> Store {
        Store::with_limits(self.partition, self.limits.clone())
    }

    /// Makes a new store a group's beginning: the state as of the founding entry.
    pub fn found(&mut self, index: u64, term: u64, system: Option<SystemState>) {
        (self.applied_index, self.applied_term) = (index, term);
        self.system = system.map(Arc::new);
    }

    /// What the system group holds; none in a partition.
    pub fn system(&self) -> Option<&Arc<SystemState>> {
        self.system.as_ref()
    }

    /// The partition that this is.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The index and term of the entry applied last.
    pub fn applied(&self) -> (u64, u64) {
        (self.applied_index, self.applied_term)
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Removals at or below this revision are no longer known one by one.
    pub fn compacted_revision(&self) -> u64 {
        self.tombstones.compacted()
    }

    /// How many records are stored, overdue ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no record is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the records have a lease.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// How many domains of this partition the mass-expiry guard holds.
    pub fn suspect_domains(&self) -> u32 {
        self.leases.held_domains()
    }

    /// How many leases there are of a domain.
    pub(crate) fn leased_in(&self, domain: &Domain) -> u32 {
        self.leases.leased_in(domain)
    }

    /// One record; none once its lease is overdue, even before its removal is applied.
    pub fn get(&self, key: &KeyRef<'_>, now_ms: u64) -> Option<InstanceView<'_>> {
        self.view(self.slots.find(key)?, now_ms)
    }

    /// All changes after a revision, oldest first, with revisions that leave none out.
    pub fn events_after(&self, revision: u64, limit: usize) -> Result<Events<'_>, Compacted> {
        self.events.resume(revision, limit)
    }

    /// Extends a lease to its full time from now and answers that time, in milliseconds; none when
    /// it is lost. A lease is lost at its deadline, except while the guard holds its domain.
    pub fn renew(&mut self, lease_id: u64, load: Option<&Capacity>, now_ms: u64) -> Option<i64> {
        self.leases.renew(lease_id, load.map(capacity::amounts), now_ms).map(i64::from)
    }

    /// Gives every lease its full time from now: after a restart, and when taking over as leader,
    /// once everything of earlier terms is applied. Draining starts over, too.
    pub fn grant_all(&mut self, now_ms: u64) {
        self.leases.grant_all(now_ms);
    }

    /// Whether this is the leader's store. Elsewhere each stored record counts as alive, without a
    /// remaining time, because renewals are not replicated.
    pub fn set_leading(&mut self, leading: bool) {
        self.leading = leading;
        if !leading {
            self.leases.forget_removals();
        }
    }

    /// Finds what is late or has run out; see `MassExpiry::look`.
    pub(crate) fn look_at_leases(&mut self, now_ms: u64, tell: &mut dyn FnMut(&Domain, &Tally)) {
        self.leases.look(now_ms, tell);
    }

    /// Makes what has run out ready for `take_due`, or holds it; see `MassExpiry::look`.
    pub(crate) fn sort_due(&mut self, verdict: Verdict<'_>) {
        self.leases.sort_due(verdict);
    }

    /// What has run out, for an `Expire` command, at most `limit`. Each is answered once, and again
    /// after `EXPIRY_RETRY_MS` or `expiry_failed` while it is still there.
    pub fn take_due(&mut self, now_ms: u64, limit: usize) -> Vec<ExpiredLease> {
        let due = self.leases.take_due(now_ms, limit);
        let expired = |slot: u32| {
            let meta = record::parse(self.slots.get(slot)?)?.meta;
            Some(ExpiredLease {
                slot,
                lease_id: meta.lease_id,
                incarnation: meta.incarnation,
                revision: meta.revision,
            })
        };
        due.into_iter().filter_map(expired).collect()
    }

    /// Says that a removal could not be proposed, so that the next `take_due` answers it again.
    pub fn expiry_failed(&mut self, leases: &[ExpiredLease]) {
        for lease in leases {
            self.leases.retake(lease.slot);
        }
    }

    /// Bytes on the heap, roughly.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Store>()
            + self.slots.memory_bytes()
            + self.index.memory_bytes()
            + self.leases.memory_bytes()
            + self.events.memory_bytes()
            + self.tombstones.memory_bytes()
    }

    /// A slot as readers see it; none when it is vacant or overdue.
    fn view(&self, slot: u32, now_ms: u64) -> Option<InstanceView<'_>> {
        let record = self.slots.get(slot)?;
        let liveness = match self.leading {
            true => self.leases.liveness(slot, now_ms),
            false => Liveness::Unleased,
        };
        let (alive, lease_remaining_ms) = match liveness {
            Liveness::Overdue => return None,
            Liveness::Unleased => (Status::Alive, None),
            Liveness::Alive(remaining_ms) => (Status::Alive, remaining_ms),
            Liveness::Suspect(remaining_ms) => (Status::Suspect, Some(remaining_ms)),
        };
        let status = if self.leases.is_draining(slot) { Status::Draining } else { alive };
        let load = self.leases.load(slot).map(|load| {
            (capacity::capacity_of(&load.free), now_ms.saturating_sub(load.at_ms) as i64)
        });
        Some(InstanceView { record, status, lease_remaining_ms, load })
    }

    /// Whether a slot that the indexes answered matches the rest of the filter; with its view.
    fn matching_view(
        &self,
        slot: u32,
        filter: &CompiledFilter,
        now_ms: u64,
    ) -> Option<InstanceView<'_>> {
        let record = self.slots.get(slot)?;
        let capacity = self.slots.capacity(slot);
        let free = self.leases.load(slot);
        if !filter.matches_slot(record, capacity) || !filter.matches_free(record, capacity, free) {
            return None;
        }
        self.view(slot, now_ms).filter(|view| filter.matches_status(view.status))
    }
}

/// The encoded parts of an `api::Instance` besides the record are small; this bounds them.
const INSTANCE_BYTES: usize = 64;
