"""The operator's own life: killed, stopped, upgraded, uninstalled, while its registry is loaded."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from load_lab import LoadLab
from registry_lab import (
    CHART,
    OPERATOR_SPACE,
    RELEASE,
    install_operator,
    is_ready,
    real_machine,
)

from agni_e2e.waiting import until

pytestmark = pytest.mark.full

TAKEN_OVER_S = 15.0
HANDED_OVER_S = 5.0
SPACE = ("-n", OPERATOR_SPACE)
GAP_S_MAX = 3.0
OLDER = "0.0.9"


def operator_pods(lab: LoadLab) -> list[dict[str, Any]]:
    return list(lab.cluster.get("pods", *SPACE)["items"])


def holder(lab: LoadLab) -> str:
    """The pod of the operator that acts; empty while nobody does."""
    lease = lab.cluster.get("lease", RELEASE, *SPACE)
    return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


def transitions(lab: LoadLab) -> int:
    return int(lab.cluster.get("lease", RELEASE, *SPACE)["spec"]["leaseTransitions"])


def both_ready(lab: LoadLab) -> None:
    until(
        "both operators are ready",
        lambda: len([p for p in operator_pods(lab) if is_ready(p)]) == len(operator_pods(lab)) == 2,
        timeout_s=60.0,
    )


def ask_for_a_change(lab: LoadLab, note: str) -> None:
    """Something that is done at once and restarts nobody."""
    notes = {"example.org/note": note}
    lab.registry.patch("agnireg", "web", {"spec": {"service": {"annotations": notes}}})


def done_after_s(lab: LoadLab, note: str) -> float:
    """How long it takes until that is done, by whoever acts then."""
    began = time.monotonic()

    def is_done() -> bool:
        notes = lab.registry.get("service", "web")["metadata"].get("annotations") or {}
        return bool(notes.get("example.org/note") == note)

    until("an operator acts", is_done, timeout_s=60.0)
    return time.monotonic() - began


def test_other_operator_acts_when_one_is_killed(loaded: LoadLab) -> None:
    both_ready(loaded)
    pods = {pod["metadata"]["name"]: pod for pod in operator_pods(loaded)}
    victim, before = holder(loaded), transitions(loaded)
    machine = real_machine(loaded.cluster, pods[victim]["spec"]["nodeName"])
    machine.kill_pod(victim)
    ask_for_a_change(loaded, "killed")
    took_s = done_after_s(loaded, "killed")
    loaded.tell(f"acting operator killed (kill -9): the other acts after {took_s:.1f} s")
    assert transitions(loaded) > before
    assert took_s < TAKEN_OVER_S
    loaded.registry.settled()


def test_operator_that_is_stopped_hands_over_at_once(loaded: LoadLab) -> None:
    both_ready(loaded)
    victim = holder(loaded)
    ask_for_a_change(loaded, "before")
    done_after_s(loaded, "before")
    loaded.cluster.kubectl("delete", "pod", victim, *SPACE, "--wait=false")
    until("another one leads", lambda: holder(loaded) not in ("", victim), timeout_s=HANDED_OVER_S)
    ask_for_a_change(loaded, "stopped")
    took_s = done_after_s(loaded, "stopped")
    loaded.tell(f"acting operator stopped: the other acts after {took_s:.1f} s")
    assert took_s < HANDED_OVER_S
    both_ready(loaded)


def things(lab: LoadLab) -> dict[str, str]:
    """What must outlive the operator, with its identity."""
    kinds = "agnireg,statefulsets,pods,persistentvolumeclaims,certificates,services,configmaps"
    items = lab.registry.get(kinds)["items"]
    return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["uid"] for i in items}


def test_chart_goes_comes_back_older_and_is_upgraded(loaded: LoadLab, tmp_path: Path) -> None:
    """Registries, volumes and the CRD outlive the chart, and serve without it."""
    cluster, registry = loaded.cluster, loaded.registry
    registry.settled()
    before = things(loaded)
    crd = "agniregistries.agnistack.online"
    crd_uid = cluster.get("crd", crd)["metadata"]["uid"]
    with loaded.fault("operator uninstalled, installed, upgraded", gap_s_max=GAP_S_MAX):
        cluster.helm("uninstall", RELEASE, *SPACE, "--wait")
        until("the operator is gone", lambda: not operator_pods(loaded), timeout_s=60.0)
        assert things(loaded) == before

        copy = shutil.copytree(CHART, tmp_path / "agniregistry")
        cluster.helm("package", str(copy), "--version", OLDER, "-d", str(tmp_path))
        install_operator(cluster, tmp_path / f"agniregistry-{OLDER}.tgz")
        wait = ("--wait", "--timeout", "180s")
        cluster.helm("upgrade", RELEASE, str(CHART), *SPACE, *wait)
        registry.settled()
    releases = json.loads(cluster.helm("list", *SPACE, "-o", "json"))
    assert [(each["revision"], each["status"]) for each in releases] == [("2", "deployed")]
    assert releases[0]["chart"] != f"agniregistry-{OLDER}"
    assert cluster.get("crd", crd)["metadata"]["uid"] == crd_uid
    assert things(loaded) == before
    ask_for_a_change(loaded, "upgraded")
    assert done_after_s(loaded, "upgraded") < TAKEN_OVER_S
    cluster.helm("test", RELEASE, *SPACE)
