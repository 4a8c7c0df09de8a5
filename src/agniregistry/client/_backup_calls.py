"""A backup's messages as values, in their order; and records of a backup as writes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from agniregistry import types as t
from agniregistry.api.v1 import cluster_pb2 as c
from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.api.v1 import types_pb2
from agniregistry.client import _calls as calls
from agniregistry.errors import ConnectionFailedError, InternalError, InvalidFieldError

PATH = calls.CLUSTER + "Backup"


def request(partitions: Sequence[int], bytes_per_s: int) -> bytes:
    """The encoded request."""
    message = c.BackupRequest()
    try:
        message.partitions.extend(partitions)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(
            "partitions must be numbers of partitions", field="partitions"
        ) from error
    try:
        message.bytes_per_s = bytes_per_s
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(
            "bytes_per_s must be a number of bytes a second, 0 for the node's limit",
            field="bytes_per_s",
        ) from error
    return message.SerializeToString()


class Order:
    """Checks that nothing of a stream was lost on the way."""

    def __init__(self) -> None:
        """Nothing has come."""
        self.ended = False
        """Whether the last message has come."""
        self._offset = 0

    def part(self, data: bytes) -> t.BackupPart:
        """The next message as a value."""
        try:
            piece = c.BackupPiece.FromString(data)
        except DecodeError as error:
            raise InternalError("a message of the backup can't be decoded") from error
        match piece.WhichOneof("piece"):
            case "begin":
                begin = piece.begin
                return t.BackupBegin(
                    begin.cluster_id,
                    begin.partition_count,
                    tuple(begin.partitions),
                    begin.region,
                    begin.version,
                )
            case "section":
                self._offset = 0
                of = piece.section
                return t.BackupSection(of.partition, of.index, of.revision, of.records, of.bytes)
            case "data":
                content = piece.data.data
                if piece.data.offset != self._offset or piece.data.crc32 != zlib.crc32(content):
                    raise InternalError("a piece of the backup is missing or damaged")
                self._offset += len(content)
                return t.BackupData(content)
            case "end":
                self.ended = True
                return t.BackupEnd(piece.end.partitions, piece.end.bytes)
        raise InternalError("the backup has a message that is not known here")

    def check_ended(self) -> None:
        """A stream that ends before its last message was cut."""
        if not self.ended:
            raise ConnectionFailedError("the backup ended before all of it had come")


def restore(records: Sequence[bytes]) -> calls.Call[tuple[calls.BatchResult, ...]]:
    """Batch: each record is registered as it was, provided that it doesn't exist.

    A repeat finds its own work done: what exists with the same content is no refusal.
    """
    message = r.BatchRequest()
    for data in records:
        try:
            record = types_pb2.Record.FromString(data)
        except DecodeError as error:
            raise InvalidFieldError(
                "records must be those of a backup, encoded", field="records"
            ) from error
        register = message.operations.add().register
        register.key.CopyFrom(record.key)
        register.spec.CopyFrom(record.spec)
        register.ttl_ms = record.ttl_ms
        register.incarnation = record.incarnation
        register.expected_revision = 0
    return calls.batch_call(message)
