//! The members and the placement, as operators see and change them.

use crate::limits;
use crate::node::{Node, unix_ms};
use crate::route::question::{Point, read};
use crate::route::{self, Done};
use crate::status::{Code, RpcError};
use agni_core::engine::Freshness;
use agni_core::proto::api;
use agni_core::proto::api::change_member_request::Action;
use agni_core::proto::node::ask_request::Work as Asked;
use agni_core::proto::node::command::Operation;
use agni_core::proto::node::system_command::Operation as SystemOperation;
use agni_core::proto::node::{
    ClusterMember, Command, PartitionPlacement, RemoveMember, SetDraining, SetWanted, SystemCommand,
};
use agni_core::raft::work::{Answer, Priority};
use agni_core::store::{Outcome, Refusal};
use agni_core::system::SYSTEM_PARTITION;
use futures_util::future::join_all;
use std::time::Duration;

/// The members with their state, and where each partition is wanted and where it is.
pub async fn members(node: &Node) -> api::MembersResponse {
    find_leaders(node).await;
    let state = node.engine.system_state();
    let member = |member: &ClusterMember| api::ClusterMemberInfo {
        node_id: member.node_id,
        name: member.name.clone(),
        client_address: match member.client_address.is_empty() {
            true => node.address.to_string(),
            false => member.client_address.clone(),
        },
        peer_address: member.peer_address.clone(),
        region: member.region.clone(),
        zone: member.zone.clone(),
        state: member.state,
        replaces: member.replaces,
    };
    let placement = |placement: &PartitionPlacement| {
        let reported = placement.reported.clone().unwrap_or_default();
        api::Placement {
            partition: placement.partition,
            wanted: placement.wanted.clone(),
            wanted_version: placement.wanted_version,
            voters: reported.voters,
            learners: reported.learners,
            leader_id: route::leader(node, placement.partition),
            reached_version: placement.reached_version,
        }
    };
    api::MembersResponse {
        version: state.version,
        author_epoch: state.author_epoch,
        replication: state.replication,
        system_leader_id: node.engine.leader_of(SYSTEM_PARTITION),
        members: state.members.iter().map(member).collect(),
        placements: state.partitions.iter().map(placement).collect(),
        system_voters: node.engine.voters_of(SYSTEM_PARTITION),
    }
}

/// Asks around after those leaders that this node doesn't know, not for long.
async fn find_leaders(node: &Node) {
    let unknown = (0..node.engine.partition_count()).filter(|p| route::leader(node, *p) == 0);
    let asked = unknown.map(|partition| async move {
        let read =
            read(node, partition, Freshness::Linearizable, &Point { priority: Priority::Renew });
        let limit = Duration::from_millis(limits::FIND_LEADER_MS_MAX);
        // Whoever answered is noted where requests are routed.
        let _ = tokio::time::timeout(limit, read).await;
    });
    join_all(asked).await;
}

async fn change_system(
    node: &Node,
    author_epoch: u64,
    operation: SystemOperation,
) -> Result<api::ClusterChanged, RpcError> {
    let system = SystemCommand { author_epoch, operation: Some(operation) };
    let command =
        Command { proposed_unix_ms: unix_ms(), operation: Some(Operation::System(system)) };
    match route::ask(node, SYSTEM_PARTITION, Asked::Write(command)).await? {
        Done::Engine(Answer::Written { outcome: Outcome::System(outcome), .. }) => {
            Ok(api::ClusterChanged { version: outcome.version })
        }
        Done::Engine(Answer::Written {
            outcome: Outcome::Refused(Refusal::System(refusal)),
            ..
        }) => Err(RpcError::system(refusal)),
        _ => Err(RpcError::new(Code::Internal, "INTERNAL", "unexpected answer")),
    }
}

/// Drains a member, takes that back, or removes it.
///
/// # Errors
/// When there is no such member, it holds something still, or nobody can agree.
pub async fn change(
    node: &Node,
    request: api::ChangeMemberRequest,
) -> Result<api::ClusterChanged, RpcError> {
    let node_id = request.node_id;
    let operation = match request.action() {
        Action::Drain => SystemOperation::SetDraining(SetDraining { node_id, draining: true }),
        Action::Return => SystemOperation::SetDraining(SetDraining { node_id, draining: false }),
        Action::Remove => SystemOperation::RemoveMember(RemoveMember { node_id }),
        Action::Unspecified => {
            return Err(RpcError::field("action", "must be drain, return or remove"));
        }
    };
    change_system(node, request.author_epoch, operation).await
}

/// Says where a partition is wanted.
///
/// # Errors
/// When the nodes can't hold it, it was placed anew meanwhile, or nobody can agree.
pub async fn place(
    node: &Node,
    request: api::PlacePartitionRequest,
) -> Result<api::ClusterChanged, RpcError> {
    let most = agni_core::limits::REPLICATION_MAX as usize;
    if request.node_ids.len() > most {
        return Err(RpcError::field("node_ids", format!("must be at most {most} nodes")));
    }
    let set = SetWanted {
        partition: request.partition,
        nodes: request.node_ids,
        expected_version: request.expected_version,
    };
    change_system(node, request.author_epoch, SystemOperation::SetWanted(set)).await
}

/// Hands a partition's leadership to another of its voters.
///
/// # Errors
/// When there is no such partition, or the node is none of its voters.
pub async fn transfer(
    node: &Node,
    request: api::TransferLeaderRequest,
) -> Result<api::ClusterChanged, RpcError> {
    let (partition, count) = (request.partition, node.engine.partition_count());
    if partition >= count {
        let message = format!("is {partition}, but the partitions are 0..{}", count - 1);
        return Err(RpcError::field("partition", message));
    }
    let newest = node.engine.system_state().author_epoch;
    if request.author_epoch != 0 && request.author_epoch < newest {
        let epoch = request.author_epoch;
        let message =
            format!("the epoch {epoch} is older than {newest}: somebody else has taken over");
        return Err(RpcError::new(Code::FailedPrecondition, "EPOCH_OUTDATED", message));
    }
    match route::ask(node, partition, Asked::TransferTo(request.node_id)).await {
        Ok(_) => Ok(api::ClusterChanged { version: 0 }),
        // It leads already: that is what was asked for.
        Err(_) if route::leader(node, partition) == request.node_id => {
            Ok(api::ClusterChanged { version: 0 })
        }
        Err(error) => Err(error),
    }
}
