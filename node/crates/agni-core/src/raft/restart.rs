//! All groups of a node while they are put together again, from what its log says.

use crate::error::StartError;
use crate::proto::node::SystemState;
use crate::raft::recovery::{GroupRecovery, RecoveredGroup};
use crate::system::{self, FOUNDING_INDEX, FOUNDING_TERM, SYSTEM_PARTITION};
use crate::wal::{Batch, Recovered};

/// The partitions in their order, then the system group.
pub fn group_numbers(partitions: u32) -> impl Iterator<Item = u32> {
    (0..partitions).chain([SYSTEM_PARTITION])
}

/// All groups of a node, in the order of `group_numbers`.
pub struct NodeRecovery {
    groups: Vec<GroupRecovery>,
}

impl NodeRecovery {
    /// Goes on from what each group's snapshot holds, or from blank groups.
    pub fn new(groups: Vec<GroupRecovery>) -> Self {
        NodeRecovery { groups }
    }

    /// Takes the log's next record.
    ///
    /// # Errors
    /// When it doesn't fit, or can't be understood.
    pub fn record(&mut self, record: Recovered<'_>) -> Result<(), StartError> {
        match record {
            Recovered::Entry { partition, term, index, op, data } => {
                self.group(partition)?.entry(term, index, op, data);
            }
            Recovered::HardState { partition, term, vote, commit, floor } => {
                self.group(partition)?.floor(floor);
                self.group(partition)?.hard_state(term, vote, commit)?;
            }
            Recovered::ReplicaSet { partition, index, term, replicas } => {
                self.group(partition)?.replica_set(index, term, &replicas)?;
            }
            Recovered::SnapshotMark { partition, index, installed, .. } => {
                self.group(partition)?.snapshot_mark(index, installed);
            }
            Recovered::Discard { partition, .. } => self.group(partition)?.discard(),
        }
        Ok(())
    }

    /// Begins the groups that a new cluster gives to this node. Answers what is to be made durable
    /// before anything else, in one batch: all or nothing.
    ///
    /// # Errors
    /// Never, since the groups are blank.
    pub fn found(&mut self, state: &SystemState, node_id: u64) -> Result<Batch, StartError> {
        let mut batch = Batch::new();
        let (index, term) = (FOUNDING_INDEX, FOUNDING_TERM);
        for partition in group_numbers(self.groups.len() as u32 - 1) {
            let set = system::founding_replicas(state, partition);
            if set.voters.contains(&node_id) || set.learners.contains(&node_id) {
                batch.replica_set(partition, index, term, set.clone());
                batch.hard_state(partition, term, 0, index);
                self.group(partition)?.replica_set(index, term, &set)?;
            }
        }
        Ok(batch)
    }

    /// The groups with their numbers.
    ///
    /// # Errors
    /// When files or a part of the log are missing.
    pub fn finish(self) -> Result<Vec<(u32, RecoveredGroup)>, StartError> {
        let numbers = group_numbers(self.groups.len() as u32 - 1);
        numbers.zip(self.groups).map(|(number, group)| Ok((number, group.finish()?))).collect()
    }

    fn group(&mut self, partition: u32) -> Result<&mut GroupRecovery, StartError> {
        let partitions = self.groups.len() - 1;
        let position = match partition {
            SYSTEM_PARTITION => partitions,
            _ if (partition as usize) < partitions => partition as usize,
            _ => {
                let message = format!("the log speaks of it, but there are only {partitions}");
                return Err(StartError::Inconsistent { partition, message });
            }
        };
        Ok(&mut self.groups[position])
    }
}
