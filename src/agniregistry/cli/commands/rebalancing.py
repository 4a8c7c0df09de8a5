"""cluster rebalance: asks the planner what to do next, and does it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from agniregistry import placement as planner
from agniregistry import types as t
from agniregistry.cli.commands.probing import led_by, statuses
from agniregistry.cli.exits import CliError, Exit
from agniregistry.cli.options import connection, current, output
from agniregistry.cli.output import note, say, structured
from agniregistry.errors import AgniError
from agniregistry.placement import problems

STUCK_S = 30.0
"""How long it waits for what may pass by itself."""
PASSING = frozenset({problems.NODE_UNREACHABLE, problems.NO_LEADER, problems.MOVE_WAITS})
"""Problems that may: a node that is slow, or starts again."""
PAUSE_S = 1.0
"""Time between two looks."""


@click.command("rebalance")
@click.option("--dry-run", is_flag=True, help="Say what would be done next, and do nothing.")
@click.option("--watch", "to_the_end", is_flag=True, help="Go on until there is nothing to do.")
@output("table", "json", "yaml")
@connection
def rebalance_command(dry_run: bool, to_the_end: bool) -> None:
    """Move replicas and leaderships so that every node has its share, in few safe steps.

    It may be ended at any time and begun again anywhere: each look starts from what is.

    \b
    Examples:
      agnictl cluster rebalance --dry-run
      agnictl cluster rebalance --watch
    """
    with current().connect() as client:
        told: tuple[str, ...] = ()
        moved_at = time.monotonic()
        while True:
            plan = planner.plan(observe(client.members()))
            if structured(asdict(plan)):
                return
            if dry_run:
                _show(plan)
                return
            lines = (planner.summary(plan), *(problem.message for problem in plan.problems))
            if lines != told:
                _tell(lines)
                told = lines
            done = sum(carry_out(client, step) for step in plan.steps)
            waits = any(problem.reason in PASSING for problem in plan.problems)
            if not to_the_end or not (plan.steps or plan.moves_in_flight or waits):
                return
            if done or plan.moves_in_flight:
                moved_at = time.monotonic()
            if time.monotonic() - moved_at > STUCK_S:
                raise CliError(
                    f"nothing could be moved for {STUCK_S:.0f} s: {lines[-1]}",
                    "begin again once that has passed",
                    Exit.UNAVAILABLE,
                )
            # What was refused has changed since it was looked at: the next look sees it.
            time.sleep(PAUSE_S if done or plan.moves_in_flight else 2 * PAUSE_S)


def observe(found: t.ClusterMembers) -> planner.Cluster:
    """The cluster as the planner wants to know it; asks each node whether it is there."""
    there = statuses(found, current())
    claims = {node_id: led_by(status) for node_id, status in there.items()}
    nodes = tuple(
        planner.Node(
            node_id=member.node_id,
            name=member.name,
            zone=member.zone,
            state=planner.NodeState(member.state.value),
            reachable=member.node_id in there,
        )
        for member in found.members
    )
    partitions = tuple(
        planner.Partition(
            number=placement.partition,
            wanted=placement.wanted,
            version=placement.wanted_version,
            voters=placement.voters,
            learners=placement.learners,
            reached=placement.reached_version,
            leader=planner.leader_of(placement.partition, placement.leader_id, claims),
        )
        for placement in found.placements
    )
    return planner.Cluster(nodes, partitions, found.replication)


def carry_out(client: Any, step: planner.Step) -> bool:
    """Does one step; says whether it was taken. One that came too late does no harm."""
    try:
        if isinstance(step, planner.SetWanted):
            client.place_partition(
                step.partition, step.nodes, expected_version=step.expected_version
            )
        else:
            client.transfer_leader(step.partition, step.to)
    except AgniError as error:
        note(f"partition {step.partition}: {error.message}")
        return False
    return True


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _show(plan: planner.Plan) -> None:
    for step in plan.steps:
        if isinstance(step, planner.SetWanted):
            say(f"partition {step.partition} to {', '.join(map(str, step.nodes))}: {step.why}")
        else:
            say(f"partition {step.partition} led by {step.to}: {step.why}")
    _tell((planner.summary(plan), *(problem.message for problem in plan.problems)))
