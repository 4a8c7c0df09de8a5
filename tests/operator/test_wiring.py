"""Kopf against a served API: what is watched, what wakes whom, and that nothing is written.

Kopf runs as it does in the operator, with the operator's handlers and settings. What it says to the
API server is taken down there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kopf
import pytest
from kmock import KubernetesEmulator, Request, ResourceInfo, action, resource

from agniregistry.identity import DevCa, SpiffeId
from agniregistry_operator import names
from agniregistry_operator.kube import Connection, Kube
from agniregistry_operator.metrics import Metrics
from agniregistry_operator.runner import Settings
from agniregistry_operator.wiring import Supervisor, kopf_settings, register, register_machines

DEADLINE_S = 20.0
POLL_S = 0.02
CHILDREN = {
    "statefulsets": "/apis/apps/v1",
    "pods": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "certificates": "/apis/cert-manager.io/v1",
}
REGISTRIES = "/apis/agnistack.online/v1alpha1/namespaces/shop/agniregistries"
SECRETS = "/api/v1/namespaces/shop/secrets"
SPEC = {"nodes": 3, "storage": {"size": "1Gi"}}
SERVED = {
    "agnistack.online/v1alpha1/agniregistries": True,
    "apps/v1/statefulsets": True,
    "cert-manager.io/v1/certificates": True,
    "v1/pods": True,
    "v1/persistentvolumeclaims": True,
    "v1/secrets": True,
    "v1/configmaps": True,
    "v1/events": True,
    "v1/services": True,
    "v1/serviceaccounts": True,
    "policy/v1/poddisruptionbudgets": True,
    "networking.k8s.io/v1/networkpolicies": True,
    "v1/nodes": False,
    "v1/namespaces": False,
    "apiextensions.k8s.io/v1/customresourcedefinitions": False,
}
"""What the API server knows, and whether it is in namespaces."""


@pytest.fixture
def server(kmock: KubernetesEmulator) -> KubernetesEmulator:
    """An API server that lists, watches, and keeps what is written."""
    for served, namespaced in SERVED.items():
        verbs = {"get", "list", "watch", "create", "patch", "delete"}
        kmock.resources[resource(served)] = ResourceInfo(namespaced=namespaced, verbs=verbs)
    return kmock


@dataclass
class Ears:
    """What the handlers tell a supervisor."""

    registries: list[tuple[str, str, int, bool]] = field(default_factory=list)
    woken: list[tuple[str, str]] = field(default_factory=list)
    machines: list[tuple[str, bool]] = field(default_factory=list)

    def heard_of(self, namespace: str, name: str, generation: int, *, gone: bool) -> None:
        self.registries.append((namespace, name, generation, gone))

    def wake(self, namespace: str, name: str) -> None:
        self.woken.append((namespace, name))

    def machine_changed(self, plain: Any, *, gone: bool) -> None:
        self.machines.append((plain["metadata"]["name"], gone))


def connection(server: KubernetesEmulator) -> Connection:
    return Connection(server=str(server.url).rstrip("/"), token="secret-token")


@contextlib.asynccontextmanager
async def watching(
    server: KubernetesEmulator, ears: Any, *namespaces: str, machines: bool = False
) -> AsyncIterator[None]:
    """Kopf as the operator starts it, until the block ends."""
    registry = register(ears, connection(server))
    if machines:
        register_machines(registry, ears)
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf_settings(list(namespaces)),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
    try:
        yield
    finally:
        # Not `run_tasks`: it would wait for the server's tasks, too, which run in the same loop.
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(DEADLINE_S):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [each for each in ended if isinstance(each, Exception)]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(POLL_S)


def asked(server: KubernetesEmulator) -> Iterator[Request]:
    """What the operator asked for, and not the test itself."""
    return (each for each in server if not each.headers.get("User-Agent", "").startswith("kmock"))


def watched(server: KubernetesEmulator) -> dict[str, str]:
    """The kinds that are watched, each with the labels that are asked for."""
    found = [each for each in asked(server) if each.action == action.WATCH]
    return {str(each.resource.plural): each.params.get("labelSelector", "") for each in found}


async def put(
    server: KubernetesEmulator,
    path: str,
    name: str,
    content: Mapping[str, Any] | None = None,
    **meta: Any,
) -> None:
    """Somebody makes an object."""
    space = {"namespace": "shop"} if "/namespaces/" in path else {}
    body = {"metadata": {"name": name, **space, **meta}, **(content or {"spec": SPEC})}
    async with server.post(path, json=body) as answer:
        assert answer.status == 200, await answer.text()


async def change(server: KubernetesEmulator, path: str, **meta: Any) -> None:
    """Somebody changes an object."""
    async with server.patch(path, json={"metadata": meta}) as answer:
        assert answer.status == 200, await answer.text()


async def changed_until(
    server: KubernetesEmulator, path: str, holds: Callable[[], bool], **meta: Any
) -> None:
    """Somebody changes an object until that is heard: before the watch, nobody hears it."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await change(server, path, **meta)
            await asyncio.sleep(POLL_S)


async def test_only_what_matters_is_watched_and_by_label(server: KubernetesEmulator) -> None:
    expected = dict.fromkeys(CHILDREN, names.LABEL_REGISTRY)
    # The last one is Kopf's own, so that it notices when cert-manager is installed later.
    expected |= {"agniregistries": "", "customresourcedefinitions": ""}
    async with watching(server, Ears()):
        await until(lambda: set(watched(server)) >= set(expected))
    assert watched(server) == expected, "no Secret, and no machine without the right to"
    tokens = {each.headers.get("Authorization") for each in asked(server)}
    assert tokens == {"Bearer secret-token"}


async def test_a_list_of_namespaces_needs_no_rights_elsewhere(server: KubernetesEmulator) -> None:
    async with watching(server, Ears(), "shop"):
        await until(lambda: set(watched(server)) >= {"agniregistries", *CHILDREN})
    kinds = (action.LIST, action.WATCH)
    looks = [each for each in asked(server) if each.action in kinds and each.resource.plural]
    assert {each.namespace for each in looks} == {"shop"}
    assert set(watched(server)) == {"agniregistries", *CHILDREN}


@pytest.mark.parametrize("plural", CHILDREN)
async def test_a_child_wakes_its_registry(server: KubernetesEmulator, plural: str) -> None:
    ears, path = Ears(), f"{CHILDREN[plural]}/namespaces/shop/{plural}"
    await put(server, path, "web-0", labels={names.LABEL_REGISTRY: "web"})
    await put(server, path, "stranger", labels={"app": "other"})
    async with watching(server, ears):
        await until(lambda: bool(ears.woken))
        assert set(ears.woken) == {("shop", "web")}
        heard = len(ears.woken)
        await changed_until(
            server, f"{path}/web-0", lambda: len(ears.woken) > heard, annotations={"a": "b"}
        )
        # A stranger's change comes over the same watch, before the next one of the registry's.
        await change(server, f"{path}/stranger", annotations={"a": "b"})
        await put(server, path, "edge-0", labels={names.LABEL_REGISTRY: "edge"})
        await until(lambda: ("shop", "edge") in ears.woken)
        heard = len(ears.woken)
        async with server.delete(f"{path}/edge-0") as answer:
            assert answer.status == 200
        await until(lambda: ears.woken[heard:].count(("shop", "edge")) > 0)
    assert set(ears.woken) == {("shop", "web"), ("shop", "edge")}
    assert not ears.registries


async def test_registries_are_told_with_their_generation(server: KubernetesEmulator) -> None:
    ears, path = Ears(), f"{REGISTRIES}/web"
    await put(server, REGISTRIES, "web", generation=1)
    async with watching(server, ears):
        await until(lambda: ("shop", "web", 1, False) in ears.registries)
        second = ("shop", "web", 2, False)
        await changed_until(server, path, lambda: second in ears.registries, generation=2)
        async with server.delete(path) as answer:
            assert answer.status == 200
        await until(lambda: ears.registries[-1] == ("shop", "web", 2, True))
    assert not ears.woken


async def test_machines_are_told_where_they_may_be_looked_at(server: KubernetesEmulator) -> None:
    ears = Ears()
    await put(server, "/api/v1/nodes", "m1")
    async with watching(server, ears, machines=True):
        await until(lambda: ("m1", False) in ears.machines)
        heard = len(ears.machines)
        await changed_until(
            server, "/api/v1/nodes/m1", lambda: len(ears.machines) > heard, labels={"zone": "z1"}
        )
        async with server.delete("/api/v1/nodes/m1") as answer:
            assert answer.status == 200
        await until(lambda: ("m1", True) in ears.machines)
    assert watched(server)["nodes"] == ""


async def test_nothing_is_written(server: KubernetesEmulator) -> None:
    """Neither finalizers nor annotations, Events, or the peers of Kopf's."""
    ears = Ears()
    await put(server, REGISTRIES, "web", generation=1)
    async with watching(server, ears, machines=True):
        await until(lambda: bool(ears.registries))
        await changed_until(
            server,
            f"{REGISTRIES}/web",
            lambda: ("shop", "web", 2, False) in ears.registries,
            generation=2,
            annotations={"by": "somebody"},
        )
        child = f"{CHILDREN['pods']}/namespaces/shop/pods"
        await put(server, child, "web-0", labels={names.LABEL_REGISTRY: "web"})
        await until(lambda: bool(ears.woken))
    assert {each.method.value for each in asked(server)} == {"GET"}
    assert not any("peering" in each.url.path for each in asked(server))
    async with server.get(f"{REGISTRIES}/web") as answer:
        meta = (await answer.json())["metadata"]
    assert meta["annotations"] == {"by": "somebody"}
    assert "finalizers" not in meta


async def test_a_deleted_registry_is_in_nobodys_way(
    server: KubernetesEmulator, tmp_path: Path
) -> None:
    """Somebody's finalizer keeps it for a while. The operator does nothing, and lets it go."""
    kube = Kube(connection(server))
    supervisor = Supervisor(kube, Metrics(), Settings("image", tmp_path, 1))
    await put(
        server,
        REGISTRIES,
        "web",
        uid="u1",
        generation=2,
        deletionTimestamp="2026-01-01T00:00:00Z",
        finalizers=["example.org/backup"],
    )
    runners = supervisor._runners
    try:
        async with watching(server, supervisor):
            await until(lambda: ("shop", "web") in runners)
            runner = runners["shop", "web"]
            await until(lambda: runner.seen_generation == 2)
            await changed_until(
                server, f"{REGISTRIES}/web", lambda: runner.seen_generation == 3, generation=3
            )
            await change(server, f"{REGISTRIES}/web", finalizers=[])
            await until(lambda: not runners)
    finally:
        await supervisor.stop()
        await kube.aclose()
    assert {each.method.value for each in asked(server)} == {"GET"}


async def test_of_a_secret_only_the_metadata_is_asked_for(server: KubernetesEmulator) -> None:
    await put(server, SECRETS, "mine-0")
    kube = Kube(connection(server))
    try:
        found = await kube.metadata("v1", "Secret", "shop", "mine-0")
    finally:
        await kube.aclose()
    assert found["metadata"]["name"] == "mine-0"
    accepted = [each.headers["Accept"] for each in asked(server)]
    assert accepted == ["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"]


def statuses(server: KubernetesEmulator) -> Iterator[dict[str, Any]]:
    """The conditions by type, of each status that the operator wrote."""
    for each in asked(server):
        if each.method.value == "PATCH" and each.subresource == "status":
            yield {found["type"]: found for found in each.data[1]["value"]["conditions"]}


async def test_a_missing_secret_is_told_at_the_first_look(
    server: KubernetesEmulator, tmp_path: Path
) -> None:
    """From the event that a registry is there to the status, over HTTP."""
    ca = DevCa.init(tmp_path / "ca", "shop.example.org")
    leaf = ca.issue(SpiffeId.operator(ca.trust_domain), ["operator"])
    files = {"tls.crt": leaf.cert_file, "tls.key": leaf.key_file, "ca.crt": leaf.bundle_file}
    data = {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()}
    keys = {f"f:{key}": {} for key in ("tls.crt", "tls.key")}
    await put(server, SECRETS, "op", {"data": data})
    await put(server, SECRETS, "mine-0", managedFields=[{"fieldsV1": {"f:data": keys}}])
    refs = {"secretRefs": {"nodePrefix": "mine", "operator": "op"}}
    spec = SPEC | {"trustDomain": ca.trust_domain, "tls": refs}
    await put(server, REGISTRIES, "web", {"spec": spec}, uid="u1", resourceVersion="1")
    kube = Kube(connection(server))
    supervisor = Supervisor(kube, Metrics(), Settings("image", tmp_path / "scratch", 1))
    try:
        async with watching(server, supervisor):
            await until(lambda: any(statuses(server)))
    finally:
        await supervisor.stop()
        await kube.aclose()
    said = next(statuses(server))["CertificatesReady"]
    assert (said["status"], said["reason"]) == ("False", "SecretMissing")
    assert "the Secret mine-0 has no ca.crt" in said["message"]


def test_the_settings_are_those_of_the_decision() -> None:
    """What docs/decisions/0008 says against Kopf's known faults."""
    everywhere, somewhere = kopf_settings([]), kopf_settings(["shop"])
    for settings in (everywhere, somewhere):
        assert not settings.posting.enabled
        assert settings.peering.standalone
        assert settings.persistence.finalizer == "agnistack.online/operator"
        assert settings.queueing.worker_limit is None
        inactivity_s = settings.watching.inactivity_timeout
        assert inactivity_s is not None
        assert 60 < inactivity_s < (settings.watching.server_timeout or 0)
    assert not everywhere.scanning.disabled
    assert somewhere.scanning.disabled
