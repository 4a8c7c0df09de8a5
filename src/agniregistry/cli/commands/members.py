"""cluster: who is in it, where the partitions are, and changing that."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from agniregistry import types as t
from agniregistry.cli import render
from agniregistry.cli.commands.backup import backup_command, restore_command
from agniregistry.cli.commands.rebalancing import rebalance_command
from agniregistry.cli.exits import CliError, Exit
from agniregistry.cli.options import connection, current, output, watching
from agniregistry.cli.output import facts, repeatedly, say, show, structured, table_of


@click.group("cluster")
def cluster_command() -> None:
    """Look at the members and the placement of partitions, and change them.

    A node is named by its id or its name.

    \b
    Examples:
      agnictl cluster status
      agnictl cluster drain node-3 && agnictl cluster status --watch
      agnictl cluster move 7 --to 1,2,4
    """


cluster_command.add_command(rebalance_command)
cluster_command.add_command(backup_command)
cluster_command.add_command(restore_command)


@cluster_command.command("status")
@watching
@output("table", "json", "yaml")
@connection
def status_command(again: bool, interval_ms: int) -> None:
    """Show at a glance whether every partition is led and has its replicas.

    \b
    Examples:
      agnictl cluster status
      agnictl cluster status --watch
    """
    _watched(again, interval_ms, _overview)


@cluster_command.command("members")
@click.option("--all", "everybody", is_flag=True, help="Also those who have left.")
@watching
@output("table", "json", "yaml")
@connection
def members_command(everybody: bool, again: bool, interval_ms: int) -> None:
    """List the nodes: state, addresses, zone, replicas and leaderships.

    \b
    Examples:
      agnictl cluster members
      agnictl cluster members -o json | jq -r '.members[].client_address'
    """
    _watched(again, interval_ms, lambda found: _members(found, everybody))


@cluster_command.command("partitions")
@watching
@output("table", "json", "yaml")
@connection
def partitions_command(again: bool, interval_ms: int) -> None:
    """List the partitions: leader, voters, who catches up, where each is wanted.

    \b
    Example:
      agnictl cluster partitions --watch
    """
    _watched(again, interval_ms, _partitions)


@cluster_command.command("move")
@click.argument("partition", type=int)
@click.option("--to", "nodes", required=True, help="The nodes that should hold it, with commas, "
              "the preferred leader first.")  # fmt: skip
@connection
def move_command(partition: int, nodes: str) -> None:
    """Say where a partition should be; its leader moves it there step by step.

    \b
    Example:
      agnictl cluster move 7 --to node-1,node-2,node-4
    """
    with current().connect() as client:
        found: t.ClusterMembers = client.members()
        placement = _placement(found, partition)
        node_ids = [_node(found, name) for name in nodes.split(",")]
        client.place_partition(partition, node_ids, expected_version=placement.wanted_version)
    say(f"partition {partition} is wanted on {_ids(node_ids)}; see agnictl cluster partitions")


@cluster_command.command("transfer")
@click.argument("partition", type=int)
@click.argument("node")
@connection
def transfer_command(partition: int, node: str) -> None:
    """Hand a partition's leadership to another of its voters.

    \b
    Example:
      agnictl cluster transfer 7 node-2
    """
    with current().connect() as client:
        node_id = _node(client.members(), node)
        client.transfer_leader(partition, node_id)
    say(f"partition {partition} is being handed to node {node_id}")


@cluster_command.command("drain")
@click.argument("node")
@connection
def drain_command(node: str) -> None:
    """Have a node hand over what it leads, before a restart or a removal.

    Its replicas stay: agnictl cluster rebalance moves them to others.

    \b
    Example:
      agnictl cluster drain node-3
    """
    with current().connect() as client:
        node_id = _node(client.members(), node)
        client.drain_member(node_id)
    say(f"node {node_id} drains; agnictl cluster return {node} takes it back")


@cluster_command.command("return")
@click.argument("node")
@connection
def return_command(node: str) -> None:
    """Take the draining of a node back.

    \b
    Example:
      agnictl cluster return node-3
    """
    with current().connect() as client:
        node_id = _node(client.members(), node)
        client.return_member(node_id)
    say(f"node {node_id} takes part again")


@cluster_command.command("remove")
@click.argument("node")
@connection
def remove_command(node: str) -> None:
    """Let a node go for ever. Refused while it holds replicas.

    \b
    Example:
      agnictl cluster remove node-3
    """
    with current().connect() as client:
        node_id = _node(client.members(), node)
        client.remove_member(node_id)
    say(f"node {node_id} has left; its identity is never given again")


def _watched(again: bool, interval_ms: int, draw: Any) -> None:
    with current().connect() as client:

        def once() -> Any:
            found: t.ClusterMembers = client.members()
            if structured(_plain(found)):
                return None
            return draw(found)

        if again:
            repeatedly(once, interval_ms)
        elif (drawn := once()) is not None:
            show(drawn)


def _plain(found: t.ClusterMembers) -> dict[str, Any]:
    plain = asdict(found)
    for member in plain["members"]:
        member["state"] = member["state"].value
    return plain


def _present(found: t.ClusterMembers) -> list[t.ClusterMember]:
    return [member for member in found.members if member.state is not t.MemberState.LEFT]


def _node(found: t.ClusterMembers, name: str) -> int:
    """The id of a present member, given its id or its name."""
    for member in _present(found):
        if name in (str(member.node_id), member.name):
            return member.node_id
    known = ", ".join(member.name or str(member.node_id) for member in _present(found))
    raise CliError(f"there is no node {name!r}", f"there are {known}", Exit.NOT_FOUND, "NOT_FOUND")


def _placement(found: t.ClusterMembers, partition: int) -> t.Placement:
    for placement in found.placements:
        if placement.partition == partition:
            return placement
    last = len(found.placements) - 1
    raise CliError(
        f"there is no partition {partition}", f"they are 0..{last}", Exit.NOT_FOUND, "NOT_FOUND"
    )


def _ids(nodes: Any) -> str:
    return ", ".join(map(str, nodes)) or render.NOTHING


def _is_moving(placement: t.Placement) -> bool:
    return set(placement.voters) != set(placement.wanted) or bool(placement.learners)


def _overview(found: t.ClusterMembers) -> Any:
    moving = sum(map(_is_moving, found.placements))
    unled = [str(p.partition) for p in found.placements if not p.leader_id]
    short = [p for p in found.placements if len(p.voters) < found.replication]
    led = Text("all", style="green")
    if unled:
        led = Text(f"not {', '.join(unled)}", style="red")
    replicas = Text("all", style="green")
    if short and len(_present(found)) >= found.replication:
        replicas = Text(f"{len(short)} partitions have fewer than {found.replication}", "yellow")
    elif short:
        replicas = Text(
            f"{len(_present(found))} nodes can't hold {found.replication} replicas", "yellow"
        )
    pairs: list[tuple[str, str | Text]] = [
        ("Partitions led", led),
        ("Replicas", replicas),
        ("Moving", str(moving) if moving else "nothing"),
        ("System leader", str(found.system_leader_id or render.NOTHING)),
        ("Version", str(found.version)),
    ]
    return Group(facts(pairs), Text(""), _members(found, everybody=False))


def _members(found: t.ClusterMembers, everybody: bool) -> Any:
    columns = ["NODE", "NAME", "STATE", "ZONE", "CLIENTS", "NODES", "REPLICAS", "LEADS"]
    styles = {t.MemberState.ACTIVE: "green", t.MemberState.DRAINING: "yellow"}
    rows: list[list[str | Text]] = []
    for member in found.members if everybody else _present(found):
        held = sum(member.node_id in placement.voters for placement in found.placements)
        leads = sum(member.node_id == placement.leader_id for placement in found.placements)
        rows.append([
            str(member.node_id),
            member.name or render.NOTHING,
            Text(member.state.value, style=styles.get(member.state, "")),
            member.zone or render.NOTHING,
            member.client_address,
            member.peer_address or render.NOTHING,
            str(held),
            str(leads),
        ])  # fmt: skip
    return table_of(columns, rows, right=["NODE", "REPLICAS", "LEADS"])


def _partitions(found: t.ClusterMembers) -> Any:
    columns = ["PARTITION", "LEADER", "VOTERS", "CATCHING UP", "WANTED", ""]
    rows: list[list[str | Text]] = [
        [
            str(placement.partition),
            str(placement.leader_id) if placement.leader_id else Text("none", style="red"),
            _ids(placement.voters),
            _ids(placement.learners),
            _ids(placement.wanted),
            Text("moving", style="yellow") if _is_moving(placement) else Text(""),
        ]
        for placement in found.placements
    ]
    return table_of(columns, rows, right=["PARTITION", "LEADER"])
