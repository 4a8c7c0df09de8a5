"""Where the replicas should be in the end, with as little data moved as that takes."""

from __future__ import annotations

from dataclasses import dataclass

from agniregistry.placement.balance import Bounds, Draft, fair_shares, level_out
from agniregistry.placement.observe import Cluster, NodeState, Partition


@dataclass(frozen=True, slots=True)
class Goal:
    """The placement that a cluster should come to."""

    replicas: dict[int, frozenset[int]]
    """Who should hold each partition, by its number."""
    bounds: dict[int, Bounds]
    """What each node that may be given something should hold, by its identity."""
    held_back: frozenset[int]
    """Nodes that should be emptied and can't be, because nobody could take their replicas."""

    def moves(self, partition: Partition) -> int:
        """How many replicas of a partition have to move."""
        wanted, goal = frozenset(partition.wanted), self.replicas[partition.number]
        return max(len(goal - wanted), len(wanted - goal))


def goal_of(cluster: Cluster) -> Goal:
    """Answer the placement that keeps every rule and moves least.

    What may stay stays; what must leave is replaced, the emptiest fitting node first; zones that
    hold too many replicas of a partition give some away; then nodes are brought within their
    bounds. Partitions in flight or without a leader stay as they are wanted, and those with a
    replica out of reach are changed only where a node has to be emptied or a replica is missing.
    """
    draft = Draft(cluster)
    held_back: set[int] = set()
    steady = [
        (index, partition)
        for index, partition in enumerate(cluster.partitions)
        if cluster.is_steady(partition)
    ]
    for index, partition in steady:
        _keep(draft, index, partition)
    for index, partition in steady:
        held_back |= _fill(draft, index, partition)
    for index, _ in steady:
        if draft.movable[index]:
            _spread_zones(draft, index)
    slots = sum(draft.load(node.node_id) for node in cluster.takers)
    bounds = fair_shares(cluster.takers, slots, len(cluster.partitions), cluster.per_zone_max)
    level_out(draft, bounds)
    replicas = {
        partition.number: frozenset(held)
        for partition, held in zip(cluster.partitions, draft.held, strict=True)
    }
    return Goal(replicas, bounds, frozenset(held_back))


def _keep(draft: Draft, index: int, partition: Partition) -> None:
    """Drops what must leave, and what is too much: the last ones in the wanted order first.

    Nothing is too much while a replica is out of reach: it may be the one that is lost.
    """
    cluster = draft.cluster
    kept = [node_id for node_id in partition.wanted if cluster.node(node_id).keeps]
    if all(cluster.node(node_id).reachable for node_id in kept):
        kept = kept[: cluster.replication]
    for node_id in partition.wanted:
        if node_id not in kept:
            draft.drop(index, node_id)


def _fill(draft: Draft, index: int, partition: Partition) -> set[int]:
    """Adds what is missing. Answers who can't be emptied because nobody takes its replica."""
    cluster = draft.cluster
    while len(draft.held[index]) < cluster.replication:
        taker = _taker(draft, index)
        if taker is None:
            break
        draft.add(index, taker)
    held_back = set()
    for node_id in partition.wanted:
        missing = len(draft.held[index]) < cluster.replication
        node = cluster.node(node_id)
        is_there = node.reachable and node.state is not NodeState.LEFT
        if missing and is_there and node_id not in draft.held[index]:
            draft.add(index, node_id)
            held_back.add(node_id)
    return held_back


def _taker(draft: Draft, index: int) -> int | None:
    """The node that takes a missing replica: in the emptiest zone that needs it, emptiest first."""
    cluster = draft.cluster
    fit = (
        (
            max(draft.in_zone(index, node.node_id) + 1, cluster.per_zone_max),
            draft.load(node.node_id) / node.weight,
            node.node_id not in draft.original[index],
            node.node_id,
        )
        for node in cluster.takers
        if node.node_id not in draft.held[index]
    )
    best = min(fit, default=None)
    return best[-1] if best else None


def _spread_zones(draft: Draft, index: int) -> None:
    """Moves replicas out of zones that hold too many of a partition, as far as others have room."""
    cluster = draft.cluster
    crowded = sorted(
        node_id
        for node_id in draft.held[index]
        if draft.in_zone(index, node_id) > cluster.per_zone_max
    )
    for giver in sorted(crowded, key=lambda n: (n in draft.original[index], -draft.load(n), n)):
        if draft.in_zone(index, giver) <= cluster.per_zone_max:
            continue
        takers = [
            (draft.load(node.node_id) / node.weight, node.node_id)
            for node in cluster.takers
            if draft.fits(index, giver, node.node_id) and node.place != draft.place[giver]
        ]
        if takers:
            draft.move(index, giver, min(takers)[1])
