"""wal: reads a node's write-ahead log without the node, even where no node would start."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from agniregistry.cli import render
from agniregistry.cli.exits import not_found
from agniregistry.cli.options import current, output
from agniregistry.cli.output import facts, note, progress, show, structured
from agniregistry.wal import Batch, Entry, LogReader, Op, find_segments
from agniregistry.wal.log import Tail
from agniregistry.wal.records import WireError, read_command

OP_NAMES = [op.name.lower() for op in Op]


@click.group("wal")
def wal_command() -> None:
    """Read a node's write-ahead log: dump it, or verify it.

    \b
    Examples:
      agnictl wal verify /var/lib/agniregistry
      agnictl wal dump /var/lib/agniregistry --partition 3
      agnictl wal dump /var/lib/agniregistry -o json | jq -r 'select(.op == "put") | .key.name'

    PATH is a node's data directory, its wal folder, or one segment. Reading needs no node and
    changes nothing; beside a running node, the newest batch may look torn.
    """


@wal_command.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@output("table", "json", "yaml")
def verify_command(path: Path) -> None:
    """Check every frame, batch and segment.

    \b
    Example:
      agnictl wal verify /var/lib/agniregistry

    A torn tail, the last write cut short by a crash, is no damage: nothing in it was
    acknowledged. Corruption is named with its file and offset and ends with exit code 6.
    """
    segments = find_segments(path)
    total = sum(segment.path.stat().st_size for segment in segments)
    started = time.monotonic()
    with progress("verifying", total) as advance:
        reader = LogReader(segments, on_bytes=advance).read()
    plain = {
        "ok": True,
        "cluster_id": reader.cluster_id,
        "node_id": str(reader.node_id),
        "segments": len(segments),
        "bytes": total,
        "frames": reader.frames,
        "first_sequence": reader.first_sequence,
        "last_sequence": reader.last_sequence,
        "torn_tail": _tail(reader.tail),
    }
    if structured(plain):
        return
    batches = "none yet"
    if reader.first_sequence is not None:
        batches = f"{reader.first_sequence} to {reader.last_sequence}"
    pairs = [
        ("Log", "whole"),
        ("Cluster", reader.cluster_id),
        ("Node", str(reader.node_id)),
        ("Segments", f"{len(segments)}, {render.size(total)}"),
        ("Batches", batches),
        ("Frames", str(reader.frames)),
        ("Took", render.duration((time.monotonic() - started) * 1_000)),
    ]
    show(facts(pairs))
    if reader.tail:
        note(_tail_line(reader.tail))


def _tail(tail: Tail | None) -> dict[str, Any] | None:
    if tail is None:
        return None
    return {
        "file": str(tail.file),
        "offset": tail.offset,
        "bytes": tail.bytes,
        "reason": tail.reason,
    }


def _tail_line(tail: Tail) -> str:
    return (
        f"torn tail: {tail.bytes} bytes at offset {tail.offset} of {tail.file.name} were never "
        "acknowledged; the node cuts them when it starts"
    )


@wal_command.command("dump")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--partition", "partitions", type=int, multiple=True, help="Only of this one.")
@click.option(
    "--op",
    "ops",
    type=click.Choice(OP_NAMES),
    metavar="OP",
    multiple=True,
    help="Only this op (repeatable): put, patch, delete, drain, expire, no_op, conf_change, "
    "hard_state, snapshot_mark, batch_commit, segment_header.",
)
@click.option("--name", default="", help="Only entries about records of this name.")
@click.option("--from", "first", type=int, default=0, help="From this batch on.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many frames.")
@click.option("--all", "everything", is_flag=True, help="Also headers, commits and hard states.")
@output("table", "json")
def dump_command(
    path: Path,
    partitions: tuple[int, ...],
    ops: tuple[str, ...],
    name: str,
    first: int,
    limit: int | None,
    everything: bool,
) -> None:
    """Print what the log says, frame by frame, in the order of the log.

    \b
    Examples:
      agnictl wal dump /var/lib/agniregistry --limit 20
      agnictl wal dump /var/lib/agniregistry --op put --op delete --name a.example
      agnictl wal dump /var/lib/agniregistry --all -o json

    With -o json each line is one frame. The dump ends at the first damage, with exit code 6.
    """
    reader = LogReader(find_segments(path))
    shown = 0
    as_json = current().output == "json"
    for frame in _frames(reader, everything or bool(ops)):
        if partitions and frame.get("partition") not in partitions:
            continue
        if frame["sequence"] < first or (ops and frame["op"] not in ops):
            continue
        if name and frame.get("key", {}).get("name") != name:
            continue
        if not as_json and shown == 0:
            click.echo(_HEADING)
        click.echo(json.dumps(frame, ensure_ascii=False) if as_json else _line(frame))
        shown += 1
        if limit is not None and shown >= limit:
            return
    if reader.tail:
        note(_tail_line(reader.tail))
    if shown == 0:
        selected = partitions or ops or name or first
        if selected and reader.first_sequence is not None:
            raise not_found("nothing in the log matches")
        note("the log holds no entries yet")


def _frames(reader: LogReader, everything: bool) -> Iterator[dict[str, Any]]:
    """Every frame as plain data; without `everything` only what changes a partition."""
    headers = 0
    for batch in reader.batches():
        while everything and headers < len(reader.headers):
            segment, entry = reader.headers[headers]
            headers += 1
            yield _frame(entry, segment.path.name, batch.sequence - 1)
        for entry in batch.entries:
            if everything or entry.frame.op.is_entry or entry.frame.op in _TELLING:
                yield _frame(entry, batch.segment.path.name, batch.sequence)
        if everything:
            yield _commit(batch)


def _frame(entry: Entry, file: str, sequence: int) -> dict[str, Any]:
    op, record = entry.frame.op, entry.record
    plain: dict[str, Any] = {
        "file": file,
        "offset": entry.frame.offset,
        "sequence": sequence,
        "op": op.name.lower(),
    }
    if op is Op.SEGMENT_HEADER:
        return {**plain, **record.segment_header}
    plain["partition"] = record.partition
    if op is Op.HARD_STATE:
        return {**plain, **record.hard_state}
    plain.update(term=record.term, index=record.index)
    if op is Op.SNAPSHOT_MARK:
        plain.update(snapshot_file=record.snapshot_file, replicas=record.replicas)
        if record.installed:
            plain["installed"] = True
    elif op is Op.REPLICA_SET:
        plain.update(replicas=record.replicas)
    elif op is Op.DISCARD:
        plain.pop("term")
    elif op is Op.CONF_CHANGE:
        plain["data"] = record.data.hex()
    elif len(record.data):
        try:
            command = read_command(record.data)
        except WireError as error:
            plain.update(unreadable=str(error), data=record.data.hex())
        else:
            if op is Op.SYSTEM:
                plain["change"] = command.operation
            else:
                plain["key"] = command.key
            # An entry's own partition and index are those of its group.
            renamed = {"partition": "of_partition", "index": "of_index"}
            plain.update({renamed.get(n, n): value for n, value in command.detail.items()})
            plain["proposed_unix_ms"] = command.proposed_unix_ms
    return plain


def _commit(batch: Batch) -> dict[str, Any]:
    return {
        "file": batch.segment.path.name,
        "offset": batch.commit.offset,
        "sequence": batch.sequence,
        "op": Op.BATCH_COMMIT.name.lower(),
        "frames": len(batch.entries),
    }


_TELLING = (Op.SNAPSHOT_MARK, Op.REPLICA_SET, Op.DISCARD)
"""Frames that are no entries, but say what became of a group."""

_SYSTEM_PARTITION = (1 << 32) - 1

_LAYOUT = "{:>8}  {:>14}  {:>4}  {:>6}  {:>8}  {:<14}  {:<36}  {}"
_HEADING = _LAYOUT.format(
    "BATCH", "SEGMENT:OFFSET", "PART", "TERM", "INDEX", "OP", "RECORD", "DETAIL"
)
_TOLD = {"file", "offset", "sequence", "op", "partition", "term", "index", "key", "spec"}


def _line(frame: dict[str, Any]) -> str:
    key = frame.get("key") or {}
    record = f"{key.get('kind', '?')}/{key.get('name', '?')}" if key else render.NOTHING
    if key and key.get("namespace", "default") != "default":
        record = f"{key['namespace']}/{record}"
    return _LAYOUT.format(
        frame["sequence"],
        f"{int(frame['file'].removesuffix('.wal'))}:{frame['offset']}",
        _group(frame.get("partition")),
        frame.get("term", render.NOTHING),
        frame.get("index", render.NOTHING),
        frame["op"],
        record,
        _detail(frame),
    ).rstrip()


def _group(partition: int | None) -> str:
    if partition is None:
        return render.NOTHING
    return "sys" if partition == _SYSTEM_PARTITION else str(partition)


def _detail(frame: dict[str, Any]) -> str:
    """What else the frame says, in a few words."""
    words = []
    spec = frame.get("spec") or {}
    if spec:
        host = spec.get("domain") or spec.get("ip") or ""
        words.append(f"{spec.get('region', '')} {host}:{spec.get('port', '')}".rstrip(": "))
    for name, value in frame.items():
        if name in _TOLD or value in (None, "", []):
            continue
        if name == "proposed_unix_ms":
            words.append(render.moment(value))
        elif name == "ttl_ms":
            words.append(f"ttl {render.duration(value)}")
        elif name == "leases":
            words.append(f"{len(value)} leases")
        elif name == "paths":
            words.append("sets " + ",".join(value))
        elif isinstance(value, dict):
            words.append(" ".join(f"{part} {said}" for part, said in value.items()))
        else:
            words.append(f"{name} {value}")
    return ", ".join(word.strip() for word in words if word.strip())
