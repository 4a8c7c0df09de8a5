"""The resource's status: what a plan says, and the few facts that must survive a restart.

Those facts are the operation in progress with its beginning, the cluster's identity, the roots'
rotation, and which replacement was done. Everything else is observed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agniregistry_operator.model.times import parse, stamp

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
QUORUM_HEALTHY = "QuorumHealthy"
CERTIFICATES_READY = "CertificatesReady"
PAUSED = "Paused"
INVALID_SPEC = "InvalidSpec"
CONDITIONS = (READY, RECONCILING, STALLED, QUORUM_HEALTHY, CERTIFICATES_READY, PAUSED)


@dataclass(frozen=True)
class Condition:
    """One condition; `holds` is None for Unknown."""

    type: str
    holds: bool | None
    reason: str
    message: str
    since: float = 0.0

    @property
    def word(self) -> str:
        """True, False or Unknown."""
        return "Unknown" if self.holds is None else str(self.holds)


@dataclass(frozen=True)
class Operation:
    """The one operation in progress."""

    kind: str
    step: str
    target: str = ""
    since: float = 0.0
    progress: str = ""

    def same_as(self, other: Operation | None) -> bool:
        """Whether it is the same step of the same thing."""
        mine = (self.kind, self.step, self.target)
        return other is not None and mine == (other.kind, other.step, other.target)


@dataclass(frozen=True)
class Trust:
    """Which roots are in use."""

    generation: int = 0
    """The root that certificates are issued from; 0 before the first."""
    bundle: tuple[int, ...] = ()
    step: str = ""


@dataclass(frozen=True)
class NodeStatus:
    """One node."""

    name: str
    member_id: int = 0
    zone: str = ""
    state: str = ""
    version: str = ""
    leaders: int = 0
    replicas: int = 0
    certificate_expiry: float | None = None
    trust_hash: str = ""


@dataclass(frozen=True)
class Status:
    """The whole status."""

    observed_generation: int = 0
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    ready_nodes: int = 0
    current_nodes: int = 0
    leader_balance: str = ""
    selector: str = ""
    operation: Operation | None = None
    update_hash: str = ""
    cluster_id: str = ""
    skipped: tuple[int, ...] = ()
    """The nodes that have left although later ones stay; they don't come back."""
    adopted: str = ""
    """The earlier cluster that goes on, which must not change once it does."""
    trust: Trust = field(default_factory=Trust)
    version: str = ""
    replaced: str = ""
    """The value of the annotation replace-node that was carried out, or is now."""
    doomed: str = ""
    """The UID of the claim (or pod, where there is none) that is given up for it."""

    def condition(self, kind: str) -> Condition | None:
        """A condition; None where it isn't set."""
        return next((found for found in self.conditions if found.type == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """As it is written to the API server; empty fields are left out."""
        plain: dict[str, Any] = {
            "observedGeneration": self.observed_generation,
            "message": self.message,
            "conditions": [self._condition(found) for found in self.conditions],
            "nodes": [_node(found) for found in self.nodes],
            "readyNodes": self.ready_nodes,
            "currentNodes": self.current_nodes,
            "leaderBalance": self.leader_balance,
            "selector": self.selector,
            "operation": _operation(self.operation),
            "updateHash": self.update_hash,
            "clusterId": self.cluster_id,
            "skipped": list(self.skipped),
            "adopted": self.adopted,
            "trust": _trust(self.trust),
            "version": self.version,
            "replaced": self.replaced,
            "doomed": self.doomed,
        }
        zeros = ("readyNodes", "currentNodes")
        return {key: value for key, value in plain.items() if value or key in zeros}

    def _condition(self, found: Condition) -> dict[str, Any]:
        return {
            "type": found.type,
            "status": found.word,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": stamp(found.since),
            "reason": found.reason,
            "message": found.message,
        }


def _node(found: NodeStatus) -> dict[str, Any]:
    plain = {
        "name": found.name,
        "memberId": found.member_id,
        "zone": found.zone,
        "state": found.state,
        "version": found.version,
        "leaders": found.leaders,
        "replicas": found.replicas,
        "certificateExpiry": stamp(found.certificate_expiry) if found.certificate_expiry else "",
        "trustHash": found.trust_hash,
    }
    return {k: v for k, v in plain.items() if v or k in ("leaders", "replicas")}


def _operation(found: Operation | None) -> dict[str, Any]:
    if found is None:
        return {}
    plain = {
        "kind": found.kind,
        "step": found.step,
        "target": found.target,
        "since": stamp(found.since),
        "progress": found.progress,
    }
    return {key: value for key, value in plain.items() if value}


def _trust(found: Trust) -> dict[str, Any]:
    if not found.generation:
        return {}
    return {"generation": found.generation, "bundle": list(found.bundle), "step": found.step}


def rejected(plain: Mapping[str, Any], generation: int, words: str, now: float) -> dict[str, Any]:
    """The status where the spec can't be understood: all else stays as it was."""
    before = status_of(plain)
    said: dict[str, tuple[bool | None, str, str]] = {
        READY: (False, INVALID_SPEC, words),
        RECONCILING: (False, INVALID_SPEC, "nothing is done"),
        STALLED: (True, INVALID_SPEC, words),
    }
    conditions = []
    for kind in CONDITIONS:
        old = before.condition(kind)
        kept = (old.holds, old.reason, old.message) if old else (None, INVALID_SPEC, words)
        holds, reason, message = said.get(kind, kept)
        since = old.since if old and old.holds == holds else now
        conditions.append(Condition(kind, holds, reason, message, since))
    made = Status(generation, words, tuple(conditions)).to_dict()
    return {**plain, **{key: made[key] for key in ("observedGeneration", "message", "conditions")}}


def status_of(plain: Mapping[str, Any] | None) -> Status:
    """Reads back what must survive, and the conditions with their times."""
    plain = plain or {}
    conditions = tuple(
        Condition(
            type=found["type"],
            holds={"True": True, "False": False}.get(found["status"]),
            reason=found.get("reason", ""),
            message=found.get("message", ""),
            since=parse(found.get("lastTransitionTime")) or 0.0,
        )
        for found in plain.get("conditions") or ()
    )
    operation = plain.get("operation") or {}
    trust = plain.get("trust") or {}
    return Status(
        observed_generation=plain.get("observedGeneration", 0),
        message=plain.get("message", ""),
        conditions=conditions,
        operation=Operation(
            kind=operation["kind"],
            step=operation.get("step", ""),
            target=operation.get("target", ""),
            since=parse(operation.get("since")) or 0.0,
            progress=operation.get("progress", ""),
        )
        if operation
        else None,
        cluster_id=plain.get("clusterId", ""),
        skipped=tuple(plain.get("skipped") or ()),
        adopted=plain.get("adopted", ""),
        trust=Trust(
            generation=trust.get("generation", 0),
            bundle=tuple(trust.get("bundle") or ()),
            step=trust.get("step", ""),
        ),
        replaced=plain.get("replaced", ""),
        doomed=plain.get("doomed", ""),
        version=plain.get("version", ""),
    )
