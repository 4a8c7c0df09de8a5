"""What the planner is told: the members, the partitions, and who can be reached just now.

Plain values that a caller fills in from the members that a node answers; nothing here asks anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property


class NodeState(Enum):
    """Where a node is in its life as a member."""

    ACTIVE = "active"
    """It takes part."""
    DRAINING = "draining"
    """It leads nothing, is given nothing, and is emptied unless it keeps its replicas."""
    LEFT = "left"
    """It was removed or replaced."""


@dataclass(frozen=True, slots=True)
class Node:
    """A member as the planner sees it."""

    node_id: int
    """Its identity, which never is reused."""
    name: str = ""
    """What its configuration calls it."""
    zone: str = ""
    """The zone it runs in; a node without one counts as a zone of its own."""
    state: NodeState = NodeState.ACTIVE
    """Where it is in its life."""
    reachable: bool = True
    """Whether it answers. One that doesn't is given nothing and keeps what it has."""
    weight: int = 1
    """How much it takes compared with others; 0 takes nothing and is emptied."""
    keeps_replicas: bool = False
    """While it drains: only its leaderships go, as before a restart."""

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or f"node {self.node_id}"

    @property
    def place(self) -> str:
        """Its zone, or one of its own."""
        return f"zone {self.zone}" if self.zone else f"node {self.node_id}"

    @property
    def counts(self) -> bool:
        """Whether it has a share of the replicas, reachable or not."""
        return self.state is NodeState.ACTIVE and self.weight > 0

    @property
    def takes(self) -> bool:
        """Whether it may be given replicas and leaderships now."""
        return self.counts and self.reachable

    @property
    def keeps(self) -> bool:
        """Whether what it holds may stay."""
        return self.counts or (self.state is NodeState.DRAINING and self.keeps_replicas)


@dataclass(frozen=True, slots=True)
class Partition:
    """Where a partition is wanted, and where it is."""

    number: int
    """Which partition."""
    wanted: tuple[int, ...] = ()
    """The nodes that should hold it, the preferred leader first."""
    version: int = 0
    """The version of `wanted`, which a change must name."""
    voters: tuple[int, ...] = ()
    """Who votes, as its leader last reported."""
    learners: tuple[int, ...] = ()
    """Who catches up, as its leader last reported."""
    leader: int = 0
    """Who leads; 0 when unknown."""
    bytes: int = 0
    """Its size on one node; 0 when unknown."""
    records: int = 0
    """How many records it holds."""
    reached: int = 0
    """The newest version that its leader found to be reached; 0 when unknown."""

    @property
    def in_flight(self) -> bool:
        """Whether its replicas are on the way to where they are wanted.

        What was last reported may be older than what is wanted: `reached` tells.
        """
        is_older = 0 < self.reached < self.version
        return is_older or bool(self.learners) or set(self.wanted) != set(self.voters)

    @property
    def cost(self) -> int:
        """What one replica costs to copy; never 0, so that a move of nothing is a move too."""
        return max(1, self.bytes)


@dataclass(frozen=True)
class Cluster:
    """Everything that the planner looks at.

    Raises:
        ValueError: a node or a partition is there twice, or a number makes no sense.
    """

    nodes: tuple[Node, ...]
    """All members, also those who have left, in any order."""
    partitions: tuple[Partition, ...]
    """All partitions, in any order."""
    replication: int = 3
    """How many replicas a partition should have."""
    _by_id: dict[int, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses what makes no sense, and puts everything in its order."""
        if self.replication < 1:
            raise ValueError(f"replication must be at least 1, not {self.replication}")
        by_id = {node.node_id: node for node in sorted(self.nodes, key=lambda n: n.node_id)}
        if len(by_id) != len(self.nodes):
            raise ValueError("nodes must not name a node_id twice")
        for node in self.nodes:
            if node.node_id < 1:
                raise ValueError(f"node_id must be at least 1, not {node.node_id}")
            if node.weight < 0:
                raise ValueError(f"weight of node {node.node_id} must not be negative")
        partitions = sorted(self.partitions, key=lambda partition: partition.number)
        if len({partition.number for partition in partitions}) != len(partitions):
            raise ValueError("partitions must not name a number twice")
        for partition in partitions:
            if len(set(partition.wanted)) != len(partition.wanted):
                raise ValueError(f"wanted of partition {partition.number} names a node twice")
        object.__setattr__(self, "nodes", tuple(by_id.values()))
        object.__setattr__(self, "partitions", tuple(partitions))
        object.__setattr__(self, "_by_id", by_id)

    def node(self, node_id: int) -> Node:
        """A node; one that nobody knows has left."""
        known = self._by_id.get(node_id)
        return known or Node(node_id, state=NodeState.LEFT, reachable=False)

    def label(self, node_id: int) -> str:
        """What people call a node."""
        return self.node(node_id).label

    @cached_property
    def takers(self) -> tuple[Node, ...]:
        """The nodes that may be given something now."""
        return tuple(node for node in self.nodes if node.takes)

    @cached_property
    def _held(self) -> Counter[int]:
        return Counter(node_id for partition in self.partitions for node_id in partition.wanted)

    def held(self, node_id: int) -> int:
        """How many replicas a node holds or is to hold."""
        return self._held[node_id]

    @cached_property
    def per_zone_max(self) -> int:
        """How many replicas of a partition a zone must hold at most: 1 where zones suffice."""
        sizes: dict[str, int] = {}
        for node in self.nodes:
            if node.counts:
                sizes[node.place] = sizes.get(node.place, 0) + 1
        replicas = min(self.replication, sum(sizes.values()))
        most = 1
        while sum(min(most, size) for size in sizes.values()) < replicas:
            most += 1
        return most

    def reachable_of(self, node_ids: frozenset[int]) -> int:
        """How many of them answer."""
        return sum(self.node(node_id).reachable for node_id in node_ids)

    def is_led(self, partition: Partition) -> bool:
        """Whether somebody within reach leads it, with a majority of voters within reach."""
        voters = frozenset(partition.voters)
        has_majority = self.reachable_of(voters) > len(voters) // 2
        leader = partition.leader
        return leader in voters and self.node(leader).reachable and has_majority

    def is_steady(self, partition: Partition) -> bool:
        """Whether it may be changed: it is where it is wanted, and somebody leads it."""
        return not partition.in_flight and self.is_led(partition)

    def is_whole(self, partition: Partition) -> bool:
        """Whether it is steady and all its replicas can be reached."""
        wanted = frozenset(partition.wanted)
        return self.is_steady(partition) and self.reachable_of(wanted) == len(wanted)


def leader_of(partition: int, told: int, claims: Mapping[int, Iterable[tuple[int, int]]]) -> int:
    """Who leads a partition; 0 when nobody is known to.

    What a node knows of partitions that it doesn't hold may be old, and so may what was `told`;
    whoever leads knows it. `claims` has, for each node that answers, the partitions that it says it
    leads, with their terms. Of two that claim one, one hasn't noticed yet that it was deposed: the
    higher term counts. A node that doesn't answer may lead as it was told.
    """
    terms = {
        node_id: term
        for node_id, led in claims.items()
        for number, term in led
        if number == partition
    }
    if terms:
        return max(terms, key=lambda node_id: (terms[node_id], node_id))
    return 0 if told in claims else told
