"""The log as a whole: segments in order, batches in order, and what the end of it looks like.

A crash may cut the last write short; that is a torn tail, and nothing that was acknowledged is
lost with it. Anything else that does not read is corruption, and is reported with its file and
offset. The rule that tells them apart: bad bytes in the last segment with no whole later batch
behind them are a torn tail; with one, or in an older segment, they are corruption.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agniregistry.wal.errors import CorruptError, MissingError
from agniregistry.wal.frame import Frame, FrameError, Op, find_commits, read_frame
from agniregistry.wal.records import WalRecord, WireError, read_wal_record

REMEDY = (
    "restore this node's data directory from a backup, or remove it and let the node join anew; "
    "keep a copy of the file, the log is never repaired by guessing"
)

PROGRESS_STEP_BYTES = 1 << 20
"""How many bytes are read before somebody who waits is told."""

_SEGMENT_NAME = re.compile(r"(\d{1,20})\.wal")

OnBytes = Callable[[int], None]
"""Is told how many more bytes have been read."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the log."""

    number: int
    """Its number, from its name."""
    path: Path
    """Where it is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame together with what it says."""

    frame: Frame
    """Where it lies and which op it has."""
    record: WalRecord
    """What it says."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one fdatasync made durable."""

    segment: Segment
    """The file it lies in."""
    sequence: int
    """Its number; grows by one a batch over all segments."""
    entries: tuple[Entry, ...]
    """Its frames, without the commit."""
    commit: Frame
    """The frame that ends it."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A write at the end of the log that a crash cut short. It was never acknowledged."""

    file: Path
    """The last segment."""
    offset: int
    """Where the good bytes end."""
    bytes: int
    """How many bytes of it there are, up to the last that is not zero."""
    reason: str
    """What the first bad bytes look like."""


@dataclass(slots=True)
class LogReader:
    """Reads the batches of a log; what it learnt on the way stands in its fields afterwards."""

    segments: list[Segment]
    """The files, oldest first."""
    on_bytes: OnBytes = lambda _: None
    """Is told about progress."""
    cluster_id: str = ""
    """The cluster that wrote the log, as hexadecimal text."""
    node_id: int = 0
    """The node that wrote it."""
    salt: int = 0
    """The log's secret, which enters the checksum of every batch."""
    first_sequence: int | None = None
    """The sequence of the first batch that is still there; None in an empty log."""
    last_sequence: int | None = None
    """The sequence of the newest batch, or of the one before the first segment."""
    frames: int = 0
    """How many frames were read, commits and headers included."""
    headers: list[tuple[Segment, Entry]] = field(default_factory=list)
    """The header of each segment."""
    tail: Tail | None = None
    """Set at the end, where the last write was cut short."""

    def batches(self) -> Iterator[Batch]:
        """Yields the committed batches in order; raises CorruptError at the first damage."""
        previous: Segment | None = None
        for segment in self.segments:
            if previous is not None and segment.number != previous.number + 1:
                missing = previous.path.with_name(_name_like(previous, previous.number + 1))
                raise CorruptError(missing, 0, "this segment of the log is missing", REMEDY)
            yield from self._segment(segment, last=segment is self.segments[-1])
            previous = segment

    def read(self) -> LogReader:
        """Reads everything for its own sake, as verify does."""
        for _ in self.batches():
            pass
        return self

    # -- one segment ----------------------------------------------------------------------

    def _segment(self, segment: Segment, last: bool) -> Iterator[Batch]:
        data = memoryview(segment.path.read_bytes())
        try:
            offset = self._header(segment, data)
        except FrameError as error:
            # A segment gets its name only once its header is durable: this is no torn write.
            raise self._corrupt(segment, 0, f"its header does not read: {error}") from error
        told = 0
        while not _is_blank(data, offset):
            try:
                batch = self._batch(segment, data, offset)
            except _BadBatchError as error:
                self._end(segment, data, offset, error, last)
                break
            offset = batch.commit.end
            yield batch
            if offset - told > PROGRESS_STEP_BYTES:
                self.on_bytes(offset - told)
                told = offset
        self.on_bytes(len(data) - told)

    def _header(self, segment: Segment, data: memoryview) -> int:
        """Checks a segment's first frame and answers where the batches begin."""
        frame = read_frame(data, 0)
        if frame.op is not Op.SEGMENT_HEADER:
            raise FrameError(f"the first frame is {frame.op.name}, not SEGMENT_HEADER")
        try:
            entry = Entry(frame, read_wal_record(frame.payload))
        except WireError as error:
            raise FrameError(str(error)) from error
        header = entry.record.segment_header
        number = header.get("segment", 0)
        if number != segment.number:
            raise self._corrupt(segment, 0, f"its header says that it is segment {number}")
        before = header.get("previous_sequence", 0)
        if self.last_sequence is None:
            self.last_sequence = before
        elif before != self.last_sequence:
            reason = (
                f"it follows batch {before}, but the segment before ends at batch "
                f"{self.last_sequence}"
            )
            raise self._corrupt(segment, 0, reason)
        owner = (
            header.get("cluster_id", ""),
            header.get("node_id", 0),
            header.get("salt", 0),
        )
        if self.headers and owner != (self.cluster_id, self.node_id, self.salt):
            raise self._corrupt(segment, 0, "it belongs to another cluster or node")
        self.cluster_id, self.node_id, self.salt = owner
        self.headers.append((segment, entry))
        self.frames += 1
        return frame.end

    def _batch(self, segment: Segment, data: memoryview, start: int) -> Batch:
        """The batch at the offset; _BadBatchError where no whole one is."""
        entries: list[Entry] = []
        offset, expected = start, (self.last_sequence or 0) + 1
        while True:
            try:
                frame = read_frame(data, offset)
                record = read_wal_record(frame.payload)
            except (FrameError, WireError) as error:
                raise _BadBatchError(offset, str(error)) from error
            if frame.op is Op.SEGMENT_HEADER:
                raise _BadBatchError(offset, "a segment header stands in the middle of a segment")
            if frame.op is Op.BATCH_COMMIT:
                break
            entries.append(Entry(frame, record))
            offset = frame.end
        sequence = record.batch_commit.get("sequence", 0)
        if sequence != expected:
            raise _BadBatchError(offset, f"batch {sequence} stands where batch {expected} should")
        if not self._is_commit_of(data[start:offset], record.batch_commit):
            raise _BadBatchError(start, f"batch {sequence} is not what its commit says")
        self.frames += len(entries) + 1
        self.last_sequence = sequence
        if self.first_sequence is None:
            self.first_sequence = sequence
        return Batch(segment, sequence, tuple(entries), frame)

    def _end(
        self, segment: Segment, data: memoryview, start: int, bad: _BadBatchError, last: bool
    ) -> None:
        """Decides whether bad bytes are a torn tail, which is no damage, or corruption."""
        if not last:
            raise self._corrupt(segment, bad.offset, f"{bad.reason}; newer segments follow")
        later = self._later_batch(data, start, (self.last_sequence or 0) + 1)
        if later is not None:
            reason = f"{bad.reason}; batch {later} after it is intact"
            raise self._corrupt(segment, bad.offset, reason)
        raw = data.obj
        assert isinstance(raw, bytes)
        self.tail = Tail(segment.path, start, len(raw.rstrip(b"\0")) - start, bad.reason)

    def _is_commit_of(self, frames: memoryview, commit: dict[str, int]) -> bool:
        """Whether a commit's length and checksum are those of the frames before it."""
        if commit.get("length", 0) != len(frames):
            return False
        salt = zlib.crc32(self.salt.to_bytes(8, "big"))
        return commit.get("crc32", 0) == zlib.crc32(frames, salt)

    def _later_batch(self, data: memoryview, start: int, sequence: int) -> int | None:
        """The sequence of a whole batch that was written after batch `sequence`, if there is one.

        The batch of the bad bytes itself proves nothing: before its sync returned, its sectors may
        have reached the disk in any order. A batch after it was begun only once it was durable.
        """
        for frame in find_commits(data, start):
            try:
                commit = read_wal_record(frame.payload).batch_commit
            except WireError:
                continue
            begin = frame.offset - commit.get("length", 0)
            if commit.get("sequence", 0) <= sequence or begin < 0:
                continue
            if self._is_commit_of(data[begin : frame.offset], commit):
                return commit["sequence"]
        return None

    @staticmethod
    def _corrupt(segment: Segment, offset: int, reason: str) -> CorruptError:
        return CorruptError(segment.path, offset, reason, REMEDY)


class _BadBatchError(ValueError):
    """Where a whole batch should be there is none; `offset` is where it stops to read."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def _is_blank(data: memoryview, offset: int) -> bool:
    """Whether nothing but zeros follows: room that was set aside and is not used yet."""
    raw = data.obj
    assert isinstance(raw, bytes)
    if offset < len(raw) and raw[offset]:
        return False
    return raw.count(0, offset) == len(raw) - offset


def _name_like(segment: Segment, number: int) -> str:
    return f"{number:0{len(segment.path.stem)}d}.wal"


def find_segments(path: Path) -> list[Segment]:
    """The segments of a data directory, of its wal/ folder, or one segment file, oldest first."""
    if path.is_file():
        match = _SEGMENT_NAME.fullmatch(path.name)
        if match is None:
            raise MissingError(
                f"{path} is not named like a segment of the log",
                "give a node's data directory, its wal folder, or a file such as "
                "00000000000000000001.wal",
            )
        return [Segment(int(match[1]), path)]
    folder = path / "wal" if (path / "wal").is_dir() else path
    if not folder.is_dir():
        raise MissingError(f"{path} does not exist", "give a node's data directory")
    found = [
        Segment(int(match[1]), file)
        for file in folder.iterdir()
        if (match := _SEGMENT_NAME.fullmatch(file.name))
    ]
    if not found:
        raise MissingError(
            f"there is no write-ahead log in {path}",
            "give a node's data directory, which holds wal/ with files that end in .wal",
        )
    return sorted(found, key=lambda segment: segment.number)
