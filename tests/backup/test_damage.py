"""Damaged archives: every bit and every cut is noticed, named, and nothing is written."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest
from archive_model import archive, record
from loopback import ROOT, agnictl

from agniregistry.backup import (
    ArchiveExistsError,
    ArchiveReader,
    ArchiveWriter,
    canonical,
    read_record,
)
from agniregistry.backup.frames import CRC, DIGEST_BYTES, HEAD, START
from agniregistry.wal import CorruptError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small archive."""
    path = tmp_path / "small.agnibackup"
    archive(path, [[record("a", {"x": "1"}), record("b", ttl_ms=1_000)], [], [record("c")]])
    return path


def damage(path: Path) -> CorruptError:
    """What is said of a file."""
    with ArchiveReader(path) as reader, pytest.raises(CorruptError) as caught:
        reader.verify()
    assert caught.value.file == path
    assert 0 <= caught.value.offset <= path.stat().st_size
    return caught.value


def test_a_flipped_bit_in_any_byte_is_noticed_where_it_is(path: Path) -> None:
    whole = path.read_bytes()
    for byte in range(len(whole)):
        # Of the beginning and the end every bit, of the rest one of each byte.
        is_edge = byte < 64 or byte >= len(whole) - 40
        for bit in range(8) if is_edge else [byte % 8]:
            bad = bytearray(whole)
            bad[byte] ^= 1 << bit
            path.write_bytes(bad)
            # A frame is named by its beginning, which is never behind the flipped bit.
            assert damage(path).offset <= byte, (byte, bit)


def test_every_cut_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert damage(path).offset <= length


def test_what_follows_after_the_end_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    assert damage(path).offset == len(whole)


def frames_of(path: Path) -> list[bytes]:
    """The start, each frame, and the checksum of the whole file."""
    data, frames, offset = path.read_bytes(), [], START.size
    while offset < len(data) - DIGEST_BYTES:
        end = offset + HEAD.size + HEAD.unpack_from(data, offset)[1] + CRC.size
        frames.append(data[offset:end])
        offset = end
    return [data[: START.size], *frames, data[offset:]]


def test_frames_of_another_archive_are_noticed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    archive(other, [[record("a", {"x": "1"}), record("b", ttl_ms=1_000)], [], [record("d")]])
    one, two = frames_of(path), frames_of(other)
    # Each frame is right for itself: the last partition's data, then the manifest with it.
    path.write_bytes(b"".join([*one[:-3], two[-3], *one[-2:]]))
    assert "manifest" in damage(path).reason
    path.write_bytes(b"".join([*two[:-1], one[-1]]))
    assert "whole file" in damage(path).reason
    path.write_bytes(b"".join([*one[:3], *one[4:]]))
    assert "out of order" in damage(path).reason


def test_a_damaged_archive_is_not_restored(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    # Nobody listens there, and nobody is asked: the archive is judged first.
    said = agnictl("restore", str(path), address="127.0.0.1:1", code=6)
    assert f"{path} is corrupt at offset" in said
    assert "nothing was restored" in said
    assert "is corrupt at offset" in agnictl("backup", "verify", str(path), code=6)


def test_an_archive_is_not_replaced_unasked(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ArchiveExistsError):
        ArchiveWriter(path)
    assert "exists already" in agnictl("backup", str(path), address="127.0.0.1:1", code=4)
    assert path.read_bytes() == before


def test_a_backup_that_fails_leaves_nothing(path: Path) -> None:
    before = path.read_bytes()
    for words in (["backup", str(path), "--force"], ["backup", f"{path}-new"]):
        agnictl("--timeout", "1s", *words, address="127.0.0.1:1", code=5)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_the_format_is_that_of_the_page() -> None:
    golden = ROOT / "tests" / "golden" / "backup" / "one.agnibackup"
    page = (ROOT / "docs" / "formats" / "backup.md").read_text()
    with ArchiveReader(golden) as reader:
        manifest = reader.verify()
        (only,) = map(read_record, reader.records())
    assert (only.name, only.incarnation, only.ttl_ms) == ("a", 7, 15_000)
    assert manifest.content in page
    assert sha256(canonical(only)).hexdigest() == manifest.content
    shown = re.sub(r"[^0-9a-f]", "", re.findall(r"```\n(0000.*?)```", page, re.DOTALL)[0])
    assert shown == canonical(only).hex()
    assert golden.read_bytes()[-32:].hex() in page
