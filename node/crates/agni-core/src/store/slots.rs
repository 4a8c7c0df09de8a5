//! Where records lie: numbered slots, and a table that finds a slot by its key.
//!
//! Slot numbers are part of the replicated state (`Expire` names them, page order is theirs), so a
//! new record takes the lowest vacant one, which depends on nothing but what is stored.

use bytes::Bytes;
use hashbrown::HashTable;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::{record, state_hash};
use crate::key::KeyRef;

/// One cache line. The key's hash is kept, so that neither a search nor a growing table touches the
/// records of other keys.
#[derive(Clone, Default)]
struct Slot {
    record: Bytes,
    hash: u64,
    revision: u64,
    capacity: [f32; 4],
}

/// The records of one partition.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    vacant: RoaringBitmap,
    table: HashTable<u32>,
    record_bytes: usize,
    /// The sum of what each record adds to the state's hash.
    content: u64,
}

/// What the record in a slot adds to the state's hash.
fn share(slot: u32, record: &[u8]) -> u64 {
    state_hash::mix(xxh3_64(record), u64::from(slot))
}

/// Spreads a key's hash for the table, which tells its entries apart by the top bits: those are the
/// partition, and the same for all keys of a store.
fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Slots {
    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// One more than the highest slot ever used.
    pub(crate) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// What the records add to the state's hash, whichever way they came here.
    pub(crate) fn content(&self) -> u64 {
        self.content
    }

    /// The slot of a key.
    pub(crate) fn find(&self, key: &KeyRef<'_>) -> Option<u32> {
        let hash = spread(key.hash());
        let same = |&slot: &u32| {
            let slot = &self.slots[slot as usize];
            slot.hash == hash && record::key_of(&slot.record) == Some(*key)
        };
        self.table.find(hash, same).copied()
    }

    /// The record in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Bytes> {
        self.slots.get(slot as usize).map(|slot| &slot.record).filter(|record| !record.is_empty())
    }

    /// The revision of the record in an occupied slot.
    pub(crate) fn revision(&self, slot: u32) -> u64 {
        self.slots[slot as usize].revision
    }

    /// The capacity of the record in an occupied slot, rounded to single precision.
    pub(crate) fn capacity(&self, slot: u32) -> &[f32; 4] {
        &self.slots[slot as usize].capacity
    }

    /// The slot that the next new record takes.
    pub(crate) fn next_vacant(&self) -> u32 {
        self.vacant.min().unwrap_or(self.slots.len() as u32)
    }

    /// Stores a record and answers what was there; its key must be the same, if there was one.
    pub(crate) fn put(
        &mut self,
        slot: u32,
        key: &KeyRef<'_>,
        record: Bytes,
        revision: u64,
        capacity: &[f64; 4],
    ) -> Option<Bytes> {
        let index = slot as usize;
        if index >= self.slots.len() {
            self.vacant.insert_range(self.slots.len() as u32..slot);
            self.slots.resize(index + 1, Slot::default());
        }
        self.record_bytes += record.len();
        self.content = self.content.wrapping_add(share(slot, &record));
        let hash = match self.slots[index].record.is_empty() {
            true => spread(key.hash()),
            false => self.slots[index].hash,
        };
        let capacity = capacity.map(|amount| amount as f32);
        let stored = Slot { record, hash, revision, capacity };
        let old = std::mem::replace(&mut self.slots[index], stored).record;
        if old.is_empty() {
            self.vacant.remove(slot);
            let slots = &self.slots;
            self.table.insert_unique(hash, slot, |&slot| slots[slot as usize].hash);
            return None;
        }
        self.record_bytes -= old.len();
        self.content = self.content.wrapping_sub(share(slot, &old));
        Some(old)
    }

    /// Removes the record of an occupied slot.
    pub(crate) fn remove(&mut self, slot: u32) -> Bytes {
        let index = slot as usize;
        let hash = self.slots[index].hash;
        if let Ok(found) = self.table.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
        self.vacant.insert(slot);
        let old = std::mem::take(&mut self.slots[index]).record;
        self.record_bytes -= old.len();
        self.content = self.content.wrapping_sub(share(slot, &old));
        old
    }

    /// Makes it the content of another state.
    pub(crate) fn diverge(&mut self) {
        self.content = self.content.wrapping_add(1);
    }

    /// Bytes on the heap, roughly: with the allocator's and the reference count's overhead.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + self.table.capacity() * 5
            + self.vacant.serialized_size()
            + self.record_bytes
            + self.len() * 48
    }
}
