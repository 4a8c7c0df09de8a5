"""Founding, waking, waiting for nodes, and replacing those that are lost."""

from __future__ import annotations

from agniregistry.placement import NodeState
from agniregistry_operator import names
from agniregistry_operator.model.actions import Action, DeleteClaim, DeletePod, ReturnMember
from agniregistry_operator.model.observed import Pod
from agniregistry_operator.model.times import words
from agniregistry_operator.planning.gates import sole_copies, why_not_without, why_unready
from agniregistry_operator.planning.upkeep import missing_stateful_sets
from agniregistry_operator.planning.view import Outcome, View

FAULT_DEADLINE_S = 30.0
"""How long a pod may say that it can't run before somebody is told. Kubernetes tries again by
itself, and what was only late is there by then."""
KINDS_THAT_WAIT = ("Update", "ScaleOut", "Replace", "Wake", "Bootstrap", "Recover")
"""Operations that end when all nodes take part again."""


def bootstrap(view: View) -> Outcome | None:
    """Makes the founders, and waits until they have founded the cluster."""
    if view.is_founded:
        return None
    made = missing_stateful_sets(view, view.founders)
    ready = sum(why_unready(view, index) is None for index in view.founders)
    count = len(view.founders)
    nodes = "node" if count == 1 else "nodes"
    sentence = f"founding with {count} {nodes}: {ready} ready"
    waiting = next((i for i in view.founders if why_unready(view, i)), None)
    if waiting is not None and not made:
        sentence += f"; {view.label(waiting)}: {why_unready(view, waiting)}"
    stalled = overdue(view, waiting) if waiting is not None else None
    operation = view.operation("Bootstrap", "Wait", progress=f"{ready} of {count}")
    return Outcome(sentence, operation, tuple(made), stalled, moves=False)


def overdue(view: View, index: int) -> tuple[str, str] | None:
    """Whether a node should have been ready by now, and what to do about it."""
    pod = view.observed.pods.get(index)
    if pod is None or pod.ready:
        return None
    age = view.now - max(pod.created_at, pod.ready_changed_at)
    deadline = view.desired.ready_deadline_s
    if age < (min(deadline, FAULT_DEADLINE_S) if pod.fault_reason else deadline):
        return None
    reason = pod.fault_reason or "NodeNotReady"
    fault = why_unready(view, index) or "it is not ready"
    what = (
        "change the spec, or go back to what it was" if pod.fault_reason else
        f"see the log of the pod {names.pod(view.desired.name, index)}"
    )  # fmt: skip
    # Without the age, which would be another word at each look.
    return reason, f"{view.label(index)} is not ready: {fault}; {what}"


def restart_broken(view: View) -> Outcome | None:
    """Restarts a node that runs with something older than what is wanted, and doesn't work.

    This is how going back to an image that works mends what a bad one broke.
    """
    for index in view.wanted:
        pod = view.observed.pods.get(index)
        if pod is None or pod.ready or pod.deleting or view.is_current(pod):
            continue
        if not _takes_no_part(view, pod):
            continue
        why = "it doesn't work, and is to be different"
        action = _delete(view, pod, why)
        operation = view.operation("Update", "Restart", view.label(index))
        sentence = f"restarting {view.label(index)}: {why}"
        return Outcome(sentence, operation, (action,), moves=False)
    return None


def _takes_no_part(view: View, pod: Pod) -> bool:
    """Whether nothing is lost if a pod that isn't ready goes."""
    if pod.machine_gone_since is not None:
        return False
    if pod.fault_reason or not pod.machine or not view.is_founded:
        return True
    member = view.member(pod.index)
    if view.registry is not None and (member is None or not member.reachable):
        return True
    if view.now - pod.ready_changed_at < view.desired.ready_deadline_s:
        return False
    return view.registry is None or why_not_without(view, pod.index) is None


def _delete(view: View, pod: Pod, why: str) -> DeletePod:
    name = names.pod(view.desired.name, pod.index)
    return DeletePod(pod.index, name, pod.uid, why, force=pod.machine_gone_since is not None)


def finish_doomed_volume(view: View) -> Outcome | None:
    """A volume that is being deleted waits for its pod: lets the pod go, if the node can be spared.

    It was the operator that began this, or somebody by hand; neither can be taken back.
    """
    waiting: Outcome | None = None
    for index in view.wanted:
        claim, pod = view.observed.claims.get(index), view.observed.pods.get(index)
        if claim is None or not claim.deleting or pod is None:
            continue
        force = pod.machine_gone_since is not None
        if pod.deleting and not force:
            continue
        operation = view.operation("Replace", "Empty", view.label(index))
        reason = why_not_without(view, index)
        if reason and len(view.wanted) > 1:
            sentence = f"the volume of {view.label(index)} is being deleted; waiting: {reason}"
            waiting = waiting or Outcome(sentence, operation)
            continue
        action = _delete(view, pod, "its volume is being deleted")
        sentence = f"replacing {view.label(index)}: its volume is being deleted"
        return Outcome(sentence, operation, (action,), moves=False)
    return waiting


def replace_lost(view: View) -> Outcome | None:
    """Makes a node anew that is lost, or that somebody wants replaced. One at a time.

    One that has to wait may wait for another one that is lost: that one goes first then.
    """
    waiting: Outcome | None = None
    for index in view.wanted:
        found = _why_lost(view, index)
        if found is None:
            continue
        why, asked_for = found
        label = view.label(index)
        alone = sole_copies(view, index)
        if (alone or len(view.wanted) == 1) and not asked_for:
            remedy = (
                f"{label} is lost ({why}) and holds the only copy of its data: bring it back, or "
                f"give its data up with the annotation {names.ANNOTATION_REPLACE}: {label}"
            )
            sentence = f"not replacing {label}: {why}"
            waiting = waiting or Outcome(sentence, stalled=("OnlyCopy", remedy))
            continue
        reason = why_not_without(view, index)
        operation = view.operation("Replace", "Empty", label)
        if reason and len(view.wanted) > 1:
            sentence = f"{label} is to be replaced ({why}); waiting: {reason}"
            waiting = waiting or Outcome(sentence, operation)
            continue
        actions: list[Action] = []
        claim, pod = view.observed.claims.get(index), view.observed.pods.get(index)
        if claim and not claim.deleting:
            name = names.claim(view.desired.name, index)
            actions.append(DeleteClaim(index, name, claim.uid, why))
        if pod:
            actions.append(_delete(view, pod, why))
        done = label if asked_for else None
        sentence = f"replacing {label}: {why}"
        return Outcome(sentence, operation, tuple(actions), moves=False, replaced=done)
    return waiting


def _why_lost(view: View, index: int) -> tuple[str, bool] | None:
    """Why a node is given up, and whether somebody asked for it."""
    claim, pod = view.observed.claims.get(index), view.observed.pods.get(index)
    asked = view.desired.replace
    if asked == view.label(index) != view.observed.status.replaced:
        return "somebody asked for it", True
    if claim and claim.lost and not claim.deleting:
        return "its volume is lost", False
    gone = pod.machine_gone_since if pod else None
    if gone is not None and view.now - gone >= view.desired.repair_after_s:
        return f"its machine is gone for more than {words(view.desired.repair_after_s)}", False
    return None


def take_back(view: View) -> Outcome | None:
    """Has members take part again that drain, although they are to stay and need no restart."""
    if view.registry is None:
        return None
    found: list[ReturnMember] = []
    for index in view.wanted:
        member, pod = view.member(index), view.observed.pods.get(index)
        if member is None or member.state is not NodeState.DRAINING:
            continue
        if pod is None or not view.is_current(pod) or why_unready(view, index):
            continue
        found.append(ReturnMember(member.node_id, member.name, "it takes part again"))
    if not found:
        return None
    labels = ", ".join(action.name for action in found)
    before = view.observed.status.operation
    kind = before.kind if before and before.kind in KINDS_THAT_WAIT else "Recover"
    operation = view.operation(kind, "Return", labels)
    return Outcome(f"{labels} takes part again", operation, tuple(found), moves=False)


def wait_for_nodes(view: View) -> Outcome | None:
    """Makes the nodes that are missing, and waits for those that don't take part."""
    made = missing_stateful_sets(view, view.wanted)
    late = [(i, reason) for i in view.wanted if (reason := why_unready(view, i))]
    if not late:
        return None
    before = view.observed.status.operation
    kind = before.kind if before and before.kind in KINDS_THAT_WAIT else "Recover"
    names_made = [action.name for action in made if hasattr(action, "name")]
    joins = [i for i, _ in late if view.registry and view.member(i) is None]
    if kind in ("Recover", "Bootstrap") and joins:
        kind = "ScaleOut"
    if kind in ("Recover", "Bootstrap") and before and before.kind in ("Hibernate", "Wake"):
        kind = "Wake"
    index, reason = late[0]
    gone = _machine_words(view, index)
    sentence = f"waiting for {view.label(index)}: {gone or reason}"
    if names_made:
        sentence = f"adding {', '.join(names_made)}"
    elif len(late) > 1:
        sentence += f"; {len(late) - 1} more"
    target = view.label(index)
    stalled = next((found for i, _ in late if (found := overdue(view, i))), None)
    if gone:
        stalled = None
    operation = view.operation(kind, "Wait", target)
    # Leaderships that move while a node restarts would only move back again.
    moves = kind != "Update" or stalled is not None
    return Outcome(sentence, operation, tuple(made), stalled, moves)


def _machine_words(view: View, index: int) -> str:
    """What becomes of a node whose machine is gone."""
    pod = view.observed.pods.get(index)
    if pod is None or pod.machine_gone_since is None:
        return ""
    left = view.desired.repair_after_s - (view.now - pod.machine_gone_since)
    machine = f"its machine {pod.machine}" if pod.machine else "its machine"
    return f"{machine} is gone; it is replaced after {words(view.desired.repair_after_s)}" if (
        left > 0) else f"{machine} is gone"  # fmt: skip
