"""The examples of docs/sdk.md run as they stand, against a fake at the address that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agniregistry import types as t

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, fake: Any, address: str, spec: t.Spec) -> None:
    fake.put(t.Key.gateway(), spec)
    code = re.sub(r"127\.0\.0\.1:740\d", address, EXAMPLES[number])
    exec(compile(code, f"docs/sdk.md, example {number + 1}", "exec"), {"__name__": "example"})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5
