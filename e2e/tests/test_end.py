"""Nothing is left of a cluster, whoever ends it and however badly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agni_e2e import places
from agni_e2e.processes import sweep
from agni_e2e.waiting import until

CALLER = """
import sys, time
from agni_e2e import Cluster
with Cluster({tier!r}, nodes=1, cert_manager=False) as cluster:
    print(cluster.processes.name, flush=True)
    sys.stdin.read()
"""
END_S = 30.0


def processes_of(name: str) -> dict[int, str]:
    """Processes whose command line, or mounts, name a cluster."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name in words:
            found[int(path.parent.name)] = words
    return found


def cgroups_of(name: str) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [*root.glob(name), *root.glob(f"*/{name}")]


def is_gone(name: str) -> bool:
    has_folder = (places.runs() / name).exists()
    return not has_folder and not processes_of(name) and not cgroups_of(name)


class Caller:
    """A program that has a cluster, so that it can be ended in all ways."""

    def __init__(self, tier: str) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-c", CALLER.format(tier=tier)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            # What a shell runs in the background ignores it, and so would what that starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            start_new_session=True,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        lines = iter(self.stdout.readline, "")
        self.name = next(line.strip() for line in lines if line.startswith("agni-e2e-"))

    def keeper(self) -> int:
        [pid] = [pid for pid, words in processes_of(self.name).items() if "keeper.py" in words]
        return pid

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


@pytest.fixture
def caller(request: pytest.FixtureRequest, ours: None) -> Iterator[Caller]:
    caller = Caller(request.param)
    yield caller
    caller.close()


def end_well(caller: Caller) -> None:
    caller.stdin.close()
    assert caller.process.wait(END_S) == 0


def interrupt(caller: Caller) -> None:
    caller.process.send_signal(signal.SIGINT)
    assert caller.process.wait(END_S) != 0


def kill(caller: Caller) -> None:
    caller.process.kill()


TIERS = ["quick", pytest.param("full", marks=pytest.mark.full)]
WAYS = {"well": end_well, "interrupted": interrupt, "killed": kill}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("caller", TIERS, indirect=True)
def test_nothing_is_left_of_a_cluster(caller: Caller, way: Callable[[Caller], None]) -> None:
    assert any("kube-apiserver" in words for words in processes_of(caller.name).values())
    way(caller)
    until("all is gone", lambda: is_gone(caller.name), timeout_s=END_S)


@pytest.mark.parametrize("caller", TIERS, indirect=True)
def test_processes_die_with_their_keeper(caller: Caller) -> None:
    os.kill(caller.keeper(), signal.SIGKILL)
    caller.process.kill()
    caller.process.wait()
    until("all processes are dead", lambda: not processes_of(caller.name), timeout_s=END_S)
    assert not is_gone(caller.name)
    sweep()
    assert is_gone(caller.name), "whoever starts the next cluster removes the rest"
