"""Reads snapshot files for people: what they hold, and whether they are whole."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from agniregistry.cli import render
from agniregistry.cli.output import note, progress, say, show, structured, table_of
from agniregistry.wal import CorruptError, SnapshotReader, find_snapshots


def inspect_files(path: Path, records: bool) -> None:
    """Shows each file's header and counts; with `records` its records instead."""
    if records:
        for file in find_snapshots(path):
            for record in SnapshotReader(file).items():
                click.echo(json.dumps(record, ensure_ascii=False))
        return
    files = [_summary(SnapshotReader(file).read()) for file in find_snapshots(path)]
    if structured({"snapshots": files}):
        return
    if not files:
        note(f"no snapshots in {path}; agnictl snapshot take has the node write them")
        return
    rows: list[list[str | Text]] = [
        [
            Text(str(each["file"]), style="bold"),
            str(each["partition"]),
            str(each["index"]),
            str(each["term"]),
            str(each["revision"]),
            str(each["records"]),
            str(each["tombstones"]),
            render.size(each["bytes"]),
        ]
        for each in files
    ]
    columns = ["FILE", "PARTITION", "INDEX", "TERM", "REV", "RECORDS", "TOMBSTONES", "SIZE"]
    show(table_of(columns, rows, right=columns[1:]))


def verify_files(path: Path) -> None:
    """Checks each file; all of them are looked at before the first damage is raised."""
    files = find_snapshots(path)
    total = sum(file.stat().st_size for file in files)
    told: list[dict[str, Any]] = []
    damage: list[CorruptError] = []
    with progress("verifying snapshots", total) as advance:
        for file in files:
            try:
                summary = _summary(SnapshotReader(file).read())
                told.append({"file": summary["file"], "ok": True, "records": summary["records"]})
            except CorruptError as error:
                damage.append(error)
                told.append(
                    {"file": file.name, "ok": False, "offset": error.offset, "reason": error.reason}
                )
            advance(file.stat().st_size)
    if not structured({"ok": not damage, "snapshots": told}):
        for each in told:
            if each["ok"]:
                say(f"{each['file']}: whole, {each['records']} records")
        if not files:
            note(f"no snapshots in {path}")
    if damage:
        for other in damage[1:]:
            note(str(other))
        raise damage[0]


def _summary(reader: SnapshotReader) -> dict[str, Any]:
    return {
        "file": reader.path.name,
        **asdict(reader.header),
        "records": reader.records,
        "tombstones": reader.tombstones,
        "bytes": reader.file_bytes,
    }
