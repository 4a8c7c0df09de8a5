"""The operator's account as the chart makes it, without the operator that it would start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from operator_lab import Lab
from played_registry import ROOT

CHART = str(ROOT / "charts/agniregistry")


@dataclass(frozen=True)
class Account:
    """Who an operator is."""

    name: str
    """Also of its lease: the chart gives rights to that one."""
    user: str
    token: str


@contextmanager
def account_of_chart(lab: Lab, *values: str, release: str = "rights") -> Iterator[Account]:
    """An account with the chart's rights; the chart goes with it, when its operators have."""
    space = lab.namespace
    sets = [
        part for value in ("replicas=0", "image.tag=none", *values) for part in ("--set", value)
    ]
    # The CRD is there already, as after an older release: Helm takes it over.
    lab.cluster.helm("install", release, CHART, "-n", space, "--take-ownership", *sets)
    try:
        name = f"{release}-agniregistry"
        token = lab.cluster.kubectl("-n", space, "create", "token", name).strip()
        yield Account(name, f"system:serviceaccount:{space}:{name}", token)
    finally:
        lab.operators.close()
        lab.cluster.helm("uninstall", release, "-n", space)
