"""What the status says: conditions as kstatus reads them, and a line for each node."""

from __future__ import annotations

from dataclasses import replace

from agniregistry.placement import NodeState
from agniregistry_operator import names
from agniregistry_operator.model import status as s
from agniregistry_operator.model.actions import MoveStep, RequestIdentity
from agniregistry_operator.planning import trust as identity
from agniregistry_operator.planning.gates import why_unready, without_room
from agniregistry_operator.planning.view import Outcome, View


def conditions(view: View, outcome: Outcome, trust: identity.TrustPlan) -> tuple[s.Condition, ...]:
    """All six, each with the time at which it last changed."""
    stalled = outcome.stalled
    # Neither a leadership that moves nor the operator's own certificate is the registry's business.
    acts = any(not isinstance(action, MoveStep | RequestIdentity) for action in outcome.actions)
    works = outcome.operation is not None or acts
    lost = quorum(view)
    unready = next((r for i in view.wanted if (r := why_unready(view, i))), None)
    hibernates = view.desired.hibernate
    settled = not (works or stalled or unready or trust.blocked) and lost.holds is True
    kind = outcome.operation.kind if outcome.operation else "Working"
    reason = stalled[0] if stalled else (kind if works else "NotReady")
    if hibernates and not works and not stalled:
        settled, reason = True, "Hibernating"
    ready = s.Condition(
        s.READY, settled, ("Hibernating" if hibernates else "Settled") if settled else reason,
        outcome.sentence,
    )  # fmt: skip
    paused = view.desired.paused
    found = [
        ready,
        s.Condition(
            s.RECONCILING, works and not stalled and not paused,
            kind if works else "Settled", outcome.sentence if works else "nothing to do",
        ),
        s.Condition(
            s.STALLED, stalled is not None, stalled[0] if stalled else "Progressing",
            stalled[1] if stalled else "nothing is in the way",
        ),
        lost,
        _certificates(view, trust),
        s.Condition(
            s.PAUSED, paused, "Annotated" if paused else "Active",
            f"the annotation {names.ANNOTATION_PAUSED} stops the operator" if paused else
            "the operator looks after it",
        ),
    ]  # fmt: skip
    return tuple(_with_time(view, condition) for condition in found)


def _with_time(view: View, condition: s.Condition) -> s.Condition:
    before = view.observed.status.condition(condition.type)
    same = before is not None and before.holds == condition.holds
    return replace(condition, since=before.since if same and before else view.now)


def quorum(view: View) -> s.Condition:
    """Whether every partition has a leader, and takes writes."""
    kind = s.QUORUM_HEALTHY
    if view.desired.hibernate:
        return s.Condition(kind, None, "Hibernating", "no node runs")
    if view.registry is None:
        if not view.is_founded:
            return s.Condition(kind, None, "NotFounded", "the cluster is not founded yet")
        if not view.observed.has_identity:
            return s.Condition(kind, None, "NoIdentity", without_identity(view))
        fault = view.observed.registry_fault or "no node answers"
        return s.Condition(
            kind, False, "NoAnswer", f"{fault}; start the nodes again: nothing is deleted"
        )
    cluster = view.registry.cluster
    lost = [p.number for p in cluster.partitions if not cluster.is_led(p)]
    if lost:
        some = ", ".join(map(str, lost[:5])) + ("…" if len(lost) > 5 else "")
        words = f"nobody leads partition {some}; start the nodes that hold it"
        return s.Condition(kind, False, "NoLeader", words)
    if full := without_room(view):
        return s.Condition(kind, True, "DiskFull", full)
    refuses = [m for m in view.registry.members if m.reachable and not m.writable]
    if refuses:
        words = ", ".join(
            f"{m.name} takes no writes: {m.fault or 'it says no why'}" for m in refuses
        )
        return s.Condition(kind, True, "NotWritable", words)
    return s.Condition(kind, True, "AllLed", "every partition has a leader")


def without_identity(view: View) -> str:
    """Why the registry can't be asked."""
    fault = view.observed.identity_fault or "it is not issued yet"
    return f"the operator has no certificate of its own to ask the registry with: {fault}"


def _certificates(view: View, trust: identity.TrustPlan) -> s.Condition:
    kind = s.CERTIFICATES_READY
    found = trust.blocked or identity.why_not_ready(view)
    if found:
        return s.Condition(kind, False, *found)
    if trust.sentence:
        return s.Condition(kind, True, "Rotating", trust.sentence)
    return s.Condition(kind, True, "Issued", "every node has its certificate")


def node_status(view: View, index: int) -> s.NodeStatus:
    """The line of one node."""
    member, seen = view.member(index), view.observed.certificates.get(index)
    node_id = member.node_id if member else 0
    place = view.places.get(index)
    return s.NodeStatus(
        name=view.label(index),
        member_id=node_id,
        zone=place.zone if place else "",
        state=_state(view, index),
        version=member.version if member else "",
        leaders=view.led.get(node_id, 0) if member else 0,
        replicas=sum(node_id in p.voters for p in view.partitions) if member else 0,
        certificate_expiry=seen.not_after if seen else None,
        trust_hash=member.trust_hash[:12] if member else "",
    )


def _state(view: View, index: int) -> str:
    pod, member = view.observed.pods.get(index), view.member(index)
    if view.desired.hibernate:
        return "Hibernated"
    if index in view.leaving:
        return "Leaving"
    if pod is None:
        return "Waiting"
    if pod.machine_gone_since is not None or pod.fault_reason:
        return "Down"
    if pod.deleting or not pod.ready:
        return "Starting"
    if view.registry is None:
        return "Ready"
    if member is None or member.lagging:
        return "Joining"
    if not member.reachable:
        return "Down"
    return "Draining" if member.state is NodeState.DRAINING else "Ready"


def leader_balance(view: View) -> str:
    """How many partitions each node leads, in the nodes' order."""
    found = [view.member(index) for index in view.wanted]
    if view.registry is None:
        return ""
    return "/".join(str(view.led.get(m.node_id, 0)) if m else "-" for m in found)


def version(view: View) -> str:
    """The software's version, or all of them while it changes."""
    members = view.registry.members if view.registry else ()
    found = {m.version for m in members if m.version and m.state is not NodeState.LEFT}
    return " ".join(sorted(found)) or view.observed.status.version
