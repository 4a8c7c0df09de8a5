"""agnictl cluster top, against three real nodes with mTLS; and its figures by themselves."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from three_nodes import ThreeNodes, wait_for

from agniregistry import types as t
from agniregistry.cli import exposition, vitals

Ctl = Callable[..., Result]
COLUMNS = 100
"""A terminal that is too narrow for everything."""


def shown(ctl: Ctl, *words: str) -> Any:
    result = ctl("cluster", "top", "--interval", "200ms", "-o", "json", *words)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_script_gets_every_node_and_every_partition(ctl: Ctl, cluster: ThreeNodes) -> None:
    found = shown(ctl, "--partitions")
    assert [node["name"] for node in found["nodes"]] == ["n1", "n2", "n3"]
    assert [node["zone"] for node in found["nodes"]] == ["zone-1", "zone-2", "zone-3"]
    assert sum(node["leaders"] for node in found["nodes"]) == 4
    assert [node["replicas"] for node in found["nodes"]] == [4, 4, 4]
    for node in found["nodes"]:
        assert node["state"] == "active"
        assert node["ready"] is True
        assert node["memory_bytes"] > 1 << 20
        assert node["disk_free_bytes"] > 1 << 20
        assert node["wal_bytes"] > 0
        assert node["cpu_cores"] is not None
        assert node["queue_depth"] >= 0
    assert sum(part["records"] for part in found["partitions"]) == 29
    for part in found["partitions"]:
        others = {str(voter) for voter in part["voters"]} - {str(part["leader_id"])}
        assert set(part["lag_entries"]) == others
        assert part["term"] > 0
        assert part["silent"] == []


def test_rates_are_those_of_the_work_that_is_done(ctl: Ctl, cluster: ThreeNodes) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, *cluster.addresses[:1], *map(str, cluster.tls().files)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        wait_for("reads and writes show", lambda: is_busy(shown(ctl)))
    finally:
        reader.terminate()
        reader.wait()


def is_busy(found: Any) -> bool:
    nodes = found["nodes"]
    writes = sum(node["writes_per_s"] for node in nodes)
    # The SDK asks whoever leads the record's partition.
    reads = sum(node["reads_per_s"] for node in nodes)
    return writes > 5 and reads > 5 and nodes[0]["fsync_p99_ms"] is not None


READER = """
import sys
from agniregistry import Client, Key, Kind, Spec, Tls
address, *files = sys.argv[1:]
with Client(address, tls=Tls(*files)) as client:
    while True:
        key = Key(Kind.AGENT, "busy")
        client.put(key, Spec(region="eu", ip="10.0.0.2", port=1))
        client.get(key)
"""


def test_a_table_fits_people(ctl: Ctl) -> None:
    result = ctl("cluster", "top", "--once", "--interval", "100ms", "--partitions", "-o", "wide")
    assert result.exit_code == 0, result.stderr
    head, _, columns, *rows = result.stdout.splitlines()
    assert head.startswith("3 of 3 nodes, all 4 partitions are led, ")
    names = ["NODE", "NAME", "STATE", "ZONE", "LEADS", "HOLDS", "WRITES/S", "RENEWALS/S"]
    assert columns.split()[: len(names)] == names
    assert [row.split()[1:4] for row in rows[:3]] == [
        [f"n{number}", "active", f"zone-{number}"] for number in (1, 2, 3)
    ]
    assert "PARTITION" in result.stdout


def test_an_interval_that_means_nothing_is_refused(ctl: Ctl) -> None:
    result = ctl("cluster", "top", "--interval", "1ms")
    assert result.exit_code == 2
    assert "--interval is below 100ms" in result.stderr


def test_the_live_view_survives_the_node_that_it_asked(tmp_path: Any, monkeypatch: Any) -> None:
    """On a terminal, redrawn in place; the node of the context is killed meanwhile."""
    own = ThreeNodes(tmp_path)
    try:
        own.start()
        master, slave = pty.openpty()
        files = [str(file) for file in own.tls().files]
        flags = ["--ca", files[0], "--cert", files[1], "--key", files[2]]
        child = subprocess.Popen(
            [sys.executable, "-m", "agniregistry.cli", "cluster", "top", "--interval", "200ms",
             "--timeout", "2s", "-a", own.addresses[0], *flags],
            stdout=slave, stderr=slave,
            # What a shell runs in the background ignores it, and so would what that starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                 "TERM": "xterm", "COLUMNS": str(COLUMNS)},
        )  # fmt: skip
        os.close(slave)
        try:
            seen = read_until(master, "3 of 3 nodes") + read_until(master, "LAG")
            # What is most needed is there, and nothing is wrapped or cut.
            assert "MEMORY" not in seen
            assert "…" not in seen
            own.kill(0)
            read_until(master, "2 of 3 nodes")
            read_until(master, "unreachable")
            wait_for("the leaders miss it", lambda: is_missed(own, node_id="1"))
            status = subprocess.run(
                [sys.executable, "-m", "agniregistry.cli", "cluster", "status",
                 "-a", own.addresses[1], *flags],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert "Nodes           no answer here from n1" in status.stdout
            read_until(master, "all 4 partitions are led")
            # With a second one gone there is no majority; it is seen all the same, and goes on.
            own.kill(1)
            read_until(master, "1 of 3 nodes")
            own.kill(2)
            read_until(master, "nobody tells who is there")
            assert child.poll() is None
            child.send_signal(signal.SIGINT)
            assert child.wait(20) == 0
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            os.close(master)
    finally:
        own.stop()


def is_missed(own: ThreeNodes, node_id: str) -> bool:
    """Whether every leader that lives says that this node is silent."""
    pages = [exposition.parse(own.text(number, "/metrics")) for number in (1, 2)]
    led = sum(page.total("agni_leader") for page in pages)
    heard = [page.by("agni_replica_alive", "partition", node_id=node_id) for page in pages]
    silent = [alive for each in heard for alive in each.values()]
    return led == 4 and silent == [0] * 4


def read_until(master: int, text: str) -> str:
    """What the terminal shows until it has shown this."""
    seen, deadline = "", time.monotonic() + 60
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} is not in {seen[-3_000:]}"
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 65_536).decode("utf-8", "replace")
    return seen


def test_a_page_is_read_as_the_format_says() -> None:
    page = exposition.parse(
        '# HELP a A.\n# TYPE a gauge\na 1\na{x="1",y="q\\"\\\\\\n"} 2.5\nb{x="1"} +Inf\nbroken\n',
        7.0,
    )
    assert page.total("a") == 3.5
    assert page.total("a", x="1") == 2.5
    assert page.by("a", "y") == {'q"\\\n': 2.5}
    assert page.total("b") == float("inf")
    assert page.total("nothing") == 0


@given(st.lists(st.floats(0, 1_000), min_size=1), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = [1.0, 2.0, 4.0, 8.0, 64.0, 512.0, 1_000.0, float("inf")]
    lines = [
        f'h_bucket{{le="{"+Inf" if bound == float("inf") else bound}"}} '
        f"{sum(value <= bound for value in values)}"
        for bound in bounds
    ]
    found = exposition.quantile("h", share, exposition.parse("\n".join(lines)))
    rank = min(len(values) - 1, max(0, -int(-share * len(values) // 1) - 1))
    true = sorted(values)[rank]
    assert found is not None
    upper = next(bound for bound in bounds if true <= bound)
    lower = max([0.0, *(bound for bound in bounds if bound < upper)])
    assert lower <= found <= upper


def test_rates_forget_a_restart() -> None:
    before, now = (exposition.parse(f"c {value}", at) for value, at in ((10, 1.0), (4, 2.0)))
    assert exposition.rate("c", now, before) is None
    assert exposition.rate("c", before, None) is None
    later = exposition.parse("c 9", 4.0)
    assert exposition.rate("c", later, now) == 2.5


@pytest.mark.parametrize("deposed_term", [3, 9])
def test_the_leader_of_the_highest_term_counts(deposed_term: int) -> None:
    def page(term: int) -> exposition.Page:
        return exposition.parse(
            f'agni_leader{{partition="0"}} 1\nagni_term{{partition="0"}} {term}'
        )

    placements = (t.Placement(0, voters=(1, 2, 3), leader_id=1),)
    members = tuple(t.ClusterMember(number) for number in (1, 2, 3))
    look = vitals.Look(
        t.ClusterMembers(members=members, placements=placements),
        {1: page(deposed_term), 2: page(5)},
        {3: "refused"},
    )
    (found,) = vitals.partitions(look)
    assert found.leader_id == (2 if deposed_term == 3 else 1)
    assert vitals.nodes(look, None)[2].error == "refused"
