//! The cluster as operators see it: status, routing, snapshots.

use crate::node::{Node, Phase};
use crate::route;
use crate::runtime::{Pending, ask};
use crate::status::{Code, RpcError};
use agni_core::proto::api;
use agni_core::proto::node::{ClusterMember, PartitionPlacement};
use agni_core::raft::work::{Answer, Work};
use agni_core::system;
use agni_core::wal::DiskState;

/// How this node and its partitions do.
pub fn status(node: &Node) -> api::StatusResponse {
    let status = node.engine.status();
    let (writable, message) = match (node.phase(), status.disk) {
        (Phase::Serving, DiskState::Full) => (false, "the disk is full: free some space"),
        (Phase::Serving, DiskState::Low) => (false, "the disk is almost full"),
        (Phase::Serving, DiskState::Ok) => (true, ""),
        _ => (false, "the node is stopping"),
    };
    let partitions = status.partitions.iter().map(|p| api::PartitionStatus {
        partition: p.partition,
        term: p.term,
        leader_id: p.leader_id,
        commit_index: p.commit_index,
        applied_index: p.applied_index,
        revision: p.revision,
        records: p.records,
        leases: p.leases,
        snapshot_index: p.snapshot_index,
        suspect_domains: p.suspect_domains,
        state_hash: format!("{:016x}", p.state_hash),
        is_suspect: p.is_suspect,
    });
    let files = node.tls.as_ref().map(|tls| tls.files()).unwrap_or_default();
    api::StatusResponse {
        cluster_id: node.cluster_id.clone(),
        node_id: node.engine.node_id(),
        version: node.config.version.clone(),
        build_profile: build_profile().to_owned(),
        uptime_ms: status.uptime_ms as i64,
        writable,
        message: message.to_owned(),
        partitions: partitions.collect(),
        wal_bytes: status.wal_bytes,
        region: node.config.region.clone(),
        trust_sha256: files.trust_sha256,
        certificate_sha256: files.certificate_sha256,
        certificate_not_after_unix_ms: files.not_after_s * 1000,
    }
}

/// How this library was compiled.
pub fn build_profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// Who is in the cluster, and where each partition is, as far as this node knows.
pub fn routing(node: &Node) -> api::RoutingResponse {
    let state = node.engine.system_state();
    let lone_address = || node.address.to_string();
    let member = |member: &ClusterMember| api::Member {
        node_id: member.node_id,
        client_address: match member.client_address.is_empty() {
            true => lone_address(),
            false => member.client_address.clone(),
        },
        zone: member.zone.clone(),
    };
    let route = |placement: &PartitionPlacement| api::PartitionRoute {
        partition: placement.partition,
        replica_ids: placement.reported.as_ref().map_or(Vec::new(), |set| set.voters.clone()),
        leader_id: route::leader(node, placement.partition),
    };
    api::RoutingResponse {
        epoch: state.version,
        partition_count: node.engine.partition_count(),
        members: system::present(&state).map(member).collect(),
        partitions: state.partitions.iter().map(route).collect(),
    }
}

/// The partitions that a request means, each once and in order: all where it names none.
///
/// # Errors
/// When one of them isn't there.
pub fn which(node: &Node, mut partitions: Vec<u32>) -> Result<Vec<u32>, RpcError> {
    let count = node.engine.partition_count();
    if let Some(unknown) = partitions.iter().find(|partition| **partition >= count) {
        let message = format!("has {unknown}, but the partitions are 0..{}", count - 1);
        return Err(RpcError::field("partitions", message));
    }
    if partitions.is_empty() {
        partitions = (0..count).collect();
    }
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

/// Takes snapshots now; answers when they are durable.
pub async fn snapshot(
    node: &Node,
    request: api::SnapshotRequest,
) -> Result<api::SnapshotResponse, RpcError> {
    let partitions = which(node, request.partitions)?;
    let asked: Vec<(u32, Pending)> =
        partitions.iter().map(|p| (*p, ask(*p, Work::Snapshot))).collect();
    let mut snapshots = Vec::with_capacity(asked.len());
    for (partition, pending) in asked {
        match pending.await {
            Answer::Snapshot(meta) => snapshots.push(api::snapshot_response::Taken {
                partition,
                index: meta.index,
                revision: meta.revision,
                records: meta.records,
                bytes: meta.bytes,
                file: meta.file,
            }),
            Answer::SnapshotFailed(message) => {
                return Err(RpcError::new(Code::Internal, "SNAPSHOT_FAILED", message));
            }
            Answer::Refused(refuse) => return Err(RpcError::refused(refuse)),
            _ => return Err(RpcError::new(Code::Internal, "INTERNAL", "unexpected answer")),
        }
    }
    Ok(api::SnapshotResponse { snapshots })
}
