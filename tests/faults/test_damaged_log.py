"""A damaged log: a torn tail starts, a flipped bit anywhere before it is refused, in words."""

import shutil

import pytest
from fault_support import NodeProcess, batches_of, segments_of

EXIT_DATA = 5


@pytest.fixture
def log(start_node):
    """A data directory with some batches, its last segment, and where its batches are."""
    node = start_node(wal_segment_bytes=1 << 16)
    for number in range(30):
        node.register(f"gw{number}")
    node.kill()
    segment = segments_of(node.data_dir)[-1]
    spans = batches_of(segment.read_bytes())
    assert len(spans) > 10
    return node, segment, spans


def with_change(tmp_path, log, number, change):
    """A node on a copy of the directory whose last segment was changed."""
    node, segment, _ = log
    folder = tmp_path / f"copy{number}"
    folder.mkdir()
    shutil.copytree(node.data_dir, folder / "data")
    copied = folder / "data" / "wal" / segment.name
    data = bytearray(copied.read_bytes())
    change(data)
    copied.write_bytes(data)
    settings = {"wal_segment_bytes": 1 << 16}
    return NodeProcess(folder, folder / "data", settings), copied, bytes(data)


def test_a_flipped_bit_before_the_last_batch_is_refused(tmp_path, log, chance):
    _, segment, spans = log
    last_start = spans[-1][0]
    places = [8, spans[0][0], spans[-2][0] + 12, *(chance.randrange(last_start) for _ in range(7))]
    for number, place in enumerate(places):
        bit = 1 << chance.randrange(8)

        def flip(data, place=place, bit=bit):
            data[place] ^= bit

        node, copied, damaged = with_change(tmp_path, log, number, flip)
        code = node.spawn().wait(60)
        text = node.log_text()
        assert code == EXIT_DATA, (place, code, text[-500:])
        assert segment.name in text, text
        batch = max((start for start, _ in spans if start <= place), default=0)
        offsets = [str(at) for at in range(batch, place + 1)]
        assert any(at in text for at in offsets), f"no offset near {place} in: {text}"
        assert any(word in text for word in ("restore", "backup", "snapshot", "remove")), text
        assert copied.read_bytes() == damaged, "a refused start changes nothing"


def test_a_torn_last_batch_is_cut_and_the_node_starts(tmp_path, log, chance):
    _, _, spans = log
    start, end = spans[-1]
    places = [
        start,
        start + 1,
        start + 8,
        end - 1,
        *(chance.randrange(start, end) for _ in range(4)),
    ]
    for number, place in enumerate(places):

        def cut(data, place=place):
            data[place:end] = bytes(end - place)

        copy, _, _ = with_change(tmp_path, log, 100 + number, cut)
        try:
            copy.start()
            # Only the batch that was cut may be missing: the last write, or a commit index.
            assert copy.records() >= 29, place
            copy.register("afterwards")
            assert copy.get("gw28") is not None
        finally:
            copy.kill()
