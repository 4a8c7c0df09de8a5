"""Whether a node may be taken away for a while, or for ever, and why not."""

from __future__ import annotations

from agniregistry.placement import Cluster, NodeState, Partition
from agniregistry_operator.model.observed import Registry
from agniregistry_operator.planning.view import View

FULL = "disk is full"
"""What a node says of itself whose disk is full; one that has little room left says `almost`."""


def why_unready(view: View, index: int) -> str | None:
    """Why a node doesn't take part; None if it does."""
    pod = view.observed.pods.get(index)
    if index not in view.observed.stateful_sets:
        return "it has no StatefulSet"
    if pod is None:
        return "it has no pod"
    if pod.deleting:
        return "its pod is stopping"
    if not pod.ready:
        return pod.fault or "its pod is not ready"
    if view.registry is None:
        return None
    member = view.member(index)
    if member is None:
        return "it has not joined"
    if not member.reachable:
        return "it does not answer"
    return "it catches up" if member.lagging else None


def why_not_without(view: View, index: int) -> str | None:
    """Why a node can't be spared now; None if all keeps its quorum without it."""
    registry = view.registry
    if registry is None:
        return "nobody answers"
    for other in view.wanted:
        # Who hasn't joined yet holds nothing, and is missed by nobody.
        if other == index or view.member(other) is None:
            continue
        if reason := why_unready(view, other):
            return f"{view.label(other)}: {reason}"
    member = view.member(index)
    if member is None:
        return None
    others = [m for m in registry.members if m.state is not NodeState.LEFT and m != member]
    answering = sum(other.reachable for other in others)
    if len(others) > 1 and answering <= (len(others) + 1) // 2:
        return f"only {answering} of {len(others)} other nodes answer"
    if reason := _why_system_group(view, registry, member.node_id):
        return reason
    for partition in registry.cluster.partitions:
        if reason := _why_partition(view, registry.cluster, partition, member.node_id):
            return reason
    return None


def _why_system_group(view: View, registry: Registry, node_id: int) -> str | None:
    """A node that has just been replaced may not vote yet: its old self still counts then."""
    voters = registry.system_voters
    if not voters or view.desired.replication == 1:
        return None
    answering = {m.node_id for m in registry.members if m.reachable}
    left = len((voters - {node_id}) & answering)
    if left <= len(voters) // 2 and len(voters) > 1:
        return f"the system group has only {left} other voters that answer, of {len(voters)}"
    return None


def _why_partition(view: View, cluster: Cluster, partition: Partition, node_id: int) -> str | None:
    if partition.in_flight:
        return f"partition {partition.number} is moving"
    voters = frozenset(partition.voters)
    if node_id not in voters:
        return None if cluster.is_led(partition) else f"nobody leads partition {partition.number}"
    left = cluster.reachable_of(voters - {node_id})
    if view.desired.replication > 1 and len(voters) > 1 and left <= len(voters) // 2:
        return f"partition {partition.number} has only {left} other replicas that answer"
    return None


def why_thin(view: View) -> str | None:
    """Why an update waits for replicas that are wanted and not there yet; None if all are.

    A node that is lost doesn't wait for them: they may need it.
    """
    if view.registry is None:
        return None
    wanted = min(view.desired.replication, len(view.wanted))
    for partition in view.partitions:
        if (there := len(partition.voters)) < wanted:
            return f"partition {partition.number} has {there} of {wanted} replicas"
    return None


def without_room(view: View) -> str:
    """Whose disk is full, and what to do; empty where none is. One that stops isn't full."""
    members = view.registry.members if view.registry else ()
    full = [m for m in members if m.reachable and not m.writable and FULL in m.fault]
    if not full:
        return ""
    said = ", ".join(f"{member.name} takes no writes: {member.fault}" for member in full)
    return f"{said}; raise spec.storage.size"


def sole_copies(view: View, index: int) -> int:
    """How many partitions have their only replica within reach, or at all, on a node."""
    member = view.member(index)
    if member is None or view.registry is None:
        return 0
    return sum(set(partition.voters) == {member.node_id} for partition in view.partitions)


def is_system_leader(view: View, index: int) -> bool:
    """Whether a node leads the group that knows the members."""
    member = view.member(index)
    return bool(member and view.registry and view.registry.system_leader == member.node_id)
