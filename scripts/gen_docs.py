"""Writes what of docs/ and charts/ is made from the source, or proves that it is current.

docs/api.md comes from the protos' comments; in docs/operations.md the settings' manual comes from
the fields of `NodeConfig` and the metrics from the server's list of them. The Grafana dashboard
comes from its list of panels. The CRD gets the node's settings, docs/crd.md is made from the CRD,
and the chart has a copy of it.

    python scripts/gen_docs.py            writes
    python scripts/gen_docs.py --check    compares; writes nothing
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "node/python"))
sys.path.insert(0, str(ROOT / "scripts"))

CRD = "crds/agniregistries.agnistack.online.yaml"
LIMIT = re.compile(r"((?:^/// .*\n)+)pub const (\w+): \w+ = ([^;]+);", re.MULTILINE)
METRIC = re.compile(r'\(\s*"((?:agni|process)_\w+)",\s*Kind::(\w+),\s*"([^"]+)",?\s*\)')


def metrics_table() -> str:
    """Markdown of every metric that the server knows."""
    source = (ROOT / "node/crates/agni-server/src/metrics.rs").read_text()
    found = METRIC.findall(source)
    rows = [f"| `{name}` | {kind.lower()} | {said} |" for name, kind, said in found]
    return "\n".join(["| metric | type | meaning |", "|---|---|---|", *rows]) + "\n"


def limits_table() -> str:
    """Markdown of every limit of the server that is a number."""
    source = (ROOT / "node/crates/agni-server/src/limits.rs").read_text()
    rows = []
    for comment, name, written in LIMIT.findall(source):
        factor, _, shift = written.replace("_", "").partition("<<")
        if factor.strip().isdigit():
            said = " ".join(line.removeprefix("/// ") for line in comment.splitlines())
            rows.append(f"| `{name}` | {int(factor) << int(shift or 0):,} | {said} |")
    return "\n".join(["| limit | value | meaning |", "|---|---|---|", *rows]) + "\n"


def between(text: str, mark: str, content: str) -> str:
    """The text with new content between the two comments of a mark."""
    begin, end = f"<!-- {mark}: begin, by make docs -->\n", f"<!-- {mark}: end -->\n"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"docs/operations.md has lost its marks for {mark}")
    return f"{before}{begin}{content}{end}{after}"


def pages() -> dict[Path, str]:
    """Each page that has generated parts, as it should be."""
    import dashboard
    from agniregistry_node.docs import settings_manual
    from crd_docs import crd_page, crd_with_settings
    from proto_docs import api_page

    operations = ROOT / "docs/operations.md"
    text = between(operations.read_text(), "metrics", metrics_table())
    text = between(text, "limits", limits_table())
    text = between(text, "settings", settings_manual())
    crd = crd_with_settings(ROOT / CRD)
    return {
        ROOT / "docs/api.md": api_page(ROOT / "proto/agniregistry/api/v1"),
        operations: text,
        ROOT / "charts/agniregistry/files/dashboards/agniregistry.json": dashboard.text(),
        ROOT / CRD: crd,
        ROOT / "charts/agniregistry/files" / Path(CRD).name: crd,
        ROOT / "docs/crd.md": crd_page(crd),
    }


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="generate parts of docs/")
    parser.add_argument("--check", action="store_true", help="only compare, write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text)
    if check and stale:
        print(f"not current: {', '.join(stale)}; run `make docs`")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
