"""`register --keep-alive` as a process: renews while it runs, deregisters at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from agniregistry import Key, Spec
from agniregistry.errors import NotFoundError
from agniregistry.testing import FakeRegistry

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def live() -> Iterator[FakeRegistry]:  # type: ignore[type-arg]
    """A registry on real time, since the process renews by it."""
    fake = FakeRegistry()
    yield fake
    fake.close()


@pytest.fixture
def start(live: FakeRegistry) -> Iterator[Start]:  # type: ignore[type-arg]
    """Starts agnictl as a process."""
    started: list[subprocess.Popen[str]] = []

    with live.serve() as address:

        def begin(*words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "agniregistry.cli", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "AGNI_ADDRESS": address,
                     "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
            started.append(process)
            return process

        yield begin
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


WORDS = ("register", "agent", "worker-1", "--region", "eu", "--ip", "10.0.0.1", "--port", "1",
         "--keep-alive", "-o", "json")  # fmt: skip


def next_event(process: subprocess.Popen[str]) -> dict[str, str]:
    """The next line that the process prints."""
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_renews_until_it_is_ended_and_then_deregisters(
    live: FakeRegistry,
    start: Start,
    number: signal.Signals,  # type: ignore[type-arg]
) -> None:
    process = start(*WORDS, "--ttl", "1s")
    assert next_event(process)["event"] == "registered"
    assert [next_event(process)["event"] for _ in range(4)] == ["renewed"] * 4
    assert live.get(Key.agent("worker-1")).lease_remaining_ms
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["event"] == "deregistered"
    with pytest.raises(NotFoundError):
        live.get(Key.agent("worker-1"))


def test_a_newer_owner_ends_it_with_a_conflict(
    live: FakeRegistry,
    start: Start,  # type: ignore[type-arg]
) -> None:
    process = start(*WORDS, "--ttl", "1s", "--incarnation", "5")
    assert next_event(process)["event"] == "registered"
    spec = Spec(region="us", ip="10.0.0.9", port=1)
    live.put(Key.agent("worker-1"), spec, ttl_ms=60_000, incarnation=100)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 4
    assert json.loads(err.splitlines()[-1])["error"]["exit_code"] == 4
    assert live.get(Key.agent("worker-1")).spec.region == "us"
