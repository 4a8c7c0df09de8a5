"""Bringing what changed to the nodes: one at a time, leaderships first, the system leader last."""

from __future__ import annotations

from agniregistry.placement import Limits, NodeState, SetWanted, plan
from agniregistry_operator import names
from agniregistry_operator.manifests.base import hash_of
from agniregistry_operator.model.actions import (
    Action,
    DeletePod,
    DrainMember,
    MoveStep,
    ReturnMember,
)
from agniregistry_operator.planning.gates import is_system_leader, why_not_without, why_thin
from agniregistry_operator.planning.moving import planners_cluster
from agniregistry_operator.planning.view import Outcome, View

HAND_OVER_S = 60.0
"""How long a node that is to restart may take to hand over what it leads."""


def stale(view: View) -> list[int]:
    """The nodes whose pods were made from something older than what is wanted."""
    return [
        index
        for index in view.wanted
        if (pod := view.observed.pods.get(index)) and not view.is_current(pod)
    ]


def update_hash(view: View) -> str:
    """What a supervised update is approved with; empty where there is none."""
    if not stale(view):
        return ""
    return hash_of([view.template_hashes[index] for index in view.wanted])


def update(view: View) -> Outcome | None:
    """Restarts one node that is out of date, or does the next thing on the way to it."""
    old = stale(view)
    if not old:
        return None
    left = f"({len(old)} of {len(view.wanted)} to go)"
    if view.desired.supervised and view.desired.approved != update_hash(view):
        words = f"an update waits for approval {left}: annotate {names.ANNOTATION_APPROVE}"
        return Outcome(f"{words}={update_hash(view)}")
    index = _next(view, old)
    label = view.label(index)
    pod = view.observed.pods[index]
    if pod.deleting:
        operation = view.operation("Update", "Restart", label)
        return Outcome(f"restarting {label} {left}", operation, moves=False)
    member = view.member(index)
    thin = why_thin(view)
    reason = why_not_without(view, index) or thin
    if reason and len(view.wanted) > 1:
        operation = view.operation("Update", "Gate", label, reason)
        given_back: tuple[Action, ...] = ()
        if thin and member is not None and member.state is NodeState.DRAINING:
            # Who drains is given no replicas, and may be one of those that are to get them.
            given_back = (ReturnMember(member.node_id, member.name, thin),)
        return Outcome(f"updating {label} {left}: waiting: {reason}", operation, given_back)
    if member is None or len(view.wanted) == 1:
        return _restart(view, index, left)
    leads = view.led.get(member.node_id, 0)
    operation = view.operation("Update", "HandOver", label, f"{leads} left")
    if member.state is NodeState.ACTIVE:
        why = "it is restarted next"
        drain = DrainMember(member.node_id, member.name, why)
        return Outcome(
            f"updating {label} {left}: leaders move away", operation, (drain,), moves=False
        )
    system = is_system_leader(view, index)
    waits = view.now - operation.since < HAND_OVER_S
    before = view.observed.status.operation
    is_new = before is None or not operation.same_as(before)
    if (leads or system) and (waits or is_new):
        what = f"{leads} leaders to move away" if leads else "the system group moves away"
        sentence = f"updating {label} {left}: {what}"
        return Outcome(sentence, operation, _transfers(view), moves=False)
    return _restart(view, index, left)


def _restart(view: View, index: int, left: str) -> Outcome:
    label, pod = view.label(index), view.observed.pods[index]
    name = names.pod(view.desired.name, index)
    action = DeletePod(index, name, pod.uid, "what it was made from has changed")
    operation = view.operation("Update", "Restart", label)
    return Outcome(f"restarting {label} {left}", operation, (action,), moves=False)


def _next(view: View, old: list[int]) -> int:
    """Whose turn it is: whoever was begun, then by zone, and the system leader last."""

    def rank(index: int) -> tuple[bool, bool, str, int]:
        member = view.member(index)
        is_begun = member is not None and member.state is NodeState.DRAINING
        begun = is_begun or view.observed.pods[index].deleting
        leads_last = is_system_leader(view, index) and not begun
        return (not begun, leads_last, view.places[index].zone, index)

    return min(old, key=rank)


def _transfers(view: View) -> tuple[Action, ...]:
    """Leaderships that the planner moves away from whoever drains."""
    cluster = planners_cluster(view)
    if cluster is None:
        return ()
    steps = plan(cluster, Limits(moves_in_flight_max=0)).steps
    known = {p.number: set(p.wanted) for p in cluster.partitions}
    return tuple(
        MoveStep(step)
        for step in steps
        if not isinstance(step, SetWanted) or set(step.nodes) == known[step.partition]
    )
