"""What a record says, apart from where and when it was stored, and a checksum of many of them.

The checksum doesn't depend on the order of the records, on how they are spread over partitions,
or on the cluster: so the contents of two clusters are equal where theirs are. Revisions, leases'
identities and times of day are no part of it, since a restored record has others.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

MODULUS = 1 << 256
"""The checksum is a sum of SHA-256 digests, modulo this."""

_LENGTH = struct.Struct(">I")
_NUMBERS = struct.Struct(">QQB")

Field = tuple[int, int | bytes, bytes]
"""A field's number, its value, and its bytes with the tag."""


class RecordError(ValueError):
    """The bytes are no encoded record."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as far as a restore can bring it back."""

    namespace: str
    """Its namespace."""
    kind: int
    """The number of its kind, as agniregistry.api.v1.Kind has it."""
    name: str
    """Its name."""
    spec: bytes
    """Its encoded spec, as it was stored."""
    incarnation: int
    """Its owner's incarnation."""
    ttl_ms: int
    """The time to live of its lease, in milliseconds; 0 without one."""
    draining: bool
    """Whether it is about to go."""
    successor: str
    """While draining: who takes over."""
    drain_ms: int
    """While draining: how long it was to stay, in milliseconds."""


def fields(data: bytes) -> list[Field]:
    """The fields of an encoded message, in the order of the bytes."""
    found: list[Field] = []
    offset, end = 0, len(data)
    while offset < end:
        start = offset
        # Tags and lengths are mostly of one byte, and there are many of them.
        tag = data[offset]
        if tag < 0x80:
            offset += 1
        else:
            tag, offset = _varint(data, offset)
        kind = tag & 7
        value: int | bytes
        if kind == 2:
            if offset < end and data[offset] < 0x80:
                length = data[offset]
                offset += 1
            else:
                length, offset = _varint(data, offset)
            value = data[offset : offset + length]
            offset += length
        elif kind == 0:
            value, offset = _varint(data, offset)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value = int.from_bytes(data[offset : offset + size], "little")
            offset += size
        else:
            raise RecordError(f"wire type {kind} is unknown")
        if offset > end:
            raise RecordError("a field is cut short")
        found.append((tag >> 3, value, data[start:offset]))
    return found


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    number = shift = 0
    try:
        while True:
            byte = data[offset]
            offset += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
    except IndexError as error:
        raise RecordError("a number is cut short") from error
    if number >= 1 << 64:
        raise RecordError("a number exceeds 64 bits")
    return number, offset


def _counted(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise RecordError("bytes were expected")
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise RecordError("a number was expected")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _counted(value).decode()
    except UnicodeDecodeError as error:
        raise RecordError("text is not UTF-8") from error


def read_record(data: bytes) -> StoredRecord:
    """Takes an encoded agniregistry.api.v1.Record apart."""
    found = {number: value for number, value, _ in fields(data)}
    key = {number: value for number, value, _ in fields(_counted(found.get(1, b"")))}
    if 3 not in key:
        raise RecordError("a record without a name")
    successor, drain_ms = "", 0
    if 11 in found:
        draining = {number: value for number, value, _ in fields(_counted(found[11]))}
        successor = _text(draining.get(2, b""))
        drain_ms = max(_number(draining.get(1, 0)) - _number(found.get(10, 0)), 0)
    return StoredRecord(
        namespace=_text(key.get(1, b"")),
        kind=_number(key.get(2, 0)),
        name=_text(key[3]),
        spec=_counted(found.get(2, b"")),
        incarnation=_number(found.get(3, 0)),
        ttl_ms=_number(found.get(5, 0)),
        draining=11 in found,
        successor=successor,
        drain_ms=drain_ms,
    )


def canonical(record: StoredRecord) -> bytes:
    """The bytes that stand for a record in the checksum.

    The spec's fields are put in the order of their numbers, those of one number in the order of
    their bytes: labels have no order of their own.
    """
    spec = b"".join([chunk for _, _, chunk in sorted(fields(record.spec), key=_by_number)])
    parts = (record.namespace.encode(), record.name.encode(), record.successor.encode(), spec)
    head = _LENGTH.pack(record.kind) + _NUMBERS.pack(
        record.incarnation, record.ttl_ms, record.draining
    )
    return head + b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _by_number(field: Field) -> tuple[int, bytes]:
    return field[0], field[2]


class ContentSum:
    """The checksum of a set of records: the sum of the SHA-256 of each one's canonical bytes."""

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        """The checksum of these encoded records, to which more can be added."""
        self.records = 0
        """How many records were added."""
        self.total = 0
        """The sum so far."""
        for record in records:
            self.add(record)

    def add(self, record: bytes) -> None:
        """Adds an encoded agniregistry.api.v1.Record."""
        digest = hashlib.sha256(canonical(read_record(record))).digest()
        self.total = (self.total + int.from_bytes(digest, "big")) % MODULUS
        self.records += 1

    def text(self) -> str:
        """The checksum as 64 hexadecimal digits."""
        return text_of(self.total)


def text_of(total: int) -> str:
    """A sum as 64 hexadecimal digits."""
    return f"{total % MODULUS:064x}"
