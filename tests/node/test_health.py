"""The port for those who only look: plain HTTP, from the start, whatever the others do."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback_ports import free_port, free_ports
from node_process import Process

from agniregistry.identity import DevCa, SpiffeId


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Callable[..., Process]]:
    """Starts a node with a health port; it ends with the test."""
    started: list[Process] = []

    def start(*flags: str) -> Process:
        started.append(Process(tmp_path, "--health-listen", f"127.0.0.1:{port}", *flags))
        return started[-1]

    yield start
    for node in started:
        node.child.terminate()
        node.wait()


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and text; 0 where nobody answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_it_says_what_a_kubelet_and_prometheus_want_to_know(
    tmp_path: Path,
    port: int,
    start: Callable[..., Process],
    eventually: Callable[..., None],
) -> None:
    ca = DevCa.init(tmp_path / "ca")
    ca.issue(SpiffeId.node(ca.trust_domain, "n1"), ["127.0.0.1"])
    start("--tls-dir", str(ca.folder))
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    assert ask(port, "/livez") == (200, "ok")
    status, metrics = ask(port, "/metrics")
    assert status == 200
    assert "agni_records" in metrics
    assert ask(port, "/v1/status")[0] == 404, "it shows no more than that"
    assert ask(port, "/readyz", "POST")[0] == 405
    assert ask(port, "/v1/gateways", "POST")[0] == 405


def test_a_node_that_waits_for_its_cluster_lives_but_is_not_ready(
    port: int, start: Callable[..., Process], eventually: Callable[..., None]
) -> None:
    peer, other = free_ports(2)
    seeds = f"127.0.0.1:{peer},127.0.0.1:{other}"
    start("--name", "n1", "--peer-listen", f"127.0.0.1:{peer}", "--seeds", seeds)
    eventually(lambda: ask(port, "/livez")[0] == 200)
    status, reason = ask(port, "/readyz")
    assert status == 503
    assert "looks for its cluster" in reason
    assert ask(port, "/metrics")[0] == 503


def test_slow_and_many_connections_do_no_harm(
    port: int, start: Callable[..., Process], eventually: Callable[..., None]
) -> None:
    start()
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for each in held:
        each.sendall(b"GET /li")
    for each in held:
        each.close()
    eventually(lambda: ask(port, "/livez")[0] == 200)
