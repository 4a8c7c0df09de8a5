"""Generates the Python messages of `agniregistry.api.v1`, or proves that they are current.

The output is committed, so that nobody who installs the SDK needs a protocol compiler. The
generator's version decides which protobuf and grpcio the SDK needs at least (the generated
code checks that on import), so grpcio-tools is pinned exactly and raised on purpose only.

    python scripts/gen_proto.py            writes src/agniregistry/api/v1
    python scripts/gen_proto.py --check    generates elsewhere and compares; writes nothing
"""

from __future__ import annotations

import argparse
import filecmp
import os
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PUBLIC = "agniregistry/api/v1"


def generate(out: Path) -> None:
    """Writes messages, stubs and their types below `out`."""
    # The mypy plugins are programs that stand beside the interpreter, also where the
    # environment isn't activated.
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join((beside, os.environ.get("PATH", "")))
    google = Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted(str(path) for path in (PROTO / PUBLIC).glob("*.proto"))
    outputs = ("python", "grpc_python", "mypy", "mypy_grpc")
    arguments = ["protoc", f"-I{PROTO}", f"-I{google}", *(f"--{o}_out={out}" for o in outputs)]
    if protoc.main([*arguments, *sources]) != 0:
        raise SystemExit("the protocol compiler failed; its message is above")


def differences(fresh: Path, committed: Path) -> list[str]:
    """Names what differs between two folders of generated files."""
    names = {path.name for folder in (fresh, committed) for path in folder.glob("*_pb2*")}
    _, mismatch, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted(mismatch + missing)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="generate the Python protocol messages")
    parser.add_argument("--check", action="store_true", help="only compare, write nothing")
    if not parser.parse_args().check:
        generate(ROOT / "src")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = differences(Path(folder) / PUBLIC, ROOT / "src" / PUBLIC)
    if stale:
        print(f"generated messages are not current: {', '.join(stale)}; run `make proto`")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
