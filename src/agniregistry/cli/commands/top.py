"""cluster top: a live view of the nodes, and of the partitions: who leads, who lags, what waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from agniregistry import types as t
from agniregistry.cli import exposition, render, vitals
from agniregistry.cli.exits import usage_error
from agniregistry.cli.options import DURATION, connection, current, output
from agniregistry.cli.output import (
    PADDING,
    console,
    is_terminal,
    repeatedly,
    show,
    structured,
    table_of,
)
from agniregistry.cli.settings import Settings
from agniregistry.errors import AgniError

SCRAPE_MS_MAX = 2_000
"""How long a node may take to tell its figures; it is shown as unreachable then."""
SCRAPES_AT_ONCE = 16
"""Nodes that are asked at the same time."""
INTERVAL_MS_MIN = 100
"""Rates over less are noise."""


@click.command("top")
@click.option("--partitions", is_flag=True, help="Also each partition: leader, lag, size.")
@click.option(
    "--once", is_flag=True, help="Show it once, for scripts; -o json and yaml do so, too."
)
@click.option("--interval", "interval_ms", type=DURATION, default=1_000,
              help="Time between two looks; rates are over it. [default: 1s]")  # fmt: skip
@output("table", "wide", "json", "yaml")
@connection
def top_command(partitions: bool, once: bool, interval_ms: int) -> None:
    """Watch the nodes at work, live: what they lead, write and read, who lags.

    \b
    It asks every node for its figures, so their client addresses must be reachable from here.
    WRITES/S and RENEWALS/S count where they are led, READS/S where they are answered.
    LAG is the entries that a node lacks where it lacks most; FSYNC and EXPIRY are p99 over the
    interval. -o wide adds processor time, log, what is forwarded, watches and connections.

    \b
    Examples:
      agnictl cluster top
      agnictl cluster top --partitions --interval 5s
      agnictl cluster top -o json | jq '.nodes[] | select(.lag_entries > 1000) | .name'
    """
    if interval_ms < INTERVAL_MS_MIN:
        raise usage_error(f"--interval is below {INTERVAL_MS_MIN}ms", "rates over less are noise")
    eye = Eye(current())
    previous: vitals.Look | None = None
    if once or current().output in ("json", "yaml"):
        previous = eye.look()
        time.sleep(interval_ms / 1_000)
        now = eye.look()
        if not structured(_plain(now, previous, partitions)):
            show(_screen(now, previous, partitions))
        return

    def draw() -> Any:
        nonlocal previous
        try:
            now = eye.look()
        except AgniError as error:
            if previous is None:
                raise
            # Who watches a cluster fall wants to see it rise again.
            return Text(f"nobody tells who is there: {error.message}", style="red")
        drawn = _screen(now, previous, partitions)
        previous = now
        return drawn

    repeatedly(draw, interval_ms)


class Eye:
    """Looks at a cluster; it goes on at another node when the one that it asks is gone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked = settings
        self._known: list[str] = []

    def look(self) -> vitals.Look:
        """Asks one node who is there, and then all of them how they do.

        Raises:
            AgniError: When no node tells who is there.
        """
        members = self._members()
        present = [each for each in members.members if each.state is not t.MemberState.LEFT]
        self._known = [member.client_address for member in present]
        pages: dict[int, exposition.Page] = {}
        failures: dict[int, str] = {}
        with ThreadPoolExecutor(SCRAPES_AT_ONCE) as pool:
            for member, found in zip(present, pool.map(self._page, present), strict=True):
                if isinstance(found, exposition.Page):
                    pages[member.node_id] = found
                else:
                    failures[member.node_id] = found
        return vitals.Look(members, pages, failures)

    def _members(self) -> t.ClusterMembers:
        try:
            return _ask(self._asked)
        except AgniError:
            for address in self._known:
                self._asked = self._settings.at(address, SCRAPE_MS_MAX)
                try:
                    return _ask(self._asked)
                except AgniError:
                    continue
            self._asked = self._settings
            raise

    def _page(self, member: t.ClusterMember) -> exposition.Page | str:
        at_s = time.monotonic()
        wait_s = min(self._settings.wait_ms(), SCRAPE_MS_MAX) / 1_000
        try:
            text = exposition.fetch(member.client_address, self._settings.tls(), wait_s)
        except OSError as error:
            return str(error)
        return exposition.parse(text, at_s)


def _ask(settings: Settings) -> t.ClusterMembers:
    with settings.connect() as client:
        found: t.ClusterMembers = client.members()
    return found


def _plain(now: vitals.Look, before: vitals.Look | None, partitions: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "version": now.members.version,
        "system_leader_id": now.members.system_leader_id,
        "nodes": [asdict(node) for node in vitals.nodes(now, before)],
    }
    if partitions:
        plain["partitions"] = [asdict(partition) for partition in vitals.partitions(now)]
    return plain


def _screen(now: vitals.Look, before: vitals.Look | None, partitions: bool) -> Any:
    found = vitals.nodes(now, before)
    parts = [_headline(now, found), Text(""), _nodes(found)]
    if unreachable := [node for node in found if node.error]:
        lines = [f"{node.name or node.node_id}: {node.error}" for node in unreachable]
        parts += [Text(""), *(Text(line, style="red") for line in lines)]
    if partitions:
        parts += [Text(""), _partitions(now)]
    return Group(*parts)


def _headline(now: vitals.Look, nodes: list[vitals.NodeFigures]) -> Text:
    line = Text()
    answered = sum(not node.error for node in nodes)
    line.append(f"{answered} of {len(nodes)} nodes", "bold" if answered == len(nodes) else "red")
    unled = [str(each.partition) for each in vitals.partitions(now) if not each.leader_id]
    if unled:
        line.append(f", no leader for partition {', '.join(unled)}", "red")
    else:
        line.append(f", all {len(now.members.placements)} partitions are led")
    writes = [node.writes_per_s for node in nodes if node.writes_per_s is not None]
    renewals = [node.renewals_per_s for node in nodes if node.renewals_per_s is not None]
    if writes:
        line.append(f", {sum(writes):,.0f} writes/s and {sum(renewals):,.0f} renewals/s")
    return line


def _number(value: float | None, form: str = ",.0f", bad: float | None = None) -> Text:
    """A figure; red from where it is bad."""
    if value is None:
        return Text(render.NOTHING)
    return Text(format(value, form), style="red" if bad is not None and value >= bad else "")


def _size(value: int | None) -> Text:
    return Text(render.NOTHING if value is None else render.size(value))


def _milliseconds(value: float | None, bad: float | None = None) -> Text:
    if value is None:
        return Text(render.NOTHING)
    text = f"{value:.1f}ms" if value < 100 else render.duration(value)
    return Text(text, style="red" if bad is not None and value >= bad else "")


_STATES = {"active": "green", "draining": "yellow", "unreachable": "red"}

_NODE_COLUMNS: dict[str, Callable[[vitals.NodeFigures], str | Text]] = {
    "NODE": lambda node: str(node.node_id),
    "NAME": lambda node: node.name or render.NOTHING,
    "STATE": lambda node: _state(node),
    "ZONE": lambda node: node.zone or render.NOTHING,
    "LEADS": lambda node: _number(node.leaders),
    "HOLDS": lambda node: _number(node.replicas),
    "WRITES/S": lambda node: _number(node.writes_per_s),
    "RENEWALS/S": lambda node: _number(node.renewals_per_s),
    "READS/S": lambda node: _number(node.reads_per_s),
    "QUEUE": lambda node: _number(node.queue_depth),
    "FSYNC": lambda node: _milliseconds(node.fsync_p99_ms, bad=100),
    "EXPIRY": lambda node: _milliseconds(node.expiry_lag_p99_ms, bad=5_000),
    "LAG": lambda node: _number(node.lag_entries, bad=10_000),
    "FREE DISK": lambda node: _size(node.disk_free_bytes),
    "MEMORY": lambda node: _size(node.memory_bytes),
}
_WIDE_COLUMNS: dict[str, Callable[[vitals.NodeFigures], str | Text]] = {
    "CPU": lambda node: _number(node.cpu_cores, ".2f"),
    "LOG": lambda node: _size(node.wal_bytes),
    "WAITED": lambda node: _milliseconds(node.queue_p99_ms),
    "FORWARDED/S": lambda node: _number(node.forwarded_per_s),
    "WATCHES": lambda node: _number(node.watches),
    "CONNECTIONS": lambda node: _number(node.connections),
}
_LEFT = ("NAME", "STATE", "ZONE")
_SPARED = ("MEMORY", "ZONE", "FREE DISK", "EXPIRY", "HOLDS", "READS/S", "NODE")
"""What a narrow terminal goes without, the first first; -o wide shows everything, wrapped."""


def _state(node: vitals.NodeFigures) -> Text:
    if node.ready is False:
        return Text(f"{node.state}, not ready", style="red")
    return Text(node.state, style=_STATES.get(node.state, ""))


def _nodes(found: list[vitals.NodeFigures]) -> Any:
    columns = dict(_NODE_COLUMNS)
    if current().output == "wide":
        columns |= _WIDE_COLUMNS
    cells = {name: [cell(node) for node in found] for name, cell in columns.items()}
    if is_terminal() and current().output == "table":
        columns = {name: columns[name] for name in _fitting(cells, console().width)}
    rows = [[cells[name][index] for name in columns] for index in range(len(found))]
    return table_of(list(columns), rows, right=[name for name in columns if name not in _LEFT])


def _fitting(cells: dict[str, list[str | Text]], room: int) -> list[str]:
    """The columns for which there is room, in their order."""

    def width(name: str) -> int:
        return PADDING + max(len(name), *(len(cell) for cell in cells[name]), 0)

    kept = list(cells)
    for name in _SPARED:
        if sum(map(width, kept)) - PADDING <= room:
            break
        kept.remove(name)
    return kept


def _partitions(now: vitals.Look) -> Any:
    columns = ["PARTITION", "LEADER", "VOTERS", "TERM", "REV", "RECORDS", "LEASES", "SIZE", "LAG"]
    rows: list[list[str | Text]] = [
        [
            str(each.partition),
            str(each.leader_id) if each.leader_id else Text("none", style="red"),
            ", ".join(map(str, each.voters)) or render.NOTHING,
            _number(each.term, "d"),
            _number(each.revision, "d"),
            _number(each.records, "d"),
            _number(each.leases, "d"),
            _size(each.store_bytes),
            _lag(each),
        ]
        for each in vitals.partitions(now)
    ]
    return table_of(
        columns, rows, right=[name for name in columns if name not in ("VOTERS", "LAG")]
    )


def _lag(partition: vitals.PartitionFigures) -> Text:
    """Each other replica's lag: node:entries, red where it is silent."""
    if partition.lag_entries is None:
        return Text(render.NOTHING)
    line = Text()
    for node_id, lag in sorted(partition.lag_entries.items()):
        text = f"{node_id}:{lag}" + ("!" if node_id in partition.silent else "")
        line.append(" " if line else "").append(text, "red" if node_id in partition.silent else "")
    return line or Text(render.NOTHING)
