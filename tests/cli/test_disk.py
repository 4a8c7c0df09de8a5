"""wal and snapshot inspect/verify: the golden log as it prints, and damage with its exit code."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Parsed = Callable[[Result], Any]

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden" / "wal"


@pytest.fixture
def encoder() -> ModuleType:
    """Writes snapshots by their description."""
    path = TESTS / "wal" / "encoder.py"
    spec = importlib.util.spec_from_file_location("agni_tests_cli_encoder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A data directory with a copy of the golden log."""
    shutil.copytree(GOLDEN, tmp_path / "wal")
    return tmp_path


def test_verify_of_a_whole_log(alone: Run, parsed: Parsed, log: Path) -> None:
    plain = parsed(alone("wal", "verify", str(log), "-o", "json"))
    assert (plain["ok"], plain["segments"], plain["last_sequence"]) == (True, 2, 5)
    assert "whole" in alone("wal", "verify", str(log)).stdout


def test_verify_names_damage_by_file_and_offset(alone: Run, log: Path) -> None:
    first = log / "wal" / "00000000000000000001.wal"
    content = bytearray(first.read_bytes())
    content[120] ^= 1
    first.write_bytes(content)
    result = alone("wal", "verify", str(log))
    assert result.exit_code == 6
    assert f"{first} is corrupt at offset 106" in result.stderr
    assert "try: " in result.stderr
    told = json.loads(alone("wal", "verify", str(log), "-o", "json").stderr)["error"]
    assert (told["reason"], told["file"], told["offset"]) == ("CORRUPT", str(first), 106)
    dumped = alone("wal", "dump", str(log))
    assert dumped.exit_code == 6
    assert "no_op" in dumped.stdout


def test_a_torn_tail_is_told_and_is_no_failure(alone: Run, parsed: Parsed, log: Path) -> None:
    last = log / "wal" / "00000000000000000002.wal"
    used = len(last.read_bytes().rstrip(b"\0"))
    last.write_bytes(last.read_bytes()[: used - 3])
    result = alone("wal", "verify", str(log))
    assert result.exit_code == 0
    assert "torn tail" in result.stderr
    plain = parsed(alone("wal", "verify", str(log), "-o", "json"))
    assert plain["torn_tail"]["file"] == str(last)


def test_dump_in_columns(alone: Run, log: Path) -> None:
    lines = alone("wal", "dump", str(log)).stdout.splitlines()
    heading = ["BATCH", "SEGMENT:OFFSET", "PART", "TERM", "INDEX", "OP", "RECORD", "DETAIL"]
    assert lines[0].split() == heading
    assert lines[2].split()[:7] == [
        "2", "1:106", "3", "2", "2", "put", "gateway/global.gateway.agnistack.online",
    ]  # fmt: skip
    assert [line.split()[5] for line in lines[1:]] == [
        "no_op", "put", "expire", "snapshot_mark", "replica_set", "discard", *["put"] * 4,
    ]  # fmt: skip
    assert lines[5].endswith("voters [42] learners [43]")


def test_dump_as_json_lines(alone: Run, log: Path) -> None:
    result = alone("wal", "dump", str(log), "--op", "put", "--limit", "1", "-o", "json")
    frame = json.loads(result.stdout)
    assert frame["key"]["name"] == "global.gateway.agnistack.online"
    assert frame["spec"]["capacity"] == {
        "cpu": 1.0, "bandwidth": 20.0, "memory": 4096.0, "storage": 40960.0,
    }  # fmt: skip
    everything = alone("wal", "dump", str(log), "--all", "-o", "json").stdout.splitlines()
    ops = [json.loads(line)["op"] for line in everything]
    assert ops[0] == "segment_header"
    assert ops.count("batch_commit") == 5


def test_dump_without_a_match_and_without_a_log(alone: Run, log: Path, tmp_path: Path) -> None:
    assert alone("wal", "dump", str(log), "--name", "nope").exit_code == 3
    assert alone("wal", "dump", str(tmp_path / "nowhere")).exit_code == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    assert alone("wal", "verify", str(empty)).exit_code == 3


def test_snapshots_are_inspected_and_verified(
    alone: Run, parsed: Parsed, tmp_path: Path, encoder: ModuleType
) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    assert "no snapshots" in alone("snapshot", "inspect", str(tmp_path)).stderr
    file = folder / "p0003-00000000000000000042.snap"
    file.write_bytes(encoder.snapshot(["a.example", "b.example"]))
    table = alone("snapshot", "inspect", str(tmp_path)).stdout.splitlines()
    assert table[1].split()[:6] == [file.name, "3", "42", "2", "99", "2"]
    lines = alone("snapshot", "inspect", str(file), "--records").stdout.splitlines()
    assert [json.loads(line)["key"]["name"] for line in lines] == ["a.example", "b.example"]
    assert parsed(alone("snapshot", "verify", str(tmp_path), "-o", "json"))["ok"] is True
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    damaged = alone("snapshot", "verify", str(tmp_path))
    assert damaged.exit_code == 6
    assert f"{file} is corrupt at offset 12" in damaged.stderr
    assert "older snapshot" in damaged.stderr
