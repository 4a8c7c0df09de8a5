"""Encodes the benchmark's requests by hand, for both servers, with the same sizes.

Neither server's generated code is used: a benchmark must not depend on what it measures, and
the requests are encoded before the clock starts anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

COUNTER_BYTES = 8
"""Bytes at the end of every write that the load generator overwrites with a growing number."""

REGISTRY = "/agniregistry.api.v1.RegistryService/"
CLUSTER = "/agniregistry.api.v1.ClusterService/"
ETCD_KV = "/etcdserverpb.KV/"
ETCD_LEASE = "/etcdserverpb.Lease/"


def varint(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3) + varint(value)


def chunk(field: int, value: bytes | str) -> bytes:
    """A field of bytes, text or a message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def real(field: int, value: float) -> bytes:
    """A double field."""
    return varint(field << 3 | 1) + struct.pack("<d", value)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, in order; groups are not known."""
    at = 0

    def take_varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = take_varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, take_varint()
        elif kind == 2:
            length = take_varint()
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            size = 8 if kind == 1 else 4
            yield tag >> 3, int.from_bytes(message[at : at + size], "little")
            at += size


def name_of(number: int) -> str:
    """The domain, and so the name, of a gateway: as long as the roadmap's."""
    return f"gw{number:07d}.gateway.agnistack.online"


def key_of(number: int) -> bytes:
    """An `api.v1.Key` of a gateway."""
    return chunk(1, "default") + integer(2, 1) + chunk(3, name_of(number))


def spec_of(number: int) -> bytes:
    """The roadmap's gateway as an `api.v1.Spec`; its last bytes are the counter."""
    capacity = real(1, 1) + real(2, 20) + real(3, 4096) + real(4, 40960)
    address = f"12.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return (
        chunk(1, "global")
        + chunk(2, address)
        + chunk(3, name_of(number))
        + integer(4, 4000)
        + chunk(5, capacity)
        + chunk(10, bytes(COUNTER_BYTES))
    )


def register(number: int, ttl_ms: int = 0) -> bytes:
    """A `RegisterRequest` whose spec comes last, so that the counter is at the end."""
    ttl = integer(3, ttl_ms) if ttl_ms else b""
    return chunk(1, key_of(number)) + ttl + chunk(2, spec_of(number))


def get(number: int) -> bytes:
    """A `GetRequest` with the default consistency, which is linearizable."""
    return chunk(1, key_of(number))


def batch(numbers: Iterable[int]) -> bytes:
    """A `BatchRequest` of registrations."""
    return b"".join(chunk(1, chunk(1, register(number))) for number in numbers)


def renew(lease_ids: Iterable[int]) -> bytes:
    """A `RenewRequest`."""
    return chunk(1, b"".join(struct.pack("<Q", lease) for lease in lease_ids))


def etcd_key(number: int) -> bytes:
    """The key that etcd's users give a gateway: the same three parts."""
    return b"default/gateway/" + name_of(number).encode()


def put(number: int) -> bytes:
    """An etcd `PutRequest` of the same spec under the same key."""
    return chunk(1, etcd_key(number)) + chunk(2, spec_of(number))


def range_one(number: int) -> bytes:
    """An etcd `RangeRequest` of one key; serializable is unset, which means linearizable."""
    return chunk(1, etcd_key(number))


def put_many(numbers: Iterable[int]) -> bytes:
    """An etcd `TxnRequest` that puts many keys; etcd takes at most 128 by default."""
    return b"".join(chunk(2, chunk(2, put(number))) for number in numbers)


def lease_grant(lease_id: int, ttl_s: int) -> bytes:
    """An etcd `LeaseGrantRequest` with a chosen identity."""
    return integer(1, ttl_s) + integer(2, lease_id)


def lease_keep_alive(lease_id: int) -> bytes:
    """An etcd `LeaseKeepAliveRequest`."""
    return integer(1, lease_id)


def write_bodies(path: Path, messages: Iterable[bytes]) -> Path:
    """Writes a file for the load generator and answers its path."""
    with path.open("wb") as file:
        for message in messages:
            file.write(struct.pack("<I", len(message)) + message)
    return path


def bodies_of(path: Path, encode: Callable[[int], bytes], count: int) -> Path:
    """Writes one message a key, in an order that does not follow the keys."""
    # A step that is coprime to any count of the form 10^n: each key once, neighbours far apart.
    return write_bodies(path, (encode(index * 7919 % count) for index in range(count)))
