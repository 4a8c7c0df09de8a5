"""backup and restore: a cluster's content in one file, and a new cluster from that file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agniregistry import types as t
from agniregistry.backup import ArchiveReader, ArchiveWriter, Intake, Manifest, SourceError
from agniregistry.cli import render, restoring
from agniregistry.cli.exits import CliError, Exit
from agniregistry.cli.options import connection, current, output
from agniregistry.cli.output import facts, note, progress, say, show, structured
from agniregistry.client import Client

LINE_S = 5.0
"""Time between two lines of progress where nobody sees a bar."""
RATE_MIN = 16 / 1024
"""The least rate that a node takes, in MiB a second."""
EVERYTHING = t.Filter(namespace="*")
FILE = click.Path(dir_okay=False, path_type=Path)


class FileOrCommand(click.Group):
    """`backup FILE` means `backup take FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command in where a file stands in its place."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["take", *args]
        return super().parse_args(ctx, args)


@click.group("backup", cls=FileOrCommand)
def backup_command() -> None:
    """Copy a running cluster's content into a file, and check such a file.

    \b
    Examples:
      agnictl backup registry.agnibackup
      agnictl backup verify registry.agnibackup
      agnictl backup checksum
    """


@backup_command.command("take")
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@click.option("--rate", "mib_per_s", type=click.FloatRange(min=RATE_MIN), help="Most MiB a second.")
@output("table", "json", "yaml")
@connection
def take_command(file: Path, force: bool, mib_per_s: float | None) -> None:
    """Write a backup of all partitions while the cluster works; `backup FILE` does the same.

    Everything that was acknowledged before is in it. Each partition is as it was at one moment.
    FILE appears when it is complete and on disk.

    \b
    Examples:
      agnictl backup registry.agnibackup
      agnictl backup registry.agnibackup --rate 10 --force
    """
    bytes_per_s = round(mib_per_s * (1 << 20)) if mib_per_s else 0
    with ArchiveWriter(file, force=force) as writer, current().connect() as client:
        _take_in(client, writer, bytes_per_s)
        manifest = writer.finish()
    _tell(manifest, file)


@backup_command.command("verify")
@click.argument("file", type=FILE)
@output("table", "json", "yaml")
def verify_command(file: Path) -> None:
    """Check every byte of a backup and show what it holds.

    \b
    Examples:
      agnictl backup verify registry.agnibackup
      agnictl backup verify registry.agnibackup -o json
    """
    with ArchiveReader(file) as reader:
        _tell(_verify(reader), file)


@backup_command.command("checksum")
@output("table", "json", "yaml")
@connection
def checksum_command() -> None:
    """Show the checksum of a running cluster's content, to be compared with a backup's.

    \b
    Examples:
      agnictl backup checksum
    """
    with current().connect() as client:
        manifest = content_of(client)
    if not structured({"records": manifest.records, "content": manifest.content}):
        say(f"{manifest.content}  {manifest.records} records")


@click.command("restore")
@click.argument("file", type=FILE)
@click.option(
    "--into-existing",
    is_flag=True,
    help="Also where there are records: those stay as they are, what is missing is put back.",
)
@output("table", "json", "yaml")
@connection
def restore_command(file: Path, into_existing: bool) -> None:
    """Put a backup's records into a newly founded cluster of any size.

    The backup is verified before anything is written, and the cluster's content is compared with
    it at the end. Found the new cluster first: it has an identity of its own, so that tokens of
    the old one are refused. Revisions, leases' identities and times of creation are new;
    every record with a time to live has all of it from the end of the restore.

    \b
    Examples:
      agnictl restore registry.agnibackup --address new-node:7400
    """
    with ArchiveReader(file) as reader:
        manifest = _verify(reader)
        with current().connect() as client:
            _check_target(client, manifest, into_existing)
            with _counting("restoring", manifest.records) as advance:
                done = restoring.restore(client, reader.records(), advance)
            found = None if into_existing else content_of(client)
    _judge(manifest, done, found)


def content_of(client: Client) -> Manifest:
    """What a cluster holds now: a backup of which nothing is kept."""
    intake = Intake()
    _take_in(client, intake, 0)
    return intake.end()


def _take_in(client: Client, sink: ArchiveWriter | Intake, bytes_per_s: int) -> None:
    """Takes a whole backup, with progress."""
    intake = sink if isinstance(sink, Intake) else sink.intake
    with client.backup(bytes_per_s=bytes_per_s) as parts, _partitions() as tell:
        try:
            for taken in _taken(parts, sink):
                tell(intake, taken)
        except SourceError as error:
            raise CliError(
                f"what the cluster sent is no backup: {error}",
                "try again; if it happens again, please report it with the nodes' logs",
                Exit.CORRUPT,
                "CORRUPT",
            ) from error


def _taken(parts: Iterable[t.BackupPart], sink: ArchiveWriter | Intake) -> Iterator[int]:
    """Hands the parts over; yields how many bytes there were so far."""
    taken = 0
    for part in parts:
        if isinstance(part, t.BackupBegin):
            sink.begin(**asdict(part))
        elif isinstance(part, t.BackupSection):
            sink.section(**asdict(part))
        elif isinstance(part, t.BackupData):
            for _ in sink.data(part.data):
                pass
            taken += len(part.data)
        yield taken


@contextmanager
def _partitions() -> Iterator[Callable[[Intake, int], None]]:
    """How far a backup is: a bar for people, a line now and then for logs."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(intake: Intake, taken: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_S:
                last = time.monotonic()
                note(_how_far(intake, taken))

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: TaskID = bar.add_task("backing up", total=None)

        def draw(intake: Intake, taken: int) -> None:
            bar.update(
                task,
                total=intake.expected or None,
                completed=intake.finished,
                description=_how_far(intake, taken),
            )

        yield draw


def _how_far(intake: Intake, taken: int) -> str:
    return (
        f"{intake.finished} of {intake.expected} partitions, {intake.records} records, "
        f"{render.size(taken)}"
    )


@contextmanager
def _counting(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """How many records are done."""
    if not sys.stderr.isatty():
        last, done = time.monotonic(), 0

        def line(count: int) -> None:
            nonlocal last, done
            done += count
            if time.monotonic() - last >= LINE_S:
                last = time.monotonic()
                note(f"{label}: {done} of {total} records")

        yield line
        return
    columns = (TextColumn("{task.description} {task.completed} of {task.total} records"),)
    with Progress(*columns, BarColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _verify(reader: ArchiveReader) -> Manifest:
    with progress("verifying the backup", reader.file_bytes) as advance:
        return reader.verify(advance)


def _check_target(client: Client, manifest: Manifest, into_existing: bool) -> None:
    """Refuses what would not be a new cluster, unless that is what was asked for."""
    if into_existing:
        return
    if client.status().cluster_id == manifest.cluster_id:
        raise CliError(
            "this is the cluster that the backup was taken of",
            "found a new one; or put back what is missing here with --into-existing",
            Exit.CONFLICT,
            "NOT_EMPTY",
        )
    if client.list(EVERYTHING, page_size=1).instances:
        raise CliError(
            "the cluster holds records already",
            "found a new one; or put back what is missing here with --into-existing",
            Exit.CONFLICT,
            "NOT_EMPTY",
        )


def _tell(manifest: Manifest, file: Path) -> None:
    size = file.stat().st_size
    if structured({"file": str(file), "file_bytes": size, **manifest.plain()}):
        return
    partitions = f"{len(manifest.partitions)} of {manifest.partition_count}"
    show(
        facts([
            ("File", f"{file}, {render.size(size)}, whole"),
            ("Cluster", manifest.cluster_id),
            ("Region", manifest.region or render.NOTHING),
            ("Taken", render.moment(manifest.created_unix_ms)),
            ("Partitions", partitions),
            ("Records", str(manifest.records)),
            ("Content", manifest.content),
        ])
    )  # fmt: skip


def _judge(manifest: Manifest, done: restoring.Restored, found: Manifest | None) -> None:
    """Says what was done, and fails where that isn't all."""
    identical = found is not None and found.content == manifest.content
    told = {**asdict(done), "records": manifest.records, "content": manifest.content}
    if found is not None:
        told |= {"identical": identical, "found_records": found.records}
        told |= {"cluster_id": found.cluster_id}
    if not structured(told):
        say(
            f"{done.created} records put back, {done.present} were there already, "
            f"{done.kept} exist with another content and stay as they are"
        )
        if identical:
            say("the cluster's content is that of the backup, by checksum", "green")
    for refusal in done.refusals:
        note(refusal)
    if done.refused or (found is not None and not identical):
        holds = f", the cluster holds {found.records}" if found is not None else ""
        raise CliError(
            f"the cluster's content is not that of the backup: {manifest.records} records{holds}; "
            f"{done.refused} were refused, {done.expired} leases ran out meanwhile",
            "where others wrote meanwhile that is expected; else restore into a new cluster",
            reason="NOT_IDENTICAL",
        )
