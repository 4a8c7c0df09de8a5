"""What to do next: the few steps that may be taken now, of all that lead to the goal.

A plan is made from what is observed and nothing else. Whoever carries it out may stop anywhere, be
killed, or leave a step out: the next plan starts from where things are then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from agniregistry.placement.goal import Goal, goal_of
from agniregistry.placement.leaders import Leaders, leaders_of
from agniregistry.placement.observe import Cluster, NodeState, Partition
from agniregistry.placement.problems import Problem, problems_of
from agniregistry.placement.steps import (
    Change,
    SetWanted,
    Step,
    TransferLeader,
    next_change,
    why_changes,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may happen at once.

    Raises:
        ValueError: a limit is negative.
    """

    moves_in_flight_max: int = 4
    """Partitions whose replicas are on the way, those of earlier plans included; 0 begins none."""
    moves_per_node_max: int = 2
    """Partitions that one node receives, or sends as their leader, at the same time."""
    transfers_per_plan_max: int = 8
    """Partitions whose leadership one plan changes."""

    def __post_init__(self) -> None:
        """Refuses negative limits."""
        for name in ("moves_in_flight_max", "moves_per_node_max", "transfers_per_plan_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and how far it is to the goal."""

    steps: tuple[Step, ...]
    """What to do, in this order."""
    problems: tuple[Problem, ...]
    """What keeps the cluster from its goal, or threatens it."""
    moves_in_flight: int
    """Partitions on the way, with those that this plan sets on their way."""
    remaining_moves: int
    """Replicas still to move after those."""
    remaining_bytes: int
    """How much data these are."""
    remaining_transfers: int
    """Leaderships to change after this plan's."""
    transfers: int = 0
    """Leaderships that this plan changes."""

    @property
    def is_done(self) -> bool:
        """Whether the cluster is where it should be, as far as that can be reached now."""
        left = self.moves_in_flight + self.remaining_moves + self.remaining_transfers
        return not self.steps and not left


def plan(cluster: Cluster, limits: Limits | None = None) -> Plan:
    """Answer the next steps from what is observed to the goal, and how many more there are."""
    limits = limits or Limits()
    goal = goal_of(cluster)
    leaders = leaders_of(cluster, goal)
    planner = _Planner(cluster, limits, goal, leaders)
    planner.take_back()
    planner.transfer(urgent=True)
    planner.move()
    planner.transfer(urgent=False)
    return planner.result()


class _Planner:
    """One plan in the making."""

    def __init__(self, cluster: Cluster, limits: Limits, goal: Goal, leaders: Leaders) -> None:
        self.cluster, self.limits, self.goal, self.leaders = cluster, limits, goal, leaders
        self.steps: list[Step] = []
        self.touched: set[int] = set()
        self.waiting_transfers = 0
        self.transfers = 0
        self.blocked: list[Partition] = []
        self.in_flight = sum(partition.in_flight for partition in cluster.partitions)
        self.busy: dict[int, int] = {}
        self.loads = Counter({n.node_id: cluster.held(n.node_id) for n in cluster.nodes})
        for partition in cluster.partitions:
            if partition.in_flight:
                arriving = set(partition.wanted).union(partition.learners) - set(partition.voters)
                self._occupy({*arriving, partition.leader})

    def _occupy(self, node_ids: set[int]) -> None:
        for node_id in node_ids:
            self.busy[node_id] = self.busy.get(node_id, 0) + 1

    def take_back(self) -> None:
        """Takes back moves that can't end well, because the newcomer is itself to be emptied."""
        for partition in self.cluster.partitions:
            arriving = set(partition.wanted) - set(partition.voters)
            doomed = [n for n in partition.wanted if n in arriving and not self._arrives(n)]
            stay = [n for n in partition.wanted if n not in doomed]
            present = (n for n in partition.voters if self._takes_part(n) and n not in stay)
            nodes = (*stay, *[node_id for _, node_id in zip(doomed, present, strict=False)])
            if doomed and nodes and self.cluster.is_led(partition):
                names = " and ".join(self.cluster.label(node_id) for node_id in doomed)
                why = f"back from {names}, which is to be emptied itself"
                self._set_wanted(partition, nodes, why)

    def _takes_part(self, node_id: int) -> bool:
        return self.cluster.node(node_id).state is not NodeState.LEFT

    def _arrives(self, node_id: int) -> bool:
        return self.cluster.node(node_id).keeps

    def _set_wanted(self, partition: Partition, nodes: tuple[int, ...], why: str) -> None:
        self.steps.append(SetWanted(partition.number, nodes, partition.version, why))
        self.touched.add(partition.number)

    def move(self) -> None:
        """Sets as many replicas on their way as the limits allow, the most urgent first."""
        found = []
        for partition in self.cluster.partitions:
            replicas = self.goal.replicas[partition.number]
            is_open = partition.number not in self.touched and self.cluster.is_steady(partition)
            if not is_open or replicas == frozenset(partition.wanted):
                continue
            change = next_change(self.cluster, partition, replicas)
            if change:
                found.append((self._urgency(partition, change), partition, change))
            elif not self._awaits_leader(partition):
                self.blocked.append(partition)
        found.sort(key=lambda item: (item[0], item[1].number))
        waiting = [(partition, change) for _, partition, change in found]
        while waiting:
            begun = next((item for item in waiting if self._may_begin(*item)), None)
            if begun is None:
                return
            waiting.remove(begun)
            self._begin(*begun)

    def _awaits_leader(self, partition: Partition) -> bool:
        """Whether all it needs is another leader, and it gets one."""
        now = self.leaders.now.get(partition.number, partition.leader)
        return self._is_to_go(partition) and now != partition.leader

    def _urgency(self, partition: Partition, change: Change) -> int:
        """Lost replicas come before nodes to be emptied, these before zones and shares."""
        node = self.cluster.node(change.outgoing)
        if not change.incoming or len(partition.wanted) > self.cluster.replication:
            return 0
        if not change.outgoing or node.state is NodeState.LEFT:
            return 1
        if not node.keeps:
            return 2
        places = [self.cluster.node(node_id).place for node_id in partition.wanted]
        return 3 if places.count(node.place) > self.cluster.per_zone_max else 4

    def _may_begin(self, partition: Partition, change: Change) -> bool:
        """Whether the limits allow it, and the newcomer isn't over its share for now."""
        if self.in_flight >= self.limits.moves_in_flight_max:
            return False
        if not change.incoming:
            return True
        bounds = self.goal.bounds[change.incoming]
        is_full = self.loads[change.incoming] > bounds.high
        others_move = self.in_flight > 0
        involved = {change.incoming, partition.leader}
        most = max(self.busy.get(node_id, 0) for node_id in involved)
        return most < self.limits.moves_per_node_max and not (is_full and others_move)

    def _begin(self, partition: Partition, change: Change) -> None:
        leaving = frozenset(partition.wanted) - self.goal.replicas[partition.number]
        after = change.applied(partition.wanted)
        first = self.leaders.preferred.get(partition.number, 0)
        # Who is to go next stands last: that is how a later plan knows.
        nodes = tuple(sorted(after, key=lambda n: (n != first, n in leaving, after.index(n))))
        self._set_wanted(partition, nodes, why_changes(self.cluster, partition, change))
        self.in_flight += 1
        if change.incoming:
            self._occupy({change.incoming, partition.leader})
            self.loads[change.incoming] += 1
        if change.outgoing:
            self.loads[change.outgoing] -= 1

    def transfer(self, *, urgent: bool) -> None:
        """Changes leaderships: the urgent ones, whose leader is to go, or all others."""
        for partition in self.cluster.partitions:
            number = partition.number
            is_open = number not in self.touched and self.cluster.is_steady(partition)
            if not is_open or number not in self.leaders.preferred:
                continue
            first, now = self.leaders.preferred[number], self.leaders.now.get(number, 0)
            reorders = partition.wanted[0] != first
            moves = now not in (0, partition.leader)
            if urgent != self._is_to_go(partition) or not (reorders or moves):
                continue
            if self.transfers >= self.limits.transfers_per_plan_max:
                self.waiting_transfers += 1
                continue
            self.transfers += 1
            self._hand_over(partition, first if reorders else 0, now if moves else 0)

    def _is_to_go(self, partition: Partition) -> bool:
        """Whether its leader should lead nothing, or is to lose this replica."""
        stays = partition.leader in self.goal.replicas[partition.number]
        return not stays or not self.cluster.node(partition.leader).counts

    def _hand_over(self, partition: Partition, first: int, now: int) -> None:
        old = self.cluster.label(partition.leader)
        if not self.cluster.node(partition.leader).counts:
            reason = f"{old} is to lead nothing"
        elif self._is_to_go(partition):
            reason = f"{old} is to lose its replica"
        else:
            reason = "leaderships are spread evenly"
        if first:
            rest = tuple(node_id for node_id in partition.wanted if node_id != first)
            why = f"{self.cluster.label(first)} leads by preference: {reason}"
            self._set_wanted(partition, (first, *rest), why)
        if now:
            why = f"leadership from {old} to {self.cluster.label(now)}: {reason}"
            self.steps.append(TransferLeader(partition.number, now, why))
        self.touched.add(partition.number)

    def result(self) -> Plan:
        """The finished plan."""
        begun = {
            step.partition: frozenset(step.nodes)
            for step in self.steps
            if isinstance(step, SetWanted)
        }
        remaining = remaining_bytes = 0
        for partition in self.cluster.partitions:
            goal = self.goal.replicas[partition.number]
            wanted = begun.get(partition.number, frozenset(partition.wanted))
            if partition.in_flight:
                continue
            remaining += max(len(goal - wanted), len(wanted - goal))
            remaining_bytes += len(goal - wanted) * partition.bytes
        return Plan(
            steps=tuple(self.steps),
            problems=problems_of(self.cluster, self.goal, self.blocked),
            moves_in_flight=self.in_flight,
            remaining_moves=remaining,
            remaining_bytes=remaining_bytes,
            remaining_transfers=self.waiting_transfers,
            transfers=self.transfers,
        )
