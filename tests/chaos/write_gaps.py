"""For how long partitions took no write, fault by fault, from what a probe had acknowledged.

A fault reaches from its beginning to that of the next one, so that what its healing costs, a node
that comes back and is given its partitions again, counts too.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from report import percentile

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that was acknowledged."""

    at_ns: int
    """When, on the history's clock."""
    term: int
    """In which term of its partition: each has one leader at most."""


Probed = Mapping[int, Sequence[Acknowledged]]
"""What was acknowledged, by partition, in order."""


@dataclass(frozen=True, slots=True)
class Led:
    """Who led a partition just before a fault."""

    leader: str
    term: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A node that was killed, and who led what just before."""

    victim: str
    began_ns: int
    led: Mapping[int, Led]


def longest_ms(acknowledged: Sequence[Acknowledged], began_ns: float, ended_ns: float) -> float:
    """The longest time without an acknowledged write that ended within a span; infinite where no
    write was acknowledged within it.

    So a gap that a fault makes, which begins with the last write before it, counts for that fault
    and not for the one before it.
    """
    times = [each.at_ns for each in acknowledged]
    gaps = (
        (after - before) / NS_PER_MS
        for before, after in pairwise(times)
        if began_ns < after <= ended_ns
    )
    return max(gaps, default=math.inf)


def beginnings_ns(spans: Iterable[tuple[int, int]]) -> list[int]:
    """When faults began, given as beginnings and ends; those that overlap are one."""
    begins_ns: list[int] = []
    over_ns = -math.inf
    for began_ns, ended_ns in sorted(spans):
        if began_ns >= over_ns:
            begins_ns.append(began_ns)
        over_ns = max(over_ns, ended_ns)
    return begins_ns


def of_faults(probed: Probed, begins_ns: Sequence[int]) -> list[dict[int, float]]:
    """For each fault the longest gap of each partition, in milliseconds."""
    ends_ns = [*begins_ns[1:], math.inf]
    return [
        {partition: longest_ms(each, began_ns, end_ns) for partition, each in probed.items()}
        for began_ns, end_ns in zip(begins_ns, ends_ns, strict=True)
    ]


def hit(probed: Probed, kill: Kill) -> set[int]:
    """The partitions that the killed node led.

    One whose leader changed between the look and the kill counts as hit: it isn't known who led it.
    """
    found = set()
    for partition, acknowledged in probed.items():
        led = kill.led.get(partition)
        place = bisect_right(acknowledged, kill.began_ns, key=lambda each: each.at_ns)
        is_known = led is not None and place and acknowledged[place - 1].term == led.term
        if not is_known or (led is not None and led.leader == kill.victim):
            found.add(partition)
    return found


def of_kills(probed: Probed, kills: Sequence[Kill]) -> tuple[list[float], list[float]]:
    """For each kill the longest gap of a partition that the killed node led, and of one that it
    didn't, in milliseconds. A kill that leaves none of a sort has no gap of it."""
    worst: tuple[list[float], list[float]] = ([], [])
    gaps = of_faults(probed, [kill.began_ns for kill in kills])
    for kill, of_partition in zip(kills, gaps, strict=True):
        led = hit(probed, kill)
        for list_, members in zip(worst, (led, of_partition.keys() - led), strict=True):
            if members:
                list_.append(max(of_partition[partition] for partition in members))
    return worst


def told(gaps_ms: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, for people."""
    if not gaps_ms:
        return "none"
    ordered = sorted(gaps_ms)
    median, p99 = percentile(ordered, 0.5), percentile(ordered, 0.99)
    return f"median {median:,.0f} ms, p99 {p99:,.0f} ms, longest {ordered[-1]:,.0f} ms"


def notes(probed: Probed, kills: Sequence[Kill]) -> list[str]:
    """What a report says of kills: the partitions that were hit, the others, and beside them what
    is usual without a fault, before the first."""
    hit_ms, other_ms = of_kills(probed, kills)
    calm = [
        longest_ms(calm_part, calm_part[0].at_ns, math.inf)
        for acknowledged in probed.values()
        if len(calm_part := [each for each in acknowledged if each.at_ns < kills[0].began_ns]) > 1
    ]
    return [
        f"partitions that the killed node led, write gap of {len(hit_ms)} kills: {told(hit_ms)}",
        f"partitions that another node led, write gap of {len(other_ms)} kills: {told(other_ms)}",
        f"longest write gap before the first kill: {max(calm, default=math.inf):,.0f} ms",
    ]
