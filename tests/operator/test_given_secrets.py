"""Secrets that people keep themselves: whichever is missing is told at once, by name and key."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from kubernetes_model import ClusterModel
from test_conditions import OWN, condition, said
from test_plan import wanted
from test_shell import pod

from agniregistry_operator import reading
from agniregistry_operator.identity import Identity
from agniregistry_operator.kube import ApiError
from agniregistry_operator.model.observed import SECRET_MISSING
from agniregistry_operator.model.status import Status
from agniregistry_operator.observer import Memory, Observer
from agniregistry_operator.planning.planner import plan
from agniregistry_operator.planning.repair import FAULT_DEADLINE_S

MISSING = "the Secret mine-1 isn't there"


def cluster_of_own_secrets(**changes: Any) -> ClusterModel:
    cluster = ClusterModel(wanted(tls=OWN, **changes))
    cluster.identities = {0}
    return cluster


def test_a_missing_secret_is_told_long_before_a_slow_start_would_be() -> None:
    cluster = cluster_of_own_secrets(ready_deadline_s=600.0)
    cluster.secret_faults = {1: MISSING}
    found = condition(cluster.reconcile(), "CertificatesReady")
    assert (found.holds, found.reason) == (False, SECRET_MISSING), "at the first look"
    assert MISSING in found.message
    assert not said(cluster, FAULT_DEADLINE_S - 10), "it may be on its way"
    assert said(cluster, FAULT_DEADLINE_S + 20) == SECRET_MISSING
    stalled = cluster.status.condition("Stalled")
    assert stalled is not None
    assert MISSING in stalled.message
    assert "make it as spec.tls.secretRefs says" in stalled.message
    cluster.secret_faults = {}
    cluster.check_settled()
    assert condition(cluster.reconcile(), "CertificatesReady").holds is True


def test_a_secret_that_went_stops_nobody_who_runs() -> None:
    cluster = cluster_of_own_secrets()
    cluster.check_settled()
    pods = {index: each.uid for index, each in cluster.pods.items()}
    cluster.secret_faults = {1: "the Secret mine-1 has no ca.crt"}
    made = cluster.settle()
    assert condition(made, "CertificatesReady").reason == SECRET_MISSING
    assert "mine-1 has no ca.crt" in condition(made, "CertificatesReady").message
    assert condition(made, "Ready").holds is True
    assert {index: each.uid for index, each in cluster.pods.items()} == pods
    cluster.stop_pod(1)
    assert said(cluster, FAULT_DEADLINE_S + 30) == SECRET_MISSING
    cluster.secret_faults = {}
    cluster.check_settled()


def test_the_secret_of_a_node_that_is_not_wanted_matters_to_nobody() -> None:
    cluster = cluster_of_own_secrets()
    cluster.secret_faults = {3: "the Secret mine-3 isn't there"}
    cluster.check_settled()
    assert condition(cluster.reconcile(), "CertificatesReady").holds is True


def test_the_operators_own_secret_is_missed_while_its_certificate_still_is_good() -> None:
    cluster = cluster_of_own_secrets()
    cluster.check_settled()
    seen = replace(cluster.observe(), identity_fault="it has no tls.key")
    made = plan(seen, cluster.desired, cluster.now)
    found = condition(made, "CertificatesReady")
    assert (found.holds, found.reason) == (False, "IdentityMissing")
    assert "Secret op: it has no tls.key" in found.message
    assert condition(made, "Ready").holds is True


def fields(*keys: str, part: str = "f:data") -> dict[str, Any]:
    return {"fieldsV1": {part: {".": {}} | {f"f:{key}": {} for key in keys}, "f:type": {}}}


@pytest.mark.parametrize(
    ("entries", "missing"),
    [
        ([fields("tls.crt", "tls.key", "ca.crt")], []),
        ([fields("tls.crt", "tls.key")], ["ca.crt"]),
        ([fields("tls.crt", "tls.key"), fields("ca.crt", "more")], []),
        ([fields("tls.crt", "tls.key", "ca.crt", part="f:stringData")], []),
        ([{"fieldsV1": {"f:type": {}}}], ["tls.crt", "tls.key", "ca.crt"]),
        ([{}], ["tls.crt", "tls.key", "ca.crt"]),
        ([], []),
    ],
)
def test_keys_are_told_from_metadata(entries: Any, missing: list[str]) -> None:
    assert reading.missing_keys({"metadata": {"managedFields": entries}}) == missing


def test_a_pod_that_waits_for_its_secret_says_so() -> None:
    waits = pod(phase="Pending")
    found = reading.pods([waits], None, {}, 0.0, {1: MISSING})[1]
    assert (found.fault_reason, found.fault) == (SECRET_MISSING, f"SecretMissing: {MISSING}")
    for plain, faults in ((pod(phase="Running"), {1: MISSING}), (waits, {2: MISSING}), (waits, {})):
        assert reading.pods([plain], None, {}, 0.0, faults)[1].fault == ""
    image = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    plain = pod(phase="Pending", containerStatuses=[image])
    assert reading.pods([plain], None, {}, 0.0, {1: MISSING})[1].fault_reason == "ImagePullBackOff"


class Secrets:
    """An API server with Secrets, of which it shows metadata alone."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}
        self.asked: list[str] = []

    async def metadata(self, version: str, kind: str, space: str, name: str) -> dict[str, Any]:
        assert (version, kind, space) == ("v1", "Secret", "shop")
        self.asked.append(name)
        answer = self.answers.get(name, 404)
        if isinstance(answer, int):
            raise ApiError(answer, "", "no")
        return {"metadata": {"name": name, "managedFields": [fields(*answer)]}}


async def faults(kube: Secrets, **changes: Any) -> dict[int, str]:
    observer = Observer(kube, dict, lambda: 0.0)  # type: ignore[arg-type]
    sets = changes.pop("sets", ())
    return await observer._secret_faults(wanted(tls=OWN, **changes), Status(), sets)


async def test_each_nodes_secret_is_looked_at() -> None:
    kube = Secrets(mine_0=("tls.crt", "tls.key", "ca.crt"), mine_1=("tls.crt", "tls.key"))
    found = await faults(kube, sets=(4,))
    assert found == {
        1: "the Secret mine-1 has no ca.crt",
        2: "the Secret mine-2 isn't there",
        4: "the Secret mine-4 isn't there",
    }


async def test_who_may_not_look_says_nothing() -> None:
    kube = Secrets(mine_0=403, mine_1=403, mine_2=403)
    assert await faults(kube) == {}
    assert kube.asked == ["mine-0", "mine-1", "mine-2"]


async def test_an_api_server_that_fails_is_no_missing_secret() -> None:
    with pytest.raises(ApiError):
        await faults(Secrets(mine_0=500))


async def test_no_secret_is_looked_at_where_cert_manager_makes_them() -> None:
    kube = Secrets()
    observer = Observer(kube, dict, lambda: 0.0)  # type: ignore[arg-type]
    assert await observer._secret_faults(wanted(), Status(), (0,)) == {}
    assert not kube.asked


@pytest.mark.parametrize(("status", "is_told"), [(403, True), (404, True), (500, False)])
async def test_the_operators_own_secret_can_not_be_read(
    tmp_path: Any, status: int, is_told: bool
) -> None:
    class Refuses:
        async def get(self, *_: str) -> dict[str, Any]:
            raise ApiError(status, "", "no")

    observer = Observer(Refuses(), dict, lambda: 0.0)  # type: ignore[arg-type]
    memory = Memory(Identity(tmp_path), None)  # type: ignore[arg-type]
    looking = observer._trust([], wanted(tls=OWN), memory)
    if is_told:
        assert (await looking)[3] == "no"
        return
    with pytest.raises(ApiError):
        await looking


async def test_a_key_that_the_operators_secret_lacks_is_named(tmp_path: Any) -> None:
    class HasNoRoot:
        async def get(self, *_: str) -> dict[str, Any]:
            return {
                "data": {key: base64.b64encode(b"x").decode() for key in ("tls.crt", "tls.key")}
            }

    observer = Observer(HasNoRoot(), dict, lambda: 0.0)  # type: ignore[arg-type]
    memory = Memory(Identity(tmp_path), None)  # type: ignore[arg-type]
    assert (await observer._trust([], wanted(tls=OWN), memory))[3] == "it has no ca.crt"
