"""The engine's own golden log, read by the reader that shares no code with the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agniregistry.wal import LogReader, find_segments
from agniregistry.wal.frame import Op

GOLDEN = Path(__file__).parents[1] / "golden" / "wal"


def test_the_golden_log_says_what_its_description_says() -> None:
    reader = LogReader(find_segments(GOLDEN))
    found = []
    for batch in reader.batches():
        for entry in batch.entries:
            record, op = entry.record, entry.frame.op
            said: dict[str, Any] = {
                "record": op.name.title().replace("_", ""),
                "partition": record.partition,
            }
            if op is not Op.DISCARD:
                said["term"] = record.hard_state.get("term", record.term)
            if record.hard_state:
                said["vote"] = record.hard_state["vote"]
                said["commit"] = record.hard_state.get("commit", 0)
            elif record.snapshot_file:
                said.update(
                    index=record.index, file=record.snapshot_file, installed=record.installed
                )
            elif op is Op.REPLICA_SET:
                said.update(index=record.index, **record.replicas)
            elif op is Op.DISCARD:
                said.update(index=record.index)
            else:
                said.update(index=record.index, data_bytes=len(record.data))
            found.append(said)
    assert found == json.loads((GOLDEN / "records.json").read_text())
    assert reader.tail is None
    assert (reader.node_id, reader.cluster_id) == (42, "07" * 16)
