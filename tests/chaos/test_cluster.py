"""Three real nodes on hosts of their own: killed, stopped and cut off under load, and judged.

`make chaos` sets AGNI_CHAOS, which makes the rounds many and the pauses long.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
from cluster_lab import ClusterLab
from history import Outcome
from nemesis.judge import Run
from nemesis.lab import Lab
from nemesis.partition import between, isolated, one_way

IS_LONG = bool(os.environ.get("AGNI_CHAOS"))
KILLS = 100 if IS_LONG else 3
PAUSES = 20
PAUSE_S_MAX = 60.0 if IS_LONG else 4.0
RECORDS = 1_000_000 if IS_LONG else 20_000
WHOLE_S = 300.0
CUTS_EACH = 10 if IS_LONG else 1
PARTITIONS = 4
LEASES = 20
LEASE_TTL_MS = 4_000
# Until a node without a majority must have refused what needs one.
REFUSED_S = 2.5


@pytest.fixture
def cluster(lab: Lab) -> ClusterLab:
    return ClusterLab(lab, partitions=PARTITIONS)


def assert_no_lease_lost(run: Run) -> None:
    """Every owner renewed its lease, and none was told that it is gone."""
    renewals = [each for each in run.operations if each.f == "renew"]
    renewed = {each.key for each in renewals if each.outcome is Outcome.OK}
    assert len(renewed) == LEASES
    lost = [each for each in renewals if each.outcome is Outcome.FAIL]
    assert not lost, "a lease that was renewed in time has been lost"


def test_killed_leaders_lose_nothing(lab: Lab) -> None:
    """With mTLS, as nodes are run; leases are kept through a node that isn't killed."""
    cluster = ClusterLab(lab, partitions=PARTITIONS, mtls=True)
    calm = next(name for name in cluster.names if name != cluster.busiest())
    load = cluster.load(
        clients=10, leases=LEASES, leases_at=cluster.address(calm), ttl_ms=LEASE_TTL_MS
    )
    probe = cluster.probe()
    load.more(300)
    for turn in range(KILLS):
        if turn % 2 == 0:
            # Every other kill meets leaders where they belong, so that there are partitions that
            # it doesn't hit; the rest meet what the kill before has left.
            cluster.wait_settled()
        victim = cluster.leading(others(cluster, calm))
        cluster.kill(victim, lambda: load.more(200))
        load.more(200)
    cluster.tell_gaps(probe)
    run, violations = cluster.judge(load, "leader-kills")
    assert not violations
    assert_no_lease_lost(run)
    assert run.writes > 300
    assert Counter(name for name, *_ in cluster.lab.spans()).total() == KILLS


def test_a_leader_that_was_stopped_never_answers_from_the_past(cluster: ClusterLab) -> None:
    """I6, I8, I9, I28: with reads under the leader's lease, and leases kept through a follower."""
    chance = random.Random(20)
    calm = next(name for name in cluster.names if name != cluster.busiest())
    load = cluster.load(
        clients=10, leases=LEASES, leases_at=cluster.address(calm), ttl_ms=LEASE_TTL_MS
    )
    load.more(200)
    stopped_s: list[float] = []
    for turn in range(PAUSES):
        victim = cluster.nodes[cluster.busiest()]
        # Most pauses are about as long as an election; every fifth is long.
        seconds = chance.uniform(0.5, 2.5) if turn % 5 else chance.uniform(2.5, PAUSE_S_MAX)
        cluster.fault(partial(victim.pause, seconds), partial(load.go_on, seconds))
        stopped_s.append(seconds)
    run, violations = cluster.judge(load, "stopped-leaders")
    assert not violations
    assert_no_lease_lost(run)
    spans_s = [(ended_ns - began_ns) / 1e9 for _, began_ns, ended_ns in cluster.lab.spans()]
    assert all(span_s >= s for span_s, s in zip(spans_s, stopped_s, strict=True))
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
    probe = cluster.probe()
    load.more(300)
    for _ in range(CUTS_EACH):
        victim = cluster.busiest()
        cluster.fault(lambda: CUTS[cut](cluster, victim), lambda: load.more(500))  # noqa: B023
        load.more(200)
    cluster.tell_gaps(probe)
    run, violations = cluster.judge(load, f"cut-{cut}")
    assert not violations
    assert run.writes > 200


def gateway(name: str, port: int = 1) -> dict[str, Any]:
    """What is asked for one."""
    return {"name": name, "region": "eu", "gateway_ip": "10.0.0.1", "gateway_port": port}


def test_a_minority_refuses_clearly_and_its_stale_reads_say_how_old_they_are(
    cluster: ClusterLab,
) -> None:
    load = cluster.load(clients=5)
    load.more(100)
    victim = cluster.busiest()

    # One for each partition at least, so that some were led here and some elsewhere.
    names = [f"cut-{number}" for number in range(8 * PARTITIONS)]
    for name in names:
        assert cluster.ask(victim, "/v1/gateways", gateway(name))[0] == 201

    def refusal(path: str, body: Any = None) -> str:
        began = time.monotonic()
        status, answer, _ = cluster.ask(victim, path, body)
        took = time.monotonic() - began
        assert status == 503, answer
        assert took < REFUSED_S, f"{path} was refused after {took:.1f} s"
        return str(answer["error"]["reason"])

    def look() -> None:
        cut = time.monotonic()
        # At first it may still believe that it leads, or that somebody else can be reached.
        assert refusal(f"/v1/gateways/{names[0]}") == "NO_LEADER"
        assert refusal("/v1/gateways", gateway(names[0], port=2)) in {
            "NO_LEADER",
            "OUTCOME_UNKNOWN",
        }
        load.more(300)
        time.sleep(max(0.0, cut + REFUSED_S - time.monotonic()))
        for name in names[:3]:
            assert refusal(f"/v1/gateways/{name}") == "NO_LEADER"
            assert refusal("/v1/gateways", gateway(name, port=3)) == "NO_LEADER"
        assert refusal("/v1/gateways?page_size=1") == "NO_LEADER"
        for name in names:
            before_ms = (time.monotonic() - cut) * 1_000
            status, _, headers = cluster.ask(victim, f"/v1/gateways/{name}?consistency=stale")
            assert status == 200
            assert int(headers["x-agni-age-ms"]) >= before_ms - 1_000
        assert cluster.ask(victim, "/v1/gateways?page_size=1&consistency=stale")[0] == 200

    cluster.fault(lambda: cluster.network.cut(isolated(victim, cluster.names)), look)
    _, violations = cluster.judge(load, "minority")
    assert not violations


def test_a_rolling_restart_fails_no_call(cluster: ClusterLab) -> None:
    """Every node is stopped and started again, one after the other; nobody's call fails."""
    load = cluster.load(clients=5)
    callers = cluster.callers()
    load.more(100)
    for name in cluster.names:

        def restart(name: str = name) -> None:
            assert cluster.nodes[name].stop() == 0
            load.more(100)
            cluster.nodes[name].start()
            cluster.wait_ready([name])
            load.more(100)

        cluster.takeover(restart)
    assert callers.stop() == 0
    told = json.loads(callers.text().splitlines()[-1])
    print(f"callers with the SDK's retries: {told}")
    _, violations = cluster.judge(load, "rolling-restart")
    assert not violations
    assert told["calls"] > 500
    assert not told["failed"]


def test_a_wiped_node_is_made_whole_again(cluster: ClusterLab) -> None:
    """By snapshots of all that there is, while everybody goes on writing."""
    cluster.fill(RECORDS)
    load = cluster.load(clients=10)
    load.more(500)
    victim = cluster.names[-1]

    def wipe() -> None:
        cluster.nodes[victim].kill()
        shutil.rmtree(cluster.data_dir(victim))
        load.more(300)
        cluster.start_until_whole(victim, RECORDS, WHOLE_S)

    cluster.takeover(wipe)
    load.more(300)
    _, violations = cluster.judge(load, "wiped-node")
    assert not violations
