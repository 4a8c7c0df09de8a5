"""Which partition a key belongs to, and which nodes should hold a partition.

The same functions as `node/crates/agni-core/src/ring.rs`; `tests/golden/ring.json` holds the two
equal. Pure: no clock, no randomness, no input but the arguments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xxhash

VIRTUAL_NODES_PER_WEIGHT = 128
"""Points on the ring for a node of weight 1."""

LOAD_SLACK_PERCENT = 10
"""How far above its fair share a node may be loaded, in percent."""

PARTITIONS_MAX = 1024
"""Most partitions a cluster may have."""

_WALKS = ((True, True), (False, True), (False, False))
"""Whether a walk of the ring spreads zones, and whether it bounds the load."""


@dataclass(frozen=True, slots=True)
class RingNode:
    """A node as the ring sees it."""

    id: int
    """Its identity, which never is reused."""
    zone: str = ""
    """The zone it runs in; empty when unknown."""
    weight: int = 1
    """How much it takes compared with others; 0 takes nothing."""


def key_hash(namespace: str, kind: int, name: str) -> int:
    """Answer xxh3-64 (seed 0) of a key's canonical bytes; kind is 1 (gateway) or 2 (agent)."""
    canonical = b"\0".join((namespace.encode(), bytes((kind,)), name.encode()))
    return xxhash.xxh3_64_intdigest(canonical)


def partition_of(hash_: int, partition_count: int) -> int:
    """Answer the partition of a key's hash: its top bits."""
    if not 1 <= partition_count <= PARTITIONS_MAX or partition_count & (partition_count - 1):
        raise ValueError(f"partition_count must be a power of two in 1..{PARTITIONS_MAX}")
    return hash_ >> (64 - (partition_count.bit_length() - 1))


def placement(partition_count: int, nodes: Sequence[RingNode], replicas: int) -> list[list[int]]:
    """Answer the nodes that should hold each partition, the preferred leader first.

    Walks the ring clockwise from the partition's point and takes nodes that have room. The first
    walk accepts only zones not taken yet, the second any zone, the third lifts the bound on load.
    Fewer nodes than replicas give fewer replicas, never the same node twice.
    """
    by_id = {node.id: node for node in nodes if node.weight > 0}
    ring = _points(by_id.values())
    replicas = min(replicas, len(by_id))
    bounds = _load_bounds(partition_count, by_id, replicas)
    load = dict.fromkeys(by_id, 0)
    wanted = []
    for partition in range(partition_count):
        first = bisect_left(ring, (_point(b"p", partition, 0), 0))
        chosen = _choose(ring[first:] + ring[:first], by_id, bounds, load, replicas)
        for node_id in chosen:
            load[node_id] += 1
        wanted.append(chosen)
    return wanted


def _choose(
    ring: list[tuple[int, int]],
    by_id: dict[int, RingNode],
    bounds: dict[int, int],
    load: dict[int, int],
    replicas: int,
) -> list[int]:
    chosen: list[int] = []
    for spread_zones, bound_load in _WALKS:
        for _, node_id in ring:
            if len(chosen) == replicas:
                return chosen
            zone = by_id[node_id].zone
            zone_taken = bool(zone) and any(by_id[other].zone == zone for other in chosen)
            full = load[node_id] >= bounds[node_id]
            refused = (spread_zones and zone_taken) or (bound_load and full)
            if node_id not in chosen and not refused:
                chosen.append(node_id)
    return chosen


def _points(nodes: Iterable[RingNode]) -> list[tuple[int, int]]:
    """Every node's points, in ring order. Equal points are ordered by identity."""
    return sorted(
        (_point(b"n", node.id, number), node.id)
        for node in nodes
        for number in range(node.weight * VIRTUAL_NODES_PER_WEIGHT)
    )


def _load_bounds(partition_count: int, nodes: dict[int, RingNode], replicas: int) -> dict[int, int]:
    """How many replicas each node may hold: its share by weight, plus the slack, rounded up."""
    total = sum(node.weight for node in nodes.values())
    wanted = partition_count * replicas
    return {
        node.id: -(-wanted * node.weight * (100 + LOAD_SLACK_PERCENT) // (total * 100))
        for node in nodes.values()
    }


def _point(tag: bytes, number: int, index: int) -> int:
    return xxhash.xxh3_64_intdigest(tag + number.to_bytes(8, "big") + index.to_bytes(4, "big"))
