"""What all parts of a plan look at: the three inputs, and what is derived from them once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice

from agniregistry.placement import NodeState, Partition
from agniregistry_operator import names
from agniregistry_operator.manifests.node import Place, template_hash
from agniregistry_operator.model.actions import Action
from agniregistry_operator.model.desired import FOUNDERS_MAX, Desired
from agniregistry_operator.model.observed import Member, Observed, Pod, Registry
from agniregistry_operator.model.status import Operation


@dataclass(frozen=True)
class View:
    """One look at a registry."""

    observed: Observed
    desired: Desired
    now: float

    @property
    def is_founded(self) -> bool:
        """Whether the registry's cluster exists, even if nobody answers now."""
        return bool(self.observed.status.cluster_id)

    @property
    def registry(self) -> Registry | None:
        """What the registry answered."""
        return self.observed.registry

    def member(self, index: int) -> Member | None:
        """The present member that a node is."""
        return self.registry.present(self.desired.node(index)) if self.registry else None

    @cached_property
    def founders(self) -> tuple[int, ...]:
        """The nodes that found the cluster: decided once, and read back from their own seeds."""
        for seen in self.observed.stateful_sets.values():
            given = [index for seed in seen.seeds if (index := self._index_of(seed)) is not None]
            if seen.index in given:
                return tuple(sorted(given))
        return tuple(range(min(self.desired.nodes, FOUNDERS_MAX)))

    def _index_of(self, address: str) -> int | None:
        """The node that an address belongs to."""
        pod = address.partition(".")[0]
        return self.desired.index_of(pod.removesuffix("-0")) if pod.endswith("-0") else None

    @cached_property
    def wanted(self) -> tuple[int, ...]:
        """The nodes that should be there in the end."""
        return self._first(self.skipped) if self.is_founded else self.founders

    @cached_property
    def skipped(self) -> frozenset[int]:
        """The nodes that have left, or are to leave, although later ones stay."""
        left = frozenset(self.observed.status.skipped)
        asked = self.desired.index_of(self.desired.remove)
        return left if asked is None or asked not in self._first(left) else left | {asked}

    def _first(self, skipped: frozenset[int]) -> tuple[int, ...]:
        """As many nodes as are wanted, from the first one on."""
        numbers = (index for index in count() if index not in skipped)
        return tuple(islice(numbers, self.desired.nodes))

    @cached_property
    def leaving(self) -> tuple[int, ...]:
        """The nodes that are to go, and are still a member or have a StatefulSet or a pod."""
        if not self.is_founded:
            return ()
        there = {*self.observed.stateful_sets, *self.observed.pods}
        found = {index for index in there if index not in self.wanted}
        for member in self.registry.members if self.registry else ():
            index = self.desired.index_of(member.name)
            if index is None or member.state is NodeState.LEFT:
                continue
            if index not in self.wanted:
                found.add(index)
        return tuple(sorted(found))

    @cached_property
    def places(self) -> dict[int, Place]:
        """Where each node is or will be, and what it is told."""
        used: dict[str, int] = dict.fromkeys(self.observed.zones, 0)
        zones: dict[int, str] = {}
        indexes = sorted({*self.wanted, *self.leaving})
        for index in indexes:
            kept = self._kept_zone(index)
            if kept is not None:
                zones[index] = kept
                used[kept] = used.get(kept, 0) + 1
        for index in indexes:
            if index not in zones:
                free = [zone for zone in used if zone in self.observed.zones]
                zone = min(free, key=lambda name: (used[name], name), default="")
                zones[index] = zone if self.desired.zone_key else ""
                used[zone] = used.get(zone, 0) + 1
        return {
            index: Place(index, zones[index], self._seeds(index), self._life(index))
            for index in indexes
        }

    def _kept_zone(self, index: int) -> str | None:
        """The zone that a node stays in; None where one may be chosen."""
        if not self.desired.zone_key:
            return ""
        seen = self.observed.stateful_sets.get(index)
        member = self.member(index)
        claim = self.observed.claims.get(index)
        noted = claim.zone if claim and not claim.deleting else None
        zone = seen.zone if seen else noted
        if zone is None:
            zone = member.zone if member else None
        if zone is None:
            return None
        has_volume = claim is not None and claim.bound and not claim.deleting and not claim.lost
        is_gone = self.observed.zones_known and zone not in self.observed.zones
        return None if zone and is_gone and not has_volume else zone

    def _seeds(self, index: int) -> tuple[str, ...]:
        """Whom a node asks that has no data: the founders each other, all others some member."""
        name, space = self.desired.name, self.desired.namespace
        seen = self.observed.stateful_sets.get(index)
        if not self.is_founded:
            return tuple(names.peer_address(name, space, other) for other in self.founders)
        if seen and self.registry is None:
            return seen.seeds
        others = [other for other in self._member_indexes if other != index]
        if seen and any(self._index_of(seed) in others for seed in seen.seeds):
            return seen.seeds
        chosen = others[:FOUNDERS_MAX] or [o for o in self.wanted if o != index] or [index]
        if seen and not others:
            return seen.seeds
        return tuple(names.peer_address(name, space, other) for other in chosen[:FOUNDERS_MAX])

    @cached_property
    def _member_indexes(self) -> tuple[int, ...]:
        members = self.registry.members if self.registry else ()
        found = {
            index
            for member in members
            if member.state is not NodeState.LEFT
            and (index := self.desired.index_of(member.name)) is not None
        }
        return tuple(sorted(found))

    def _life(self, index: int) -> int:
        """The newest member of a node's name that left without being replaced by the present one.

        What it left on a volume that was kept must not be found by the next.
        """
        seen = self.observed.stateful_sets.get(index)
        if self.registry is None:
            claim = self.observed.claims.get(index)
            return seen.life if seen else (claim.life if claim else 0)
        name = self.desired.node(index)
        of_name = {
            member.node_id: member for member in self.registry.members if member.name == name
        }
        present = self.registry.present(name)
        successors: set[int] = set()
        while present is not None and present.node_id not in successors:
            successors.add(present.node_id)
            present = of_name.get(present.replaces)
        return max((node_id for node_id in of_name if node_id not in successors), default=0)

    @cached_property
    def template_hashes(self) -> dict[int, str]:
        """What each node's pod should have been made from."""
        return {index: template_hash(self.desired, place) for index, place in self.places.items()}

    def is_current(self, pod: Pod) -> bool:
        """Whether a pod was made from what is wanted now."""
        return pod.template_hash == self.template_hashes.get(pod.index)

    @cached_property
    def led(self) -> dict[int, int]:
        """How many partitions each member leads."""
        found: dict[int, int] = {}
        for partition in self.partitions:
            found[partition.leader] = found.get(partition.leader, 0) + 1
        return found

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """All partitions; none while nobody answers."""
        return self.registry.cluster.partitions if self.registry else ()

    def held(self, node_id: int) -> int:
        """How many replicas a member holds or is to hold."""
        return sum(
            node_id in partition.voters
            or node_id in partition.learners
            or node_id in partition.wanted
            for partition in self.partitions
        )

    def operation(self, kind: str, step: str, target: str = "", progress: str = "") -> Operation:
        """An operation that goes on where the last look left it, or begins now."""
        made = Operation(kind, step, target, self.now, progress)
        before = self.observed.status.operation
        since = before.since if before and made.same_as(before) else self.now
        return Operation(kind, step, target, since, progress)

    def label(self, index: int) -> str:
        """A node's name."""
        return self.desired.node(index)


@dataclass(frozen=True)
class Outcome:
    """What one part of a plan decided."""

    sentence: str
    operation: Operation | None = None
    actions: tuple[Action, ...] = ()
    stalled: tuple[str, str] | None = None
    """Reason and words, where it can't go on by itself."""
    moves: bool = True
    """Whether replicas and leaderships may be moved meanwhile."""
    replaced: str | None = None
    """The node whose replacement begins with this: it is written before anything is done."""
    doomed: str = ""
    """What is given up for that."""
    notes: tuple[str, ...] = field(default=())
