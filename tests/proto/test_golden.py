"""Bytes that both languages agree on: the golden messages of tests/golden/proto.

`cases.json` says in protobuf's JSON what each file holds and which language wrote it. Here the
files are held equal to what Python encodes and decodes; `agni-core/tests/golden_proto.rs` does the
same with Rust. AGNI_WRITE_GOLDEN=1 writes the files of the running language anew, which is only
right where the wire is meant to change.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from agniregistry.api.v1 import registry_pb2, types_pb2

FOLDER = Path(__file__).resolve().parent.parent / "golden/proto"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())


def message_of(case: dict[str, Any]) -> Any:
    name = case["message"]
    home = types_pb2 if hasattr(types_pb2, name) else registry_pb2
    return json_format.ParseDict(case["value"], getattr(home, name)())


@pytest.mark.parametrize("name", CASES)
def test_python_and_the_golden_bytes_agree(name: str) -> None:
    wanted = message_of(CASES[name])
    path = FOLDER / f"{name}.bin"
    if os.environ.get("AGNI_WRITE_GOLDEN") and CASES[name]["written_by"] == "python":
        path.write_bytes(wanted.SerializeToString(deterministic=True))
    content = path.read_bytes()
    assert type(wanted).FromString(content) == wanted
    assert wanted.SerializeToString(deterministic=True) == content


def test_every_file_has_a_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.bin")} == set(CASES)
    assert {case["written_by"] for case in CASES.values()} == {"python", "rust"}
