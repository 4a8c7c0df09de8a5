"""Who should lead which partition: evenly by weight, with as few changes as that takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from agniregistry.placement.goal import Goal
from agniregistry.placement.observe import Cluster, Partition


@dataclass(frozen=True, slots=True)
class Leaders:
    """Who should lead, by a partition's number; a partition that nobody may lead is missing."""

    preferred: dict[int, int]
    """Who should be the first in `wanted`: the nodes themselves hand the leadership there."""
    now: dict[int, int]
    """Who should lead just now: somebody else only while the preferred one can't be reached."""


def leaders_of(cluster: Cluster, goal: Goal) -> Leaders:
    """Answer who should lead each partition, of the replicas that vote now and are to stay.

    A node that can't be reached keeps the preference that it has, so that it leads again when it is
    back; meanwhile what it led is spread over the others.
    """
    weights = {node.node_id: node.weight for node in cluster.nodes if node.counts}
    fit = {p.number: _fit(cluster, p, goal) for p in cluster.partitions}
    choices = {p.number: _choices(cluster, p, fit[p.number]) for p in cluster.partitions}
    first = {p.number: (*p.wanted[:1], p.leader) for p in cluster.partitions}
    preferred = _spread(choices, first, weights)
    away = {number for number, node_id in preferred.items() if not cluster.node(node_id).reachable}
    choices_now = {
        number: fit[number] if number in away else (node_id,)
        for number, node_id in preferred.items()
    }
    leading = {p.number: (p.leader,) for p in cluster.partitions}
    return Leaders(preferred, _spread(choices_now, leading, weights))


def _fit(cluster: Cluster, partition: Partition, goal: Goal) -> tuple[int, ...]:
    """Who may lead now: of those that stay, or, where nobody of them may, of all."""
    stays = goal.replicas[partition.number]
    able = [n for n in partition.wanted if n in partition.voters and cluster.node(n).takes]
    return tuple(n for n in able if n in stays) or tuple(able)


def _choices(cluster: Cluster, partition: Partition, fit: tuple[int, ...]) -> tuple[int, ...]:
    """Who may be preferred: only the one that is, where nothing may change."""
    first = partition.wanted[:1]
    is_away = any(cluster.node(n).counts and not cluster.node(n).reachable for n in first)
    if is_away or not cluster.is_steady(partition):
        return tuple(n for n in first if cluster.node(n).counts)
    return fit


def _spread(
    choices: Mapping[int, tuple[int, ...]],
    first: Mapping[int, tuple[int, ...]],
    weights: Mapping[int, int],
) -> dict[int, int]:
    """One choice for each partition, evenly by weight; `first` is who has it already."""
    led: dict[int, set[int]] = {node_id: set() for node_id in weights}
    chosen: dict[int, int] = {}
    undecided = []
    for number, nodes in sorted(choices.items()):
        had = [node_id for node_id in first[number] if node_id in nodes]
        if had:
            chosen[number] = had[0]
            led[had[0]].add(number)
        elif nodes:
            undecided.append(number)
    for number in undecided:
        best = min(choices[number], key=lambda n: ((len(led[n]) + 1) / weights[n], n))
        chosen[number] = best
        led[best].add(number)
    while _relieve(choices, chosen, led, weights):
        pass
    return chosen


def _relieve(
    choices: Mapping[int, tuple[int, ...]],
    chosen: dict[int, int],
    led: dict[int, set[int]],
    weights: Mapping[int, int],
) -> bool:
    """Takes one leadership from the busiest node that can pass one on to an idler one.

    Both sides of the comparison are what the sum of squares of all loads, by weight, changes by:
    it falls with every pass, so this ends; and where no pass lowers it, it is as low as it gets.
    """
    busiest = sorted(led, key=lambda n: (-(2 * len(led[n]) - 1) / weights[n], n))
    for giver in busiest:
        relief = (2 * len(led[giver]) - 1) / weights[giver]
        came_from = _reach(giver, choices, led)
        burden = {n: (2 * len(led[n]) + 1) / weights[n] for n in came_from if n != giver}
        taker = min(burden, key=lambda n: (burden[n], n), default=giver)
        # A hair's breadth of rounding must not pass a leadership back and forth.
        if taker == giver or burden[taker] >= relief - 1e-9:
            continue
        while taker != giver:
            number, previous = came_from[taker]
            led[previous].discard(number)
            led[taker].add(number)
            chosen[number] = taker
            taker = previous
        return True
    return False


def _reach(
    giver: int, choices: Mapping[int, tuple[int, ...]], led: Mapping[int, set[int]]
) -> dict[int, tuple[int, int]]:
    """Who a leadership can be passed to, maybe through others: which one, and by whom."""
    came_from: dict[int, tuple[int, int]] = {giver: (0, 0)}
    queue = deque([giver])
    while queue:
        node_id = queue.popleft()
        for number in sorted(led[node_id]):
            for other in choices[number]:
                if other not in came_from:
                    came_from[other] = (number, node_id)
                    queue.append(other)
    return came_from
