"""What the README shows is run as it stands there, but for the address."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from agniregistry_node import Node

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PYTHON = [text for language, text in FENCED if language == "python"]
BLOCKS = [text for language, text in FENCED if language != "python"]
AGNICTL = [
    line
    for block in BLOCKS
    for line in block.splitlines()
    if line.startswith("agnictl ") and " watch " not in line
]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    with Node(tmp_path / "data") as node:
        yield node


@pytest.mark.parametrize("code", PYTHON)
def test_python(node: Node, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(code.replace("127.0.0.1:7400", node.address), {})
    assert capsys.readouterr().out.strip()


def test_agnictl(node: Node, tmp_path: Path) -> None:
    assert len(AGNICTL) >= 3
    for line in AGNICTL:
        words = [
            word.replace(".agni/node-1", str(tmp_path / "data")) for word in shlex.split(line, True)
        ]
        command = [sys.executable, "-m", "agniregistry.cli", "-a", node.address, *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stderr)


def test_make_targets_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    parts = ("Makefile", "bench/bench.mk", "e2e/e2e.mk")
    makefile = "\n".join((root / part).read_text() for part in parts)
    for target in re.findall(r"^make ([\w-]+)", "\n".join(BLOCKS), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
