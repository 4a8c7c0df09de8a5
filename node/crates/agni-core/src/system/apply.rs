//! Applies the commands of the system group.

use super::{SYSTEM_PARTITION, is_reported_on, member, present, takes_part};
use crate::limits;
use crate::proto::node::system_command::Operation;
use crate::proto::node::{
    AddMember, ClusterMember, MemberState, RemoveMember, ReportReplicas, SetDraining, SetWanted,
    SystemCommand, SystemState, UpdateMember,
};

/// What came of a system command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemOutcome {
    /// The node that it was about; 0 for none.
    pub node_id: u64,
    /// The state's version after it.
    pub version: u64,
}

/// Why a system command did nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemRefusal {
    /// A stable code.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The reasons that a refusal may have.
pub const REASONS: [&str; 7] = [
    "EPOCH_OUTDATED",
    "INVALID_FIELD",
    "MEMBER_LEFT",
    "MEMBER_IN_USE",
    "MEMBERS_FULL",
    "NOT_FOUND",
    "VERSION_MISMATCH",
];

fn refuse<T>(reason: &'static str, message: String) -> Result<T, SystemRefusal> {
    Err(SystemRefusal { reason, message })
}

/// Applies a command. A refused one changes nothing, not even the author's epoch.
///
/// # Errors
/// Says what stands against it.
pub fn apply(
    state: &mut SystemState,
    command: &SystemCommand,
) -> Result<SystemOutcome, SystemRefusal> {
    let epoch = command.author_epoch;
    if epoch != 0 && epoch < state.author_epoch {
        let newest = state.author_epoch;
        return refuse(
            "EPOCH_OUTDATED",
            format!("the epoch {epoch} is older than {newest}: somebody else has taken over"),
        );
    }
    let before = state.version;
    let node_id = match &command.operation {
        Some(Operation::AddMember(add)) => add_member(state, add)?,
        Some(Operation::UpdateMember(update)) => update_member(state, update)?,
        Some(Operation::SetDraining(set)) => set_draining(state, set)?,
        Some(Operation::RemoveMember(remove)) => remove_member(state, remove)?,
        Some(Operation::SetWanted(set)) => set_wanted(state, set)?,
        Some(Operation::ReportReplicas(report)) => report_replicas(state, report),
        None => return refuse("INVALID_FIELD", "the command says nothing".into()),
    };
    if epoch > state.author_epoch {
        state.author_epoch = epoch;
        changed(state, before);
    }
    Ok(SystemOutcome { node_id, version: state.version })
}

/// Notes a change; several of one command count as one.
fn changed(state: &mut SystemState, before: u64) {
    state.version = before + 1;
}

fn add_member(state: &mut SystemState, add: &AddMember) -> Result<u64, SystemRefusal> {
    let Some(wanted) = &add.member else {
        return refuse("INVALID_FIELD", "member is missing".into());
    };
    if wanted.name.is_empty() || wanted.nonce.is_empty() || wanted.peer_address.is_empty() {
        let message = "member needs a name, a nonce and a peer address".into();
        return refuse("INVALID_FIELD", message);
    }
    let repeated = state.members.iter().find(|known| known.nonce == wanted.nonce);
    if let Some(known) = repeated {
        return match takes_part(known) {
            true => Ok(known.node_id),
            false => refuse(
                "MEMBER_LEFT",
                format!(
                    "node {} has left the cluster; wipe its data directory to join anew",
                    known.node_id
                ),
            ),
        };
    }
    if state.members.len() >= limits::MEMBERS_EVER_MAX {
        let most = limits::MEMBERS_EVER_MAX;
        return refuse("MEMBERS_FULL", format!("{most} nodes have joined, which is the limit"));
    }
    let before = state.version;
    let node_id = state.next_node_id;
    state.next_node_id += 1;
    let old = present(state).find(|known| known.name == wanted.name).map(|old| old.node_id);
    let replaces = old.unwrap_or(0);
    if let Some(old) = old {
        replace(state, old, node_id, before + 1);
    }
    let member = ClusterMember { node_id, replaces, ..wanted.clone() };
    state.members.push(member);
    if let Some(member) = state.members.last_mut() {
        member.set_state(MemberState::Active);
    }
    changed(state, before);
    Ok(node_id)
}

/// The new node is wanted wherever the old one was, whose data is gone.
fn replace(state: &mut SystemState, old: u64, new: u64, version: u64) {
    for member in &mut state.members {
        if member.node_id == old {
            member.set_state(MemberState::Left);
        }
    }
    for placement in &mut state.partitions {
        if let Some(place) = placement.wanted.iter_mut().find(|id| **id == old) {
            *place = new;
            placement.wanted_version = version;
        }
    }
}

fn present_member(
    state: &mut SystemState,
    node_id: u64,
) -> Result<&mut ClusterMember, SystemRefusal> {
    let found = state.members.iter_mut().find(|m| m.node_id == node_id && takes_part(m));
    found.ok_or_else(|| SystemRefusal {
        reason: "NOT_FOUND",
        message: format!("there is no node {node_id} in the cluster"),
    })
}

fn update_member(state: &mut SystemState, update: &UpdateMember) -> Result<u64, SystemRefusal> {
    let before = state.version;
    let member = present_member(state, update.node_id)?;
    let old = member.clone();
    let fields = [
        (&update.client_address, &mut member.client_address),
        (&update.peer_address, &mut member.peer_address),
        (&update.zone, &mut member.zone),
        (&update.name, &mut member.name),
    ];
    for (new, stored) in fields {
        if !new.is_empty() {
            stored.clone_from(new);
        }
    }
    if *member != old {
        changed(state, before);
    }
    Ok(update.node_id)
}

fn set_draining(state: &mut SystemState, set: &SetDraining) -> Result<u64, SystemRefusal> {
    let before = state.version;
    let member = present_member(state, set.node_id)?;
    let wanted = if set.draining { MemberState::Draining } else { MemberState::Active };
    if member.state() != wanted {
        member.set_state(wanted);
        changed(state, before);
    }
    Ok(set.node_id)
}

fn remove_member(state: &mut SystemState, remove: &RemoveMember) -> Result<u64, SystemRefusal> {
    let node_id = remove.node_id;
    match member(state, node_id) {
        Some(known) if takes_part(known) => {}
        // Repeated.
        Some(_) => return Ok(node_id),
        None => return present_member(state, node_id).map(|_| node_id),
    }
    let holds = |p: &&crate::proto::node::PartitionPlacement| {
        p.wanted.contains(&node_id) || is_reported_on(p, node_id)
    };
    let held = state.partitions.iter().filter(holds).count();
    if held > 0 {
        let message = format!(
            "node {node_id} still holds replicas of {held} partitions; drain it and move them first"
        );
        return refuse("MEMBER_IN_USE", message);
    }
    if present(state).count() == 1 {
        return refuse("MEMBER_IN_USE", format!("node {node_id} is the last one of the cluster"));
    }
    let before = state.version;
    present_member(state, node_id)?.set_state(MemberState::Left);
    changed(state, before);
    Ok(node_id)
}

fn set_wanted(state: &mut SystemState, set: &SetWanted) -> Result<u64, SystemRefusal> {
    let invalid = |message: String| refuse("INVALID_FIELD", message);
    if set.nodes.is_empty() {
        return invalid("nodes must name at least one node".into());
    }
    for (position, node_id) in set.nodes.iter().enumerate() {
        if set.nodes[..position].contains(node_id) {
            return invalid(format!("nodes names node {node_id} twice"));
        }
        if !member(state, *node_id).is_some_and(takes_part) {
            return invalid(format!("nodes names node {node_id}, which is not in the cluster"));
        }
    }
    let before = state.version;
    let count = state.partition_count;
    let Some(placement) = state.partitions.get_mut(set.partition as usize) else {
        return invalid(format!("partition {} is not below {count}", set.partition));
    };
    if set.expected_version.is_some_and(|expected| expected != placement.wanted_version) {
        let message = format!(
            "partition {} was placed anew at version {}; look again",
            set.partition, placement.wanted_version
        );
        return refuse("VERSION_MISMATCH", message);
    }
    if placement.wanted != set.nodes {
        let was_reached = placement.reached_version == placement.wanted_version;
        let stays = set.nodes.len() == placement.wanted.len()
            && set.nodes.iter().all(|id| placement.wanted.contains(id));
        placement.wanted.clone_from(&set.nodes);
        placement.wanted_version = before + 1;
        if was_reached && stays {
            // Another order moves nothing, so there is nothing that a leader would report.
            placement.reached_version = placement.wanted_version;
        }
        changed(state, before);
    }
    Ok(0)
}

fn report_replicas(state: &mut SystemState, report: &ReportReplicas) -> u64 {
    debug_assert_ne!(report.partition, SYSTEM_PARTITION, "the system group knows itself");
    let before = state.version;
    let Some(placement) = state.partitions.get_mut(report.partition as usize) else { return 0 };
    if report.index < placement.reported_index {
        return 0;
    }
    let is_newer = report.index > placement.reported_index;
    match report.reached_version {
        Some(version) => placement.reached_version = placement.reached_version.max(version),
        // A leader of an older version never says more, and must not seem on its way for ever.
        None if is_newer => placement.reached_version = 0,
        None => {}
    }
    if is_newer && let Some(replicas) = &report.replicas {
        placement.reported_index = report.index;
        if placement.reported.as_ref() != Some(replicas) {
            placement.reported = Some(replicas.clone());
            changed(state, before);
        }
    }
    0
}
