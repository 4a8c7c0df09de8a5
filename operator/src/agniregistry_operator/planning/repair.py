"""Founding, waking, waiting for nodes, and replacing those that are lost."""

from __future__ import annotations

from agniregistry.placement import NodeState
from agniregistry_operator import names
from agniregistry_operator.model.actions import Action, DeleteClaim, DeletePod, ReturnMember
from agniregistry_operator.model.observed import SECRET_MISSING, Pod
from agniregistry_operator.model.status import QUORUM_HEALTHY
from agniregistry_operator.model.times import words
from agniregistry_operator.planning.gates import (
    sole_copies,
    why_not_without,
    why_unready,
    without_room,
)
from agniregistry_operator.planning.upkeep import missing_stateful_sets
from agniregistry_operator.planning.view import Outcome, View

FAULT_DEADLINE_S = 30.0
"""How long a pod may say that it can't run before somebody is told. Kubernetes tries again by
itself, and what was only late is there by then."""
ROOM_DEADLINE_S = 60.0
"""How long a disk may be full before somebody is told: a snapshot may make room."""
MISSING_DEADLINE_S = 40.0
"""How long a StatefulSet may take to make its pod before somebody is told."""
SILENT_DEADLINE_S = 50.0
"""How long a ready node may not answer the operator before somebody is told."""
MISSING = "Pod"
"""The step of waiting until there is a pod at all, so that its time is counted by itself."""
WAY = "see its log, the NetworkPolicies between the two, and the certificates"
CONFIRM = "Confirm"
CONFIRM_S = 30.0
"""How long a node must be found to be lost with its machine before it is made anew."""
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
    if ready == count and view.registry is None:
        return _ask_founders(view, sentence)
    waiting = _first_unready(view)
    if waiting is not None and not made:
        sentence += f"; {view.label(waiting)}: {why_unready(view, waiting)}"
    step = MISSING if waiting is not None and _lacks_pod(view, waiting) else "Wait"
    operation = view.operation("Bootstrap", step, progress=f"{ready} of {count}")
    stalled = overdue(view, waiting, operation.since) if waiting is not None else None
    return Outcome(sentence, operation, tuple(made), stalled, moves=False)


def _first_unready(view: View) -> int | None:
    """The founder that is waited for: none is ready before all are there, so whose pod can't run
    is named before those that wait for it."""
    unready = [index for index in view.founders if why_unready(view, index)]
    pods = view.observed.pods
    faulty = (index for index in unready if index in pods and pods[index].fault_reason)
    return next(faulty, unready[0] if unready else None)


def _ask_founders(view: View, sentence: str) -> Outcome:
    """All founders are ready, and none has answered the operator yet."""
    operation = view.operation("Bootstrap", "Ask")
    fault = view.observed.registry_fault or "no node is reached"
    stalled = None
    if view.observed.has_identity and view.now - operation.since >= SILENT_DEADLINE_S:
        stalled = "NoAnswer", f"all nodes are ready, and the operator reaches none: {fault}; {WAY}"
    return Outcome(f"{sentence}, none answers", operation, stalled=stalled, moves=False)


def _lacks_pod(view: View, index: int) -> bool:
    """Whether a node's StatefulSet is there and its pod isn't."""
    seen = view.observed.stateful_sets.get(index)
    return seen is not None and not seen.deleting and index not in view.observed.pods


def overdue(view: View, index: int, since: float) -> tuple[str, str] | None:
    """Whether a node should have been ready by now, and what to do about it.

    Args:
        view: What is seen.
        index: The node.
        since: When the operator began to wait for it.
    """
    pod = view.observed.pods.get(index)
    if pod is None:
        if not _lacks_pod(view, index) or view.now - since < MISSING_DEADLINE_S:
            return None
        label = view.label(index)
        words = "a quota or an admission rule may refuse it: kubectl describe statefulset"
        return "PodMissing", f"{label} has no pod: {words} {label}"
    if pod.ready:
        return _unreached(view, pod, since)
    age = view.now - max(pod.created_at, pod.ready_changed_at)
    deadline = view.desired.ready_deadline_s
    if age < (min(deadline, FAULT_DEADLINE_S) if pod.fault_reason else deadline):
        return None
    reason = pod.fault_reason or "NodeNotReady"
    fault = why_unready(view, index) or "it is not ready"
    what = (
        "make it as spec.tls.secretRefs says" if pod.fault_reason == SECRET_MISSING else
        "change the spec, or go back to what it was" if pod.fault_reason else
        f"see the log of the pod {names.pod(view.desired.name, index)}"
    )  # fmt: skip
    # Without the age, which would be another word at each look.
    return reason, f"{view.label(index)} is not ready: {fault}; {what}"


def _unreached(view: View, pod: Pod, since: float) -> tuple[str, str] | None:
    """Whether a pod that says it is ready has not answered the operator for long."""
    member = view.member(pod.index)
    if pod.deleting or member is None or member.reachable:
        return None
    if view.now - max(since, pod.ready_changed_at) < SILENT_DEADLINE_S:
        return None
    fault = view.observed.silences.get(pod.index, "no answer")
    label = view.label(pod.index)
    return "NoAnswer", f"{label} is ready, and the operator doesn't reach it: {fault}; {WAY}"


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


def give_up(view: View) -> Outcome | None:
    """Nodes that are made anew: whoever can go goes, and nobody who waits is in its way."""
    doomed = finish_doomed_volume(view)
    if doomed and doomed.actions:
        return doomed
    lost = replace_lost(view)
    step = lost.operation.step if lost and lost.operation else ""
    goes_on = lost and (lost.actions or lost.replaced or step == CONFIRM)
    return lost if goes_on else doomed or lost


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
        if not _is_given_up(view, index) and (found := _only_copy(view, index)):
            words = "its volume is being deleted, and goes when its pod does"
            sentence = f"not replacing {view.label(index)}: {words}"
            remedy = f"the volume of {view.label(index)} is being deleted and holds {found}"
            waiting = waiting or Outcome(sentence, stalled=("OnlyCopy", remedy))
            continue
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
    confirming: Outcome | None = None
    for index in view.wanted:
        lost = _why_lost(view, index)
        if lost is None:
            continue
        why, asked_for = lost
        label = view.label(index)
        if not asked_for and (found := _only_copy(view, index)):
            remedy = f"{label} is lost ({why}) and holds {found}"
            sentence = f"not replacing {label}: {why}"
            waiting = waiting or Outcome(sentence, stalled=("OnlyCopy", remedy))
            continue
        reason = why_not_without(view, index)
        operation = view.operation("Replace", "Empty", label)
        if reason and len(view.wanted) > 1:
            sentence = f"{label} is to be replaced ({why}); waiting: {reason}"
            waiting = waiting or Outcome(sentence, operation)
            continue
        claim, pod = view.observed.claims.get(index), view.observed.pods.get(index)
        if asked_for and not _is_given_up(view, index):
            # Written before anything is done: an operator that is killed then does it once.
            begun = view.operation("Replace", "Begin", label)
            doomed = claim.uid if claim else pod.uid if pod else ""
            sentence = f"replacing {label}: {why}"
            return Outcome(sentence, begun, moves=False, replaced=label, doomed=doomed)
        if not asked_for and (outcome := _confirm(view, index, why)):
            confirming = confirming or outcome
            continue
        actions: list[Action] = []
        if claim and not claim.deleting:
            name = names.claim(view.desired.name, index)
            actions.append(DeleteClaim(index, name, claim.uid, why))
        if pod:
            actions.append(_delete(view, pod, why))
        sentence = f"replacing {label}: {why}"
        return Outcome(sentence, operation, tuple(actions), moves=False)
    return confirming or waiting


def _only_copy(view: View, index: int) -> str:
    """What would be lost for ever with a node, and what to do; empty where nothing would be."""
    if not sole_copies(view, index) and len(view.wanted) > 1:
        return ""
    label = view.label(index)
    return (
        "the only copy of its data: bring it back, or give its data up with the annotation "
        f"{names.ANNOTATION_REPLACE}: {label}"
    )


def _is_given_up(view: View, index: int) -> bool:
    """Whether somebody asked for a node's replacement, and it has begun."""
    doomed = view.observed.status.doomed
    claim, pod = view.observed.claims.get(index), view.observed.pods.get(index)
    return bool(doomed) and doomed == (claim.uid if claim else pod.uid if pod else "")


def is_doomed(view: View) -> bool:
    """Whether what is given up is there still."""
    return any(_is_given_up(view, index) for index in view.wanted)


def _confirm(view: View, index: int, why: str) -> Outcome | None:
    """A node whose machine is gone is given up only in a moment; None when that is over.

    One answer that went astray is no proof that the node is gone with its machine.
    """
    claim, label = view.observed.claims.get(index), view.label(index)
    operation, before = view.operation("Replace", CONFIRM, label), view.observed.status.operation
    has_begun = before is not None and (before.kind, before.target) == ("Replace", label)
    if (claim and claim.lost) or (has_begun and before and before.step == "Empty"):
        return None
    if view.now - operation.since >= min(CONFIRM_S, view.desired.repair_after_s):
        return None
    return Outcome(f"{label} is to be replaced: {why}", operation)


def _why_lost(view: View, index: int) -> tuple[str, bool] | None:
    """Why a node is given up, and whether somebody asked for it."""
    claim, pod = view.observed.claims.get(index), view.observed.pods.get(index)
    asked = view.desired.replace
    if asked == view.label(index) != view.observed.status.replaced or _is_given_up(view, index):
        return "somebody asked for it", True
    if claim and claim.lost and not claim.deleting:
        return "its volume is lost", False
    gone = pod.machine_gone_since if pod else None
    if _is_reached(view, index):
        # Its machine's kubelet is silent, and the node is well.
        return None
    if gone is not None and view.now - gone >= view.desired.repair_after_s:
        return f"its machine is gone for more than {words(view.desired.repair_after_s)}", False
    return None


def _is_reached(view: View, index: int) -> bool:
    """Whether a node answers the operator."""
    member = view.member(index)
    return member is not None and member.reachable


def take_back(view: View) -> Outcome | None:
    """Has members take part again that drain, although they are to stay and aren't restarted next.

    Whoever leaves goes before an update that hasn't begun, and may need them to take its replicas.
    """
    if view.registry is None:
        return None
    before = view.observed.status.operation
    update_is_next = not view.leaving or (before is not None and before.kind == "Update")
    found: list[ReturnMember] = []
    for index in view.wanted:
        member, pod = view.member(index), view.observed.pods.get(index)
        if member is None or member.state is not NodeState.DRAINING:
            continue
        if pod is None or why_unready(view, index):
            continue
        if update_is_next and not view.is_current(pod):
            continue
        found.append(ReturnMember(member.node_id, member.name, "it takes part again"))
    if not found:
        return None
    labels = ", ".join(action.name for action in found)
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
    slept = view.observed.status.condition(QUORUM_HEALTHY)
    if kind in ("Recover", "Bootstrap") and slept is not None and slept.reason == "Hibernating":
        kind = "Wake"
    index, reason = late[0]
    gone = _machine_words(view, index)
    sentence = f"waiting for {view.label(index)}: {gone or reason}"
    if names_made:
        sentence = f"adding {', '.join(names_made)}"
    elif len(late) > 1:
        sentence += f"; {len(late) - 1} more"
    target = view.label(index)
    operation = view.operation(kind, MISSING if _lacks_pod(view, index) else "Wait", target)
    times = ((i, operation.since if i == index else view.now) for i, _ in late)
    stalled = next((found for i, since in times if (found := overdue(view, i, since))), None)
    if gone and not _is_reached(view, index):
        stalled = None
    # Leaderships that move while a node restarts would only move back again.
    moves = kind != "Update" or stalled is not None
    return Outcome(sentence, operation, tuple(made), stalled, moves)


def wait_for_room(view: View) -> Outcome | None:
    """A node whose disk is full takes no writes; nobody but a person can change that."""
    words = without_room(view)
    if not words:
        return None
    operation = view.operation("Recover", "Room")
    is_late = view.now - operation.since >= ROOM_DEADLINE_S
    return Outcome(words, operation, stalled=("DiskFull", words) if is_late else None)


def _machine_words(view: View, index: int) -> str:
    """What becomes of a node whose machine is gone."""
    pod = view.observed.pods.get(index)
    if pod is None or pod.machine_gone_since is None:
        return ""
    left = view.desired.repair_after_s - (view.now - pod.machine_gone_since)
    machine = f"its machine {pod.machine}" if pod.machine else "its machine"
    if _is_reached(view, index):
        return f"{machine} is silent, and the node on it answers"
    return f"{machine} is gone; it is replaced after {words(view.desired.repair_after_s)}" if (
        left > 0) else f"{machine} is gone"  # fmt: skip
