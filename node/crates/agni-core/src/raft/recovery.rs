//! From snapshots and the log back to a running group: pure, fed with what was read.

use crate::error::StartError;
use crate::limits;
use crate::proto::node::{Command, SnapshotBlock, SnapshotHeader};
use crate::raft::log_tail::LogTail;
use crate::store::{RestoreError, Store};
use crate::wal::Op;
use bytes::Bytes;
use prost::Message as _;
use raft::Storage as _;
use raft::eraftpb::{Entry, HardState};

/// One partition while it is put together again.
pub struct GroupRecovery {
    partition: u32,
    store: Store,
    tail: LogTail,
    applied: u64,
    now_ms: u64,
}

impl GroupRecovery {
    /// An empty partition with these voters.
    pub fn new(partition: u32, store: Store, voters: Vec<u64>, now_ms: u64) -> Self {
        let tail = LogTail::new(voters, 0, 0);
        GroupRecovery { partition, store, tail, applied: 0, now_ms }
    }

    /// Starts from a snapshot; its blocks follow.
    pub fn snapshot_header(&mut self, header: &SnapshotHeader) {
        self.store.restore_header(header);
        self.applied = header.index;
        self.tail = LogTail::new(header.voters.clone(), header.index, header.term);
        let hard_state =
            HardState { term: header.term, commit: header.index, ..HardState::default() };
        self.tail.set_hard_state(hard_state);
    }

    /// A block of the snapshot.
    pub fn snapshot_block(&mut self, block: SnapshotBlock) -> Result<(), RestoreError> {
        self.store.restore_block(block)
    }

    /// An entry of the log. What the snapshot holds is passed over.
    pub fn entry(&mut self, term: u64, index: u64, op: Op, data: Bytes) -> Result<(), StartError> {
        if index <= self.tail.base().max(self.applied) {
            return Ok(());
        }
        if op == Op::ConfChange {
            return Err(self.inconsistent(format!(
                "entry {index} changes the members, which this version does not know; start the \
                 version that wrote it"
            )));
        }
        if index > self.tail.last() + 1 {
            return Err(self.inconsistent(format!(
                "the log goes on at entry {index}, but entries {}..{index} are missing; restore \
                 the missing files, or wipe the data directory and join as a new member",
                self.tail.last() + 1
            )));
        }
        let entry = Entry { term, index, data, ..Entry::default() };
        self.tail.append(std::slice::from_ref(&entry));
        Ok(())
    }

    /// A hard state of the log: what it says to be committed is applied at once, so that replay
    /// never holds more than the uncommitted tail in memory.
    pub fn hard_state(&mut self, term: u64, vote: u64, commit: u64) -> Result<(), StartError> {
        let known = self.tail.hard_state();
        if term < known.term {
            // Older than the snapshot.
            return Ok(());
        }
        let commit = commit.max(known.commit);
        if commit > self.tail.last() {
            return Err(self.inconsistent(format!(
                "the log says that entry {commit} is committed, but ends at {}; restore the \
                 missing files, or wipe the data directory and join as a new member",
                self.tail.last()
            )));
        }
        self.tail.set_hard_state(HardState { term, vote, commit, ..HardState::default() });
        while self.applied < commit {
            self.apply_next()?;
        }
        self.tail.compact(self.applied.saturating_sub(self.kept_entries()));
        Ok(())
    }

    /// Applied entries that are kept for followers that lag.
    fn kept_entries(&self) -> u64 {
        if self.tail.voters().len() == 1 { 0 } else { limits::LOG_TAIL_ENTRIES_MAX }
    }

    fn apply_next(&mut self) -> Result<(), StartError> {
        let index = self.applied + 1;
        let Some(entry) = self.tail.entry(index) else {
            return Err(self.inconsistent(format!("entry {index} is missing")));
        };
        if entry.data.is_empty() {
            self.store.apply_empty(index, entry.term);
        } else {
            let command = Command::decode(entry.data.clone()).map_err(|error| {
                self.inconsistent(format!(
                    "entry {index} is of an unknown form ({error}); start the version that wrote it"
                ))
            })?;
            self.store.apply(index, entry.term, &command, self.now_ms);
        }
        self.applied = index;
        Ok(())
    }

    /// The store, the log behind it, and the newest applied index. Every lease starts anew.
    pub fn finish(mut self) -> (Store, LogTail, u64) {
        debug_assert!(self.tail.first_index().is_ok_and(|first| first <= self.applied + 1));
        self.tail.detach();
        self.store.grant_all(self.now_ms);
        (self.store, self.tail, self.applied)
    }

    fn inconsistent(&self, message: String) -> StartError {
        StartError::Inconsistent { partition: self.partition, message }
    }
}
