"""Flux (kstatus) and Argo CD read the same conditions, and must come to the same word.

The cases are real statuses: each is what a plan said in one moment of a story.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lupa
import pytest
from kubernetes_model import BAD_IMAGE, ClusterModel
from test_plan import settled, wanted

HEALTH = Path(__file__).resolve().parents[2] / "examples/gitops/argocd-health.lua"


def kstatus(resource: dict[str, Any]) -> str:
    """The rules of kstatus for resources that have its standard conditions."""
    status = resource.get("status") or {}
    if status.get("observedGeneration") != resource["metadata"]["generation"]:
        return "InProgress"
    found = {c["type"]: c["status"] for c in status.get("conditions", ())}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    if "Ready" in found:
        return "Current" if found["Ready"] == "True" else "InProgress"
    return "Current"


def argo(resource: dict[str, Any]) -> str:
    """What the health check for Argo CD says."""
    lua = lupa.LuaRuntime()
    check = lua.eval(f"function(obj) {HEALTH.read_text()} end")
    table = lua.table_from(resource, recursive=True)
    return str(check(table)["status"])


def resource_of(cluster: ClusterModel) -> dict[str, Any]:
    meta = {"name": "web", "generation": cluster.desired.generation}
    return {"metadata": meta, "status": cluster.status.to_dict()}


def rounds(cluster: ClusterModel, count: int) -> ClusterModel:
    for _ in range(count):
        cluster.reconcile()
        cluster.turn()
    return cluster


def stalled() -> ClusterModel:
    cluster = settled()
    cluster.change(image=BAD_IMAGE)
    return rounds(cluster, 100)


def without_quorum(count: int = 10) -> ClusterModel:
    cluster = settled()
    for index in (0, 1):
        cluster.gone[cluster.pods[index].machine] = cluster.now
    return rounds(cluster, count)


def rolling() -> ClusterModel:
    cluster = settled()
    cluster.change(image="registry:2")
    return rounds(cluster, 2)


def unseen() -> ClusterModel:
    cluster = settled()
    cluster.change(image="registry:2")
    return cluster


def paused() -> ClusterModel:
    cluster = settled()
    cluster.change(paused=True)
    return rounds(cluster, 1)


def asleep() -> ClusterModel:
    cluster = settled()
    cluster.change(hibernate=True)
    cluster.settle()
    return cluster


CASES = {
    "new": (lambda: rounds(ClusterModel(wanted()), 1), "InProgress", "Progressing"),
    "settled": (settled, "Current", "Healthy"),
    "rolling": (rolling, "InProgress", "Progressing"),
    "a change that nobody has seen": (unseen, "InProgress", "Progressing"),
    "stalled": (stalled, "Failed", "Degraded"),
    "without quorum for a moment": (lambda: without_quorum(3), "InProgress", "Progressing"),
    "without quorum": (without_quorum, "Failed", "Degraded"),
    "paused with a change": (paused, "InProgress", "Suspended"),
    "asleep": (asleep, "Current", "Healthy"),
}


@pytest.mark.parametrize("name", CASES)
def test_flux_and_argo_say_the_same(name: str) -> None:
    story, flux, health = CASES[name]
    resource = resource_of(story())
    assert kstatus(resource) == flux
    assert argo(resource) == health


def test_argo_knows_a_resource_that_nobody_has_looked_at() -> None:
    assert argo({"metadata": {"generation": 1}}) == "Progressing"
