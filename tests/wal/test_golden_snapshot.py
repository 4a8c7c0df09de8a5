"""The engine's own golden snapshot, read by the reader that shares no code with the engine."""

from __future__ import annotations

from pathlib import Path

from agniregistry.wal import SnapshotReader

GOLDEN = Path(__file__).parents[1] / "golden" / "snapshot" / "p0003-00000000000000000042.snap"


def test_the_golden_snapshot_says_what_its_page_says() -> None:
    reader = SnapshotReader(GOLDEN)
    (item,) = reader.items()
    assert (item["slot"], item["key"]["name"], item["revision"]) == (5, "a", 39)
    assert (reader.records, reader.tombstones, reader.blocks) == (1, 1, 3)
    header = reader.header
    assert (header.cluster_id, header.partition, header.index) == ("07" * 16, 3, 42)
    assert (header.term, header.revision, header.compacted_revision) == (2, 40, 12)
    assert header.replicas == {"voters": [42, 300]}
