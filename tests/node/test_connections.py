"""What clients hold of a node is bounded, named in the manual, and free again when they die."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCHES = 5
IDLE_CONNECTIONS = 1
"""The one that asks for the metrics."""

_WATCH = """
import sys
import grpc
from agniregistry.api.v1 import registry_pb2, registry_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1])
stub = registry_pb2_grpc.RegistryServiceStub(channel)
watches = [stub.Watch(registry_pb2.WatchRequest()) for _ in range(int(sys.argv[2]))]
for watch in watches:
    next(watch)
print("open", flush=True)
sys.stdin.read()
"""


def metric(address: str, name: str) -> int:
    """The value of a metric without labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        found = re.search(rf"^{name} (\d+)$", answer.read().decode(), re.MULTILINE)
    assert found, name
    return int(found[1])


@pytest.mark.timeout(60)
def test_a_killed_client_leaves_nothing_behind(
    own_node: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    address = own_node().address
    client = subprocess.Popen(
        [sys.executable, "-c", _WATCH, address, str(WATCHES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline().strip() == "open"
        assert metric(address, "agni_watches") == WATCHES
        assert metric(address, "agni_connections") == IDLE_CONNECTIONS + 1
        client.kill()
    eventually(lambda: metric(address, "agni_watches") == 0)
    eventually(lambda: metric(address, "agni_connections") == IDLE_CONNECTIONS)


def test_every_limit_of_the_server_is_in_the_manual() -> None:
    source = (ROOT / "node/crates/agni-server/src/limits.rs").read_text()
    names = re.findall(r"^pub const (\w+): \w+ = [\d_ <]+;", source, re.MULTILINE)
    assert "PING_INTERVAL_MS" in names
    manual = (ROOT / "docs/operations.md").read_text()
    assert [name for name in names if f"| `{name}` |" not in manual] == []


def test_limits_are_named_in_one_place() -> None:
    """A number with a unit in its name is a limit, and limits stand in limits.rs."""
    pattern = re.compile(r"^\s*(?:pub )?const (\w+(?:_MAX|_BYTES_MAX|_MS_MAX)): ", re.MULTILINE)
    crate = ROOT / "node/crates/agni-server/src"
    strays = {
        f"{path.relative_to(crate)}: {name}"
        for path in crate.rglob("*.rs")
        if path.name != "limits.rs"
        for name in pattern.findall(path.read_text().partition("#[cfg(test)]")[0])
    }
    # Whole numbers that a float can hold: arithmetic, not a bound on anybody.
    assert strays <= {"http/print.rs: EXACT_MAX"}
