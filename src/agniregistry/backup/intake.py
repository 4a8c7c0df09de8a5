"""What a backup's stream must look like, and what it adds up to, whoever takes it: the writer of
an archive, its verification, or somebody who only wants a cluster's checksum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agniregistry.backup.content import ContentSum, RecordError, text_of
from agniregistry.backup.snapshots import SnapshotDamageError, SnapshotStream


class SourceError(ValueError):
    """What came is not a backup: out of order, incomplete, or damaged."""


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """One partition of a backup."""

    partition: int
    """Which partition."""
    index: int
    """The newest log index in it."""
    revision: int
    """The revision that it shows."""
    records: int
    """How many records it holds."""
    bytes: int
    """The size of its snapshot file."""
    content: str
    """The checksum of its records, 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is of, and what it holds."""

    cluster_id: str
    """The cluster that it was taken of."""
    partition_count: int
    """How many partitions that cluster has."""
    region: str
    """The region that it serves."""
    version: str
    """The version of the node that was asked."""
    created_unix_ms: int
    """When it was begun, Unix time in milliseconds by the clock of whoever took it."""
    partitions: tuple[PartitionSummary, ...]
    """What it holds, in the order of the stream."""
    records: int
    """How many records there are in all of them."""
    content: str
    """The checksum of all records, 64 hexadecimal digits."""

    @property
    def whole(self) -> bool:
        """Whether all partitions of the cluster are in it."""
        return len(self.partitions) == self.partition_count

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def of_plain(data: dict[str, Any]) -> Manifest:
        """The inverse of `plain`; raises TypeError or KeyError where that is not one."""
        parts = tuple(PartitionSummary(**part) for part in data["partitions"])
        return Manifest(**{**data, "partitions": parts})


class Intake:
    """Takes a backup's parts in their order and checks every one of them.

    A partition may begin anew before all its bytes have come: what came of it is then forgotten.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._begin: dict[str, Any] = {}
        self._expected: list[int] = []
        self._done: list[PartitionSummary] = []
        self._total = 0
        self._announced: dict[str, int] | None = None
        self._offset = 0
        self._stream = SnapshotStream()
        self._sum = ContentSum()

    @property
    def records(self) -> int:
        """How many records have come, without those of a partition that was begun anew."""
        return sum(part.records for part in self._done) + self._sum.records

    @property
    def finished(self) -> int:
        """How many partitions are complete."""
        return len(self._done)

    @property
    def expected(self) -> int:
        """How many partitions there are to be."""
        return len(self._expected)

    def begin(
        self,
        *,
        cluster_id: str,
        partition_count: int,
        partitions: tuple[int, ...],
        region: str,
        version: str,
        created_unix_ms: int | None = None,
    ) -> dict[str, Any]:
        """First: what the backup is of. Answers it as JSON has it."""
        if self._begin or not partitions or len(set(partitions)) != len(partitions):
            raise SourceError("a backup begins twice, or without partitions")
        now_ms = time.time_ns() // 1_000_000
        self._begin = {
            "cluster_id": cluster_id,
            "partition_count": partition_count,
            "region": region,
            "version": version,
            "created_unix_ms": now_ms if created_unix_ms is None else created_unix_ms,
        }
        self._expected = list(partitions)
        return {**self._begin, "partitions": list(partitions)}

    def section(
        self, *, partition: int, index: int, revision: int, records: int, bytes: int
    ) -> bool:
        """A partition begins; answers whether it does so anew."""
        again = self._announced is not None
        if not again and len(self._done) == len(self._expected):
            raise SourceError(f"partition {partition} comes after the last one")
        if partition != self._expected[len(self._done)]:
            raise SourceError(f"partition {partition} comes out of order")
        self._announced = {
            "partition": partition,
            "index": index,
            "revision": revision,
            "records": records,
            "bytes": bytes,
        }
        self._offset, self._stream, self._sum = 0, SnapshotStream(), ContentSum()
        return again

    def data(self, data: bytes) -> Iterator[bytes]:
        """The next bytes of the partition's file; yields its records, which must be taken all."""
        if self._announced is None:
            raise SourceError("data comes before its partition")
        self._offset += len(data)
        if self._offset > self._announced["bytes"]:
            raise SourceError("a partition has more bytes than announced")
        try:
            for record in self._stream.feed(data):
                self._sum.add(record)
                yield record
            if self._offset == self._announced["bytes"]:
                self._stream.finish()
                self._close(self._announced)
        except (SnapshotDamageError, RecordError) as error:
            raise SourceError(str(error)) from error

    def _close(self, announced: dict[str, int]) -> None:
        stream = self._stream
        found = (stream.cluster_id, stream.partition, stream.revision, stream.records)
        wanted = (
            self._begin["cluster_id"],
            announced["partition"],
            announced["revision"],
            announced["records"],
        )
        if found != wanted:
            raise SourceError("a snapshot is of another partition, cluster or state than announced")
        self._done.append(PartitionSummary(**announced, content=self._sum.text()))
        self._total += self._sum.total
        self._announced, self._sum = None, ContentSum()

    def end(self) -> Manifest:
        """Checks that all has come, and says what it was."""
        if not self._begin or self._announced or len(self._done) != len(self._expected):
            raise SourceError("a backup is cut short")
        return Manifest(
            **self._begin,
            partitions=tuple(self._done),
            records=sum(part.records for part in self._done),
            content=text_of(self._total),
        )
