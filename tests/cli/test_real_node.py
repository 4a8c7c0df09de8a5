"""agnictl from end to end: a real node as a process, and the files that it leaves on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Parsed = Callable[[Result], Any]


@pytest.fixture
def node(own_node: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A node that agnictl talks to."""
    process = own_node()
    monkeypatch.setenv("AGNI_ADDRESS", process.address)
    return process


def test_a_day_in_the_life_of_a_node(node: Any, alone: Run, parsed: Parsed, roadmap: Path) -> None:
    name = "global.gateway.agnistack.online"
    assert alone("register", "-f", str(roadmap)).exit_code == 0
    words = ("--region", "eu", "--ip", "10.0.0.1", "--port", "9000", "--cpu", "4", "--ttl", "10m")
    assert alone("register", "agent", "worker-1", *words).exit_code == 0
    stored = parsed(alone("get", "gateway", name, "-o", "json"))
    for field, value in json.loads(roadmap.read_text()).items():
        assert stored[field] == value
    assert alone("list", "-o", "name").stdout.split() == ["agent/worker-1", f"gateway/{name}"]
    assert alone("discover", "gateways", "-p", "global", "-o", "name").stdout == f"gateway/{name}\n"
    assert "is answered: place 1 of 1" in alone("explain", "gateway", name).stdout
    assert "not answered: region" in alone("explain", "agent/worker-1", "-r", "us").stdout
    assert alone("explain", "agent", "nope").exit_code == 3
    assert alone("renew", "agent", "worker-1", "--free-cpu", "1").exit_code == 0
    assert parsed(alone("get", "agent/worker-1", "-o", "json"))["load"]["free"]["cpu"] == 1
    assert alone("update", "agent", "worker-1", "-l", "tier=gold").exit_code == 0
    stale = alone("update", "agent", "worker-1", "--cpu", "1", "--expected-revision", "9999")
    assert stale.exit_code == 4
    refused = alone("register", "agent", "x", "--region", "eu", "--ip", "1.2.3.4.5")
    assert refused.exit_code == 2
    status = parsed(alone("status", "-o", "json"))
    assert sum(part["records"] for part in status["partitions"]) == 2
    watched = alone("watch", "--current", "--count", "2", "-o", "name").stdout.split()
    assert sorted(watched) == ["agent/worker-1", f"gateway/{name}"]
    taken = parsed(alone("snapshot", "take", "-o", "json"))["snapshots"]
    assert sum(each["records"] for each in taken) == 2
    assert alone("deregister", "agent", "worker-1").exit_code == 0
    assert alone("deregister", "agent", "worker-1").exit_code == 3
    node.stop()
    assert alone("list", "--timeout", "500ms").exit_code == 5
    on_disk(alone, parsed, node.data_dir, name)


def on_disk(alone: Run, parsed: Parsed, data_dir: Path, name: str) -> None:
    """What the node left behind says the same as it said."""
    verified = parsed(alone("wal", "verify", str(data_dir), "-o", "json"))
    assert verified["ok"] is True
    assert verified["torn_tail"] is None
    dumped = alone("wal", "dump", str(data_dir), "-o", "json").stdout.splitlines()
    frames = [json.loads(line) for line in dumped]
    told = [(each["op"], each["key"]["name"]) for each in frames if each.get("key")]
    # Commands, with those that applying refused: the stale update and the second removal.
    patches, deletes = [("patch", "worker-1")] * 2, [("delete", "worker-1")] * 2
    assert told == [("put", name), ("put", "worker-1"), *patches, *deletes]
    (put,) = [each for each in frames if each["op"] == "put" and each["key"]["name"] == name]
    assert put["spec"]["capacity"]["storage"] == 40960
    inspected = parsed(alone("snapshot", "inspect", str(data_dir), "-o", "json"))["snapshots"]
    assert {each["cluster_id"] for each in inspected} == {verified["cluster_id"]}
    records = alone("snapshot", "inspect", str(data_dir), "--records").stdout.splitlines()
    assert sorted(json.loads(line)["key"]["name"] for line in records) == [name, "worker-1"]
    assert alone("snapshot", "verify", str(data_dir)).exit_code == 0


def test_the_log_of_a_killed_node_is_whole_up_to_a_torn_tail(
    node: Any, alone: Run, parsed: Parsed
) -> None:
    lines = [
        {"kind": "agent", "name": f"worker-{n}", "region": "eu", "ip": "10.0.0.1", "port": 1}
        for n in range(50)
    ]
    assert alone("register", "-f", "-", stdin=json.dumps(lines)).exit_code == 0
    node.kill()
    assert parsed(alone("wal", "verify", str(node.data_dir), "-o", "json"))["ok"] is True
    dumped = alone("wal", "dump", str(node.data_dir), "--op", "put", "-o", "json").stdout
    assert len(dumped.splitlines()) == 50
