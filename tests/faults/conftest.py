"""Makes `fault_support` importable for the tests beside it, and gives them nodes."""

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_support import NodeProcess


@pytest.fixture
def start_node(tmp_path):
    """Starts nodes with settings of the test's own; what is left running is killed at the end."""
    nodes = []

    def start(data_dir=None, **settings):
        folder = tmp_path / f"node{len(nodes)}"
        folder.mkdir()
        node = NodeProcess(folder, data_dir or folder / "data", settings)
        nodes.append(node)
        node.start()
        return node

    yield start
    for node in nodes:
        node.kill()


@pytest.fixture
def chance(request):
    """Random numbers whose seed a failing test prints; AGNI_SEED repeats a run."""
    seed = int(os.environ.get("AGNI_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"AGNI_SEED={seed} repeats {request.node.name}")
    return random.Random(seed)
