"""A cluster as far as the planner needs one: it carries steps out, and refuses what nodes refuse.

It holds every step against the rules while it is carried out, so that a test that only runs plans
to their end has checked each of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import strategies as st

from agniregistry.placement import (
    Cluster,
    Limits,
    Node,
    NodeState,
    Partition,
    Plan,
    SetWanted,
    Step,
    TransferLeader,
    plan,
)
from agniregistry.placement.ring import RingNode, placement

ROUNDS_PER_MOVE = 6
"""A move may take a change of leader, a step in, a step out, and the time of others before it."""


def founded(nodes: list[Node], count: int, replication: int, size: int = 1000) -> Cluster:
    """A cluster as it is founded on the nodes that may be given something."""
    ring = [RingNode(n.node_id, n.zone, n.weight) for n in nodes if n.takes]
    partitions = tuple(
        settled(number, tuple(wanted), size)
        for number, wanted in enumerate(placement(count, ring, replication))
    )
    return Cluster(tuple(nodes), partitions, replication)


def settled(number: int, wanted: tuple[int, ...], size: int = 1000) -> Partition:
    """A partition that is where it is wanted."""
    return Partition(number, wanted, 1, tuple(sorted(wanted)), (), wanted[0], size, reached=1)


def placed(partition: Partition, nodes: tuple[int, ...]) -> Partition:
    """A partition that is wanted elsewhere: it is on its way, unless only the order is another."""
    version = partition.version + 1
    stays = set(nodes) == set(partition.wanted) and not partition.in_flight
    reached = version if partition.reached and stays else partition.reached
    return replace(partition, wanted=nodes, version=version, reached=reached)


def with_nodes(cluster: Cluster, *nodes: Node) -> Cluster:
    """The cluster with these nodes, new ones or in place of old ones."""
    by_id = {node.node_id: node for node in (*cluster.nodes, *nodes)}
    return replace(cluster, nodes=tuple(by_id.values()))


def replica_counts(cluster: Cluster) -> Counter[int]:
    """How many replicas each node holds."""
    return Counter(node_id for p in cluster.partitions for node_id in p.wanted)


class Model:
    """Carries out plans, a round at a time."""

    def __init__(self, cluster: Cluster, limits: Limits | None = None) -> None:
        self.cluster = cluster
        self.limits = limits or Limits()
        self.bytes_moved = 0
        self.moves = 0
        self.transfers = 0
        self.rounds = 0
        self.most_held: Counter[int] = Counter()

    def step(self, step: Step) -> None:
        """Takes one step, as the nodes would."""
        partition = next(p for p in self.cluster.partitions if p.number == step.partition)
        assert step.why
        if isinstance(step, TransferLeader):
            self._transfer(partition, step.to)
        else:
            self._set_wanted(partition, step)

    def _transfer(self, partition: Partition, to: int) -> None:
        assert to in partition.voters
        assert to != partition.leader
        assert not partition.in_flight
        assert self.cluster.node(to).takes
        self.transfers += 1
        self._put(replace(partition, leader=to))

    def _set_wanted(self, partition: Partition, step: SetWanted) -> None:
        assert step.expected_version == partition.version
        assert step.nodes
        assert step.nodes != partition.wanted
        assert len(set(step.nodes)) == len(step.nodes)
        old, new = set(partition.wanted), set(step.nodes)
        if partition.in_flight:
            doomed = old - new
            assert doomed
            assert not any(self.cluster.node(n).keeps for n in doomed), "only taken back"
            assert new - old <= set(partition.voters)
        else:
            self._check_change(partition, new)
            self.moves += old != new
            self.bytes_moved += partition.bytes * len(new - old)
        self._put(placed(partition, step.nodes))
        for node_id, count in replica_counts(self.cluster).items():
            self.most_held[node_id] = max(self.most_held[node_id], count)

    def _check_change(self, partition: Partition, new: set[int]) -> None:
        old = set(partition.wanted)
        come, go = new - old, old - new
        assert len(come) <= 1, "one replica at a time"
        assert len(go) <= 1, "one replica at a time"
        assert all(self.cluster.node(n).takes for n in come)
        assert partition.leader not in go, "leadership goes first"
        answering = {n for n in new if self.cluster.node(n).reachable}
        if go:
            assert len(answering - come) > len(new) // 2, "the rest has a quorum"
            kept = [n for n in go if self.cluster.node(n).keeps]
            assert all(self.cluster.node(n).reachable for n in kept), "not emptied by itself"
        assert len(answering) > len(new) // 2

    def _put(self, partition: Partition) -> None:
        self.cluster = replace(
            self.cluster,
            partitions=tuple(
                partition if p.number == partition.number else p for p in self.cluster.partitions
            ),
        )

    def settle(self, slow: frozenset[int] = frozenset()) -> None:
        """Lets moves come to their end, but for the slow ones; then leaders follow preferences."""
        for partition in self.cluster.partitions:
            if not partition.in_flight or partition.number in slow:
                continue
            arriving = set(partition.wanted) - set(partition.voters)
            waits = any(not self.cluster.node(n).reachable for n in arriving)
            answering = [n for n in partition.wanted if self.cluster.node(n).reachable]
            if waits or not self.cluster.is_led(partition) or not answering:
                continue
            stays = partition.leader in partition.wanted
            leader = partition.leader if stays else answering[0]
            voters = tuple(sorted(partition.wanted))
            reached = partition.version
            moved = replace(partition, voters=voters, learners=(), leader=leader, reached=reached)
            self._put(moved)
        for partition in self.cluster.partitions:
            first = partition.wanted[0]
            if first in partition.voters and self.cluster.node(first).takes:
                self._put(replace(partition, leader=first))

    def round(self, slow: frozenset[int] = frozenset()) -> Plan:
        """Plans, carries out, settles."""
        before = sum(p.in_flight for p in self.cluster.partitions)
        arriving = self._arriving()
        made = plan(self.cluster, self.limits)
        assert made == plan(self.cluster, self.limits), "the same for the same"
        for step in made.steps:
            self.step(step)
        after = sum(p.in_flight for p in self.cluster.partitions)
        assert after <= max(before, self.limits.moves_in_flight_max)
        for node_id, count in self._arriving().items():
            assert count <= max(arriving[node_id], self.limits.moves_per_node_max)
        self.settle(slow)
        self.rounds += 1
        return made

    def _arriving(self) -> Counter[int]:
        """How many partitions each node is receiving."""
        return Counter(
            node_id
            for p in self.cluster.partitions
            for node_id in set(p.wanted) - set(p.voters)
            if p.in_flight
        )

    def run(self) -> Plan:
        """Plans until there is nothing more to do, within a bound of rounds."""
        made = plan(self.cluster, self.limits)
        left = made.moves_in_flight + made.remaining_moves + made.transfers
        bound = ROUNDS_PER_MOVE * (left + made.remaining_transfers) + 10
        for _ in range(bound):
            before = self.cluster
            made = self.round()
            if self.cluster == before:
                return made
        raise AssertionError(f"no end after {bound} rounds; last: {made.steps}")


@st.composite
def nodes(draw: st.DrawFn, least: int = 1, most: int = 8) -> list[Node]:
    """Some nodes, in zones or not, of different weights, some of them silent or leaving."""
    count = draw(st.integers(least, most))
    zones = draw(st.sampled_from([("",), ("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "")]))
    state = st.sampled_from([NodeState.ACTIVE] * 6 + [NodeState.DRAINING, NodeState.LEFT])
    return [
        Node(
            node_id,
            zone=draw(st.sampled_from(zones)),
            state=draw(state),
            reachable=draw(st.sampled_from([True] * 6 + [False])),
            weight=draw(st.sampled_from([1, 1, 1, 1, 2, 3, 0])),
            keeps_replicas=draw(st.sampled_from([False, False, True])),
        )
        for node_id in range(1, count + 1)
    ]


@st.composite
def partitions(draw: st.DrawFn, node_ids: list[int], most: int = 12) -> tuple[Partition, ...]:
    """Partitions anywhere at all: on too many nodes or too few, led or not, on the way or not."""
    found = []
    for number in range(draw(st.integers(1, most))):
        some = st.lists(st.sampled_from(node_ids), min_size=1, max_size=5, unique=True)
        wanted = tuple(draw(some))
        voters = draw(st.sampled_from([wanted, wanted, wanted, tuple(draw(some))]))
        leader = draw(st.sampled_from([*voters, 0] if draw(st.booleans()) else list(voters)))
        size = draw(st.integers(0, 5000))
        found.append(Partition(number, wanted, 1, tuple(sorted(voters)), (), leader, size))
    return tuple(found)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Clusters in any state, sensible or not."""
    members = draw(nodes())
    ids = [node.node_id for node in members]
    replication = draw(st.integers(1, 5))
    return Cluster(tuple(members), draw(partitions(ids)), replication)


@st.composite
def healthy(draw: st.DrawFn, least: int = 1) -> Cluster:
    """Clusters in which everybody answers and every partition is led and at rest, but anywhere."""
    count = draw(st.integers(least, 8))
    zones = draw(st.sampled_from([("",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")]))
    members = [Node(n, zone=draw(st.sampled_from(zones))) for n in range(1, count + 1)]
    ids = [node.node_id for node in members]
    replication = draw(st.integers(1, 5))
    some = st.lists(st.sampled_from(ids), min_size=1, max_size=5, unique=True)
    found = tuple(
        settled(number, tuple(draw(some)), draw(st.integers(0, 5000)))
        for number in range(draw(st.integers(1, 16)))
    )
    return Cluster(tuple(members), found, replication)
