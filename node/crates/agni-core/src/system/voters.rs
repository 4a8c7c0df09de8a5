//! Who votes in the system group: a few nodes, in different zones where there are enough; the
//! others follow as learners, so that every node knows the cluster from its own memory.

use super::present;
use crate::limits;
use crate::proto::node::{ClusterMember, MemberState, SystemState};

/// The wanted voters and learners of the system group. Those who vote now go on where they can:
/// a vote moves only when its node leaves or drains, or a zone is left out.
pub fn wanted_system_replicas(state: &SystemState, current: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let members: Vec<&ClusterMember> = present(state).collect();
    let most = limits::SYSTEM_VOTERS_MAX.min(members.len());
    // An even number survives no more failures than the odd one below it.
    let count = if most.is_multiple_of(2) { most.saturating_sub(1) } else { most };
    let mut voters: Vec<&ClusterMember> = Vec::with_capacity(count);
    let mut candidates: Vec<&ClusterMember> = members.clone();
    // Stable nodes first, those who vote already before others, older before younger.
    candidates.sort_by_key(|member| {
        let draining = member.state() == MemberState::Draining;
        (draining, !current.contains(&member.node_id), member.node_id)
    });
    for new_zones_only in [true, false] {
        for candidate in &candidates {
            let taken = voters.iter().any(|voter| voter.node_id == candidate.node_id);
            let zone_taken = !candidate.zone.is_empty()
                && voters.iter().any(|voter| voter.zone == candidate.zone);
            if voters.len() < count && !taken && !(new_zones_only && zone_taken) {
                voters.push(candidate);
            }
        }
    }
    let mut voters: Vec<u64> = voters.iter().map(|member| member.node_id).collect();
    voters.sort_unstable();
    let learners = members.iter().map(|member| member.node_id);
    let learners = learners.filter(|id| !voters.contains(id)).collect();
    (voters, learners)
}
