//! The system group's state machine: who is in the cluster, and where each partition is wanted.
//!
//! It is applied like any command, deterministically, on every node. What a cluster begins with is
//! its founding state; everything after is a `SystemCommand` in the system group's log.

mod apply;
mod founding;
#[cfg(test)]
mod tests;
mod voters;

pub use apply::{REASONS, SystemOutcome, SystemRefusal, apply};
pub use founding::{FOUNDING_INDEX, FOUNDING_TERM, Founder, alone, found, founding_replicas};
pub use voters::wanted_system_replicas;

use crate::proto::node::{ClusterMember, MemberState, PartitionPlacement, SystemState};

/// The system group's number on the wire, in the log and in file names.
pub const SYSTEM_PARTITION: u32 = u32::MAX;

/// The member with this identity, if there ever was one.
pub fn member(state: &SystemState, node_id: u64) -> Option<&ClusterMember> {
    state.members.iter().find(|member| member.node_id == node_id)
}

/// Whether a node takes part: active or draining.
pub fn takes_part(member: &ClusterMember) -> bool {
    matches!(member.state(), MemberState::Active | MemberState::Draining)
}

/// The members that take part.
pub fn present(state: &SystemState) -> impl Iterator<Item = &ClusterMember> {
    state.members.iter().filter(|member| takes_part(member))
}

/// Where a partition is wanted and where it is.
pub fn placement(state: &SystemState, partition: u32) -> Option<&PartitionPlacement> {
    state.partitions.get(partition as usize)
}

/// Whether a node is a voter, a learner or half of either in what was last reported.
pub fn is_reported_on(placement: &PartitionPlacement, node_id: u64) -> bool {
    placement.reported.as_ref().is_some_and(|set| {
        let parts = [&set.voters, &set.learners, &set.voters_outgoing, &set.learners_next];
        parts.iter().any(|part| part.contains(&node_id))
    })
}
