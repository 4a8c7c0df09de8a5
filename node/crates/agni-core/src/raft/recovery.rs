//! From snapshots and the log back to a running group: pure, fed with what was read.

use crate::error::StartError;
use crate::proto::node::{Command, ReplicaSet, SnapshotBlock, SnapshotHeader, SystemState};
use crate::raft::log_tail::{LogTail, TailLimits};
use crate::raft::replicas;
use crate::store::{RestoreError, Store, StoreLimits};
use crate::system::{FOUNDING_INDEX, SYSTEM_PARTITION};
use crate::wal::Op;
use bytes::Bytes;
use prost::Message as _;
use raft::Storage as _;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, SnapshotMetadata};
use std::sync::Arc;

/// What every group of a node is put together with.
#[derive(Debug, Clone)]
pub struct RecoverySettings {
    /// This node.
    pub node_id: u64,
    /// The time, in milliseconds since boot.
    pub now_ms: u64,
    /// What the system group begins with, for the founding entry.
    pub founding: Option<Arc<SystemState>>,
    /// What a store keeps besides its records.
    pub store: StoreLimits,
    /// How much of the log is kept in memory.
    pub tail: TailLimits,
}

/// One group while it is put together again. It begins blank.
pub struct GroupRecovery {
    settings: RecoverySettings,
    partition: u32,
    store: Store,
    tail: LogTail,
    applied: u64,
    /// Who votes since a configuration change, as the log tells, with that change's index.
    known_replicas: Option<(u64, ConfState)>,
    /// What doesn't fit together. It is forgiven if the node stopped holding the group later on:
    /// its snapshots are gone then, while the log may still begin in the middle.
    fault: Option<StartError>,
    /// The node has let go of the group, and the log doesn't say (yet) that it holds it again.
    is_discarded: bool,
    floor: (u64, u64),
}

/// A group that can run.
pub struct RecoveredGroup {
    /// The state.
    pub store: Store,
    /// The log behind it.
    pub tail: LogTail,
    /// The newest index that the state contains.
    pub applied: u64,
}

impl GroupRecovery {
    /// A blank group.
    pub fn new(partition: u32, settings: RecoverySettings) -> Self {
        let store = Store::with_limits(partition, settings.store.clone());
        let tail = LogTail::new(ConfState::default(), 0, 0);
        GroupRecovery {
            settings,
            partition,
            store,
            tail,
            applied: 0,
            known_replicas: None,
            fault: None,
            is_discarded: false,
            floor: (0, 0),
        }
    }

    /// Starts from a snapshot; its blocks follow.
    pub fn snapshot_header(&mut self, header: &SnapshotHeader) {
        self.store.restore_header(header);
        self.applied = header.index;
        let conf_state = header.replicas.as_ref().map(replicas::conf_state).unwrap_or_default();
        self.tail = LogTail::new(conf_state.clone(), header.index, header.term);
        let mut metadata = SnapshotMetadata::default();
        (metadata.index, metadata.term) = (header.index, header.term);
        metadata.set_conf_state(conf_state);
        self.tail.set_snapshot(metadata);
        let hard_state =
            HardState { term: header.term, commit: header.index, ..HardState::default() };
        self.tail.set_hard_state(hard_state);
    }

    /// A block of the snapshot.
    pub fn snapshot_block(&mut self, block: SnapshotBlock) -> Result<(), RestoreError> {
        self.store.restore_block(block)
    }

    /// An entry of the log. What the snapshot holds is passed over, and what followed in a log that
    /// the snapshot has replaced: it is of an older term.
    pub fn entry(&mut self, term: u64, index: u64, op: Op, data: Bytes) {
        let old = index <= self.tail.base().max(self.applied) || term < self.tail.base_term();
        if old || self.fault.is_some() {
            return;
        }
        if index > self.tail.last() + 1 {
            self.fault = Some(self.inconsistent(format!(
                "the log goes on at entry {index}, but entries {}..{index} are missing; restore \
                 the missing files, or wipe the data directory and join as a new member",
                self.tail.last() + 1
            )));
            return;
        }
        let mut entry = Entry { term, index, data, ..Entry::default() };
        if op == Op::ConfChange {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
        }
        self.tail.append(std::slice::from_ref(&entry));
    }

    /// What the node had of the group when it let go of it: the entry's term and index.
    pub fn floor(&mut self, floor: (u64, u64)) {
        self.floor = self.floor.max(floor);
    }

    /// A hard state of the log: what it says to be committed is applied at once, so that replay
    /// never holds more than the uncommitted tail in memory.
    ///
    /// # Errors
    /// When an entry can't be understood.
    pub fn hard_state(&mut self, term: u64, vote: u64, commit: u64) -> Result<(), StartError> {
        let known = self.tail.hard_state();
        if term < known.term {
            // Older than the snapshot.
            return Ok(());
        }
        let known_commit = known.commit;
        let mut commit = commit.max(known_commit);
        if commit > self.tail.last() && self.fault.is_none() {
            self.fault = Some(self.inconsistent(format!(
                "the log says that entry {commit} is committed, but ends at {}; restore the \
                 missing files, or wipe the data directory and join as a new member",
                self.tail.last()
            )));
        }
        if self.fault.is_some() {
            // The vote counts even so.
            commit = known_commit;
        }
        self.tail.set_hard_state(HardState { term, vote, commit, ..HardState::default() });
        self.apply_committed()
    }

    /// Who votes from an index on: the group's founding, or a configuration change that was
    /// applied.
    ///
    /// # Errors
    /// When an entry can't be understood.
    pub fn replica_set(
        &mut self,
        index: u64,
        term: u64,
        set: &ReplicaSet,
    ) -> Result<(), StartError> {
        let conf_state = replicas::conf_state(set);
        let blank = self.tail.base() == 0 && self.tail.last() == 0;
        if blank && index == FOUNDING_INDEX {
            let system = self.settings.founding.as_deref().cloned();
            let system = system.filter(|_| self.partition == SYSTEM_PARTITION);
            self.store.found(index, term, system);
            let known = self.tail.hard_state().clone();
            self.tail = LogTail::new(conf_state, index, term);
            let commit = known.commit.max(index);
            let term = known.term.max(term);
            self.tail.set_hard_state(HardState { term, commit, ..known });
            self.applied = index;
            return Ok(());
        }
        if index > self.applied {
            self.known_replicas = Some((index, conf_state));
        }
        self.apply_committed()
    }

    /// A snapshot file became durable. One that the leader sent has replaced the log, and a group
    /// that was let go is held again.
    pub fn snapshot_mark(&mut self, index: u64, installed: bool) {
        if !installed {
            return;
        }
        if std::mem::take(&mut self.is_discarded) && self.applied < index {
            self.fault = Some(self.inconsistent(format!(
                "its snapshot of entry {index} is missing; restore it, or wipe the data directory \
                 and join as a new member"
            )));
        }
        // Raft has thrown away what it had not applied by then.
        self.tail.cut_behind(self.applied);
    }

    /// The node stopped holding the group; its vote is kept.
    ///
    /// What was applied until here is not forgotten yet. The snapshot that this began with may be
    /// one that the leader sent later on, when the node got the group again, and that one may be
    /// older than what the node had before. What is committed is the same in every life, so the
    /// group goes on from the further one.
    pub fn discard(&mut self) {
        self.is_discarded = true;
        self.fault = None;
        self.known_replicas = None;
        self.tail.cut_behind(self.applied);
        let commit = self.applied;
        self.tail.set_hard_state(HardState { commit, ..self.tail.hard_state().clone() });
    }

    /// Applies what is committed, up to a configuration change of which the log does not say (yet)
    /// what came of it: the running group applies that one.
    fn apply_committed(&mut self) -> Result<(), StartError> {
        while self.applied < self.tail.hard_state().commit {
            if !self.apply_next()? {
                break;
            }
        }
        self.tail.compact(self.applied.saturating_sub(self.kept_entries()));
        Ok(())
    }

    /// Applied entries that are kept for followers that lag.
    fn kept_entries(&self) -> u64 {
        if self.tail.voters() == [self.settings.node_id] {
            0
        } else {
            self.settings.tail.entries_max
        }
    }

    fn apply_next(&mut self) -> Result<bool, StartError> {
        let index = self.applied + 1;
        let Some(entry) = self.tail.entry(index) else {
            return Err(self.inconsistent(format!("entry {index} is missing")));
        };
        let (term, data) = (entry.term, entry.data.clone());
        if entry.get_entry_type() != EntryType::EntryNormal {
            let Some((_, state)) = self.known_replicas.take_if(|(at, _)| *at == index) else {
                return Ok(false);
            };
            self.tail.set_conf_state(state);
            self.store.apply_empty(index, term);
        } else if data.is_empty() {
            self.store.apply_empty(index, term);
        } else {
            let command = Command::decode(data).map_err(|error| {
                self.inconsistent(format!(
                    "entry {index} is of an unknown form ({error}); start the version that wrote it"
                ))
            })?;
            self.store.apply(index, term, &command, self.settings.now_ms);
        }
        self.applied = index;
        Ok(true)
    }

    /// The group as far as it was put together. Every lease starts anew.
    ///
    /// # Errors
    /// When files or a part of the log are missing.
    pub fn finish(mut self) -> Result<RecoveredGroup, StartError> {
        if self.is_discarded {
            let HardState { term, vote, .. } = self.tail.hard_state().clone();
            let floor = self.floor;
            self = GroupRecovery { floor, ..GroupRecovery::new(self.partition, self.settings) };
            self.tail.set_hard_state(HardState { term, vote, ..HardState::default() });
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        debug_assert!(self.tail.first_index().is_ok_and(|first| first <= self.applied + 1));
        self.tail.detach();
        self.tail.set_floor(self.floor);
        self.store.grant_all(self.settings.now_ms);
        Ok(RecoveredGroup { store: self.store, tail: self.tail, applied: self.applied })
    }

    fn inconsistent(&self, message: String) -> StartError {
        StartError::Inconsistent { partition: self.partition, message }
    }
}
