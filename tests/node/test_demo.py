"""`make run` as a newcomer does it: three nodes, one of them killed, and started again."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
GATEWAY = "/v1/gateways/global.gateway.agnistack.online"


def free_ports() -> int:
    """The first of a few ports that are free just now, with those that nodes use among each
    other."""
    for first in range(20_000, 30_000, 211):
        sockets = []
        try:
            for port in (*range(first, first + 3), *range(first + 100, first + 103)):
                sockets.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        else:
            return first
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("there are no free ports")


def wait_for(what: str, holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)
    return found


def call(address: str, path: str, body: str | None = None) -> Any:
    """The parsed answer; None where there is none. Every call needs the operator's certificate."""
    data = body.encode() if body is not None else None
    request = urllib.request.Request(
        f"https://{address}{path}", data, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10, context=CONTEXT[0]) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return None


CONTEXT: list[ssl.SSLContext] = []


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Path]:
    """The demonstration's output; it runs."""
    out = tmp_path / "out"
    command = [sys.executable, "scripts/run_demo.py", "--port", str(free_ports())]
    with out.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "data")], cwd=ROOT, stdout=sink, stderr=sink
        )
    try:
        wait_for("it says what to do next", lambda: "Ctrl-C stops it" in out.read_text())
        folder = tmp_path / "data" / "ca"
        context = ssl.create_default_context(cafile=str(folder / "bundle.pem"))
        context.load_cert_chain(folder / "operator.pem", folder / "operator-key.pem")
        CONTEXT[:] = [context]
        yield out
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE_S)


def test_any_one_node_may_be_killed_and_comes_back(demo: Path) -> None:
    text = demo.read_text()
    nodes = re.findall(r"([\d.]+:\d+) \(process (\d+)\)", text)
    assert len(nodes) == 3
    address, pid = nodes[0]
    others = [other for other, _ in nodes[1:]]
    assert call(address, GATEWAY)["region"] == "global"
    os.kill(int(pid), signal.SIGKILL)
    for other in others:
        found = wait_for(f"{other} finds it", lambda: call(other, GATEWAY))  # noqa: B023
        assert found["region"] == "global"
    changed = json.dumps({"name": "written-meanwhile", "region": "eu", "gateway_ip": "192.0.2.7",
                          "gateway_port": 4000})  # fmt: skip
    wait_for("it can be changed", lambda: call(others[0], "/v1/gateways", changed))
    line = re.search(r"-m agniregistry_node (run .*)", text)
    assert line
    again = subprocess.Popen(
        [sys.executable, "-m", "agniregistry_node", *shlex.split(line[1])],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("the killed node is back", lambda: call(address, "/readyz") is not None)

        def held(where: str) -> int:
            return sum(each["records"] for each in call(where, "/v1/status")["partitions"])

        wait_for("it has caught up", lambda: held(address) == held(others[0]) == 2)
    finally:
        again.terminate()
        again.wait(timeout=PATIENCE_S)
