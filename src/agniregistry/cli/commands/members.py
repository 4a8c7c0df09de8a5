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
from agniregistry.cli.commands.probing import answering
from agniregistry.cli.commands.rebalancing import rebalance_command
from agniregistry.cli.commands.top import top_command
from agniregistry.cli.commands.waiting import wait_until, waiting
from agniregistry.cli.exits import CliError, Exit
from agniregistry.cli.options import connection, current, output, watching
from agniregistry.cli.output import facts, repeatedly, say, show, structured, table_of

SECTIONS = {
    "Look": ("status", "members", "partitions", "top"),
    "Change who is in it": ("drain", "return", "remove"),
    "Change where partitions are": ("rebalance", "move", "transfer"),
    "Keep a copy": ("backup", "restore"),
}
"""The sections of the help; a command of none of them comes last."""


class Sectioned(click.Group):
    """A group whose help has sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands below their sections, with as much of their help as fits a line."""
        listed = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in listed)
        for title, names in {**SECTIONS, "Others": others}.items():
            found = [(name, self.commands[name]) for name in names if name in self.commands]
            if found:
                rows = [(name, command.get_short_help_str(95)) for name, command in found]
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group("cluster", cls=Sectioned)
def cluster_command() -> None:
    """Look at the members and the placement of partitions, and change them.

    A node is named by its id or its name. Any node can be asked; what is said to be changed is
    agreed upon by a majority before the command ends, and done soon after (--wait waits for it).

    \b
    Examples:
      agnictl cluster status                         is all well?
      agnictl cluster top --partitions               and what goes on, live
      agnictl cluster drain node-3 --wait            before node-3 is restarted
      agnictl cluster return node-3                  and afterwards
      agnictl cluster rebalance --dry-run            what would make the shares even
      agnictl cluster move 7 --to node-1,node-2,node-4
    """


cluster_command.add_command(rebalance_command)
cluster_command.add_command(top_command)
cluster_command.add_command(backup_command)
cluster_command.add_command(restore_command)


@cluster_command.command("status")
@watching
@output("table", "json", "yaml")
@connection
def status_command(again: bool, interval_ms: int) -> None:
    """Show whether all nodes answer and every partition is led and has its replicas.

    Nodes are asked from here, at their client addresses. A replica on a node that doesn't answer
    counts as one: nobody else is given it before the node is drained. -o json has what the cluster
    knows by itself.

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
    """List the nodes: state, addresses, zone, what they hold and lead.

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
    """List the partitions: leader, voters, and where each is wanted.

    CATCHING UP are those who learn what is in it and don't vote yet; a partition is moving until
    its leader has said that it is where it is wanted.

    \b
    Example:
      agnictl cluster partitions --watch
    """
    _watched(again, interval_ms, _partitions)


@cluster_command.command("move")
@click.argument("partition", type=int)
@click.option("--to", "nodes", required=True, help="The nodes that should hold it, with commas, "
              "the preferred leader first.")  # fmt: skip
@waiting
@connection
def move_command(partition: int, nodes: str, wait_ms: int) -> None:
    """Say where a partition should be.

    Its leader moves it there step by step: a newcomer catches up before it votes, and the old one
    goes last. Nobody's request fails for it. Moving it back is the way to undo it.

    \b
    Examples:
      agnictl cluster move 7 --to node-1,node-2,node-4
      agnictl cluster move 7 --to 1,2,4 --wait --wait-max 10m
    """
    with current().connect() as client:
        found: t.ClusterMembers = client.members()
        placement = _placement(found, partition)
        node_ids = [_node(found, name) for name in nodes.split(",")]
        seen = placement.wanted_version
        version = client.place_partition(partition, node_ids, expected_version=seen)
        if wait_ms:
            wait_until(
                client,
                wait_ms,
                lambda now: not_there(now, partition, node_ids, version),
                "agnictl cluster top --partitions shows how far it is",
            )
            say(f"partition {partition} is on {_ids(node_ids)}")
            return
    say(f"partition {partition} is wanted on {_ids(node_ids)}; see agnictl cluster partitions")


@cluster_command.command("transfer")
@click.argument("partition", type=int)
@click.argument("node")
@waiting
@connection
def transfer_command(partition: int, node: str, wait_ms: int) -> None:
    """Hand a partition's leadership to another of its voters.

    It is not for good: who leads by preference is the first of the nodes that it is wanted on
    (agnictl cluster move), and rebalancing goes by that.

    \b
    Example:
      agnictl cluster transfer 7 node-2 --wait
    """
    with current().connect() as client:
        node_id = _node(client.members(), node)
        client.transfer_leader(partition, node_id)
        if wait_ms:
            wait_until(
                client,
                wait_ms,
                lambda now: _not_led(_placement(now, partition), node_id),
                f"node {node_id} may be too far behind: agnictl cluster top --partitions",
            )
            say(f"partition {partition} is led by node {node_id}")
            return
    say(f"partition {partition} is being handed to node {node_id}")


@cluster_command.command("drain")
@click.argument("node")
@waiting
@connection
def drain_command(node: str, wait_ms: int) -> None:
    """Have a node hand over what it leads, before a restart or a removal.

    It is given nothing new from then on. Its replicas stay, which is what a restart wants; before a
    removal, agnictl cluster rebalance --watch moves them to others.

    \b
    Examples:
      agnictl cluster drain node-3 --wait && systemctl restart agni-node
      agnictl cluster drain node-3 && agnictl cluster rebalance --watch
    """
    with current().connect() as client:
        node_id = _node(client.members(), node)
        client.drain_member(node_id)
        if wait_ms:
            wait_until(
                client,
                wait_ms,
                lambda now: _leads_still(now, node_id),
                "no other voter of these may be there to take over: agnictl cluster status",
            )
            say(f"node {node_id} leads nothing; agnictl cluster return {node} takes it back")
            return
    say(f"node {node_id} drains; agnictl cluster return {node} takes it back")


@cluster_command.command("return")
@click.argument("node")
@connection
def return_command(node: str) -> None:
    """Take the draining of a node back.

    It may lead again at once; agnictl cluster rebalance gives it its share.

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

    This can't be taken back: its identity is never given again, and its data folder is of no use
    any more. A node that is only restarted or replaced under its name is not to be removed.

    \b
    Example:
      agnictl cluster drain node-3
      agnictl cluster rebalance --watch
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


def not_there(found: t.ClusterMembers, partition: int, wanted: list[int], version: int) -> str:
    """What keeps a partition from being where it should be; empty when it is there.

    The asked node may not have heard of `version` yet, at which that was said, and what it shows
    is older then.
    """
    placement = _placement(found, partition)
    if found.version >= version and not placement.is_moving:
        if set(placement.wanted) == set(wanted):
            return ""
        return f"partition {partition} was sent to {_ids(placement.wanted)} meanwhile"
    catching_up = f", {_ids(placement.learners)} catch up" if placement.learners else ""
    if not catching_up and set(placement.voters) == set(wanted):
        catching_up = " as was last reported, and its leader has not confirmed that yet"
    return f"partition {partition} is on {_ids(placement.voters)}{catching_up}"


def _not_led(placement: t.Placement, node_id: int) -> str:
    """Who leads in place of the node; empty when it does."""
    if placement.leader_id == node_id:
        return ""
    leader = f"node {placement.leader_id}" if placement.leader_id else "nobody"
    return f"partition {placement.partition} is led by {leader}"


def _leads_still(found: t.ClusterMembers, node_id: int) -> str:
    """What a node leads still; empty when it leads nothing."""
    led = [each.partition for each in found.placements if each.leader_id == node_id]
    return f"node {node_id} still leads {_ids(led)}" if led else ""


def _ids(nodes: Any) -> str:
    return ", ".join(map(str, nodes)) or render.NOTHING


def _leader(found: t.ClusterMembers) -> list[int]:
    return [found.system_leader_id] if found.system_leader_id else []


def _overview(found: t.ClusterMembers) -> Any:
    moving = sum(placement.is_moving for placement in found.placements)
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
    there = answering(found, current())
    silent = [each for each in _present(found) if each.node_id not in there]
    nodes = Text(f"all {len(there)} answer", style="green")
    if silent:
        names = ", ".join(member.name or str(member.node_id) for member in silent)
        nodes = Text(f"no answer here from {names}", style="red")
    pairs: list[tuple[str, str | Text]] = [
        ("Nodes", nodes),
        ("Partitions led", led),
        ("Replicas", replicas),
        ("Moving", str(moving) if moving else "nothing"),
        ("System group", f"{_ids(found.system_voters)}, led by {_ids(_leader(found))}"),
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
            Text("moving", style="yellow") if placement.is_moving else Text(""),
        ]
        for placement in found.placements
    ]
    return table_of(columns, rows, right=["PARTITION", "LEADER"])
