"""Machines: what is known of them when nodes are given up, and when they are given zones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_plan import wanted
from test_shell import NOW, pod

from agniregistry_operator import machine, reading
from agniregistry_operator.identity import Identity
from agniregistry_operator.kube import ApiError
from agniregistry_operator.metrics import Metrics
from agniregistry_operator.observer import Memory, Observer
from agniregistry_operator.runner import Settings
from agniregistry_operator.wiring import Supervisor

CLAIM = {
    "metadata": {
        "name": "data-web-1-0",
        "labels": {"agnistack.online/index": "1"},
        "annotations": {"volume.kubernetes.io/selected-node": "m1"},
    },
    "spec": {"volumeName": "pv-1"},
}


def plain_machine(name: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"metadata": {"name": name}, "status": {"conditions": [ready]}}


class Nodes:
    """An API server with machines, which may be slow or refuse."""

    def __init__(self, status: int = 200) -> None:
        self.may_answer, self.status = asyncio.Event(), status

    async def call(self, method: str, path: str, *_: Any, **__: Any) -> dict[str, Any]:
        await self.may_answer.wait()
        if self.status != 200:
            raise ApiError(self.status, "", "no")
        return {"items": [plain_machine("m1"), plain_machine("m2")]}


def supervisor(kube: Any, tmp_path: Any) -> Supervisor:
    settings = Settings("image", tmp_path, 1)
    return Supervisor(kube, Metrics(), settings, looks_at_machines=True)


async def test_an_event_before_the_full_list_is_no_picture_of_all(tmp_path: Any) -> None:
    kube = Nodes()
    made = supervisor(kube, tmp_path)
    made.machine_changed(plain_machine("m1"), gone=False)
    assert made.machines() is None
    listing = asyncio.create_task(made.list_machines())
    made.heard_of("shop", "web", 1, gone=False)
    await asyncio.sleep(0.05)
    runner = made._runners["shop", "web"]
    assert runner.seen_generation == 0
    assert not made._machines_known.is_set(), "no runner looks before"
    kube.may_answer.set()
    await asyncio.wait_for(made._machines_known.wait(), 5)
    assert set(made.machines() or {}) == {"m1", "m2"}
    await made.stop()
    listing.cancel()


async def test_who_may_not_list_machines_goes_on_without(tmp_path: Any) -> None:
    kube = Nodes(403)
    kube.may_answer.set()
    made = supervisor(kube, tmp_path)
    await made.list_machines()
    assert made._machines_known.is_set()
    assert made.machines() is None


async def test_a_list_that_fails_is_no_right_that_is_missing(tmp_path: Any) -> None:
    kube = Nodes(500)
    kube.may_answer.set()
    made = supervisor(kube, tmp_path)
    listing = asyncio.create_task(made.list_machines())
    await asyncio.sleep(0.05)
    assert not made._machines_known.is_set()
    listing.cancel()


def test_a_machine_went_when_it_went() -> None:
    """Not when its pod was last ready, which may be long before."""
    well = machine.Machine("m1", {}, ready=True, ready_changed_at=3.0)
    gone = machine.departed(well, NOW - 5)
    assert reading.pods([pod()], {"m1": gone}, {}, NOW)[1].machine_gone_since == NOW - 5
    after = machine.machines_after({"m1": well}, [machine.Machine("m2", {})], NOW)
    assert after["m1"].ready_changed_at == NOW
    later = machine.machines_after(after, [machine.Machine("m2", {})], NOW + 300)
    assert later["m1"].ready_changed_at == NOW
    assert "m1" not in machine.machines_after(after, [], NOW + 2 * machine.REMEMBERED_S)
    silent = machine.Machine("m1", {}, ready=False, ready_changed_at=3.0)
    assert machine.departed(silent, NOW).ready_changed_at == 3.0
    assert machine.zones_of(wanted(), after.values()) == ()


def volume(*rules: tuple[str, str]) -> dict[str, Any]:
    terms = [
        {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
        for key, value in rules
    ]
    return {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}


def test_a_volume_is_tied_to_a_machine_by_its_own_affinity_alone() -> None:
    assert reading.tie_of(volume(("kubernetes.io/hostname", "m1")), "") == "m1"
    assert reading.tie_of(volume(("topology.lvm.io/node", "m1")), "m1") == "m1"
    assert reading.tie_of(volume(("topology.kubernetes.io/zone", "z1")), "m1") == ""
    assert reading.tie_of({"spec": {}}, "m1") == "", "a volume of the network"
    either = volume(("kubernetes.io/hostname", "m1"), ("kubernetes.io/hostname", "m2"))
    assert reading.tie_of(either, "m1") == ""


async def test_an_unschedulable_pod_keeps_a_volume_that_can_move(tmp_path: Any) -> None:
    """The machine that was chosen once is gone; the volume goes wherever its pod does."""
    waiting = pod()
    del waiting["spec"]["nodeName"]
    machines = {"m2": machine.Machine("m2", {})}
    for found, is_gone in ((volume(), False), (volume(("kubernetes.io/hostname", "m1")), True)):

        class Volumes:
            answer = found

            async def get(self, *_: str) -> dict[str, Any]:
                return self.answer

        observer = Observer(Volumes(), lambda: machines, lambda: NOW)  # type: ignore[arg-type]
        memory = Memory(Identity(tmp_path), None)  # type: ignore[arg-type]
        tied = await observer._tied([waiting], [CLAIM], memory)
        seen = reading.pods([waiting], machines, tied, NOW)[1]
        assert (seen.machine_gone_since is not None) is is_gone


async def test_a_volume_that_may_not_be_looked_at_is_tied_to_none(tmp_path: Any) -> None:
    class Refuses:
        async def get(self, *_: str) -> dict[str, Any]:
            raise ApiError(403, "Forbidden", "no")

    observer = Observer(Refuses(), dict, lambda: NOW)  # type: ignore[arg-type]
    memory = Memory(Identity(tmp_path), None)  # type: ignore[arg-type]
    waiting = pod()
    del waiting["spec"]["nodeName"]
    assert await observer._tied([waiting], [CLAIM], memory) == {1: ""}


LABEL = "topology.kubernetes.io/zone"


def tainted(zone: str, *taints: dict[str, str], **labels: str) -> machine.Machine:
    plain = plain_machine(f"m-{zone}")
    plain["metadata"]["labels"] = {LABEL: zone, **labels}
    plain["spec"] = {"taints": list(taints)}
    return machine.machine_of(plain)


def test_zones_of_machines_that_keep_pods_away_are_none() -> None:
    gpu = {"key": "gpu", "value": "big", "effect": "NoSchedule"}
    machines = [
        tainted("z1"),
        tainted("z2", gpu),
        tainted("z3", {"key": "gpu", "effect": "PreferNoSchedule"}),
        tainted("z4", gpu, {"key": "down", "effect": "NoExecute"}),
    ]
    assert machine.zones_of(wanted(), machines) == ("z1", "z3")
    for toleration in (
        {"key": "gpu", "operator": "Exists"},
        {"key": "gpu", "value": "big", "effect": "NoSchedule"},
    ):
        some = wanted(spec={"scheduling": {"tolerations": [toleration]}})
        assert machine.zones_of(some, machines) == ("z1", "z2", "z3")
    for toleration in (
        {"key": "gpu", "value": "small"},
        {"key": "gpu", "operator": "Exists", "effect": "NoExecute"},
    ):
        none = wanted(spec={"scheduling": {"tolerations": [toleration]}})
        assert machine.zones_of(none, machines) == ("z1", "z3")
    every = wanted(spec={"scheduling": {"tolerations": [{"operator": "Exists"}]}})
    assert machine.zones_of(every, machines) == ("z1", "z2", "z3", "z4")


@pytest.mark.parametrize(
    ("rules", "zones"),
    [
        ([{"key": "disk", "operator": "In", "values": ["fast"]}], ("z1",)),
        ([{"key": "disk", "operator": "NotIn", "values": ["fast"]}], ("z2", "z3")),
        ([{"key": "disk", "operator": "Exists"}], ("z1", "z2")),
        ([{"key": "disk", "operator": "DoesNotExist"}], ("z3",)),
        ([{"key": "cores", "operator": "Gt", "values": ["8"]}], ("z2",)),
        ([{"key": "cores", "operator": "Lt", "values": ["8"]}], ("z1",)),
        ([], ()),
    ],
)
def test_zones_of_machines_that_people_require(rules: Any, zones: tuple[str, ...]) -> None:
    machines = [
        tainted("z1", disk="fast", cores="4"),
        tainted("z2", disk="slow", cores="16"),
        tainted("z3"),
    ]
    terms = {"nodeSelectorTerms": [{"matchExpressions": rules}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    some = wanted(spec={"scheduling": {"affinity": affinity}})
    assert machine.zones_of(some, machines) == zones


def test_a_machine_that_people_require_by_name() -> None:
    named = {"key": "metadata.name", "operator": "In", "values": ["m-z2"]}
    terms = {"nodeSelectorTerms": [{"matchFields": [named]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    some = wanted(spec={"scheduling": {"affinity": affinity}})
    assert machine.zones_of(some, [tainted("z1"), tainted("z2")]) == ("z2",)
