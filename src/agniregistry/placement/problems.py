"""What keeps a cluster from its goal, in words, with a stable reason and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agniregistry.placement.goal import Goal
from agniregistry.placement.observe import Cluster, NodeState, Partition


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that the planner can't mend by itself."""

    reason: str
    """A stable word for programs."""
    message: str
    """What it is and what to do, for people."""


TOO_FEW_NODES = "TOO_FEW_NODES"
"""More replicas are wanted than nodes could hold."""
DRAIN_BLOCKED = "DRAIN_BLOCKED"
"""A node can't be emptied, because nobody could take its replicas."""
NODE_UNREACHABLE = "NODE_UNREACHABLE"
"""A node that holds replicas doesn't answer."""
NO_LEADER = "NO_LEADER"
"""Nobody within reach leads a partition."""
MOVE_WAITS = "MOVE_WAITS"
"""A move waits for a node that doesn't answer."""
MOVE_UNSAFE = "MOVE_UNSAFE"
"""A move would put a partition's quorum at risk."""


def problems_of(cluster: Cluster, goal: Goal, blocked: Sequence[Partition]) -> tuple[Problem, ...]:
    """Answer what is wrong, the broadest first."""
    return (
        *_nodes(cluster, goal),
        *_silent(cluster),
        *_partitions(cluster, blocked),
    )


def _nodes(cluster: Cluster, goal: Goal) -> list[Problem]:
    found = []
    able = sum(node.counts for node in cluster.nodes)
    if able < cluster.replication:
        message = (
            f"{cluster.replication} replicas of each partition are wanted, but only {able} nodes "
            "could hold one; add nodes"
        )
        found.append(Problem(TOO_FEW_NODES, message))
    for node_id in sorted(goal.held_back):
        message = (
            f"{cluster.label(node_id)} can't be emptied: no other node could take its replicas; "
            "add a node, or plan with a lower replication"
        )
        found.append(Problem(DRAIN_BLOCKED, message))
    return found


def _silent(cluster: Cluster) -> list[Problem]:
    found = []
    for node in cluster.nodes:
        held = cluster.held(node.node_id)
        if held and not node.reachable and node.state is not NodeState.LEFT:
            message = (
                f"{node.label} can't be reached and holds replicas of {held} partitions; start it, "
                "or drain it to have them moved"
            )
            found.append(Problem(NODE_UNREACHABLE, message))
    return found


def _partitions(cluster: Cluster, blocked: Sequence[Partition]) -> list[Problem]:
    found = []
    leaderless = [p for p in cluster.partitions if not cluster.is_led(p)]
    if leaderless:
        message = f"nobody within reach leads {_list(leaderless)}; start the nodes that hold it"
        found.append(Problem(NO_LEADER, message))
    waits = [p for p in cluster.partitions if _waits(cluster, p)]
    if waits:
        message = (
            f"the move of {_list(waits)} waits for a node that can't be reached; start it, or "
            "drain it to have the move taken back"
        )
        found.append(Problem(MOVE_WAITS, message))
    if blocked:
        message = (
            f"{_list(blocked)} can't move now without risking the quorum; start the nodes that "
            "can't be reached"
        )
        found.append(Problem(MOVE_UNSAFE, message))
    return found


def _waits(cluster: Cluster, partition: Partition) -> bool:
    arriving = set(partition.wanted) - set(partition.voters)
    silent = (not cluster.node(node_id).reachable for node_id in arriving)
    return partition.in_flight and any(silent)


def _list(partitions: Sequence[Partition]) -> str:
    """Partitions by number, not too many of them."""
    numbers = [str(partition.number) for partition in partitions[:5]]
    more = len(partitions) - len(numbers)
    word = "partition" if len(partitions) == 1 else "partitions"
    return f"{word} {', '.join(numbers)}" + (f" and {more} more" if more else "")
