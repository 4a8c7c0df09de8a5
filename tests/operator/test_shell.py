"""The thin parts: objects read, the lease, the operator's certificate, the registry's answers."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from test_plan import wanted

from agniregistry import types as t
from agniregistry_operator import machine, reading
from agniregistry_operator.ending import end
from agniregistry_operator.executor import Executor
from agniregistry_operator.identity import Identity
from agniregistry_operator.kube import ApiError, path_of
from agniregistry_operator.lease import Elector
from agniregistry_operator.link import registry_of
from agniregistry_operator.main import _first
from agniregistry_operator.model import actions as a
from agniregistry_operator.model import status as s
from agniregistry_operator.model.quantities import bytes_of
from agniregistry_operator.model.times import seconds_of
from agniregistry_operator.observer import Memory

OLD = "2026-01-01T00:00:00Z"
NOW = dt.datetime(2026, 1, 1, 1, tzinfo=dt.UTC).timestamp()


def pod(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "metadata": {
            "name": "web-1-0",
            "uid": "u",
            "creationTimestamp": OLD,
            "labels": {"agnistack.online/index": "1"},
        },
        "spec": {"nodeName": "m1"},
        "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": OLD}]},
    }
    plain["status"] |= changes
    return plain


def read(plain: dict[str, Any], machines: Any = None) -> Any:
    return reading.pods([plain], machines, {}, NOW)[1]


def test_why_a_pod_does_not_run() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    found = read(pod(containerStatuses=[{"state": waiting}]))
    assert found.fault == "ImagePullBackOff: no such image"
    crash = {
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"message": "wal/7 at 81: corrupt"}},
    }
    assert read(pod(containerStatuses=[crash])).fault == "CrashLoopBackOff: wal/7 at 81: corrupt"
    unscheduled = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 machines"}
    assert read(pod(conditions=[unscheduled])).fault_reason == "Unschedulable"
    begun, over = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"
    ended = {"startedAt": begun, "finishedAt": over, "exitCode": 3}
    trying = {"state": {"running": {}}, "lastState": {"terminated": ended}, "restartCount": 4}
    assert read(pod(containerStatuses=[trying])).fault == "CrashLoopBackOff: exit code 3"
    assert read(pod(containerStatuses=[trying | {"ready": True}])).fault == ""
    assert read(pod(containerStatuses=[trying | {"restartCount": 1}])).fault == ""
    long = {"terminated": ended | {"finishedAt": "2026-01-01T00:30:00Z"}}
    assert read(pod(containerStatuses=[trying | {"lastState": long}])).fault == ""
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert read(pod(containerStatuses=[creating])).fault == ""


def test_a_machine_that_is_gone() -> None:
    well = machine.Machine("m1", {}, ready=True)
    gone = machine.Machine("m1", {}, ready=False, ready_changed_at=7.0)
    assert read(pod(), {"m1": well}).machine_gone_since is None
    assert read(pod(), {"m1": gone}).machine_gone_since == 7.0
    assert read(pod(), {}).machine_gone_since is not None
    stopping = pod()
    stopping["metadata"]["deletionTimestamp"] = OLD
    assert read(stopping).machine_gone_since is not None, "nobody says that it has stopped"
    stopping["metadata"]["deletionTimestamp"] = "2026-01-01T00:59:50Z"
    assert read(stopping).machine_gone_since is None
    ready = pod(conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": OLD}])
    assert read(ready, {}).machine_gone_since is None


def test_zones_of_machines_that_fit() -> None:
    label = "topology.kubernetes.io/zone"
    machines = [
        machine.Machine("a", {label: "z1"}),
        machine.Machine("b", {label: "z2", "disk": "fast"}),
        machine.Machine("c", {label: "z3"}, ready=False),
        machine.Machine("d", {label: "z4"}, schedulable=False),
        machine.Machine("e", {}),
    ]
    assert machine.zones_of(wanted(), machines) == ("z1", "z2")
    chosen = wanted(spec={"scheduling": {"nodeSelector": {"disk": "fast"}}})
    assert machine.zones_of(chosen, machines) == ("z2",)
    assert machine.zones_of(wanted(zone_key=""), machines) == ()


def test_a_certificate_counts_only_as_it_is_asked_for_now() -> None:
    plain: dict[str, Any] = {
        "metadata": {"name": "web-1", "generation": 2},
        "spec": {"issuerRef": {"name": "web-ca-1"}},
        "status": {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]},
    }
    assert not reading.certificates([plain], wanted())[1].ready
    plain["status"]["conditions"][0]["observedGeneration"] = 2
    assert reading.certificates([plain], wanted())[1].ready
    plain["status"]["conditions"].append({"type": "Issuing", "status": "True"})
    assert not reading.certificates([plain], wanted())[1].ready


def test_paths() -> None:
    assert path_of("v1", "Pod", "shop", "web-0-0") == "/api/v1/namespaces/shop/pods/web-0-0"
    path = path_of("agnistack.online/v1alpha1", "AgniRegistry", "shop", "web", "status")
    assert path == "/apis/agnistack.online/v1alpha1/namespaces/shop/agniregistries/web/status"
    assert path_of("v1", "Node", "") == "/api/v1/nodes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10Gi", 10 << 30), ("1.5Gi", 3 << 29), ("500M", 500_000_000), ("1e3", 1000), ("", 0),
     ("2E", 2 * 10**18), ("1000m", 1), (".5Gi", 1 << 29), ("+1Gi", 1 << 30), ("1e9", 10**9),
     ("5.", 5), ("1E3", 1000), ("1e-3", 1), ("-1", -1), ("2Ei", 2 << 60)],
)  # fmt: skip
def test_quantities(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize("text", ["much", "1 Gi", "Gi", ".", "1e999999999", "1ki", "0x1"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        bytes_of(text)


def test_notes_that_somebody_has_changed_are_none() -> None:
    meta = {"name": "c", "uid": "u", "labels": {"agnistack.online/index": "1"}}
    notes = {"agnistack.online/clusters": "a/\u00b2,b,/,c/3"}
    plain = {"metadata": meta | {"annotations": notes}, "spec": {}}
    assert reading.claims_of([plain], wanted())[1].life == 0
    meta["annotations"] = {"agnistack.online/clusters": f"{wanted().cluster_id}/4,x/3"}
    assert reading.claims_of([plain | {"metadata": meta}], wanted())[1].life == 4


def test_durations() -> None:
    assert seconds_of("1h30m5s") == 5405
    with pytest.raises(ValueError, match="duration"):
        seconds_of("10 minutes")


@given(
    st.builds(
        s.Status,
        message=st.text(max_size=5),
        operation=st.none() | st.builds(
            s.Operation, st.sampled_from(["Update", "Trust"]), st.just("Wait"),
            st.sampled_from(["", "web-1"]), st.integers(1, 2**31).map(float), st.just(""),
        ),
        cluster_id=st.sampled_from(["", "c" * 32]),
        trust=st.builds(
            s.Trust, st.integers(1, 9), st.tuples(st.integers(1, 9)), st.just("Settled")
        ),
        replaced=st.sampled_from(["", "web-1"]),
    )
)  # fmt: skip
def test_what_must_survive_a_restart_does(status: s.Status) -> None:
    found = s.status_of(status.to_dict())
    for name in ("message", "operation", "cluster_id", "trust", "replaced"):
        assert getattr(found, name) == getattr(status, name)


class FakeKube:
    """One Lease, with the API server's optimistic lock."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    async def call(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        if method == "GET":
            if self.lease is None:
                raise ApiError(404, "NotFound", "no lease")
            return {**self.lease, "metadata": dict(self.lease["metadata"])}
        given = body["metadata"].get("resourceVersion")
        if self.lease is not None and given != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has changed")
        self.version += 1
        meta = {**body["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**body, "metadata": meta}
        return self.lease


async def test_one_holds_the_lease_and_each_taking_has_a_higher_epoch() -> None:
    kube, now = FakeKube(), [0.0]
    first = Elector(kube, "ns", "l", "one", lambda: now[0])  # type: ignore[arg-type]
    second = Elector(kube, "ns", "l", "two", lambda: now[0])  # type: ignore[arg-type]
    assert await first._try()
    assert not await second._try()
    now[0] += 5
    await first._renew()
    assert not await second._try()
    now[0] += 9
    assert not await second._try(), "silence is counted from the last change that it saw"
    now[0] += 2
    assert await second._try()
    assert second.epoch > first.epoch
    with pytest.raises(ApiError):
        await first._renew()
    await second.release()
    assert await first._try()
    assert first.epoch > second.epoch


async def test_a_lease_is_given_back_whatever_became_of_a_renewal() -> None:
    kube = FakeKube()
    first = Elector(kube, "ns", "l", "one")  # type: ignore[arg-type]
    second = Elector(kube, "ns", "l", "two")  # type: ignore[arg-type]
    assert await first._try()
    assert not await second._try()
    assert kube.lease is not None
    kube.version += 1
    kube.lease["metadata"]["resourceVersion"] = str(kube.version)
    await first.release()
    assert await second._try()
    await first.release()
    assert kube.lease["spec"]["holderIdentity"] == "two", "what is another's is left alone"


async def test_a_renewal_whose_answer_is_lost_is_no_lost_lease(monkeypatch: Any) -> None:
    monkeypatch.setattr("agniregistry_operator.lease.RENEW_S", 0.01)
    kube = FakeKube()
    elector = Elector(kube, "ns", "l", "one")  # type: ignore[arg-type]
    await elector.acquire()
    renew, asked = kube.call, []

    async def loses_an_answer(method: str, *given: Any, **more: Any) -> dict[str, Any]:
        answer = await renew(method, *given, **more)
        asked.append(method)
        if asked == ["PUT"]:
            raise ApiError(0, "Unreachable", "timeout")
        return answer

    monkeypatch.setattr(kube, "call", loses_an_answer)
    keeping = asyncio.create_task(elector.keep())
    while len(asked) < 5:
        await asyncio.sleep(0.01)
    assert not keeping.done()
    assert kube.lease is not None
    taken = {**kube.lease["spec"], "holderIdentity": "two"}
    kube.lease = {"metadata": {"resourceVersion": "99"}, "spec": taken}
    await asyncio.wait_for(keeping, 5)


async def test_a_lease_that_could_not_be_asked_for_is_not_had() -> None:
    async def fails() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await _first(asyncio.create_task(fails()), asyncio.Event())


def test_a_holder_that_was_paused_knows_that_it_may_be_none() -> None:
    now = [0.0]
    elector = Elector(FakeKube(), "ns", "l", "one", lambda: now[0])  # type: ignore[arg-type]
    elector._renewed_at = now[0]
    now[0] += 9
    assert elector.holds()
    now[0] += 2
    assert not elector.holds()


async def test_nothing_is_done_without_the_lease() -> None:
    told: list[Any] = []
    leads = [True, False]
    note: Any = lambda *words: told.append(words)  # noqa: E731
    executor = Executor(None, note, leads.pop)  # type: ignore[arg-type]
    action = a.DeleteChild("Service", "web")
    memory = Memory(Identity(Path("unused")), None)  # type: ignore[arg-type]
    assert await executor.run((action, action), wanted(), memory) == 0
    assert not told


async def test_a_task_that_lost_a_cancellation_ends_all_the_same() -> None:
    lost = []

    async def works() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(True)

    task = asyncio.create_task(works())
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task]), 10)
    assert task.cancelled()
    assert lost


async def test_a_deleted_lease_does_not_turn_epochs_back() -> None:
    kube = FakeKube()
    first = Elector(kube, "ns", "l", "one")  # type: ignore[arg-type]
    assert await first._try()
    kube.lease = None
    second = Elector(kube, "ns", "l", "two")  # type: ignore[arg-type]
    assert await second._try()
    assert second.epoch >= first.epoch


class FakeIssuer:
    """Issues whatever is asked for."""

    def __init__(self) -> None:
        self.requests: dict[str, dict[str, Any]] = {}
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.denied = False

    async def call(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        if method == "POST":
            if body["metadata"]["name"] in self.requests:
                raise ApiError(409, "AlreadyExists", "it is there")
            self.requests[body["metadata"]["name"]] = body
            return body
        request = self.requests[path.rpartition("/")[2]]
        if self.denied:
            return {"status": {"conditions": [
                {"type": "Denied", "status": "True", "message": "not you"}
            ]}}  # fmt: skip
        csr = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
        begins = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        builder = x509.CertificateBuilder(
            x509.Name([]), x509.Name([]), csr.public_key(), 1, begins,
            begins + dt.timedelta(hours=3),
        )  # fmt: skip
        leaf = builder.add_extension(names, critical=True).sign(self.key, hashes.SHA256())
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        return {"status": {
            "certificate": base64.b64encode(pem).decode(),
            "ca": base64.b64encode(b"the root").decode(),
            "conditions": [{"type": "Ready", "status": "True"}],
        }}  # fmt: skip

    async def delete(self, version: str, kind: str, space: str, name: str) -> None:
        del self.requests[name]


async def test_the_operator_gets_a_certificate_whose_key_never_leaves(tmp_path: Any) -> None:
    issuer, identity = FakeIssuer(), Identity(tmp_path / "web")
    reference = {"name": "web-ca-1", "kind": "Issuer", "group": "cert-manager.io"}
    assert identity.files(1, "") is None
    await identity.request(issuer, wanted(), reference, 1)  # type: ignore[arg-type]
    assert "PRIVATE KEY" not in str(issuer.requests)
    await identity.request(issuer, wanted(), reference, 1)  # type: ignore[arg-type]
    assert not issuer.requests, "the request is tidied away"
    assert identity.roots() == {1: "the root"}
    begins = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    assert identity.good(begins + 3600) == {1}
    assert identity.good(begins + 2.5 * 3600) == frozenset(), "a third is left: time for another"
    files = identity.files(1, "bundle")
    assert files is not None
    leaf = x509.load_pem_x509_certificate((tmp_path / "web/tls.crt").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://web.shop.registry.internal/operator"]
    assert (tmp_path / "web/tls.key").stat().st_mode & 0o077 == 0
    identity.forget()
    assert not (tmp_path / "web").exists()


async def test_a_denied_request_says_why(tmp_path: Any) -> None:
    issuer, identity = FakeIssuer(), Identity(tmp_path / "web")
    issuer.denied = True
    for _ in range(3):
        await identity.request(issuer, wanted(), {"name": "x"}, 1)  # type: ignore[arg-type]
    assert identity.fault == "not you"
    assert not identity.good(0.0)
    assert not issuer.requests, "and isn't asked again at once"


async def test_what_a_killed_operator_asked_for_is_not_left_behind(tmp_path: Any) -> None:
    issuer = FakeIssuer()
    for _ in range(2):
        identity = Identity(tmp_path / "web")
        await identity.request(issuer, wanted(), {"name": "x"}, 1)  # type: ignore[arg-type]
    assert len(issuer.requests) == 1
    await identity.request(issuer, wanted(), {"name": "x"}, 1)  # type: ignore[arg-type]
    assert identity.good(0.0) == {1}


async def test_a_certificate_for_somebody_elses_key_is_not_taken(tmp_path: Any) -> None:
    issuer, first, second = FakeIssuer(), Identity(tmp_path / "a"), Identity(tmp_path / "b")
    for identity in (first, second, first):
        await identity.request(issuer, wanted(), {"name": "x"}, 1)  # type: ignore[arg-type]
    assert not first.good(0.0)
    for _ in range(2):
        await first.request(issuer, wanted(), {"name": "x"}, 1)  # type: ignore[arg-type]
    assert first.good(0.0) == {1}


def test_the_registrys_answers_become_a_picture() -> None:
    members = t.ClusterMembers(
        version=3,
        replication=3,
        system_leader_id=1,
        members=(
            t.ClusterMember(1, "web-0", zone="z1"),
            t.ClusterMember(2, "web-1", zone="z2"),
            t.ClusterMember(3, "web-2", state=t.MemberState.LEFT),
        ),
        placements=(t.Placement(0, (1, 2), 5, (1, 2), (), 1, reached_version=4),),
    )
    ahead = t.ClusterStatus("c", 1, "1.0", partitions=(t.PartitionStatus(0, commit_index=5000),))
    behind = t.ClusterStatus(
        "c", 2, "1.0", partitions=(t.PartitionStatus(0, commit_index=9, applied_index=9),)
    )
    found = registry_of("c", members, [ahead, behind])
    assert found.present("web-2") is None
    assert [m.lagging for m in found.members] == [True, True, False]
    assert [m.reachable for m in found.members] == [True, True, False]
    assert found.cluster.partitions[0].version == 5
    assert found.cluster.partitions[0].in_flight, "it was taken back, and isn't there yet"
    assert found.system_leader == 1


def test_a_node_is_not_behind_with_what_it_gave_away() -> None:
    members = t.ClusterMembers(
        members=(t.ClusterMember(1, "web-0"), t.ClusterMember(2, "web-1")),
        placements=(t.Placement(0, (1,), 5, (1,), (), 1), t.Placement(1, (2,), 5, (2,), (), 2)),
    )
    holds = t.PartitionStatus(0, commit_index=5000, applied_index=5000)
    held = t.PartitionStatus(0, commit_index=510, applied_index=510)
    statuses = [
        t.ClusterStatus("c", 1, "1.0", partitions=(holds,)),
        t.ClusterStatus("c", 2, "1.0", partitions=(held,)),
    ]
    assert [m.lagging for m in registry_of("c", members, statuses).members] == [False, False]


def test_a_node_that_hears_no_leader_takes_no_part_yet() -> None:
    members = t.ClusterMembers(
        members=(t.ClusterMember(1, "web-0"), t.ClusterMember(2, "web-1")),
        placements=(t.Placement(0, (1, 2), 5, (1, 2), (), 1),),
    )

    def lagging(*leaders: int) -> list[bool]:
        statuses = [
            t.ClusterStatus("c", number, "1.0", partitions=(t.PartitionStatus(0, 3, leader),))
            for number, leader in enumerate(leaders, 1)
        ]
        return [m.lagging for m in registry_of("c", members, statuses).members]

    assert lagging(1, 1) == [False, False]
    assert lagging(1, 0) == [False, True], "it is not in touch with the leader"
    assert lagging(0, 0) == [False, False], "there is none to hear of: that is told otherwise"
