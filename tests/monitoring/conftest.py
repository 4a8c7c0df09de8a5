"""Three nodes for all tests here, and their figures."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agniregistry.cli import agnictl

sys.path.insert(0, str(Path(__file__).parent))
from three_nodes import ThreeNodes


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeNodes]:
    """Three nodes that have done some work."""
    nodes = ThreeNodes(tmp_path_factory.mktemp("three"))
    try:
        nodes.start()
        nodes.work()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture
def ctl(
    cluster: ThreeNodes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Agnictl with a context that names the first node and the operator's files."""
    for name in ("AGNI_ADDRESS", "AGNICTL_CONTEXT", "AGNI_CA", "AGNI_CERT", "AGNI_KEY"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config.yaml"
    tls = cluster.tls()
    config.write_text(
        f"current: three\ncontexts:\n  three: {{address: '{cluster.addresses[0]}', "
        f"ca: {tls.ca_file}, cert: {tls.cert_file}, key: {tls.key_file}}}\n"
    )
    monkeypatch.setenv("AGNICTL_CONFIG", str(config))
    return lambda *words: CliRunner().invoke(agnictl, list(words))
