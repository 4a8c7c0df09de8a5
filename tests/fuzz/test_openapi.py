"""schemathesis against /openapi.json, with a fixed budget: no answer may be a server's fault."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agniregistry_node import Node

BUDGET_SECONDS = int(os.environ.get("AGNI_FUZZ_SECONDS", "45"))
"""Time of the fuzzing; `make soak` gives more."""


@pytest.mark.timeout(BUDGET_SECONDS + 120)
def test_no_generated_request_breaks_the_node(tmp_path):
    seed = os.environ.get("AGNI_SEED", str(int.from_bytes(os.urandom(4), "big")))
    with Node(data_dir=tmp_path / "data", listen="127.0.0.1:0") as node:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"http://{node.address}/openapi.json",
            *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
            *("--phases", "examples,coverage,fuzzing", "--max-time", str(BUDGET_SECONDS)),
            *("--seed", seed, "--no-color", "--continue-on-failure", "--request-timeout", "10"),
            # A watch has no end; tests/faults/test_watch.py is about it.
            *("--exclude-path", "/v1/watch", "--suppress-health-check", "all"),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=BUDGET_SECONDS + 100,
            check=False,
            cwd=tmp_path,
        )
        print(done.stdout[-4000:])
        assert done.returncode == 0, f"AGNI_SEED={seed}\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
