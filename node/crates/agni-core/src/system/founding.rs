//! How a cluster begins: one document, made once, that all founders start from.

use super::SYSTEM_PARTITION;
use super::voters::wanted_system_replicas;
use crate::proto::node::{ClusterMember, MemberState, PartitionPlacement, ReplicaSet, SystemState};
use crate::ring::{self, RingNode};

/// A node that founds a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Founder {
    /// What its configuration calls it.
    pub name: String,
    /// host:port for clients.
    pub client_address: String,
    /// host:port for other nodes.
    pub peer_address: String,
    /// The region that it serves.
    pub region: String,
    /// The zone it runs in; may be empty.
    pub zone: String,
    /// Random bytes of its data directory.
    pub nonce: Vec<u8>,
}

/// The founding state of a cluster of these nodes, which get the identities 1, 2, 3 …
pub fn found(
    cluster_id: [u8; 16],
    partition_count: u32,
    replication: u32,
    founders: &[Founder],
) -> SystemState {
    let members: Vec<ClusterMember> = (1..).zip(founders).map(|(id, f)| member(id, f)).collect();
    let node = |m: &ClusterMember| RingNode { id: m.node_id, zone: m.zone.clone(), weight: 1 };
    let nodes: Vec<RingNode> = members.iter().map(node).collect();
    let wanted = ring::placement(partition_count, &nodes, replication as usize);
    let partitions = (0..).zip(wanted).map(|(partition, wanted)| PartitionPlacement {
        partition,
        reported: Some(ReplicaSet { voters: sorted(&wanted), ..ReplicaSet::default() }),
        reported_index: FOUNDING_INDEX,
        wanted,
        wanted_version: 1,
        reached_version: 1,
    });
    SystemState {
        cluster_id: bytes::Bytes::copy_from_slice(&cluster_id),
        partition_count,
        replication,
        author_epoch: 0,
        version: 1,
        next_node_id: members.len() as u64 + 1,
        members,
        partitions: partitions.collect(),
    }
}

/// The founding state of a node that begins by itself.
pub fn alone(cluster_id: [u8; 16], partition_count: u32, founder: &Founder) -> SystemState {
    let replication = crate::limits::REPLICATION_DEFAULT;
    found(cluster_id, partition_count, replication, std::slice::from_ref(founder))
}

/// The log index at which every founded group begins, as if an entry there had been compacted: a
/// replica that is added later finds no log from the start, and so is sent a snapshot, which also
/// tells it who votes.
pub const FOUNDING_INDEX: u64 = 1;
/// The term of that entry.
pub const FOUNDING_TERM: u64 = 1;

/// Who votes in a group at the founding.
pub fn founding_replicas(state: &SystemState, partition: u32) -> ReplicaSet {
    if partition == SYSTEM_PARTITION {
        let (voters, learners) = wanted_system_replicas(state, &[]);
        return ReplicaSet { voters, learners, ..ReplicaSet::default() };
    }
    let placement = super::placement(state, partition);
    placement.and_then(|placement| placement.reported.clone()).unwrap_or_default()
}

fn member(node_id: u64, founder: &Founder) -> ClusterMember {
    ClusterMember {
        node_id,
        name: founder.name.clone(),
        client_address: founder.client_address.clone(),
        peer_address: founder.peer_address.clone(),
        region: founder.region.clone(),
        zone: founder.zone.clone(),
        state: MemberState::Active.into(),
        nonce: founder.nonce.clone().into(),
        replaces: 0,
    }
}

fn sorted(nodes: &[u64]) -> Vec<u64> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes
}
