"""status: how a node does. snapshot: taking snapshots, and reading their files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from agniregistry import types as t
from agniregistry.cli import data, render
from agniregistry.cli.commands.snapshots import inspect_files, verify_files
from agniregistry.cli.options import connection, current, output, watching
from agniregistry.cli.output import (
    facts,
    progress,
    repeatedly,
    say,
    show,
    structured,
    table_of,
)


@click.command("status")
@click.option("--partitions", is_flag=True, help="Also each partition (as -o wide does).")
@watching
@output("table", "wide", "json", "yaml")
@connection
def status_command(partitions: bool, again: bool, interval_ms: int) -> None:
    """Show how the node does: role, records, leases, disk.

    \b
    Examples:
      agnictl status
      agnictl status --partitions --watch
      agnictl status -o json | jq .writable
    """
    with current().connect() as client:

        def draw() -> Any:
            status: t.ClusterStatus = client.status()
            if structured(data.status_data(status)):
                return None
            return _status(status, partitions or current().output == "wide")

        if again:
            repeatedly(draw, interval_ms)
        elif (drawn := draw()) is not None:
            show(drawn)


def _status(status: t.ClusterStatus, partitions: bool) -> Any:
    parts = status.partitions
    led = sum(part.leader_id == status.node_id for part in parts)
    writable = Text("yes", style="green")
    if not status.writable:
        writable = Text(f"no: {status.message}", style="red")
    # A domain is spread over partitions: most of them is what is known of how many there are.
    suspect = max((part.suspect_domains for part in parts), default=0)
    pairs: list[tuple[str, str | Text]] = [
        ("Address", Text(current().where()[0], style="bold")),
        ("Cluster", status.cluster_id),
        ("Node", f"{status.node_id}, leads {led} of {len(parts)} partitions"),
        ("Region", status.region or render.NOTHING),
        ("Version", f"{status.version} ({status.build_profile})"),
        ("Uptime", render.duration(status.uptime_ms)),
        ("Writable", writable),
        ("Records", str(sum(part.records for part in parts))),
        ("Leases", str(sum(part.leases for part in parts))),
        ("Log on disk", render.size(status.wal_bytes)),
    ]
    if suspect:
        silent = f"{suspect} regions or gateways went silent"
        pairs.append(("Suspect", Text(silent, style="yellow")))
    if not partitions:
        return facts(pairs)
    return Group(facts(pairs), Text(""), _partitions(status))


def _partitions(status: t.ClusterStatus) -> Any:
    columns = ["PARTITION", "TERM", "LEADER", "COMMIT", "APPLIED", "REV", "RECORDS", "LEASES",
               "SNAPSHOT", "SUSPECT"]  # fmt: skip
    rows = [
        [
            str(part.partition),
            str(part.term),
            str(part.leader_id) if part.leader_id else Text("none", style="red"),
            str(part.commit_index),
            str(part.applied_index),
            str(part.revision),
            str(part.records),
            str(part.leases),
            str(part.snapshot_index) if part.snapshot_index else render.NOTHING,
            str(part.suspect_domains) if part.suspect_domains else render.NOTHING,
        ]
        for part in status.partitions
    ]
    return table_of(columns, rows, right=columns)


@click.group("snapshot")
def snapshot_command() -> None:
    """Take snapshots of a node's partitions, and read the files.

    \b
    Examples:
      agnictl snapshot take
      agnictl snapshot inspect /var/lib/agniregistry
      agnictl snapshot verify /var/lib/agniregistry
    """


@snapshot_command.command("take")
@click.option("--partition", "partitions", type=int, multiple=True, help="Only this one "
              "(repeatable).")  # fmt: skip
@output("table", "json", "yaml")
@connection
def take_command(partitions: tuple[int, ...]) -> None:
    """Have the node write snapshots now, and wait until they are durable.

    \b
    Example:
      agnictl snapshot take --partition 3 --timeout 5m
    """
    with current().connect() as client, progress("taking snapshots", None):
        taken: tuple[t.SnapshotTaken, ...] = client.snapshot(partitions)
    if structured({"snapshots": [asdict(each) for each in taken]}):
        return
    if not taken:
        say("no snapshot was needed")
        return
    rows = [
        [str(each.partition), str(each.index), str(each.revision), str(each.records),
         render.size(each.bytes), each.file]
        for each in taken
    ]  # fmt: skip
    columns = ["PARTITION", "INDEX", "REV", "RECORDS", "SIZE", "FILE"]
    show(table_of(columns, rows, right=columns[:5]))


@snapshot_command.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--records", is_flag=True, help="Also print every record, as JSON lines.")
@output("table", "json", "yaml")
def inspect_command(path: Path, records: bool) -> None:
    """Show what snapshot files hold: PATH is a file or a node's data directory.

    \b
    Examples:
      agnictl snapshot inspect /var/lib/agniregistry
      agnictl snapshot inspect --records FILE | jq -r .name
    """
    inspect_files(path, records)


@snapshot_command.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@output("table", "json", "yaml")
def verify_command(path: Path) -> None:
    """Read snapshot files whole and check every checksum; damage ends with exit code 6.

    \b
    Example:
      agnictl snapshot verify /var/lib/agniregistry
    """
    verify_files(path)
