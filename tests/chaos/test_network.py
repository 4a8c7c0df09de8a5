"""Links that are bad without being cut, and wall clocks that jump: no leader changes for that."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import permutations

from cluster_lab import ClusterLab
from history import Outcome
from nemesis.clocks import Clock
from nemesis.lab import Lab
from nemesis.links import Links, Profile

HOUR_S = 3_600.0
NAMES = ("n1", "n2", "n3")
WAN = Profile(delay_ms=25, jitter_ms=12, loss=0.05, duplicate=0.01, reorder=0.01)


def terms(cluster: ClusterLab) -> list[int]:
    """The term of each partition: it goes up when somebody stands for election."""
    status = cluster.get(NAMES[0], "/v1/status")
    return [int(each["term"]) for each in status["partitions"]]


def test_a_wide_network_that_loses_packets_changes_no_leader(lab: Lab) -> None:
    """One in twenty packets is lost, each way takes 25 ms give or take 12."""
    cluster = ClusterLab(lab)
    cluster.wait_settled()
    links = Links(cluster.hosts)
    load, probe = cluster.load(clients=10), cluster.probe()
    load.more(200)
    before = terms(cluster)
    with links.shape(permutations(NAMES, 2), WAN):
        load.more(600, 120.0)
        assert terms(cluster) == before
    load.more(200)
    cluster.tell_gaps(probe)
    _, violations = cluster.judge(load, "wide-network")
    assert not violations


def test_wall_clocks_that_jump_change_nothing(lab: Lab) -> None:
    """By an hour, ahead and behind, and to and fro: no lease ends early, no leader changes."""
    clocks = {name: Clock(lab, name) for name in NAMES}
    environments = {name: clock.environment() for name, clock in clocks.items()}
    cluster = ClusterLab(lab, environments=environments)
    cluster.wait_settled()
    load = cluster.load(clients=10, leases=20, ttl_ms=4_000)
    load.more(200)
    before = terms(cluster)
    with ExitStack() as stack:
        stack.enter_context(clocks["n1"].jump(HOUR_S))
        stack.enter_context(clocks["n2"].jump(-HOUR_S))
        stack.enter_context(clocks["n3"].strobe(HOUR_S, period_s=0.1))
        load.more(6_000)
    load.more(500)
    assert terms(cluster) == before
    run, violations = cluster.judge(load, "jumping-clocks")
    assert not violations
    renewals = [each for each in run.operations if each.f == "renew"]
    assert renewals
    assert not [each for each in renewals if each.outcome is Outcome.FAIL]
