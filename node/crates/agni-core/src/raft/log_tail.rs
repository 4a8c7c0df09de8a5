//! The part of a partition's log that Raft still needs, in memory. The durable log behind it is
//! the WAL, which is written by another thread; this is what Raft reads.

use crate::limits;
use crate::raft::replicas;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// How many applied entries are kept for followers that lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLimits {
    /// Ordinarily.
    pub entries_max: u64,
    /// While a follower is being sent a snapshot or catches up behind one.
    pub catch_up_entries_max: u64,
}

impl Default for TailLimits {
    fn default() -> Self {
        TailLimits {
            entries_max: limits::LOG_TAIL_ENTRIES_MAX,
            catch_up_entries_max: limits::LOG_TAIL_ENTRIES_CATCH_UP_MAX,
        }
    }
}

/// Entries from `first` on, and the term just before them.
#[derive(Debug, Clone, Default)]
pub struct LogTail {
    hard_state: HardState,
    conf_state: ConfState,
    /// The index and term of the entry just before the first one that is kept.
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    /// What the newest durable snapshot file is of; none without a file.
    snapshot: Option<SnapshotMetadata>,
    /// The term and index of the newest entry that this node had when it let go of the group.
    floor: (u64, u64),
    /// Somebody needs a newer snapshot than there is.
    snapshot_wanted: Cell<bool>,
}

impl LogTail {
    /// An empty tail behind `(index, term)`, which a snapshot or the founding covers; (0, 0) and
    /// nobody for a blank group.
    pub fn new(conf_state: ConfState, base_index: u64, base_term: u64) -> Self {
        LogTail { conf_state, base_index, base_term, ..LogTail::default() }
    }

    /// The index of the newest entry.
    pub fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    /// The term and index of the newest entry.
    pub fn newest(&self) -> (u64, u64) {
        (self.entries.back().map_or(self.base_term, |entry| entry.term), self.last())
    }

    /// The index before the first entry.
    pub fn base(&self) -> u64 {
        self.base_index
    }

    /// Adds entries, replacing whatever stood at or behind the first one's index.
    ///
    /// # Panics
    /// When they would leave a hole: that breaks a promise of Raft.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.base_index && first.index <= self.last() + 1,
            "entry {} does not follow a log of {}..={}",
            first.index,
            self.base_index,
            self.last()
        );
        self.entries.truncate((first.index - self.base_index - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// The entry at `index`, if it is kept.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.base_index + 1)?;
        self.entries.get(offset as usize)
    }

    /// Sets what must not be forgotten.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// What must not be forgotten.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Who votes.
    pub fn voters(&self) -> &[u64] {
        &self.conf_state.voters
    }

    /// Who votes and who follows.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Notes who votes from now on.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The term of what the log begins behind.
    pub fn base_term(&self) -> u64 {
        self.base_term
    }

    /// Notes what this node had when it let go of the group.
    pub fn set_floor(&mut self, floor: (u64, u64)) {
        self.floor = floor;
    }

    /// The term and index of the newest entry that this node had when it let go of the group;
    /// zeros if it never did.
    pub fn floor(&self) -> (u64, u64) {
        self.floor
    }

    /// Notes the newest durable snapshot file.
    pub fn set_snapshot(&mut self, metadata: SnapshotMetadata) {
        self.snapshot = Some(metadata);
    }

    /// Begins anew behind a snapshot that the leader sent.
    pub fn install(&mut self, metadata: SnapshotMetadata) {
        self.entries.clear();
        (self.base_index, self.base_term) = (metadata.index, metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
        self.snapshot = Some(metadata);
    }

    /// Forgets the entries behind `index`.
    pub fn cut_behind(&mut self, index: u64) {
        self.entries.truncate(index.saturating_sub(self.base_index) as usize);
    }

    /// Whether somebody needs a newer snapshot than there is; asked once.
    pub fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.replace(false)
    }

    /// Copies what the entries hold out of the buffers that they were read from, so that a few
    /// bytes don't keep a whole file in memory.
    pub fn detach(&mut self) {
        for entry in &mut self.entries {
            entry.data = bytes::Bytes::copy_from_slice(&entry.data);
        }
    }

    /// Forgets the entries up to and including `index`.
    pub fn compact(&mut self, index: u64) {
        while self.base_index < index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.base_index = entry.index;
            self.base_term = entry.term;
        }
        // A burst must not keep its memory for ever.
        if self.entries.is_empty() && self.entries.capacity() > 4096 {
            self.entries = VecDeque::new();
        }
    }
}

impl Storage for LogTail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let from = (low - self.base_index - 1) as usize;
        let to = (high - self.base_index - 1) as usize;
        let mut entries: Vec<Entry> = self.entries.range(from..to).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        if index < self.base_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let missing = raft::Error::Store(StorageError::Unavailable);
        self.entry(index).map(|entry| entry.term).ok_or(missing)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The metadata alone: the data travels as a file. It must reach what is asked for, and the
    /// log must go on right behind it.
    /// A receiver that it does not know as a member would refuse it.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let least = request_index.max(self.base_index);
        match &self.snapshot {
            Some(metadata)
                if metadata.index >= least && replicas::contains(metadata.get_conf_state(), to) =>
            {
                let mut snapshot = Snapshot::default();
                snapshot.set_metadata(metadata.clone());
                Ok(snapshot)
            }
            _ => {
                self.snapshot_wanted.set(true);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { term, index, ..Entry::default() }
    }

    #[test]
    fn a_later_term_replaces_the_tail_from_its_first_index() {
        let mut tail = LogTail::new(ConfState::default(), 10, 2);
        tail.append(&[entry(2, 11), entry(2, 12), entry(2, 13)]);
        tail.append(&[entry(3, 12)]);
        assert_eq!(tail.last(), 12);
        assert_eq!(tail.term(12).unwrap(), 3);
        assert_eq!(tail.term(10).unwrap(), 2, "the term before the tail is kept");
        assert!(tail.term(9).is_err());
        assert!(tail.term(13).is_err());
    }

    #[test]
    fn compaction_keeps_the_term_of_the_last_entry_it_forgets() {
        let mut tail = LogTail::new(ConfState::default(), 0, 0);
        tail.append(&[entry(1, 1), entry(4, 2), entry(4, 3)]);
        tail.compact(2);
        assert_eq!((tail.base(), tail.last()), (2, 3));
        assert_eq!(tail.term(2).unwrap(), 4);
        tail.compact(99);
        assert_eq!((tail.base(), tail.last()), (3, 3));
    }
}
