"""The ring in Python: equal to the engine's by golden vectors, and fit for its purpose.

`tests/golden/ring.json` is also what `cargo test -p agni-core --test ring` reads, so that neither
side can change alone. `python tests/placement/test_ring.py` writes it anew from this side.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agniregistry.placement.ring import RingNode, key_hash, partition_of, placement

GOLDEN = Path(__file__).parents[1] / "golden" / "ring.json"

KEYS = [
    ("default", 1, "global.gateway.agnistack.online"),
    ("default", 2, "global.gateway.agnistack.online"),
    ("default", 2, "a"),
    ("münchen", 1, "brücke-7"),
    ("n" * 253, 2, "m" * 253),
]

CLUSTERS: list[tuple[int, int, list[RingNode]]] = [
    (1, 1, [RingNode(1)]),
    (4, 3, [RingNode(1), RingNode(2)]),
    (16, 3, [RingNode(n, f"z{n % 3}") for n in range(1, 7)]),
    (64, 3, [RingNode(1, "a", 1), RingNode(2, "a", 3), RingNode(3, "b", 2), RingNode(9, "c", 0)]),
    (128, 2, [RingNode(2**63 + n, "one" if n else "") for n in range(5)]),
]


def vectors() -> dict[str, Any]:
    """What this side computes, in the form of the golden file."""
    keys = [
        {
            "namespace": namespace,
            "kind": kind,
            "name": name,
            "hash": f"{key_hash(namespace, kind, name):016x}",
            "partitions": {
                str(count): partition_of(key_hash(namespace, kind, name), count)
                for count in (1, 2, 16, 1024)
            },
        }
        for namespace, kind, name in KEYS
    ]
    placements = [
        {
            "partition_count": count,
            "replicas": replicas,
            # Identities as text: JSON readers may hold numbers as doubles.
            "nodes": [{"id": str(n.id), "zone": n.zone, "weight": n.weight} for n in nodes],
            "placement": [[str(i) for i in ids] for ids in placement(count, nodes, replicas)],
        }
        for count, replicas, nodes in CLUSTERS
    ]
    return {"keys": keys, "placements": placements}


def test_golden() -> None:
    assert vectors() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("count", [0, 3, 2048, -16])
def test_partition_count_is_a_power_of_two(count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        partition_of(1, count)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10))
def test_partition_is_the_top_bits(hash_: int, bits: int) -> None:
    assert partition_of(hash_, 1 << bits) == int(f"{hash_:064b}"[:bits] or "0", 2)


@given(
    st.sets(st.integers(1, 2**64 - 1), min_size=1, max_size=9),
    st.sampled_from([16, 64]),
    st.integers(1, 3),
)
def test_load_is_bounded_and_no_node_repeats(ids: set[int], count: int, replicas: int) -> None:
    wanted = placement(count, [RingNode(i) for i in ids], replicas)
    assert all(len(set(nodes)) == len(nodes) == min(replicas, len(ids)) for nodes in wanted)
    bound = math.ceil(count * min(replicas, len(ids)) * 110 / (len(ids) * 100))
    load: Counter[int] = Counter()
    for nodes in wanted:
        # The bound is lifted only where every node with room holds the partition already.
        if any(load[node] >= bound for node in nodes):
            assert all(node in nodes for node in ids if load[node] < bound)
        load.update(nodes)


def test_zones_are_spread_where_there_are_enough() -> None:
    nodes = [RingNode(n, f"z{n % 3}") for n in range(1, 10)]
    zones = {node.id: node.zone for node in nodes}
    for chosen in placement(128, nodes, 3):
        assert len({zones[node] for node in chosen}) == 3


def test_a_node_that_joins_takes_about_its_fair_share() -> None:
    before = placement(256, [RingNode(n) for n in range(1, 6)], 3)
    after = placement(256, [RingNode(n) for n in range(1, 7)], 3)
    moved = sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))
    fair = 256 * 3 / 6
    assert fair * 0.5 <= moved <= fair * 2.0


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n")
