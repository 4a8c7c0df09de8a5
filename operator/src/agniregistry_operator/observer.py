"""Looks at one registry: lists its objects, asks the registry, and makes the picture of both.

Every look asks the API server anew. A picture kept by watches can lag behind what the operator has
just done; watches only say when to look (docs/decisions/0008).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agniregistry_operator import names, reading
from agniregistry_operator.identity import Identity, is_another
from agniregistry_operator.kube import ApiError, Kube, path_of
from agniregistry_operator.link import Link
from agniregistry_operator.machine import Machine, zones_of
from agniregistry_operator.manifests.base import API_VERSIONS
from agniregistry_operator.model.desired import Desired, TlsMode
from agniregistry_operator.model.observed import Child, ClientCertificate, Observed
from agniregistry_operator.model.status import Status, status_of
from agniregistry_operator.planning.trust import REISSUE

LISTED = (
    *("StatefulSet", "Pod", "PersistentVolumeClaim", "Service", "ConfigMap", "ServiceAccount"),
    *("PodDisruptionBudget", "NetworkPolicy"),
)
OF_CERT_MANAGER = ("Certificate", "Issuer")
NOT_APPLIED = ("Pod", "PersistentVolumeClaim")
"""Kinds that the operator looks at, but that its StatefulSets make."""

REFUSED_S = 20.0
"""How long an action must be refused before somebody is told: a conflict, or a server that is
restarted, is over by then."""

Machines = Callable[[], Mapping[str, Machine] | None]


@dataclass(frozen=True)
class Refusal:
    """Why an action was refused, and since when it is, by the monotonic clock."""

    words: str
    since: float


@dataclass
class Memory:
    """What is kept between two looks at one registry. Nothing of it is needed after a restart."""

    identity: Identity
    link: Link
    addresses: tuple[str, ...] = ()
    refusals: dict[str, Refusal] = field(default_factory=dict)
    begun_at: float = field(default_factory=time.monotonic)
    ties: dict[str, str] = field(default_factory=dict)
    """The machine that each volume that was asked for is tied to."""

    def lasting_refusals(self) -> dict[str, str]:
        """What has been refused for long enough to be told, and why."""
        now = time.monotonic()
        lasting = self.refusals.items()
        return {key: found.words for key, found in lasting if now - found.since >= REFUSED_S}


class Observer:
    """Makes pictures."""

    def __init__(self, kube: Kube, machines: Machines, now: Callable[[], float]) -> None:
        self._kube, self._machines, self._now = kube, machines, now

    async def look(self, resource: Mapping[str, Any], desired: Desired, memory: Memory) -> Observed:
        """One picture.

        Raises:
            ApiError: The API server couldn't be asked.
        """
        listed = await asyncio.gather(*[self._list(kind, desired) for kind in LISTED])
        found = dict(zip(LISTED, listed, strict=True))
        has_cert_manager = True
        if desired.tls.mode is not TlsMode.SECRETS:
            try:
                for kind in OF_CERT_MANAGER:
                    found[kind] = await self._list(kind, desired)
            except ApiError as error:
                if not error.is_gone:
                    raise
                has_cert_manager = False
        status = status_of(resource.get("status"))
        trust = await self._trust(found["ConfigMap"], desired, memory)
        roots, bundle, user_trust, fault = trust
        generation = status.trust.generation or desired.tls.generation
        for number, ends in reading.root_ends(found.get("Certificate", ()), desired).items():
            if number in roots and is_another(roots[number], ends):
                memory.identity.doubt(number)
        if desired.tls.mode is not TlsMode.BOOTSTRAP:
            generation = 0
        sets = reading.stateful_sets(found["StatefulSet"])
        registry = None
        memory.addresses = tuple(
            names.client_address(desired.name, desired.namespace, index) for index in sorted(sets)
        )
        tls = memory.identity.files(generation, bundle)
        if tls is not None and sets and not desired.hibernate:
            await memory.link.use(tls, memory.addresses)
            registry = await memory.link.look(memory.addresses)
        machines = self._machines()
        claims = found["PersistentVolumeClaim"]
        secret_faults = await self._secret_faults(desired, status, sets)
        tied = {} if machines is None else await self._tied(found["Pod"], claims, memory)
        return Observed(
            status=status,
            children=_children(found, desired.uid),
            stateful_sets=sets,
            pods=reading.pods(found["Pod"], machines, tied, self._now(), secret_faults),
            claims=reading.claims_of(claims, desired),
            certificates=reading.certificates(found.get("Certificate", ()), desired),
            clients=await self._clients(desired, status),
            own_clients=reading.own_clients(found.get("Certificate", ()), desired),
            secret_faults=secret_faults,
            zones=zones_of(desired, (machines or {}).values()),
            zones_known=machines is not None,
            roots=roots,
            user_trust=user_trust,
            identities=memory.identity.good(self._now()),
            identity_fault=fault or memory.identity.fault,
            has_identity=tls is not None,
            attended_s=time.monotonic() - memory.begun_at,
            has_cert_manager=has_cert_manager,
            registry=registry,
            registry_fault=memory.link.fault,
            silences={
                index: memory.link.silences[address]
                for index, address in zip(sorted(sets), memory.addresses, strict=True)
                if address in memory.link.silences
            },
            refusals=memory.lasting_refusals(),
        )

    async def _clients(self, desired: Desired, status: Status) -> tuple[ClientCertificate, ...]:
        """Certificates that clients keep themselves, while that matters: before a root goes."""
        if desired.tls.mode is not TlsMode.BOOTSTRAP or status.trust.step != REISSUE:
            return ()
        path = path_of(API_VERSIONS["Certificate"], "Certificate", desired.namespace)
        answer = await self._kube.call("GET", path)
        return reading.clients(answer.get("items") or (), desired.uid)

    async def _secret_faults(
        self, desired: Desired, status: Status, sets: Iterable[int]
    ) -> dict[int, str]:
        """What is wrong with the nodes' own Secrets, of which only the metadata is read."""
        if desired.tls.mode is not TlsMode.SECRETS:
            return {}
        # As many numbers more as were skipped, or are about to be.
        first = range(desired.nodes + len(status.skipped) + bool(desired.remove))
        indexes = sorted({*first, *sets})
        faults = await asyncio.gather(*[self._secret_fault(desired, index) for index in indexes])
        return {index: fault for index, fault in zip(indexes, faults, strict=True) if fault}

    async def _secret_fault(self, desired: Desired, index: int) -> str:
        """What is wrong with one of them; nothing where the operator may not look at it."""
        name = names.given_secret(desired.tls.node_prefix, index)
        try:
            secret = await self._kube.metadata("v1", "Secret", desired.namespace, name)
        except ApiError as error:
            if error.is_gone:
                return f"the Secret {name} isn't there"
            if error.status == 403:
                return ""
            raise
        missing = reading.missing_keys(secret)
        return f"the Secret {name} has no {', '.join(missing)}" if missing else ""

    async def _list(self, kind: str, desired: Desired) -> list[dict[str, Any]]:
        path = path_of(API_VERSIONS[kind], kind, desired.namespace)
        query = {"labelSelector": f"{names.LABEL_REGISTRY}={desired.name}"}
        answer = await self._kube.call("GET", path, query=query)
        items: list[dict[str, Any]] = answer.get("items") or []
        return items

    async def _tied(
        self, pods: list[dict[str, Any]], claims: list[dict[str, Any]], memory: Memory
    ) -> dict[int, str]:
        """The machines that volumes are tied to whose pods have none.

        Only then it matters, and a volume that can't be looked at is tied to none: its node is
        reported, and not made anew.
        """
        asked = reading.volumes_to_ask(pods, claims)
        for volume, selected in asked.values():
            if volume in memory.ties:
                continue
            try:
                answer = await self._kube.get("v1", "PersistentVolume", "", volume)
            except ApiError as error:
                if error.status not in (403, 404):
                    raise
                continue
            memory.ties[volume] = reading.tie_of(answer, selected)
        return {index: memory.ties.get(volume, "") for index, (volume, _) in asked.items()}

    async def _trust(
        self, maps: list[dict[str, Any]], desired: Desired, memory: Memory
    ) -> tuple[dict[int, str], str, str | None, str]:
        """Roots by generation, the bundle in use, the user's own roots, and what is wrong."""
        if desired.tls.mode is TlsMode.SECRETS:
            try:
                return {}, await memory.identity.read_secret(self._kube, desired), None, ""
            except (ApiError, ValueError) as error:
                if isinstance(error, ApiError) and error.status not in (403, 404):
                    raise
                return {}, "", None, str(error)
        own = names.trust(desired.name)
        data = next((m.get("data") or {} for m in maps if m["metadata"]["name"] == own), {})
        roots = reading.roots(data, memory.identity.roots())
        user_trust, fault = None, ""
        if desired.tls.mode is TlsMode.ISSUER:
            try:
                name = desired.tls.trust_config_map
                given = await self._kube.get("v1", "ConfigMap", desired.namespace, name)
                user_trust = (given.get("data") or {}).get("ca.crt")
            except ApiError as error:
                if not error.is_gone:
                    raise
        return roots, data.get("ca.crt", "") or (user_trust or ""), user_trust, fault


def _children(found: Mapping[str, list[dict[str, Any]]], uid: str) -> dict[tuple[str, str], Child]:
    """The objects that the operator applied, of all that were listed."""
    applied = [
        reading.child_of(plain, kind, uid)
        for kind, items in found.items()
        if kind not in NOT_APPLIED
        for plain in items
    ]
    return {(child.kind, child.name): child for child in applied}
