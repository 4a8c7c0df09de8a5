"""What tests of registries on real machines share, each made when the first one asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from load_lab import LoadLab
from registry_lab import (
    OPERATOR_SPACE,
    RELEASE,
    Registry,
    install_operator,
    load_images,
    make_namespace,
)

from agni_e2e import Cluster


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Prints a line of figures, also where nobody asked for what tests print."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n  {line}", flush=True)

    return write


@pytest.fixture(scope="session")
def operated(full: Cluster, tell: Callable[[str], None]) -> Iterator[Cluster]:
    """The full tier, with both images and the operator as the chart installs it. The CRD stays in a
    cluster of somebody else, who may have registries of their own."""
    began = time.monotonic()
    load_images(full)
    make_namespace(full, OPERATOR_SPACE)
    install_operator(full)
    tell(f"images loaded and operator installed: {time.monotonic() - began:.0f} s")
    yield full
    full.helm("uninstall", RELEASE, "-n", OPERATOR_SPACE, "--wait")
    full.kubectl("delete", "namespace", OPERATOR_SPACE)


@pytest.fixture(scope="session")
def loaded(operated: Cluster, tell: Callable[[str], None]) -> Iterator[LoadLab]:
    """A registry of three nodes under load."""
    lab = LoadLab(operated, Registry(operated, "faults", "web"), tell)
    lab.start()
    yield lab
    lab.registry.delete()
