"""One direction between two nodes is silent, or much is lost: nobody stops or elects for ever."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from functools import partial
from itertools import permutations

import pytest
from cluster_lab import ClusterLab
from nemesis.lab import Lab
from nemesis.partition import each_one_way, one_way

CUT_S = 4.0
"""Longer than any election, so that one that repeats itself shows."""
TERMS_MAX = 1
"""Leaders that a partition may get anew in one case."""
LOSS_PERCENT = 30.0
IS_LONG = bool(os.environ.get("AGNI_CHAOS"))
QUIET_S = 3.0
LOSSY_S = 30.0 if IS_LONG else 8.0
"""Longer than what was sent before the loss began takes to arrive: TCP all but stands still."""


@pytest.fixture
def cluster(lab: Lab) -> ClusterLab:
    return ClusterLab(lab)


def terms(cluster: ClusterLab) -> dict[int, int]:
    """The newest term of each partition that any node knows: it grows with every election."""
    newest: dict[int, int] = {}
    for name in cluster.names:
        for each in (cluster.get(name, "/v1/status") or {"partitions": []})["partitions"]:
            number = int(each["partition"])
            newest[number] = max(newest.get(number, 0), int(each["term"]))
    return newest


def test_one_silent_direction_after_the_other(cluster: ClusterLab) -> None:
    load, probe = cluster.load(clients=10), cluster.probe()
    load.more(200)
    for pairs in each_one_way(cluster.names):
        cluster.wait_settled()
        before = terms(cluster)
        source, target = pairs[0]

        def cut(source: str = source, target: str = target) -> AbstractContextManager[object]:
            return cluster.network.cut(one_way(source, target), f"{target} hears no {source}")

        cluster.fault(cut, partial(load.go_on, CUT_S))
        elected = {number: term - before[number] for number, term in terms(cluster).items()}
        print(f"{target} hears nothing of {source}: terms grew by {elected}")
        # A preferred leader that is given its partition back counts as one more.
        assert max(elected.values()) <= 2 * TERMS_MAX
    cluster.tell_gaps(probe)
    _, violations = cluster.judge(load, "one-way")
    assert not violations


def test_three_in_ten_packets_are_lost(cluster: ClusterLab) -> None:
    """Each way between all nodes: slower, and nothing is wrong. Nodes go round what is held up by
    more connections. Few clients with much patience: judging takes the longer the more answers are
    unknown."""
    load = cluster.load(clients=4, timeout_ms=5_000)
    load.more(200)

    def rate(seconds: float) -> float:
        began, before = time.monotonic(), load.ok
        load.go_on(seconds)
        return (load.ok - before) / (time.monotonic() - began)

    quiet = rate(QUIET_S)
    connects = cluster.metric("agni_peer_connects_total")
    found: list[float] = []
    pairs = list(permutations(cluster.names, 2))
    cluster.fault(
        lambda: cluster.network.lose(pairs, LOSS_PERCENT),
        lambda: found.append(rate(LOSSY_S)),
    )
    assert cluster.metric("agni_peer_connects_total") >= connects + len(pairs)
    print(f"{LOSS_PERCENT:g} % lost: {found[0]:.0f} of {quiet:.0f} operations a second are left")
    _, violations = cluster.judge(load, "lossy")
    assert not violations
