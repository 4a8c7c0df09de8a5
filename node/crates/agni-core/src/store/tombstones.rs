//! Tombstones: which records were removed, so that a watcher with an old token can be told.

use std::collections::VecDeque;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::state_hash;

/// One removal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tombstone {
    pub revision: u64,
    /// The encoded `api::Key`.
    pub key: Arc<[u8]>,
    pub expired: bool,
}

impl Tombstone {
    /// What it adds to the state's hash.
    fn share(&self) -> u64 {
        state_hash::mix(xxh3_64(&self.key), self.revision << 1 | u64::from(self.expired))
    }
}

/// The newest removals, ordered by revision, bounded in number.
pub(crate) struct Tombstones {
    entries: VecDeque<Tombstone>,
    compacted: u64,
    count_max: usize,
    /// The sum of what each of them adds to the state's hash.
    content: u64,
}

impl Tombstones {
    pub(crate) fn new(count_max: usize) -> Tombstones {
        Tombstones { entries: VecDeque::new(), compacted: 0, count_max, content: 0 }
    }

    /// Removals at or below this revision are no longer known one by one.
    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn set_compacted(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
    }

    pub(crate) fn push(&mut self, tombstone: Tombstone) {
        self.content = self.content.wrapping_add(tombstone.share());
        self.entries.push_back(tombstone);
        while self.entries.len() > self.count_max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.compacted = oldest.revision;
            self.content = self.content.wrapping_sub(oldest.share());
        }
    }

    /// What they add to the state's hash.
    pub(crate) fn content(&self) -> u64 {
        self.content
    }

    /// Those after a revision, oldest first.
    pub(crate) fn after(&self, revision: u64) -> impl Iterator<Item = &Tombstone> {
        let first = self.entries.partition_point(|tombstone| tombstone.revision <= revision);
        self.entries.range(first..)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Tombstone>()
            + self.entries.iter().map(|tombstone| tombstone.key.len() + 32).sum::<usize>()
    }
}
