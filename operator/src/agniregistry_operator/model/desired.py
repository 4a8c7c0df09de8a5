"""What people want: the resource's spec, read once into values that can't change.

The API server has checked the schema and filled in its defaults. What is read here is checked
again only where a wrong value would do harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from agniregistry_operator import names
from agniregistry_operator.model.quantities import bytes_of
from agniregistry_operator.model.times import seconds_of

FOUNDERS_MAX = 7
"""Nodes that found a registry together; those beyond join it."""


class TlsMode(Enum):
    """Where certificates come from."""

    BOOTSTRAP = "bootstrap"
    ISSUER = "issuerRef"
    SECRETS = "secretRefs"


@dataclass(frozen=True)
class Client:
    """A client for which a certificate is kept."""

    name: str
    kind: str = "agent"
    """agent or gateway."""
    namespace: str = "default"
    """The registry's, none of Kubernetes'."""
    secret: str = ""
    """Where its certificate is."""

    @property
    def path(self) -> str:
        """Its SPIFFE ID, without the trust domain."""
        return f"/t/{self.namespace}/{self.kind}/{self.name}"


@dataclass(frozen=True)
class Tls:
    """How identities are made."""

    mode: TlsMode = TlsMode.BOOTSTRAP
    generation: int = 1
    """Which root is wanted (bootstrap)."""
    issuer: Mapping[str, str] = field(default_factory=dict)
    """cert-manager's issuerRef (issuerRef)."""
    trust_config_map: str = ""
    """Where the roots are (issuerRef)."""
    node_prefix: str = ""
    """Prefix of the nodes' Secrets (secretRefs)."""
    operator_secret: str = ""
    """The operator's Secret (secretRefs)."""
    clients: tuple[Client, ...] = ()
    """Those for which certificates are kept (bootstrap and issuerRef)."""
    duration: str = "168h"
    renew_before: str = "56h"


@dataclass(frozen=True)
class Desired:
    """One AgniRegistry as it is wanted."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    deleting: bool = False
    paused: bool = False
    nodes: int = 3
    replication: int = 3
    partitions: int = 16
    region: str = "global"
    trust_domain: str = ""
    image: str = ""
    tls: Tls = field(default_factory=Tls)
    storage_size: str = "1Gi"
    storage_class: str | None = None
    delete_with_registry: bool = False
    delete_with_node: bool = True
    zone_key: str = "topology.kubernetes.io/zone"
    """The machines' label for zones; empty looks at none."""
    config: Mapping[str, Any] = field(default_factory=dict)
    supervised: bool = False
    ready_deadline_s: float = 600
    repair_after_s: float = 600
    hibernate: bool = False
    replace: str = ""
    """The node that somebody wants replaced."""
    remove: str = ""
    """The node that somebody wants to leave before the last ones do."""
    adopted: str = ""
    """The identity of an earlier cluster that goes on, on volumes that were kept."""
    approved: str = ""
    """The update that somebody approved."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The whole spec, for manifests that pass parts of it on."""

    @property
    def cluster_id(self) -> str:
        """The registry's identity: the resource's UID, or that of the cluster it adopts."""
        return self.adopted or self.uid.replace("-", "")

    @property
    def service_type(self) -> str:
        """How clients reach it."""
        return str(self.part("service").get("type", "ClusterIP"))

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the spec; empty where it isn't given."""
        return self.spec.get(name) or {}

    def node(self, index: int) -> str:
        """A node's name."""
        return names.node(self.name, index)

    def index_of(self, node: str) -> int | None:
        """A node's index."""
        return names.index_of(self.name, node)


def desired_of(resource: Mapping[str, Any], default_image: str) -> Desired:
    """Reads a resource as the API server answers it.

    Raises:
        ValueError: Something the schema would have refused.
    """
    meta, spec = resource["metadata"], resource["spec"]
    notes = meta.get("annotations") or {}
    storage = spec["storage"]
    retention = storage.get("retention") or {}
    topology = spec.get("topology") or {}
    update, repair = spec.get("update") or {}, spec.get("repair") or {}
    name, namespace = meta["name"], meta["namespace"]
    status = resource.get("status") or {}
    zone_key = topology.get("zoneKey", "topology.kubernetes.io/zone")
    return Desired(
        name=name,
        namespace=namespace,
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        deleting=bool(meta.get("deletionTimestamp")),
        paused=notes.get(names.ANNOTATION_PAUSED, "").strip().lower() not in ("false", ""),
        nodes=int(spec["nodes"]),
        replication=int(spec.get("replicationFactor", 3)),
        partitions=int(spec.get("partitions", 16)),
        region=spec.get("region", "global"),
        trust_domain=spec.get("trustDomain") or f"{name}.{namespace}.registry.internal",
        image=spec.get("image") or default_image,
        tls=_tls(spec.get("tls") or {}, name),
        storage_size=_size(str(storage["size"])),
        storage_class=storage.get("storageClassName"),
        delete_with_registry=retention.get("whenDeleted", "Retain") == "Delete",
        delete_with_node=retention.get("whenScaled", "Delete") == "Delete",
        zone_key=zone_key if topology.get("spread", "Zones") == "Zones" else "",
        config=spec.get("config") or {},
        supervised=update.get("strategy", "Automatic") == "Supervised",
        ready_deadline_s=seconds_of(update.get("readyDeadline", "10m")),
        repair_after_s=seconds_of(repair.get("after", "10m")),
        hibernate=bool(spec.get("hibernate", False)),
        replace=notes.get(names.ANNOTATION_REPLACE, "").strip(),
        remove=notes.get(names.ANNOTATION_REMOVE, "").strip(),
        adopted=status.get("adopted") or ("" if status.get("clusterId") else _adopted(notes)),
        approved=notes.get(names.ANNOTATION_APPROVE, "").strip(),
        spec=spec,
    )


def _adopted(notes: Mapping[str, str]) -> str:
    """Which cluster somebody wants to go on; it counts until the registry is founded.

    Raises:
        ValueError: It is no cluster's identity.
    """
    text = notes.get(names.ANNOTATION_ADOPT, "").strip().lower().replace("-", "")
    if text and not re.fullmatch("[0-9a-f]{32}", text):
        key = names.ANNOTATION_ADOPT
        raise ValueError(f"the annotation {key} must be 32 hexadecimal digits, not {text!r}")
    return text


def _size(text: str) -> str:
    """A size that can be compared.

    Raises:
        ValueError: It is none.
    """
    bytes_of(text)
    return text


def _tls(given: Mapping[str, Any], registry: str) -> Tls:
    lives = {
        "duration": given.get("duration", "168h"),
        "renew_before": given.get("renewBefore", "56h"),
    }
    seconds_of(lives["renew_before"])
    if refs := given.get("secretRefs"):
        return Tls(
            mode=TlsMode.SECRETS,
            node_prefix=refs["nodePrefix"],
            operator_secret=refs["operator"],
            **lives,
        )
    clients = _clients(given.get("clients") or (), registry)
    if issuer := given.get("issuerRef"):
        reference = {"kind": "Issuer", "group": "cert-manager.io", **issuer}
        trust = given["trustConfigMap"]["name"]
        return Tls(
            mode=TlsMode.ISSUER,
            issuer=reference,
            trust_config_map=trust,
            clients=clients,
            **lives,
        )
    generation = int((given.get("bootstrap") or {}).get("generation", 1))
    return Tls(generation=generation, clients=clients, **lives)


def _clients(given: Iterable[Mapping[str, Any]], registry: str) -> tuple[Client, ...]:
    """The clients, each with a Secret of its own.

    Raises:
        ValueError: A Secret would be written by two certificates.
    """
    clients = tuple(
        Client(
            name=each["name"],
            kind=each.get("kind", "Agent").lower(),
            namespace=each.get("namespace", "default"),
            secret=each.get("secretName") or names.client_secret(registry, each["name"]),
        )
        for each in given
    )
    secrets = [client.secret for client in clients]
    for client in clients:
        secret = client.secret
        if secrets.count(secret) > 1 or names.is_own_secret(registry, secret):
            words = f"the Secret {secret} of client {client.name} is another certificate's, too"
            raise ValueError(f"{words}; spec.tls.clients")
    return clients


def dns_names(desired: Desired) -> Sequence[str]:
    """More names under which clients reach the registry."""
    return tuple(desired.part("service").get("dnsNames") or ())
