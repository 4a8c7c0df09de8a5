"""Nodes that leave, and the balance of replicas and leaderships: the placement planner's work."""

from __future__ import annotations

from dataclasses import replace

from agniregistry.placement import Cluster, NodeState, plan, summary
from agniregistry_operator import names
from agniregistry_operator.model.actions import (
    Action,
    DeleteClaim,
    DeletePod,
    DeleteStatefulSet,
    DrainMember,
    MoveStep,
    RemoveMember,
)
from agniregistry_operator.planning.gates import why_unready
from agniregistry_operator.planning.view import Outcome, View


def planners_cluster(view: View) -> Cluster | None:
    """The cluster as the placement planner sees it: who leaves is emptied, who restarts isn't."""
    if view.registry is None:
        return None
    leaving = {view.label(index) for index in view.leaving}
    cluster = view.registry.cluster
    nodes = tuple(
        replace(node, keeps_replicas=node.name not in leaving)
        if node.state is NodeState.DRAINING
        else node
        for node in cluster.nodes
    )
    return Cluster(nodes, cluster.partitions, view.desired.replication)


def scale_in(view: View) -> Outcome | None:
    """Empties the nodes that are to go, then lets them go one at a time."""
    if not view.leaving or view.registry is None:
        return _forget_volumes(view)
    members = [(index, view.member(index)) for index in view.leaving]
    gone = [index for index, member in members if member is None]
    if gone:
        return _delete(view, gone)
    refused = _why_refused(view)
    drains: list[Action] = [
        DrainMember(member.node_id, member.name, "it is to leave")
        for _, member in members
        if member is not None and member.state is NodeState.ACTIVE
    ]
    labels = ", ".join(view.label(index) for index in view.leaving)
    operation = view.operation("ScaleIn", "Empty", labels)
    if drains and refused:
        sentence = f"not removing {labels}: {refused}"
        return Outcome(sentence, operation, (), ("ScaleInRefused", f"{sentence}; {REMEDY}"))
    if drains:
        return Outcome(f"removing {labels}: emptying", operation, tuple(drains))
    empty = [
        member for _, member in members if member is not None and not view.held(member.node_id)
    ]
    if empty:
        member = empty[-1]
        remove = RemoveMember(member.node_id, member.name, "it is empty and to leave")
        operation = view.operation("ScaleIn", "Remove", member.name)
        return Outcome(f"removing {member.name}: it is empty", operation, (remove,))
    left = sum(view.held(member.node_id) for _, member in members if member is not None)
    operation = view.operation("ScaleIn", "Empty", labels, f"{left} replicas left")
    return Outcome(f"removing {labels}: {left} replicas to move away", operation)


REMEDY = "raise spec.nodes again, or repair the nodes that stay"


def _why_refused(view: View) -> str | None:
    """Why nothing may leave now."""
    for index in view.wanted:
        if reason := why_unready(view, index):
            return f"{view.label(index)}: {reason}"
    stay = len(view.wanted)
    if stay < view.desired.replication:
        return f"{view.desired.replication} replicas don't fit on {stay} nodes"
    return None


def _delete(view: View, gone: list[int]) -> Outcome:
    """Deletes what nobody is a member of any more: the StatefulSet, or a pod that lost its own."""
    actions: list[Action] = []
    for index in gone:
        seen, pod = view.observed.stateful_sets.get(index), view.observed.pods.get(index)
        is_stuck = pod is not None and pod.machine_gone_since is not None
        if seen and not seen.deleting:
            why = "it has left the registry"
            actions.append(DeleteStatefulSet(index, view.label(index), why))
        elif pod and (is_stuck or (seen is None and not pod.deleting)):
            name = names.pod(view.desired.name, index)
            why = "its node has left the registry"
            actions.append(DeletePod(index, name, pod.uid, why, force=is_stuck))
    labels = ", ".join(view.label(index) for index in gone)
    operation = view.operation("ScaleIn", "Delete", labels)
    return Outcome(f"removing {labels}: deleting its pod", operation, tuple(actions))


def _forget_volumes(view: View) -> Outcome | None:
    """Deletes the volumes of nodes that have left, where that is asked for."""
    if not view.desired.delete_with_node or view.registry is None or not view.is_founded:
        return None
    actions = []
    for index, claim in sorted(view.observed.claims.items()):
        is_left = index not in view.wanted and index not in view.observed.stateful_sets
        if is_left and not claim.deleting and index not in view.observed.pods:
            name = names.claim(view.desired.name, index)
            actions.append(DeleteClaim(index, name, claim.uid, "its node has left"))
    if not actions:
        return None
    labels = ", ".join(action.name for action in actions)
    operation = view.operation("ScaleIn", "Delete", labels)
    return Outcome(f"deleting {labels}", operation, tuple(actions))


def balance(view: View) -> Outcome | None:
    """The planner's next steps, in whatever the operator is doing that allows it."""
    cluster = planners_cluster(view)
    if cluster is None or not view.is_founded:
        return None
    made = plan(cluster)
    steps = tuple(MoveStep(step) for step in made.steps)
    notes = tuple(problem.message for problem in made.problems)
    if made.is_done:
        return Outcome("", None, (), notes=notes) if notes else None
    progress = summary(replace(made, problems=()))
    # Leaderships change hands within a blink and now and then: that is no operation.
    has_moves = made.moves_in_flight or made.remaining_moves
    operation = view.operation("Balance", "Move", progress=progress) if has_moves else None
    return Outcome(progress, operation, steps, notes=notes)
