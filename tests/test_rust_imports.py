"""Modules of the Rust crates around the engine import one way: no circle, however long."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CRATES = Path(__file__).resolve().parents[1] / "node/crates"
GROUP = re.compile(r"\buse crate::((?:\w+::)*)\{([^}]*)\}")
PATH = re.compile(r"\bcrate::((?:\w+::)*\w+)")


def imports_of(crate: str) -> dict[str, set[str]]:
    """Each module of a crate, by path, with the modules it names; `mod.rs` only lists others."""
    root = CRATES / crate / "src"
    files = [path for path in root.rglob("*.rs") if path.name not in ("lib.rs", "mod.rs")]
    sources = {"::".join(path.relative_to(root).with_suffix("").parts): path for path in files}
    found: dict[str, set[str]] = {}
    for module, path in sources.items():
        text = path.read_text().partition("#[cfg(test)]")[0]
        named = set(PATH.findall(text))
        for prefix, names in GROUP.findall(text):
            named |= {prefix + name.split("::")[0].strip() for name in names.split(",")}
        # A path goes on inside its module: the longest part of it that is a module counts.
        parts = {tuple(name.split("::")) for name in named}
        heads = {"::".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}
        found[module] = (heads & sources.keys()) - {module}
    return found


@pytest.mark.parametrize("crate", ["agni-server", "agni-py"])
def test_no_circles(crate: str) -> None:
    imports = imports_of(crate)
    assert any(imports.values())
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" > ".join(error.args[1]))
