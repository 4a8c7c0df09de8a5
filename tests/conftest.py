"""Fixtures for tests that need a registry: the real node, once a session, and its address.

A test that asks for the node and can't have it fails with what to do about it: a suite that
skips what isn't built proves nothing.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

NODE_START_S_MAX = 30.0
"""A node on an empty directory that takes longer than this does not start at all."""

_RUN = """
import sys
from agniregistry_node import Node
with Node(data_dir=sys.argv[1], listen=sys.argv[2]) as node:
    print(node.address, flush=True)
    sys.stdin.read()
"""


@dataclass
class NodeProcess:
    """A registry in a process of its own; it ends when this process does."""

    address: str
    data_dir: Path
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """Kill -9, at once."""
        self.process.kill()
        self.process.wait()
        self._close_pipes()

    def stop(self) -> None:
        """A graceful end, or a hard one after ten seconds."""
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def start_node(data_dir: Path, listen: str = "127.0.0.1:0") -> NodeProcess:
    """Starts a node and waits until it says where it listens."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir.parent / f"{data_dir.name}.log").open("a+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(data_dir), listen],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        address = _first_line(process, NODE_START_S_MAX)
        if not address:
            process.kill()
            process.wait()
            log.seek(0)
            pytest.fail(
                "the node does not start; build it with `make setup` "
                f"(or `cd node && maturin develop`). It said:\n{log.read()[-3000:]}",
                pytrace=False,
            )
    return NodeProcess(address, data_dir, process)


def _first_line(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline().strip() if selector.select(seconds) else ""


@pytest.fixture(scope="session")
def node_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The real node, once for all tests of the session."""
    node = start_node(tmp_path_factory.mktemp("node") / "data")
    yield node
    node.stop()


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes that a test may kill; ends what is left of them."""
    started: list[NodeProcess] = []

    def start(listen: str = "127.0.0.1:0", folder: str = "own") -> NodeProcess:
        started.append(start_node(tmp_path / folder, listen))
        return started[-1]

    yield start
    for node in started:
        node.stop()


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until the condition holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., None]:
    """`eventually`, for tests that can't import this file."""
    return eventually
