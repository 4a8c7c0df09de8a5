"""House rules that no linter knows, as a test: sizes, docstrings, stray files, addresses."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "src/agniregistry/api/v1/"
LINES_MAX = {".py": 500, ".rs": 800}
COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
TEXT = {
    *(".py", ".pyi", ".rs", ".toml", ".md", ".proto", ".yaml", ".yml", ".json", ".txt"),
    *(".lua", ".tpl", ".sh", ".cfg", ".mk", ".lock", ".mod", ".sum", ".go", ".svg", ".typed"),
    ".html",
}
GOLDEN = "tests/golden/"


@cache
def tracked() -> tuple[str, ...]:
    """The files of the repository, as git sees them (also new ones, but not ignored ones)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(sorted(name for name in listed.split("\0") if name and (ROOT / name).exists()))


def sources(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Names and texts of hand-written files."""
    for name in tracked():
        if Path(name).suffix in suffixes and not name.startswith(GENERATED):
            yield name, (ROOT / name).read_text()


def test_modules_are_short() -> None:
    long = {
        name: count
        for name, text in sources(*LINES_MAX)
        if (count := len(text.splitlines())) > LINES_MAX[Path(name).suffix]
    }
    assert not long, f"split them: {long}"


def test_lines_are_short() -> None:
    long = [
        f"{name}:{number}"
        for name, text in sources(".py", ".rs", ".proto")
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > COLUMNS_MAX
    ]
    assert not long, f"more than {COLUMNS_MAX} columns: {long}"


def test_python_functions_are_short() -> None:
    long = {}
    for name, text in sources(".py"):
        for item in ast.walk(ast.parse(text)):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (item.end_lineno or item.lineno) - item.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[f"{name}:{item.name}"] = lines
    assert not long, f"more than {FUNCTION_LINES_MAX} lines: {long}"


def test_every_module_says_why_it_exists() -> None:
    silent = [
        name
        for name, text in sources(".py")
        if text.strip() and not ast.get_docstring(ast.parse(text))
    ]
    silent += [
        name
        for name, text in sources(".rs")
        if "/src/" in name and not re.match(r"//!", text.lstrip())
    ]
    assert not silent, f"without a docstring: {silent}"


def test_nothing_is_left_for_later() -> None:
    words = re.compile(
        r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b"
    )
    marks = [
        f"{name}:{number}"
        for name, text in sources(".py", ".rs", ".proto", ".md", ".toml", ".sh")
        for number, line in enumerate(text.splitlines(), 1)
        if words.search(line)
    ]
    assert not marks, f"do it, or write an issue: {marks}"


def test_no_stray_binaries() -> None:
    plain = {"Makefile", "LICENSE", ".gitignore", "run", ".gitattributes", ".dockerignore"}
    plain |= {"Dockerfile"}
    stray = [
        name
        for name in tracked()
        if Path(name).suffix not in TEXT
        and Path(name).name not in plain
        and not name.startswith(GOLDEN)
    ]
    assert not stray, f"not a source: {stray}"


@pytest.mark.parametrize("folder", ["operator", "node", "tests"])
def test_folders_do_not_shadow_packages(folder: str) -> None:
    # operator/__init__.py would hide the standard library's module, now and then.
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_addresses_or_paths_of_one_machine() -> None:
    foreign = re.compile(
        r"(?<![\w.~$}])/(?:home|root|Users|work|mnt)/|--index-url|--find-links|--trusted-host"
        r"|extra-index|resolved\s*=\s*\"http"
    )
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in sources(*TEXT)
        if name != "tests/test_tidy.py"
        for number, line in enumerate(text.splitlines(), 1)
        if foreign.search(line)
    ]
    assert not found, found


def test_lock_files_are_pinned_by_hash() -> None:
    text = (ROOT / "requirements/dev.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)
    named = re.findall(r"^([\w.-]+)\s*(?:==|@|>=)", text, re.MULTILINE)
    assert pins
    assert pins == named


def test_every_metric_is_documented() -> None:
    """A metric is a string literal of its own in the server's sources."""
    server = [
        text for name, text in sources(".rs") if name.startswith("node/crates/agni-server/src")
    ]
    names = {found for text in server for found in re.findall(r'"(agni_[a-z0-9_]+)"', text)}
    names -= {"agni_core", "agni_server"}
    page = (ROOT / "docs/operations.md").read_text()
    missing = sorted(name for name in names if f"`{name}`" not in page)
    assert not missing, f"docs/operations.md doesn't name {missing}"


def test_local_links_lead_somewhere() -> None:
    dead = []
    for name, text in sources(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not (ROOT / name).parent.joinpath(target).exists():
                dead.append(f"{name}: {target}")
    assert not dead, dead
