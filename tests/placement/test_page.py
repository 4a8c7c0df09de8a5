"""docs/placement.md: its example prints what it says, and it names every problem."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agniregistry.placement import problems

PAGE = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()


def test_the_example_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert found
    exec(compile(found[1], "docs/placement.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == found[2]


def test_every_problem_is_on_the_page() -> None:
    reasons = {value for name, value in vars(problems).items() if name.isupper()}
    assert reasons
    assert reasons == set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
