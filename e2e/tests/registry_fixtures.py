"""What tests of registries on real machines share, each made when the first one asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from load_lab import LoadLab
from registry_lab import OPERATOR_SPACE, Registry, install_operator, load_images, make_namespace

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
def operated(full: Cluster, tell: Callable[[str], None]) -> Cluster:
    """The full tier, with both images and the operator as the chart installs it."""
    began = time.monotonic()
    load_images(full)
    make_namespace(full, OPERATOR_SPACE)
    install_operator(full)
    tell(f"images loaded and operator installed: {time.monotonic() - began:.0f} s")
    return full


@pytest.fixture(scope="session")
def loaded(operated: Cluster, tell: Callable[[str], None]) -> LoadLab:
    """A registry of three nodes under load."""
    lab = LoadLab(operated, Registry(operated, "faults", "web"), tell)
    lab.start()
    return lab
