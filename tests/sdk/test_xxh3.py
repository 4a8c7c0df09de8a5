"""The SDK's own XXH3-64 against the library's, and against the vectors that the engine shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from agniregistry.client._xxh3 import BYTES_MAX, BYTES_MIN, xxh3_64

GOLDEN = Path(__file__).parents[1] / "golden" / "ring.json"


@given(st.binary(min_size=BYTES_MIN, max_size=BYTES_MAX))
def test_any_bytes_hash_as_in_the_library(data: bytes) -> None:
    assert xxh3_64(data) == xxhash.xxh3_64_intdigest(data)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"a", b"\x80\x01"])
def test_every_length_hashes_as_in_the_library(fill: bytes) -> None:
    for length in range(BYTES_MIN, BYTES_MAX + 1):
        data = (fill * length)[:length]
        assert xxh3_64(data) == xxhash.xxh3_64_intdigest(data), length


def test_lengths_that_no_key_has_are_refused() -> None:
    for length in (0, BYTES_MIN - 1, BYTES_MAX + 1):
        with pytest.raises(ValueError, match=r"must have 4\.\.1024 bytes"):
            xxh3_64(bytes(length))


def test_the_engines_keys_hash_as_in_the_engine() -> None:
    keys = json.loads(GOLDEN.read_text())["keys"]
    for key in keys:
        data = b"\0".join((key["namespace"].encode(), bytes([key["kind"]]), key["name"].encode()))
        assert xxh3_64(data) == int(key["hash"], 16)
    assert len(keys) > 3
