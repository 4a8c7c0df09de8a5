"""What goes into an image comes from the lock file, and starts with the image's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from agni_images.errors import ImageError
from agni_images.wheels import launchers, locked

ROOT = Path(__file__).resolve().parents[2]


def test_lock_file_is_read_with_its_hashes() -> None:
    pins = locked(ROOT / "requirements" / "dev.txt")
    assert "pyyaml" in pins
    assert "typing-extensions" in pins
    for name, block in pins.items():
        assert "--hash=sha256:" in block, name
        assert block.count("==") == 1, name


def test_launcher_names_the_images_interpreter(tmp_path: Path) -> None:
    info = tmp_path / "agniregistry_node-0.1.0.dist-info"
    info.mkdir()
    points = "[console_scripts]\nagni-node = agniregistry_node.cli:main\n"
    (info / "entry_points.txt").write_text(points)
    [(name, text)] = launchers(tmp_path, "agniregistry-node").items()
    assert name == "agni-node"
    assert text.startswith("#!/usr/bin/python3.11\n")
    assert "from agniregistry_node.cli import main" in text
    with pytest.raises(ImageError, match="has no commands"):
        launchers(tmp_path, "agniregistry-operator")
