"""What frames say: WalRecord, Command, Record and ReplicaSet, read from their wire bytes.

The field numbers are those of proto/agniregistry/{node,api}/v1; a test compares this reader with
messages that protobuf itself encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agniregistry.wal import wire
from agniregistry.wal.wire import Value, WireError, fields

KINDS = {1: "gateway", 2: "agent"}


@dataclass(slots=True)
class WalRecord:
    """One record of the log; which fields are set depends on the frame's op."""

    partition: int = 0
    """The partition it belongs to; 0 where it belongs to none."""
    term: int = 0
    """An entry's or a snapshot's term."""
    index: int = 0
    """An entry's or a snapshot's index."""
    data: memoryview = field(default_factory=lambda: memoryview(b""))
    """An entry's data: an encoded Command, or a Raft configuration change."""
    hard_state: dict[str, int] = field(default_factory=dict)
    """HARD_STATE: term, vote, commit; floor_index and floor_term of a group that was let go."""
    batch_commit: dict[str, int] = field(default_factory=dict)
    """BATCH_COMMIT: sequence, length, crc32."""
    segment_header: dict[str, Any] = field(default_factory=dict)
    """SEGMENT_HEADER: segment, node_id, cluster_id (hexadecimal), previous_sequence, salt."""
    snapshot_file: str = ""
    """SNAPSHOT_MARK: the file's name below snapshots/."""
    replicas: dict[str, Any] = field(default_factory=dict)
    """SNAPSHOT_MARK, REPLICA_SET: voters, learners, voters_outgoing, learners_next, auto_leave at
    that index; what is empty is left out."""
    installed: bool = False
    """SNAPSHOT_MARK: it came from the group's leader."""


@dataclass(slots=True)
class Command:
    """What an entry changes: the operation's name, its key and its other fields."""

    operation: str = ""
    """put, patch, delete, drain, expire, or the name of a change of the system group such as
    add_member; empty for the leader's own entry."""
    key: dict[str, str] = field(default_factory=dict)
    """namespace, kind, name; empty for expire."""
    detail: dict[str, Any] = field(default_factory=dict)
    """The operation's other fields by their protobuf names."""
    proposed_unix_ms: int = 0
    """When it was proposed, for people only."""


def read_wal_record(data: memoryview) -> WalRecord:
    """Reads a frame's payload; raises WireError."""
    record = WalRecord()
    for number, _, value in fields(data):
        match number:
            case 1:
                record.partition = wire.unsigned(value)
            case 2:
                record.term = wire.unsigned(value)
            case 3:
                record.index = wire.unsigned(value)
            case 4:
                record.data = wire.message(value)
            case 5:
                record.hard_state = _read(value, _HARD_STATE)
            case 6:
                record.batch_commit = _read(value, _BATCH_COMMIT)
            case 7:
                record.segment_header = _read(value, _SEGMENT_HEADER)
            case 8:
                record.snapshot_file = wire.text(value)
            case 10:
                record.replicas = read_replicas(value)
            case 11:
                record.installed = bool(wire.unsigned(value))
    return record


def read_command(data: memoryview) -> Command:
    """Reads an entry's data; raises WireError."""
    command = Command()
    for number, _, value in fields(data):
        if number in _OPERATIONS:
            name, layout = _OPERATIONS[number]
            detail = _read(value, layout)
            command.operation, command.key = name, detail.pop("key", {})
            command.detail = detail
        elif number == 7:
            command.operation, command.detail = _read_system(wire.message(value))
        elif number == 6:
            command.proposed_unix_ms = wire.signed(value)
    return command


def _read_system(data: memoryview) -> tuple[str, dict[str, Any]]:
    name, epoch, detail = "", 0, {}
    for number, _, value in fields(data):
        if number == 1:
            epoch = wire.unsigned(value)
        elif number in _SYSTEM_OPERATIONS:
            name, layout = _SYSTEM_OPERATIONS[number]
            detail = _read(value, layout)
    return name, {**detail, **({"author_epoch": epoch} if epoch else {})}


def read_replicas(value: Value) -> dict[str, Any]:
    """Reads a ReplicaSet; raises WireError."""
    return _read(value, _REPLICAS)


def read_record(data: memoryview) -> dict[str, Any]:
    """Reads a stored Record of a snapshot; raises WireError."""
    return _read(data, _RECORD)


def read_key(data: memoryview) -> dict[str, str]:
    """Reads a Key; raises WireError."""
    return _read(data, _KEY)


# A layout names each field: {number: (name, how to read it, whether it repeats)}.
Layout = dict[int, tuple[str, Callable[[Value], Any], bool]]


def _read(value: Value, layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, _, content in fields(wire.message(value)):
        if number not in layout:
            continue
        name, reader, repeated = layout[number]
        read = reader(content)
        if repeated:
            found.setdefault(name, []).extend(read if isinstance(read, list) else [read])
        elif isinstance(read, _Pair):
            found.setdefault(name, {})[read.key] = read.value
        else:
            found[name] = read
    return found


@dataclass(slots=True)
class _Pair:
    key: str
    value: str


def _pair(value: Value) -> _Pair:
    pair = _read(value, {1: ("key", wire.text, False), 2: ("value", wire.text, False)})
    return _Pair(pair.get("key", ""), pair.get("value", ""))


def _one(name: str, reader: Callable[[Value], Any]) -> tuple[str, Callable[[Value], Any], bool]:
    return name, reader, False


def _nested(layout: Layout) -> Callable[[Value], dict[str, Any]]:
    return lambda value: _read(value, layout)


def _kind(value: Value) -> str:
    number = wire.unsigned(value)
    return KINDS.get(number, f"kind {number}")


def _hexadecimal(value: Value) -> str:
    return wire.message(value).hex()


def _numbers(*names: str) -> Layout:
    return {number: _one(name, wire.unsigned) for number, name in enumerate(names, 1)}


_HARD_STATE = _numbers("term", "vote", "commit", "floor_index", "floor_term")
_BATCH_COMMIT = _numbers("sequence", "length", "crc32")
_SEGMENT_HEADER: Layout = {
    1: _one("segment", wire.unsigned),
    2: _one("node_id", wire.unsigned),
    3: _one("cluster_id", _hexadecimal),
    4: _one("previous_sequence", wire.unsigned),
    5: _one("salt", wire.unsigned),
}
_KEY: Layout = {
    1: _one("namespace", wire.text),
    2: _one("kind", _kind),
    3: _one("name", wire.text),
}
_CAPACITY: Layout = {
    number: _one(name, wire.double)
    for number, name in enumerate(("cpu", "bandwidth", "memory", "storage"), 1)
}
_SPEC: Layout = {
    1: _one("region", wire.text),
    2: _one("ip", wire.text),
    3: _one("domain", wire.text),
    4: _one("port", wire.unsigned),
    5: _one("capacity", _nested(_CAPACITY)),
    6: _one("labels", _pair),
    7: _one("owner", wire.text),
    8: _one("gateway", wire.text),
    9: _one("public_key", _hexadecimal),
    10: _one("payload", _hexadecimal),
}
_INCARNATION = _one("incarnation", wire.unsigned)
_EXPECTED = _one("expected_revision", wire.unsigned)
_PUT: Layout = {
    1: _one("key", _nested(_KEY)),
    2: _one("spec", _nested(_SPEC)),
    3: _one("ttl_ms", wire.signed),
    4: _INCARNATION,
    5: _EXPECTED,
}
_PATCH: Layout = {
    1: _one("key", _nested(_KEY)),
    2: _one("spec", _nested(_SPEC)),
    3: ("paths", wire.text, True),
    4: _INCARNATION,
    5: _EXPECTED,
    6: _one("keeps_address", lambda value: bool(wire.unsigned(value))),
}
_DELETE: Layout = {1: _one("key", _nested(_KEY)), 2: _INCARNATION, 3: _EXPECTED}
_DRAIN: Layout = {
    **_DELETE,
    4: _one("drain_ms", wire.signed),
    5: _one("successor", wire.text),
    6: _one("deadline_unix_ms", wire.signed),
}
_LEASE = _numbers("slot", "lease_id", "incarnation", "revision")
_EXPIRE: Layout = {
    1: _one("proposer_term", wire.unsigned),
    2: ("leases", _nested(_LEASE), True),
}
_REPLICAS: Layout = {
    1: ("voters", wire.varints, True),
    2: ("learners", wire.varints, True),
    3: ("voters_outgoing", wire.varints, True),
    4: ("learners_next", wire.varints, True),
    5: _one("auto_leave", lambda value: bool(wire.unsigned(value))),
}
_MEMBER: Layout = {
    1: _one("node_id", wire.unsigned),
    2: _one("name", wire.text),
    3: _one("client_address", wire.text),
    4: _one("peer_address", wire.text),
    5: _one("region", wire.text),
    6: _one("zone", wire.text),
    7: _one("state", wire.unsigned),
    8: _one("nonce", _hexadecimal),
    9: _one("replaces", wire.unsigned),
}
_SYSTEM_OPERATIONS: dict[int, tuple[str, Layout]] = {
    2: ("add_member", {1: _one("member", _nested(_MEMBER))}),
    3: (
        "update_member",
        {
            1: _one("node_id", wire.unsigned),
            2: _one("client_address", wire.text),
            3: _one("peer_address", wire.text),
            4: _one("zone", wire.text),
            5: _one("name", wire.text),
        },
    ),
    4: (
        "set_draining",
        {
            1: _one("node_id", wire.unsigned),
            2: _one("draining", lambda value: bool(wire.unsigned(value))),
        },
    ),
    5: ("remove_member", {1: _one("node_id", wire.unsigned)}),
    6: (
        "set_wanted",
        {
            1: _one("partition", wire.unsigned),
            2: ("nodes", wire.varints, True),
            3: _one("expected_version", wire.unsigned),
        },
    ),
    7: (
        "report_replicas",
        {
            1: _one("partition", wire.unsigned),
            2: _one("replicas", _nested(_REPLICAS)),
            3: _one("index", wire.unsigned),
            4: _one("reached_version", wire.unsigned),
        },
    ),
}
_OPERATIONS: dict[int, tuple[str, Layout]] = {
    1: ("put", _PUT),
    2: ("patch", _PATCH),
    3: ("delete", _DELETE),
    4: ("drain", _DRAIN),
    5: ("expire", _EXPIRE),
}
_RECORD: Layout = {
    1: _one("key", _nested(_KEY)),
    2: _one("spec", _nested(_SPEC)),
    3: _INCARNATION,
    4: _one("lease_id", wire.unsigned),
    5: _one("ttl_ms", wire.signed),
    6: _one("create_revision", wire.unsigned),
    7: _one("revision", wire.unsigned),
    8: _one("version", wire.unsigned),
    9: _one("created_unix_ms", wire.signed),
    10: _one("updated_unix_ms", wire.signed),
    11: _one(
        "draining",
        _nested({1: _one("deadline_unix_ms", wire.signed), 2: _one("successor", wire.text)}),
    ),
}

__all__ = [
    "Command",
    "WalRecord",
    "WireError",
    "read_command",
    "read_key",
    "read_record",
    "read_replicas",
    "read_wal_record",
]
