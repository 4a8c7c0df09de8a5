"""Clusters that tests share: one of each tier, started when the first test asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from operator_lab import lab, operators, theatre  # noqa: F401 - fixtures
from registry_fixtures import loaded, operated, tell  # noqa: F401 - fixtures

from agni_e2e import Cluster

QUICK_START_S_MAX = 60.0


@pytest.fixture(scope="session")
def ours() -> None:
    """Tests of the platform itself, and those that play its pods, are about no other cluster."""
    if Cluster().place != "local":
        pytest.skip("only where the cluster is built and run here")


@pytest.fixture(scope="session")
def quick(ours: None) -> Iterator[Cluster]:
    began = time.monotonic()
    with Cluster("quick", audit=True) as cluster:
        took_s = time.monotonic() - began
        print(f"quick tier: {took_s:.1f} s")
        assert took_s < QUICK_START_S_MAX, "the quick tier is slow; was it built before?"
        yield cluster
        assert not cluster.kubelets.errors


@pytest.fixture(scope="session")
def full() -> Iterator[Cluster]:
    with Cluster("full", nodes=3, audit=True) as cluster:
        yield cluster


@pytest.fixture
def namespace(request: pytest.FixtureRequest, quick: Cluster) -> Iterator[str]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50].strip("-")
    quick.kubectl("create", "namespace", name)
    yield name
    quick.kubectl("delete", "namespace", name, "--wait=false")
