"""`make verify`: every check that only reads, all of them even if one fails, and a verdict.

Run through the environment's Python. A tool that a machine doesn't have is named as skipped
only where it can't be had from the lock file (cargo-deny); everything else must be there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NODE = ROOT / "node"


@dataclass(frozen=True)
class Check:
    """One command, and where it runs."""

    name: str
    command: tuple[str, ...]
    folder: Path = ROOT
    unless: str = ""


def tool(name: str) -> str:
    """A program of the environment."""
    return str(BIN / name)


def checks() -> list[Check]:
    """All checks, quick ones first."""
    python = sys.executable
    has_node = importlib.util.find_spec("agniregistry_node") is not None
    has_deny = shutil.which("cargo-deny") is not None
    return [
        Check("ruff check", (tool("ruff"), "check", ".")),
        Check("ruff format", (tool("ruff"), "format", "--check", ".")),
        Check("mypy", (tool("mypy"), *PYTHON)),
        Check("import contracts", (tool("lint-imports"),)),
        Check("generated messages", (python, "scripts/gen_proto.py", "--check")),
        Check("generated docs", (python, "scripts/gen_docs.py", "--check")),
        Check("tidy", (python, "-m", "pytest", "-q", "tests/test_tidy.py")),
        Check(
            "stub of _core",
            (python, "-m", "mypy.stubtest", "agniregistry_node._core"),
            unless="" if has_node else "the node isn't compiled; run `make node`",
        ),
        Check("rustfmt", ("cargo", "fmt", "--check"), NODE),
        Check("clippy", CLIPPY, NODE),
        Check(
            "cargo deny",
            ("cargo", "deny", "--offline", "check", "bans", "licenses", "sources"),
            NODE,
            unless="" if has_deny else "cargo-deny isn't installed",
        ),
    ]


PYTHON = (
    *("src", "scripts", "node/python", "operator/src"),
    *("bench/agnibench", "e2e", "images/agni_images"),
)
CLIPPY = (
    *("cargo", "clippy", "--release", "--locked", "--workspace", "--all-targets", "--quiet"),
    *("--", "-D", "warnings"),
)


def environment() -> dict[str, str]:
    """The same compiled Rust as make uses, and both source folders."""
    env = dict(os.environ)
    env.setdefault("CARGO_TARGET_DIR", str(NODE / "target"))
    env.setdefault("CARGO_INCREMENTAL", "0")
    env["PYO3_PYTHON"] = sys.executable
    env["PYTHONPATH"] = os.pathsep.join(
        (str(ROOT / "src"), str(NODE / "python"), str(ROOT / "operator/src"))
    )
    return env


def main() -> int:
    """Runs all checks; answers 1 if one failed."""
    failed = []
    for check in checks():
        if check.unless:
            print(f"skipped  {check.name}: {check.unless}", flush=True)
            continue
        began = monotonic()
        done = subprocess.run(
            check.command, cwd=check.folder, env=environment(), capture_output=True, text=True
        )
        word = "ok      " if done.returncode == 0 else "FAILED  "
        print(f"{word} {check.name} ({monotonic() - began:.1f} s)", flush=True)
        if done.returncode != 0:
            failed.append(check.name)
            print(done.stdout + done.stderr, flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all is well")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
