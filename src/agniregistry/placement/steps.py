"""The steps of a plan, and the next safe one of a partition.

One replica changes at a time. Where the replicas that stay would not be a majority of the new ones
by themselves, a partition first grows by the newcomer and lets the old one go afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from agniregistry.placement.observe import Cluster, NodeState, Partition


@dataclass(frozen=True, slots=True)
class SetWanted:
    """Says where a partition is wanted; its leader then moves it there."""

    partition: int
    """Which partition."""
    nodes: tuple[int, ...]
    """The nodes that should hold it, the preferred leader first."""
    expected_version: int
    """The version of `wanted` that this was decided on."""
    why: str
    """The reason, for people."""


@dataclass(frozen=True, slots=True)
class TransferLeader:
    """Hands a partition's leadership to another of its voters."""

    partition: int
    """Which partition."""
    to: int
    """To whom."""
    why: str
    """The reason, for people."""


Step = SetWanted | TransferLeader


@dataclass(frozen=True, slots=True)
class Change:
    """One replica that comes, goes, or both; 0 for none."""

    incoming: int
    """Who gets a replica."""
    outgoing: int
    """Who loses one."""

    def applied(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The wanted nodes after it."""
        kept = tuple(node_id for node_id in wanted if node_id != self.outgoing)
        return (*kept, self.incoming) if self.incoming else kept


def keeps_quorum(cluster: Cluster, partition: Partition, change: Change) -> bool:
    """Whether those that stay and answer are a majority of the new voters.

    A newcomer counts only where nobody leaves for it: it votes when it has caught up, and until
    then the old voters decide by themselves.
    """
    after = frozenset(change.applied(partition.wanted))
    counted = after - {change.incoming} if change.outgoing else after
    return cluster.reachable_of(counted) > len(after) // 2


def next_change(cluster: Cluster, partition: Partition, goal: frozenset[int]) -> Change | None:
    """The next change on the way to the goal; None when there is none that is safe now.

    The leader never goes: its leadership goes first.
    """
    incoming = sorted(goal.difference(partition.wanted)) or [0]
    outgoing = [node_id for node_id in partition.wanted if node_id not in goal] or [0]
    changes = [Change(come, go) for come in incoming for go in outgoing if come or go]
    grows = [Change(come, 0) for come in incoming if come and any(outgoing)]
    for some in (changes, grows):
        safe = [change for change in some if keeps_quorum(cluster, partition, change)]
        ready = [change for change in safe if change.outgoing != partition.leader]
        if safe:
            return min(ready, key=lambda change: _rank(cluster, partition, change), default=None)
    return None


def _rank(cluster: Cluster, partition: Partition, change: Change) -> tuple[int, bool, int, int]:
    """Zones kept apart first, then those out that don't answer, then the last ones out."""
    places = [cluster.node(node_id).place for node_id in change.applied(partition.wanted)]
    crowded = max((places.count(place) for place in places), default=0)
    answers = cluster.node(change.outgoing).reachable if change.outgoing else False
    position = partition.wanted.index(change.outgoing) if change.outgoing else 0
    return (max(crowded, cluster.per_zone_max), answers, -position, change.incoming)


def why_changes(cluster: Cluster, partition: Partition, change: Change) -> str:
    """The reason for a change, for people."""
    come, go = cluster.label(change.incoming), cluster.label(change.outgoing)
    count, replication = len(partition.wanted), cluster.replication
    if not change.outgoing and count < replication:
        return f"a replica for {come}: there are {count} and {replication} are wanted"
    if not change.outgoing:
        return f"a replica for {come} before another one goes, so that the quorum is kept"
    if not change.incoming:
        return f"no replica on {go} any more: {_why_leaves(cluster, partition, change)}"
    return f"a replica from {go} to {come}: {_why_leaves(cluster, partition, change)}"


def _why_leaves(cluster: Cluster, partition: Partition, change: Change) -> str:
    """Why somebody gives up its replica."""
    node = cluster.node(change.outgoing)
    places = [cluster.node(node_id).place for node_id in partition.wanted]
    if node.state is NodeState.LEFT:
        return f"{node.label} has left"
    if node.state is NodeState.DRAINING:
        return f"{node.label} is draining"
    if not node.keeps:
        return f"{node.label} has the weight 0"
    if not change.incoming:
        return f"{len(places)} are more than the {cluster.replication} that are wanted"
    if places.count(node.place) > cluster.per_zone_max:
        return f"{node.place} has {places.count(node.place)} of its replicas"
    giver, taker = cluster.held(change.outgoing), cluster.held(change.incoming)
    return f"{node.label} holds {giver} and {cluster.label(change.incoming)} {taker}"
