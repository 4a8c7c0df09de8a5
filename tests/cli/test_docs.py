"""Runs docs/agnictl.md: each command in a console block, in order, with the output it shows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "agnictl.md"
CODE = re.compile(r"\s+# exits with (\d)$")


def blocks(language: str) -> Iterator[str]:
    """The page's code blocks of a language."""
    for match in re.finditer(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    ):
        yield match[1]


def commands() -> Iterator[tuple[str, int, str]]:
    """Each command line, the exit code that is promised, and the output that is shown."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            promised = CODE.search(line)
            yield CODE.sub("", line), int(promised[1]) if promised else 0, shown


def test_what_the_page_shows_is_what_happens(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    shutil.copytree(ROOT / "tests" / "golden" / "wal", data / "wal")
    (message,) = blocks("json")
    json.loads(message)
    (tmp_path / "gateway.json").write_text(message)
    count = 0
    for line, code, shown in commands():
        words = shlex.split(line.replace("/var/lib/agniregistry", str(data)))
        assert words.pop(0) == "agnictl"
        result = run(*words)
        assert result.exit_code == code, f"{line}\n{result.stderr}"
        assert result.stdout.startswith(shown), line
        count += 1
    assert count > 35
