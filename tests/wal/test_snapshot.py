"""The snapshot reader: what was written is read, and every flipped bit and every cut is seen."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from agniregistry.wal import CorruptError, SnapshotReader, find_snapshots


@pytest.fixture
def file(tmp_path: Path, encoder: ModuleType) -> Path:
    """A snapshot of partition 3 at index 42."""
    folder = tmp_path / "snapshots"
    folder.mkdir()
    path = folder / "p0003-00000000000000000042.snap"
    path.write_bytes(encoder.snapshot(["a.example", "b.example"]))
    return path


def test_what_was_written_is_read(file: Path, encoder: ModuleType) -> None:
    reader = SnapshotReader(file)
    found = [(item["slot"], item["key"]["name"]) for item in reader.items()]
    assert found == [(0, "a.example"), (1, "b.example")]
    assert (reader.header.partition, reader.header.index, reader.header.term) == (3, 42, 2)
    assert reader.header.cluster_id == encoder.CLUSTER_ID.hex()
    assert (reader.records, reader.tombstones, reader.blocks) == (2, 1, 3)


def test_every_flipped_bit_and_every_cut_is_seen(file: Path) -> None:
    good = file.read_bytes()
    for bit in range(len(good) * 8):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(damaged)
        with pytest.raises(CorruptError):
            SnapshotReader(file).read()
    for length in range(len(good)):
        file.write_bytes(good[:length])
        with pytest.raises(CorruptError):
            SnapshotReader(file).read()


def test_files_are_found_newest_first(file: Path) -> None:
    newer = file.with_name("p0003-00000000000000000100.snap")
    other = file.with_name("p0001-00000000000000000007.snap")
    for path in (newer, other, file.with_name("p0003-00000000000000000200.snap.tmp")):
        path.write_bytes(b"")
    assert find_snapshots(file.parent.parent) == [other, newer, file]
