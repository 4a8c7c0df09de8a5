"""Three real nodes on hosts of their own: killed, stopped and cut off under load, and judged.

AGNI_CHAOS multiplies the rounds: `make chaos` runs the long form.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cluster_lab import ClusterLab
from history import Operation, Outcome
from nemesis.lab import Lab, UnavailableError
from nemesis.partition import between, isolated, one_way

ROUNDS = int(os.environ.get("AGNI_CHAOS", "1"))
NS_PER_MS = 1_000_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterLab]:
    with Lab(tmp_path / "lab") as lab:
        try:
            yield ClusterLab(lab)
        except UnavailableError as error:
            pytest.skip(str(error))


def longest_gap_ms(operations: list[Operation]) -> float:
    """The longest time in which no write was acknowledged."""
    ends = sorted(
        each.return_ns for each in operations if each.is_write and each.outcome is Outcome.OK
        and each.return_ns is not None
    )  # fmt: skip
    gaps = [(after - before) / NS_PER_MS for before, after in zip(ends, ends[1:], strict=False)]
    return max(gaps)


def test_killed_leaders_lose_nothing(cluster: ClusterLab) -> None:
    load = cluster.load(clients=10)
    load.more(300)
    for _ in range(3 * ROUNDS):
        victim = cluster.nodes[cluster.busiest()]
        cluster.fault(victim.crash, lambda: load.more(200))
        load.more(200)
    run, violations = cluster.judge(load, "leader-kills")
    print(f"longest time without an acknowledged write: {longest_gap_ms(run.operations):,.0f} ms")
    assert not violations
    assert run.writes > 300
    assert Counter(name for name, *_ in cluster.lab.spans()).total() == 3 * ROUNDS


def test_a_leader_that_was_stopped_never_answers_from_the_past(cluster: ClusterLab) -> None:
    """I6, I8, I9, I28: with reads under the leader's lease, and leases kept through a follower."""
    chance = random.Random(20)
    calm = next(name for name in cluster.names if name != cluster.busiest())
    load = cluster.load(clients=10, leases=20, leases_at=cluster.address(calm), ttl_ms=4_000)
    load.more(200)
    for turn in range(20 * ROUNDS):
        victim = cluster.nodes[cluster.busiest()]
        # Most pauses are about as long as an election; a few are long in the long form.
        seconds = chance.uniform(0.5, 2.5) if turn % 10 else min(60, 4 * ROUNDS)
        cluster.fault(lambda: victim.pause(seconds), lambda: load.more(50, seconds + 30))  # noqa: B023
    run, violations = cluster.judge(load, "stopped-leaders")
    assert not violations
    lost = [each for each in run.operations if each.f == "renew" and each.outcome is Outcome.FAIL]
    assert not lost, "a lease that was renewed in time has been lost"
    assert any(each.request.consistency == "leader" and each.reply.value for each in run.operations)


Cut = Callable[[ClusterLab, str], AbstractContextManager[object]]

CUTS: dict[str, Cut] = {
    "both-ways": lambda c, victim: c.network.cut(isolated(victim, c.names)),
    "it-hears-nobody": lambda c, victim: c.network.cut(
        [pair for other in others(c, victim) for pair in one_way(other, victim)]
    ),
    "nobody-hears-it": lambda c, victim: c.network.cut(
        [pair for other in others(c, victim) for pair in one_way(victim, other)]
    ),
    "from-one-other-only": lambda c, victim: c.network.cut(
        between([victim], others(c, victim)[:1])
    ),
}


def others(cluster: ClusterLab, victim: str) -> list[str]:
    """All nodes but one."""
    return [name for name in cluster.names if name != victim]


@pytest.mark.parametrize("cut", CUTS)
def test_a_leader_that_is_cut_off(cluster: ClusterLab, cut: str) -> None:
    load = cluster.load(clients=10)
    load.more(300)
    for _ in range(ROUNDS):
        victim = cluster.busiest()
        cluster.fault(lambda: CUTS[cut](cluster, victim), lambda: load.more(500))  # noqa: B023
        load.more(200)
    run, violations = cluster.judge(load, f"cut-{cut}")
    print(f"longest time without an acknowledged write: {longest_gap_ms(run.operations):,.0f} ms")
    assert not violations
    assert run.writes > 200


def test_a_minority_refuses_clearly_and_its_stale_reads_say_how_old_they_are(
    cluster: ClusterLab,
) -> None:
    load = cluster.load(clients=5)
    load.more(100)
    victim = cluster.busiest()

    def look() -> None:
        load.more(300)
        refused = cluster.get(victim, "/v1/gateways?page_size=1")
        assert refused is None, "a linearizable list without a majority"
        seen = cluster.get(victim, "/v1/gateways?page_size=1&consistency=stale")
        assert seen is not None and "instances" in seen

    cluster.fault(lambda: cluster.network.cut(isolated(victim, cluster.names)), look)
    _, violations = cluster.judge(load, "minority")
    assert not violations
