"""The protobuf wire format, as far as reading needs it: tags, varints, fixed and counted fields.

Sixty lines in place of generated messages keep the log's reader independent of the code that
wrote the log, and of the protobuf runtime. Unknown fields are passed over, as protobuf demands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT_BYTES_MAX = 10
"""A 64-bit varint has at most this many bytes."""

VARINT, FIXED64, COUNTED, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: struct.Struct("<Q"), FIXED32: struct.Struct("<I")}

Value = int | memoryview
"""A number, or the bytes of a string, a nested message or a bytes field."""


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def fields(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yields each field's number, wire type and value, in the order of the bytes."""
    offset, end = 0, len(data)
    while offset < end:
        tag, offset = _varint(data, offset)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise WireError(f"field number {number} is out of range")
        if kind == VARINT:
            number_value, offset = _varint(data, offset)
            yield number, kind, number_value
        elif kind == COUNTED:
            length, offset = _varint(data, offset)
            if length > end - offset:
                raise WireError(f"field {number} goes {length - (end - offset)} bytes too far")
            yield number, kind, data[offset : offset + length]
            offset += length
        elif kind in _FIXED:
            layout = _FIXED[kind]
            if layout.size > end - offset:
                raise WireError(f"field {number} is cut short")
            yield number, kind, layout.unpack_from(data, offset)[0]
            offset += layout.size
        else:
            raise WireError(f"field {number} has the unknown wire type {kind}")


def varints(value: Value) -> list[int]:
    """A repeated number: one element, or all of them where they came packed."""
    if isinstance(value, int):
        return [value]
    numbers, offset = [], 0
    while offset < len(value):
        number, offset = _varint(value, offset)
        numbers.append(number)
    return numbers


def unsigned(value: Value) -> int:
    """A number field's value."""
    if not isinstance(value, int):
        raise WireError("a number was expected")
    return value


def signed(value: Value) -> int:
    """An int64 field's value."""
    number = unsigned(value)
    return number - (1 << 64) if number >= 1 << 63 else number


def double(value: Value) -> float:
    """A double field's value."""
    return float(struct.unpack("<d", struct.pack("<Q", unsigned(value)))[0])


def message(value: Value) -> memoryview:
    """The bytes of a nested message or a bytes field."""
    if isinstance(value, int):
        raise WireError("bytes were expected")
    return value


def text(value: Value) -> str:
    """A string field's value."""
    try:
        return str(message(value), "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"text is not UTF-8: {error.reason}") from error


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    """The number at the offset, and the offset after it."""
    number = 0
    for step, byte in enumerate(data[offset : offset + VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            if number >= 1 << 64:
                raise WireError("a number exceeds 64 bits")
            return number, offset + step + 1
    raise WireError("a number is cut short")
