"""agnictl against the fake registry, through the real client over real gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agniregistry.cli import agnictl
from agniregistry.testing import FakeClock, FakeRegistry

ROADMAP_GATEWAY = {
    "region": "global",
    "gateway_ip": "12.34.56.78",
    "gateway_domain": "global.gateway.agnistack.online",
    "gateway_port": 4000,
    "capacity": {"cpu": 1, "bandwidth": 20, "memory": 4096, "storage": 40960},
}

Agnictl = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of whoever runs the tests may matter."""
    names = ("AGNI_ADDRESS", "AGNICTL_CONTEXT", "AGNI_CA", "AGNI_CERT", "AGNI_KEY")
    for name in (*names, "XDG_CONFIG_HOME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGNICTL_CONFIG", str(tmp_path / "agnictl" / "config.yaml"))


@pytest.fixture
def registry() -> Iterator[FakeRegistry[FakeClock]]:
    """A registry whose leases run out when the test says so."""
    fake = FakeRegistry(clock=FakeClock())
    yield fake
    fake.close()


@pytest.fixture
def run(registry: FakeRegistry[FakeClock], monkeypatch: pytest.MonkeyPatch) -> Iterator[Agnictl]:
    """Runs a command line against the registry and hands back what came of it."""
    with registry.serve() as address:
        monkeypatch.setenv("AGNI_ADDRESS", address)
        yield bare


def bare(*words: str, stdin: str | None = None) -> Result:
    """Runs a command line; whichever registry the environment names."""
    return CliRunner().invoke(agnictl, list(words), input=stdin)


@pytest.fixture
def alone() -> Agnictl:
    """Runs a command line without a registry."""
    return bare


@pytest.fixture
def roadmap(tmp_path: Path) -> Path:
    """The roadmap's gateway message, to the letter, in a file."""
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(ROADMAP_GATEWAY))
    return path


@pytest.fixture
def parsed() -> Callable[[Result], Any]:
    """What a command printed as JSON."""

    def parse(result: Result) -> Any:
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return parse
