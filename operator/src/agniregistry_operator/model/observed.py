"""What is: an immutable picture of one registry's objects and of what the registry says.

The shell fills it in; nothing here asks anybody. All times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agniregistry.placement import Cluster, NodeState
from agniregistry_operator.model.status import Status

SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason, and no secret
"""The reason where a node's own Secret isn't there, or lacks a key."""


@dataclass(frozen=True)
class Child:
    """An object that the operator applied."""

    kind: str
    name: str
    hash: str = ""
    """The hash of what was applied."""
    fields: Mapping[str, Any] | None = None
    """What the API server says is the operator's of it; None where that isn't known."""
    mine: bool = True
    """Whether it belongs to this registry; one that doesn't is never touched."""


@dataclass(frozen=True)
class StatefulSet:
    """A node's StatefulSet."""

    index: int
    zone: str = ""
    seeds: tuple[str, ...] = ()
    life: int = 0
    claim_size: str = ""
    deleting: bool = False


@dataclass(frozen=True)
class Pod:
    """A node's pod."""

    index: int
    uid: str
    template_hash: str = ""
    created_at: float = 0.0
    ready: bool = False
    ready_changed_at: float = 0.0
    """When `ready` last changed; the creation where it never did."""
    deleting: bool = False
    machine: str = ""
    """The machine it runs on; empty while it isn't scheduled."""
    machine_gone_since: float | None = None
    """Since when its machine is gone or not Ready; None while it is well."""
    fault: str = ""
    """Why it doesn't run, as Kubernetes says: `ImagePullBackOff: …`."""
    fault_reason: str = ""
    """The stable word of it."""


@dataclass(frozen=True)
class Claim:
    """A node's volume claim."""

    index: int
    uid: str
    size: str = ""
    """What is asked for."""
    capacity: str = ""
    """What there is."""
    deleting: bool = False
    lost: bool = False
    """Whether its volume is certainly gone."""
    owned: bool = False
    """Whether it goes with the registry."""
    bound: bool = True
    zone: str | None = None
    """The zone that its node was given; None before the operator has noted it."""
    life: int = 0
    """Which life of its node it was last used in, by this cluster."""
    clusters: str = ""
    """The clusters that have used it, as noted on it."""


@dataclass(frozen=True)
class Certificate:
    """A node's certificate, as cert-manager keeps it."""

    index: int
    issuer: str = ""
    ready: bool = False
    """Whether it is issued as it is asked for now."""
    not_after: float | None = None
    message: str = ""


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate of a client, as cert-manager keeps it in the registry's namespace."""

    name: str
    issuer: str = ""
    issued_at: float | None = None
    """When it was issued as it is asked for now; None before that."""
    message: str = ""
    """What cert-manager says of it."""
    not_after: float | None = None


@dataclass(frozen=True)
class Member:
    """A member of the registry, as it says itself and as its status says."""

    node_id: int
    name: str
    zone: str = ""
    state: NodeState = NodeState.ACTIVE
    replaces: int = 0
    reachable: bool = True
    version: str = ""
    trust_hash: str = ""
    certificate_not_after: float | None = None
    lagging: bool = False
    """Whether it is far behind a leader in some partition."""
    writable: bool = True
    fault: str = ""
    """What it says is wrong with it."""


@dataclass(frozen=True)
class Registry:
    """What the registry answered."""

    cluster_id: str
    cluster: Cluster
    members: tuple[Member, ...]
    system_leader: int = 0
    system_voters: frozenset[int] = frozenset()
    """Who votes in the group that knows the members."""

    def present(self, name: str) -> Member | None:
        """The member of that name that hasn't left."""
        found = [m for m in self.members if m.name == name and m.state is not NodeState.LEFT]
        return max(found, key=lambda member: member.node_id, default=None)


@dataclass(frozen=True)
class Observed:
    """Everything that the planner looks at."""

    status: Status = field(default_factory=Status)
    """What was last written, of which only the operation in progress and lasting facts are used."""
    children: Mapping[tuple[str, str], Child] = field(default_factory=dict)
    stateful_sets: Mapping[int, StatefulSet] = field(default_factory=dict)
    pods: Mapping[int, Pod] = field(default_factory=dict)
    claims: Mapping[int, Claim] = field(default_factory=dict)
    certificates: Mapping[int, Certificate] = field(default_factory=dict)
    clients: tuple[ClientCertificate, ...] = ()
    """Those that clients keep themselves; looked at only while a root is being replaced."""
    own_clients: Mapping[str, ClientCertificate] = field(default_factory=dict)
    """Those that the operator keeps for clients, by the clients' names."""
    secret_faults: Mapping[int, str] = field(default_factory=dict)
    """What is wrong with the nodes' own Secrets (secretRefs), where they may be looked at."""
    zones: tuple[str, ...] = ()
    """Zones that have a machine on which nodes may run."""
    zones_known: bool = True
    """Whether the machines could be looked at."""
    roots: Mapping[int, str] = field(default_factory=dict)
    """PEM of the roots, by generation: from the trust ConfigMap and from what was issued."""
    user_trust: str | None = None
    """The roots in the user's ConfigMap (issuerRef); None where it isn't there."""
    identities: frozenset[int] = frozenset()
    """Roots under which the operator has a good certificate of its own; 0 where generations
    don't count."""
    identity_fault: str = ""
    """Why not."""
    has_identity: bool = True
    """Whether the operator has a certificate to ask the registry with."""
    attended_s: float = 3600.0
    """How long this operator has looked after the registry."""
    has_cert_manager: bool = True
    registry: Registry | None = None
    """None while nobody answers."""
    registry_fault: str = ""
    """Why not."""
    silences: Mapping[int, str] = field(default_factory=dict)
    """Why nodes didn't answer, as far as that is known."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Actions the API server or the registry has refused for a while: key and words."""
