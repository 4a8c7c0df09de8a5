"""The log's reader: what was written is read, torn tails are told from damage, nothing crashes."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agniregistry.wal import CorruptError, LogReader, MissingError, Op, find_segments
from agniregistry.wal.records import WireError, read_command, read_wal_record


def names(reader: LogReader) -> list[str]:
    """The names of the records that the log puts, in order."""
    return [
        read_command(entry.record.data).key["name"]
        for batch in reader.batches()
        for entry in batch.entries
        if entry.frame.op is Op.PUT
    ]


def test_what_was_written_is_read_in_order(log: Path, encoder: ModuleType) -> None:
    reader = LogReader(find_segments(log))
    assert names(reader) == ["a.example", "b.example", "c.example"]
    assert (reader.first_sequence, reader.last_sequence) == (1, 4)
    assert reader.cluster_id == encoder.CLUSTER_ID.hex()
    assert reader.node_id == encoder.NODE_ID
    assert reader.frames == 2 + 4 + 6
    assert reader.tail is None


def test_a_cut_at_every_byte_of_the_last_batch_is_a_torn_tail(log: Path) -> None:
    """Also with the zeros that a set-aside file has behind the cut."""
    last = find_segments(log)[-1].path
    content = last.read_bytes()
    end = len(content.rstrip(b"\0"))
    *_, third, fourth = LogReader(find_segments(log)).batches()
    for cut in range(third.commit.end, end):
        for zeros in (0, 64):
            last.write_bytes(content[:cut] + bytes(zeros))
            reader = LogReader(find_segments(log)).read()
            assert reader.last_sequence == third.sequence, cut
            written = content[third.commit.end : cut].rstrip(b"\0")
            assert (reader.tail is None) == (not written and (zeros > 0 or cut == third.commit.end))
            if reader.tail:
                assert reader.tail.offset == third.commit.end
    assert fourth.commit.end == end


def test_any_flipped_bit_before_the_last_batch_is_named_with_its_file(log: Path) -> None:
    segments = find_segments(log)
    *_, third, _ = LogReader(segments).batches()
    for segment in segments:
        content = segment.path.read_bytes()
        is_last = segment is segments[-1]
        end = third.commit.end if is_last else len(content.rstrip(b"\0"))
        for bit in range(end * 8):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << (bit % 8)
            segment.path.write_bytes(damaged)
            with pytest.raises(CorruptError) as caught:
                LogReader(find_segments(log)).read()
            assert caught.value.file == segment.path
            assert caught.value.offset <= bit // 8
            assert caught.value.remedy
        segment.path.write_bytes(content)


def test_a_flipped_bit_in_the_last_batch_is_a_torn_tail(log: Path) -> None:
    """The batch may never have been acknowledged: its sectors arrive in any order."""
    last = find_segments(log)[-1].path
    content = last.read_bytes()
    *_, third, fourth = LogReader(find_segments(log)).batches()
    for bit in range(third.commit.end * 8, fourth.commit.end * 8):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        last.write_bytes(damaged)
        reader = LogReader(find_segments(log)).read()
        assert reader.tail is not None
        assert reader.tail.offset == third.commit.end


def test_bytes_that_look_like_a_commit_do_not_make_a_torn_tail_corrupt(
    tmp_path: Path, encoder: ModuleType
) -> None:
    """A record may contain anything, also the image of a commit frame."""
    e = encoder
    image = e.batch(9, b"these bytes")[len(b"these bytes") :]
    # Whole but for the salt, which no client knows.
    inner = e.number_field(1, 9) + e.varint(3 << 3 | 5) + struct.pack("<I", zlib.crc32(b""))
    image += e.frame(32, e.bytes_field(6, inner))
    content = e.header(1) + e.batch(1, e.entry(0, 1, 1, 6, b""))
    torn = e.batch(2, e.entry(0, 1, 2, 1, e.put("x", spec=bytes_spec(e, b"others" + image))))
    e.write_segment(tmp_path, 1, content + torn[:-1])
    assert LogReader(find_segments(tmp_path)).read().tail is not None


def bytes_spec(encoder: ModuleType, payload: bytes) -> bytes:
    """A spec with a payload."""
    return bytes(encoder.bytes_field(10, payload))


def test_a_missing_segment_is_corruption(log: Path, encoder: ModuleType) -> None:
    encoder.write_segment(log / "wal", 4, encoder.header(4, 4))
    with pytest.raises(CorruptError, match="missing") as caught:
        LogReader(find_segments(log)).read()
    assert caught.value.file.name == "00000000000000000003.wal"


def test_missing_batches_between_segments_are_corruption(log: Path, encoder: ModuleType) -> None:
    encoder.write_segment(log / "wal", 3, encoder.header(3, 7))
    with pytest.raises(CorruptError, match="follows batch 7"):
        LogReader(find_segments(log)).read()


def test_a_segment_of_another_node_is_corruption(log: Path, encoder: ModuleType) -> None:
    encoder.write_segment(log / "wal", 3, encoder.header(3, 4, node_id=8))
    with pytest.raises(CorruptError, match="another cluster or node"):
        LogReader(find_segments(log)).read()


def test_a_log_whose_oldest_segments_were_released_is_whole(log: Path) -> None:
    find_segments(log)[0].path.unlink()
    reader = LogReader(find_segments(log)).read()
    assert (reader.first_sequence, reader.last_sequence) == (3, 4)


def test_a_folder_without_a_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no write-ahead log"):
        find_segments(tmp_path)
    with pytest.raises(MissingError, match="does not exist"):
        find_segments(tmp_path / "nothing")


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=400), behind_header=st.booleans())
def test_random_bytes_never_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, encoder: ModuleType,
    content: bytes, behind_header: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("random")
    start = encoder.header(1) if behind_header else b""
    encoder.write_segment(folder, 1, start + content)
    with suppress(CorruptError):
        LogReader(find_segments(folder)).read()


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200))
def test_random_payloads_never_crash_the_decoders(content: bytes) -> None:
    for read in (read_wal_record, read_command):
        with suppress(WireError):
            read(memoryview(content))
