"""Machines (Nodes of Kubernetes): which are there, since when one is gone, where nodes may run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agniregistry_operator.model.desired import Desired
from agniregistry_operator.model.times import parse

Plain = Mapping[str, Any]

REMEMBERED_S = 86_400.0
"""How long it is remembered when a machine went."""


@dataclass(frozen=True)
class Machine:
    """A machine (a Node of Kubernetes)."""

    name: str
    labels: Mapping[str, str]
    ready: bool = True
    ready_changed_at: float = 0.0
    schedulable: bool = True
    taints: tuple[Mapping[str, Any], ...] = ()
    """Taints that keep pods away which don't tolerate them."""
    is_there: bool = True
    """Whether there is a Node; one that is gone is remembered for a while, with when it went."""


def machine_of(plain: Plain) -> Machine:
    """Reads a Node."""
    ready = condition_of(plain, "Ready")
    return Machine(
        name=plain["metadata"]["name"],
        labels=dict(plain["metadata"].get("labels") or {}),
        ready=ready.get("status") == "True",
        ready_changed_at=parse(ready.get("lastTransitionTime")) or 0.0,
        schedulable=not (plain.get("spec") or {}).get("unschedulable", False),
        taints=tuple(
            taint
            for taint in (plain.get("spec") or {}).get("taints") or ()
            if taint.get("effect") in ("NoSchedule", "NoExecute")
        ),
    )


def departed(machine: Machine, now: float) -> Machine:
    """A machine whose Node is gone: it went now, or when it was last well."""
    since = now if machine.ready else machine.ready_changed_at or now
    return replace(machine, ready=False, ready_changed_at=since, schedulable=False, is_there=False)


def machines_after(
    before: Mapping[str, Machine], found: Iterable[Machine], now: float
) -> dict[str, Machine]:
    """All machines of a full list, and those that went since the one before."""
    after = {machine.name: machine for machine in found}
    for name, machine in before.items():
        gone = departed(machine, now) if machine.is_there else machine
        if name not in after and now - gone.ready_changed_at < REMEMBERED_S:
            after[name] = gone
    return after


def condition_of(plain: Plain, kind: str) -> Plain:
    """A condition of any object; empty where it isn't set."""
    conditions = (plain.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found.get("type") == kind), {})


def zones_of(desired: Desired, machines: Iterable[Machine]) -> tuple[str, ...]:
    """The zones that have a machine on which a node may run."""
    if not desired.zone_key:
        return ()
    return tuple(sorted({
        zone
        for machine in machines
        if machine.ready and machine.schedulable and _may_run(desired, machine)
        and (zone := machine.labels.get(desired.zone_key))
    }))  # fmt: skip


def _may_run(desired: Desired, machine: Machine) -> bool:
    """Whether a machine takes a node's pod, by what people wrote under `scheduling`."""
    scheduling = desired.part("scheduling")
    selector = dict(scheduling.get("nodeSelector") or {})
    if any(machine.labels.get(key) != value for key, value in selector.items()):
        return False
    tolerations = scheduling.get("tolerations") or ()
    for taint in machine.taints:
        if not any(_tolerates(found, taint) for found in tolerations):
            return False
    affinity = (scheduling.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    return not terms or any(_fits(term, machine) for term in terms)


def _tolerates(toleration: Plain, taint: Plain) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    is_any = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return is_any
    same = (toleration.get("value") or "") == (taint.get("value") or "")
    return toleration["key"] == taint.get("key") and (is_any or same)


def _fits(term: Plain, machine: Machine) -> bool:
    """Whether a machine has all that a term asks for; an empty one fits none."""
    rules, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    by_label = all(_holds(rule, machine.labels.get(rule.get("key", ""))) for rule in rules)
    return bool(rules or fields) and by_label and all(_holds(f, machine.name) for f in fields)


def _holds(rule: Plain, found: str | None) -> bool:
    values = rule.get("values") or ()
    match rule.get("operator"):
        case "In":
            return found in values
        case "NotIn":
            return found not in values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt" if values and _is_number(found) and _is_number(values[0]):
            difference = int(found or 0) - int(values[0])
            return difference > 0 if rule["operator"] == "Gt" else difference < 0
        case _:
            return False


def _is_number(text: str | None) -> bool:
    return bool(text) and (text or "").removeprefix("-").isdecimal()
