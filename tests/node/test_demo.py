"""`make run` as a newcomer does it: three nodes, each of them killed, and started again."""

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
NAME = "global.gateway.agnistack.online"
GATEWAY = f"/v1/gateways/{NAME}"


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


def held(address: str) -> Any:
    """What a node holds, by partition; None where it doesn't answer."""
    status = call(address, "/v1/status")
    if status is None:
        return None
    return [
        (each["partition"], each["revision"], each["records"], each["state_hash"])
        for each in status["partitions"]
    ]


def wait_caught_up(address: str, others: list[str]) -> None:
    """Waits until a node serves and holds what all others hold."""
    wait_for(f"{address} is ready", lambda: call(address, "/readyz") is not None)

    def same() -> bool:
        mine = held(address)
        return bool(mine) and all(mine == held(other) for other in others)

    wait_for(f"{address} has caught up", same)


def the_gateway(address: str) -> Any:
    """The roadmap's gateway as a node shows it."""
    return wait_for(f"{address} shows the gateway", lambda: call(address, GATEWAY))


def command_of(pid: int) -> list[str]:
    """The command line of a process that runs."""
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def test_each_node_in_turn_may_be_killed_and_comes_back(demo: Path) -> None:
    text = demo.read_text()
    took = re.search(r"3 nodes ready, gateway discovered: ([\d.]+) s after the start", text)
    assert took
    print(f"make run: {took[0]}")
    found = re.findall(r"([\d.]+:\d+) \(process (\d+)\)", text)
    nodes = {address: int(pid) for address, pid in found}
    assert len(nodes) == 3
    commands = {address: command_of(pid) for address, pid in nodes.items()}
    told = re.search(r"-m agniregistry_node (run .*)", text)
    assert told
    first, *_ = nodes
    assert shlex.split(told[1]) == commands[first][3:], "it says how the first one is started"
    started: list[subprocess.Popen[bytes]] = []
    try:
        for turn, (address, pid) in enumerate(nodes.items(), 1):
            others = [other for other in nodes if other != address]
            os.kill(pid, signal.SIGKILL)
            for number, other in enumerate(others):
                look_and_write(other, cpu=2 * turn + number)
            command = commands[address]
            started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL))
            wait_caught_up(address, others)
            assert the_gateway(address)["capacity"]["cpu"] == 2 * turn + 1
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=PATIENCE_S)


def look_and_write(address: str, cpu: int) -> None:
    """The roadmap's gateway is discovered at a node, and can be changed there."""

    def discovered() -> Any:
        found = call(address, "/v1/discover?kind=gateway&region=global")
        return found and [each["instance"]["name"] for each in found["candidates"]]

    names = wait_for(f"{address} discovers it", discovered)
    assert names == [NAME]
    changed = json.dumps({
        "region": "global", "gateway_ip": "12.34.56.78", "gateway_domain": NAME,
        "gateway_port": 4000, "capacity": {"cpu": cpu, "memory": 4096},
    })  # fmt: skip
    wait_for(f"it can be changed at {address}", lambda: call(address, "/v1/gateways", changed))
    assert the_gateway(address)["capacity"]["cpu"] == cpu
