//! Which partition a key belongs to, and which nodes should hold a partition.
//!
//! `partition_of` is the contract between every client and node. `placement` is the *wanted*
//! placement that planners compare with what is: consistent hashing with virtual nodes, a bounded
//! load, and zones spread as far as they go. Both exist in Python too
//! (`agniregistry.placement.ring`); `tests/golden/ring.json` holds the two equal.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

/// Points on the ring for a node of weight 1.
pub const VIRTUAL_NODES_PER_WEIGHT: u32 = 128;

/// How far above its fair share a node may be loaded, in percent.
pub const LOAD_SLACK_PERCENT: u64 = 10;

/// A node as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNode {
    /// Its identity, which never is reused.
    pub id: u64,
    /// The zone it runs in; empty when unknown.
    pub zone: String,
    /// How much it takes compared with others; 0 takes nothing.
    pub weight: u32,
}

/// The partition of a key's hash: its top bits. `partition_count` is a power of two.
pub fn partition_of(hash: u64, partition_count: u32) -> u32 {
    debug_assert!(partition_count.is_power_of_two(), "the partition count is a power of two");
    match partition_count {
        0 | 1 => 0,
        count => (hash >> (64 - count.trailing_zeros())) as u32,
    }
}

/// The nodes that should hold each partition, the preferred leader first.
///
/// Walks the ring clockwise from the partition's point and takes nodes that have room. The first
/// walk accepts only zones not taken yet, the second any zone, the third lifts the bound on load.
/// Fewer nodes than `replicas` give fewer replicas, never the same node twice.
pub fn placement(partition_count: u32, nodes: &[RingNode], replicas: usize) -> Vec<Vec<u64>> {
    let ring = points(nodes);
    let by_id: BTreeMap<u64, &RingNode> =
        nodes.iter().filter(|node| node.weight > 0).map(|node| (node.id, node)).collect();
    let replicas = replicas.min(by_id.len());
    let bounds = load_bounds(partition_count, &by_id, replicas);
    let mut load: BTreeMap<u64, u64> = BTreeMap::new();
    let mut wanted = Vec::with_capacity(partition_count as usize);
    for partition in 0..partition_count {
        let start = xxh3_64(&point_bytes(b'p', u64::from(partition), 0));
        let first = ring.partition_point(|&(point, _)| point < start);
        let mut chosen: Vec<u64> = Vec::with_capacity(replicas);
        for (spread_zones, bound_load) in [(true, true), (false, true), (false, false)] {
            for &(_, id) in ring[first..].iter().chain(&ring[..first]) {
                if chosen.len() == replicas {
                    break;
                }
                let zone = &by_id[&id].zone;
                let zone_taken =
                    !zone.is_empty() && chosen.iter().any(|other| by_id[other].zone == *zone);
                let full = load.get(&id).copied().unwrap_or(0) >= bounds[&id];
                if chosen.contains(&id) || (spread_zones && zone_taken) || (bound_load && full) {
                    continue;
                }
                chosen.push(id);
                *load.entry(id).or_insert(0) += 1;
            }
        }
        wanted.push(chosen);
    }
    wanted
}

/// Every node's points, in ring order. Equal points are ordered by identity.
fn points(nodes: &[RingNode]) -> Vec<(u64, u64)> {
    let mut ring: Vec<(u64, u64)> = nodes
        .iter()
        .flat_map(|node| {
            (0..node.weight * VIRTUAL_NODES_PER_WEIGHT)
                .map(|number| (xxh3_64(&point_bytes(b'n', node.id, number)), node.id))
        })
        .collect();
    ring.sort_unstable();
    ring
}

/// How many replicas each node may hold: its share by weight, plus the slack, rounded up.
fn load_bounds(
    partition_count: u32,
    nodes: &BTreeMap<u64, &RingNode>,
    replicas: usize,
) -> BTreeMap<u64, u64> {
    let total: u64 = nodes.values().map(|node| u64::from(node.weight)).sum();
    let wanted = u64::from(partition_count) * replicas as u64;
    nodes
        .iter()
        .map(|(&id, node)| {
            let share = wanted * u64::from(node.weight) * (100 + LOAD_SLACK_PERCENT);
            (id, share.div_ceil(total * 100))
        })
        .collect()
}

/// `tag ‖ number as 8 bytes ‖ index as 4 bytes`, both big-endian.
fn point_bytes(tag: u8, number: u64, index: u32) -> [u8; 13] {
    let mut bytes = [tag; 13];
    bytes[1..9].copy_from_slice(&number.to_be_bytes());
    bytes[9..].copy_from_slice(&index.to_be_bytes());
    bytes
}
