//! Who votes, in our words and in the library's.

use crate::proto::node::ReplicaSet;
use raft::eraftpb::ConfState;

/// The library's form.
pub fn conf_state(set: &ReplicaSet) -> ConfState {
    ConfState {
        voters: set.voters.clone(),
        learners: set.learners.clone(),
        voters_outgoing: set.voters_outgoing.clone(),
        learners_next: set.learners_next.clone(),
        auto_leave: set.auto_leave,
        ..ConfState::default()
    }
}

/// Our form, in one order, so that equal sets are equal bytes.
pub fn replica_set(state: &ConfState) -> ReplicaSet {
    let sorted = |nodes: &[u64]| {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes
    };
    ReplicaSet {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}

/// Everybody who votes, in their order: of both sets while one change goes over into the next.
pub fn voters(state: &ConfState) -> Vec<u64> {
    let mut found: Vec<u64> = state.voters.iter().chain(&state.voters_outgoing).copied().collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a node is a part of it in any way.
pub fn contains(state: &ConfState, node_id: u64) -> bool {
    [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next]
        .iter()
        .any(|part| part.contains(&node_id))
}
