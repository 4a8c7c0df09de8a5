"""A log of two segments, small enough to try every bit and every cut of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load_encoder() -> ModuleType:
    """The encoder beside this file, under a name of its own (tests are not a package)."""
    name = "agni_tests_wal_encoder"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("encoder.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def encoder() -> ModuleType:
    """Writes logs and snapshots by their description."""
    return _load_encoder()


@pytest.fixture
def log(tmp_path: Path, encoder: ModuleType) -> Path:
    """A data directory whose log has two segments: batches 1 and 2, then 3 and 4."""
    e = encoder
    folder = tmp_path / "wal"
    first = e.header(1) + e.batch(1, e.hard_state(0, 1, 7, 0), e.entry(0, 1, 1, 6, b""))
    first += e.batch(2, e.entry(0, 1, 2, 1, e.put("a.example")))
    e.write_segment(folder, 1, first, zeros=64)
    second = e.header(2, 2) + e.batch(3, e.entry(3, 1, 1, 1, e.put("b.example", ttl_ms=30_000)))
    second += e.batch(4, e.entry(3, 1, 2, 1, e.put("c.example")), e.hard_state(3, 1, 7, 2))
    e.write_segment(folder, 2, second, zeros=64)
    return tmp_path
