"""Fixtures of the SDK's own tests: fakes, served fakes, and a check that no thread is left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agniregistry import types as t
from agniregistry.client import Client
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.testing import FakeClock, FakeRegistry

sys.path.insert(0, str(Path(__file__).parent))

from loopback_cluster import ThreeNodes

QUICK = RetryPolicy(max_attempts=5, initial_delay_ms=1, max_delay_ms=20)


@pytest.fixture(autouse=True)
def no_thread_is_left(eventually: Any) -> Iterator[None]:
    """Whatever a test starts ends with it."""
    before = set(threading.enumerate())

    def ours() -> list[str]:
        return [
            thread.name
            for thread in set(threading.enumerate()) - before
            if thread.name.startswith("agniregistry")
        ]

    yield
    eventually(lambda: not ours(), 5)


@pytest.fixture
def fake() -> Iterator[FakeRegistry[Any]]:
    """A fake on real time."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def frozen() -> Iterator[FakeRegistry[FakeClock]]:
    """A fake whose time stands still."""
    with FakeRegistry(clock=FakeClock()) as registry:
        yield registry


@pytest.fixture
def address(fake: FakeRegistry[Any]) -> Iterator[str]:
    """Where the fake is served."""
    with fake.serve() as where:
        yield where


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A client of the served fake that tries again quickly."""
    with Client(address, retry=QUICK, timeout=Timeout(total_ms=5000, attempt_ms=2000)) as made:
        yield made


@pytest.fixture
def spec() -> t.Spec:
    """A gateway."""
    return t.Spec(region="eu", domain="a.example", port=4000, capacity=t.Capacity(cpu=4))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeNodes]:
    """Three nodes for all tests of the session."""
    nodes = ThreeNodes(tmp_path_factory.mktemp("cluster"))
    try:
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def cluster(running: ThreeNodes) -> ThreeNodes:
    """The three nodes, all of them serving."""
    running.start()
    return running
