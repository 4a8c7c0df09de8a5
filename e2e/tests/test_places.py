"""Clusters of somebody else: the same tests, with the user's own kubectl, helm and kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agni_e2e import Cluster, PlatformError, builder

KIND = """#!/bin/sh
# A stand-in: its cluster is one that is there already.
echo "$@" >> "{log}"
while [ $# -gt 0 ]; do
  case $1 in --kubeconfig) cp "{kubeconfig}" "$2" ;; --config) cp "$2" "{log}.config" ;; esac
  shift
done
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that begins with kubectl and helm, as users have them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    built = builder.ensure("quick")
    for name in ("kubectl", "helm"):
        (folder / name).symlink_to(built[name])
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_existing_cluster_is_used_and_left(
    quick: Cluster, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2E_CLUSTER", "existing")
    monkeypatch.setenv("KUBECONFIG", str(quick.kubeconfig))
    with Cluster() as cluster:
        assert "machine-1" in cluster.kubectl("get", "nodes")
        assert cluster.machines == {}
        # cert-manager is there, so there is none beside it.
        assert not cluster.processes.log("cert-manager").exists()
    assert quick.api.is_ready()


def test_existing_cluster_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2E_CLUSTER", "existing")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(PlatformError, match="wants KUBECONFIG"), Cluster():
        pass


def test_kind_cluster_is_made_and_deleted(
    quick: Cluster, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "kind.log"
    (path / "kind").write_text(KIND.format(log=log, kubeconfig=quick.kubeconfig))
    (path / "kind").chmod(0o755)
    monkeypatch.setenv("E2E_CLUSTER", "kind")
    with Cluster(nodes=2) as cluster:
        name = cluster.processes.name
        assert list(cluster.machines) == [f"{name}-worker", f"{name}-worker2"]
        assert "machine-1" in cluster.kubectl("get", "nodes")
        cluster.load_image(Path("node.tar"))
    create, load, delete = log.read_text().splitlines()
    assert create.startswith(f"create cluster --name {name} --kubeconfig ")
    assert load == f"load image-archive node.tar --name {name}"
    assert delete == f"delete cluster --name {name}"
    config = Path(f"{log}.config").read_text()
    assert config.count("role: worker") == 2
    assert "topology.kubernetes.io/zone: zone-2" in config


def test_place_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2E_CLUSTER", "moon")
    with pytest.raises(PlatformError, match="E2E_CLUSTER is 'moon'"), Cluster():
        pass
