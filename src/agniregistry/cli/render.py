"""How records, durations and sizes read in a table."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from agniregistry import types as t
from agniregistry.cli.output import facts, table_of

STATUS_STYLES = {
    t.Status.ALIVE: "green",
    t.Status.SUSPECT: "yellow",
    t.Status.DRAINING: "magenta",
}
NOTHING = "-"
"""Stands where there is no value, so that columns stay countable."""


def duration(milliseconds: float) -> str:
    """Short and rounded: 850ms, 12s, 5m, 3h, 4d."""
    if milliseconds < 1_000:
        return f"{max(0, int(milliseconds))}ms"
    seconds = milliseconds / 1_000
    for unit, size, limit in (("s", 1, 120), ("m", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < limit:
            return f"{int(seconds / size)}{unit}"
    return f"{int(seconds / 86_400)}d"


def size(count: int) -> str:
    """Bytes in binary units."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def amount(value: float) -> str:
    """A number without a needless fraction."""
    return f"{value:g}"


def age(unix_ms: int) -> str:
    """How long ago, by this machine's clock."""
    if not unix_ms:
        return NOTHING
    passed_ms = max(0, int(time.time() * 1_000 - unix_ms))
    return duration(passed_ms) if passed_ms >= 1_000 else "0s"


def address(spec: t.Spec) -> str:
    """Where it is reached: its domain, else its IP, with the port."""
    host = spec.domain or (f"[{spec.ip}]" if ":" in spec.ip else spec.ip)
    if not host:
        return NOTHING
    return f"{host}:{spec.port}" if spec.port else host


def lease(instance: t.Instance) -> Text:
    """The time that is left of the lease, of its time to live."""
    if instance.lease_remaining_ms is None:
        return Text("none", style="dim")
    left, ttl = instance.lease_remaining_ms, instance.record.ttl_ms
    style = "red" if left <= 0 else "yellow" if ttl and left < ttl / 3 else ""
    return Text(f"{duration(left)}/{duration(ttl)}" if ttl else duration(left), style=style)


def status(value: t.Status) -> Text:
    """The state in its colour."""
    return Text(value.value, style=STATUS_STYLES.get(value, ""))


def capacity(value: t.Capacity | None) -> str:
    """All four amounts in one cell: cores, Mbit/s, memory, storage."""
    if value is None:
        return NOTHING
    mebibyte = 1024 * 1024
    return (
        f"{amount(value.cpu)} cpu, {amount(value.bandwidth)} Mbit/s, "
        f"{size(int(value.memory * mebibyte))}, {size(int(value.storage * mebibyte))}"
    )


def labels(spec: t.Spec) -> str:
    """Labels as they are typed."""
    return ",".join(f"{key}={value}" for key, value in sorted(spec.labels.items())) or NOTHING


def short(key: t.Key) -> str:
    """KIND/NAME, as commands accept it."""
    return f"{key.kind.value}/{key.name}"


def instances_table(instances: Sequence[t.Instance], wide: bool) -> Table:
    """Records below each other."""
    kinds = len({instance.key.kind for instance in instances}) > 1
    namespaces = len({instance.key.namespace for instance in instances}) > 1
    columns = ["NAME", "REGION", "ADDRESS", "STATUS", "LEASE", "AGE", "REV"]
    columns[:0] = ["NAMESPACE"] * namespaces + ["KIND"] * kinds
    if wide:
        columns += ["VER", "IP", "CAPACITY", "FREE", "LABELS", "GATEWAY", "OWNER", "LEASE ID"]
    rows = [_instance_row(instance, kinds, namespaces, wide) for instance in instances]
    return table_of(columns, rows, right=("REV", "VER"))


def _instance_row(
    instance: t.Instance, kinds: bool, namespaces: bool, wide: bool
) -> list[str | Text]:
    record, spec = instance.record, instance.spec
    row: list[str | Text] = []
    if namespaces:
        row.append(record.key.namespace)
    if kinds:
        row.append(record.key.kind.value)
    row += [
        Text(record.key.name, style="bold"),
        spec.region,
        address(spec),
        status(instance.status),
        lease(instance),
        age(record.created_unix_ms),
        str(record.revision),
    ]
    if wide:
        row += [
            str(record.version),
            spec.ip or NOTHING,
            capacity(spec.capacity),
            capacity(instance.load.free) if instance.load else NOTHING,
            labels(spec),
            spec.gateway or NOTHING,
            spec.owner or NOTHING,
            str(record.lease_id) if record.lease_id else NOTHING,
        ]
    return row


def instance_facts(instance: t.Instance) -> Table:
    """One record with everything that is known about it."""
    record, spec = instance.record, instance.spec
    pairs: list[tuple[str, str | Text]] = [
        ("Name", Text(record.key.name, style="bold")),
        ("Kind", record.key.kind.value),
        ("Namespace", record.key.namespace),
        ("Region", spec.region),
        ("Status", status(instance.status)),
    ]
    if record.draining:
        left = record.draining.deadline_unix_ms - time.time() * 1_000
        then = f", then {record.draining.successor}" if record.draining.successor else ""
        pairs.append(("Draining", f"gone in {duration(left)}{then}"))
    pairs.append(("Address", address(spec)))
    if spec.ip and spec.domain:
        pairs.append(("IP", spec.ip))
    pairs.append(("Capacity", capacity(spec.capacity)))
    if instance.load:
        reported = f"{capacity(instance.load.free)} ({duration(instance.load.age_ms)} ago)"
        pairs.append(("Free", reported))
    optional = (
        ("Labels", labels(spec) if spec.labels else ""),
        ("Owner", spec.owner),
        ("Gateway", spec.gateway),
        ("Public key", f"{len(spec.public_key)} bytes" if spec.public_key else ""),
        ("Payload", f"{len(spec.payload)} bytes" if spec.payload else ""),
    )
    pairs += [(name, value) for name, value in optional if value]
    pairs.append(("Lease", _lease_line(instance)))
    pairs.append(("Incarnation", str(record.incarnation)))
    written = f"created at {record.create_revision}, version {record.version}"
    pairs.append(("Revision", f"{record.revision} ({written})"))
    pairs.append(("Created", _moment(record.created_unix_ms)))
    pairs.append(("Updated", _moment(record.updated_unix_ms)))
    return facts(pairs)


def _lease_line(instance: t.Instance) -> Text:
    if not instance.record.lease_id:
        return Text("none: it stays until it is deregistered")
    return Text.assemble(lease(instance), f" left, id {instance.record.lease_id}")


def _moment(unix_ms: int) -> str:
    if not unix_ms:
        return NOTHING
    return f"{moment(unix_ms)} ({age(unix_ms)} ago)"


def moment(unix_ms: int) -> str:
    """A point in time, in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(unix_ms / 1_000))
    except (ValueError, OverflowError, OSError):
        return str(unix_ms)
