"""How much each node should hold, and the moves of a draft that get it there.

The bounds are the floor and the ceiling of a node's fair share: by weight, but never more than one
replica of each partition a node, nor more than zones may hold. What a zone can't take, others do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from agniregistry.placement.observe import Cluster, Node


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a node should hold."""

    share: Fraction
    """Its fair share, in replicas."""

    @property
    def low(self) -> int:
        """At least that many."""
        return floor(self.share)

    @property
    def high(self) -> int:
        """At most that many."""
        return ceil(self.share)


def fair_shares(
    nodes: Collection[Node], slots: int, partitions: int, per_zone_max: int
) -> dict[int, Bounds]:
    """Divide `slots` replicas by weight, as far as nodes and zones can take them."""
    zones: dict[str, list[Node]] = {}
    for node in nodes:
        zones.setdefault(node.place, []).append(node)
    shares: dict[int, Fraction] = {}
    left = Fraction(slots)
    while zones:
        level = _level([node for members in zones.values() for node in members], left, partitions)
        filled = {
            place: members
            for place, members in zones.items()
            if sum(_take(node, level, partitions) for node in members) > per_zone_max * partitions
        }
        for place, members in (filled or zones).items():
            total = Fraction(per_zone_max * partitions)
            inside = _level(members, total, partitions) if filled else level
            for node in members:
                shares[node.node_id] = _take(node, inside, partitions)
                left -= shares[node.node_id]
            zones = {other: kept for other, kept in zones.items() if other != place}
    return {node_id: Bounds(share) for node_id, share in shares.items()}


def _take(node: Node, level: Fraction, partitions: int) -> Fraction:
    return min(Fraction(partitions), node.weight * level)


def _level(nodes: Iterable[Node], slots: Fraction, partitions: int) -> Fraction:
    """How much a node of weight 1 takes, when nobody takes more than all partitions."""
    open_nodes = list(nodes)
    left = max(Fraction(0), slots)
    level = Fraction(0)
    while open_nodes:
        level = left / sum(node.weight for node in open_nodes)
        full = [node for node in open_nodes if node.weight * level > partitions]
        if not full:
            return level
        left = max(Fraction(0), left - partitions * len(full))
        open_nodes = [node for node in open_nodes if node not in full]
    return level


class Draft:
    """A placement that is being worked on: who holds what, and what changing that would cost."""

    def __init__(self, cluster: Cluster) -> None:
        """Starts from where partitions are wanted now."""
        self.cluster = cluster
        self.held = [set(partition.wanted) for partition in cluster.partitions]
        self.original = [frozenset(partition.wanted) for partition in cluster.partitions]
        self.movable = [cluster.is_whole(partition) for partition in cluster.partitions]
        self.place = {node.node_id: node.place for node in cluster.nodes}
        for held in self.held:
            self.place.update({n: cluster.node(n).place for n in held if n not in self.place})
        self.on_node: dict[int, set[int]] = {node_id: set() for node_id in self.place}
        self.gained: dict[int, set[int]] = {node_id: set() for node_id in self.place}
        self.lost: dict[int, set[int]] = {node_id: set() for node_id in self.place}
        self._in_place: list[dict[str, int]] = [{} for _ in self.held]
        by_cost: dict[int, list[tuple[int, bool, int]]] = {node_id: [] for node_id in self.place}
        for index, partition in enumerate(cluster.partitions):
            for node_id in partition.wanted:
                self._count(index, node_id, 1)
                self.on_node[node_id].add(index)
                if self.movable[index]:
                    by_cost[node_id].append((partition.cost, partition.leader == node_id, index))
        self._by_cost = {n: [index for *_, index in sorted(c)] for n, c in by_cost.items()}

    def _count(self, index: int, node_id: int, by: int) -> None:
        place = self.place[node_id]
        self._in_place[index][place] = self._in_place[index].get(place, 0) + by

    def load(self, node_id: int) -> int:
        """How many replicas it holds."""
        return len(self.on_node[node_id])

    def add(self, index: int, node_id: int) -> None:
        """Gives a node a replica."""
        self._count(index, node_id, 1)
        self.held[index].add(node_id)
        self.on_node[node_id].add(index)
        if node_id in self.original[index]:
            self.lost[node_id].discard(index)
        else:
            self.gained[node_id].add(index)

    def drop(self, index: int, node_id: int) -> None:
        """Takes a node's replica away."""
        self._count(index, node_id, -1)
        self.held[index].discard(node_id)
        self.on_node[node_id].discard(index)
        if node_id in self.original[index]:
            self.lost[node_id].add(index)
        else:
            self.gained[node_id].discard(index)

    def move(self, index: int, giver: int, taker: int) -> None:
        """Moves a replica."""
        self.drop(index, giver)
        self.add(index, taker)

    def in_zone(self, index: int, node_id: int) -> int:
        """How many replicas of a partition are in a node's zone."""
        return self._in_place[index].get(self.place[node_id], 0)

    def fits(self, index: int, giver: int, taker: int) -> bool:
        """Whether a replica may go from one node to the other without crowding a zone."""
        if taker in self.held[index]:
            return False
        is_near = self.place[giver] == self.place[taker]
        return is_near or self.in_zone(index, taker) < self.cluster.per_zone_max

    def _extra(self, index: int, giver: int, taker: int) -> int:
        """The data that a move adds to what the draft moves already; below 0 where it saves."""
        copies = (taker not in self.original[index]) - (giver not in self.original[index])
        return copies * self.cluster.partitions[index].cost

    def cheapest(self, giver: int, taker: int) -> int | None:
        """The partition that goes from one node to the other with the least data.

        What a node was given only in this draft goes for nothing, and what goes back saves some.
        Of equals, one that the giver doesn't lead.
        """
        held = self.on_node[giver]
        saves = [
            (self._extra(index, giver, taker), index)
            for index in self.gained[giver] | (held & self.lost[taker])
            if self.movable[index] and self.fits(index, giver, taker)
        ]
        if saves:
            return min(saves)[1]
        fit = (i for i in self._by_cost[giver] if i in held and self.fits(i, giver, taker))
        return next(fit, None)


def level_out(draft: Draft, bounds: dict[int, Bounds]) -> None:
    """Moves replicas until every node is within its bounds, or nothing more can be done.

    Each move brings one node closer to its bounds and none further away, so it ends; and a draft
    that is level already is left alone.
    """
    low = {node_id: bound.low for node_id, bound in bounds.items()}
    high = {node_id: bound.high for node_id, bound in bounds.items()}
    share = {node_id: float(bound.share) for node_id, bound in bounds.items()}
    nodes = sorted(bounds)
    while True:
        load = {node_id: draft.load(node_id) for node_id in nodes}
        emptiest = sorted(nodes, key=lambda n: (load[n] - share[n], n))
        fullest = emptiest[::-1]
        over = [n for n in fullest if load[n] > high[n]]
        under = [n for n in emptiest if load[n] < low[n]]
        has_room = [n for n in emptiest if load[n] < high[n]]
        can_spare = [n for n in fullest if load[n] > low[n]]
        attempts = ((over, under), (over, has_room), (can_spare, under))
        if not any(_shift(draft, givers, takers) for givers, takers in attempts):
            return


def _shift(draft: Draft, givers: list[int], takers: list[int]) -> bool:
    """One replica from a giver to a taker: directly, or else through others."""
    for giver in givers:
        for taker in takers:
            index = draft.cheapest(giver, taker)
            if index is not None:
                draft.move(index, giver, taker)
                return True
    return any(takers and _pass_on(draft, giver, takers) for giver in givers)


def _pass_on(draft: Draft, giver: int, takers: Collection[int]) -> bool:
    """The shortest chain in which each node gives one replica to the next."""
    came_from: dict[int, int] = {giver: 0}
    queue = deque([giver])
    others = [node.node_id for node in draft.cluster.takers]
    while queue:
        node_id = queue.popleft()
        if node_id in takers:
            return _apply(draft, came_from, node_id)
        for other in others:
            if other not in came_from and draft.cheapest(node_id, other) is not None:
                came_from[other] = node_id
                queue.append(other)
    return False


def _apply(draft: Draft, came_from: dict[int, int], last: int) -> bool:
    """Applies a chain from its end; takes it back if one of its moves is in another's way."""
    done: list[tuple[int, int, int]] = []
    taker = last
    while giver := came_from[taker]:
        index = draft.cheapest(giver, taker)
        if index is None:
            for moved, from_, to in reversed(done):
                draft.move(moved, to, from_)
            return False
        draft.move(index, giver, taker)
        done.append((index, giver, taker))
        taker = giver
    return True
