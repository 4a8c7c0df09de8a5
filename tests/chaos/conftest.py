"""Makes the checkers importable; a fault that this machine can't make skips its test."""

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from nemesis.lab import Lab, UnavailableError


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Where the faults of one test live, until all are healed."""
    with Lab(tmp_path / "lab") as made:
        yield made


def _skipping() -> Generator[None, None, None]:
    try:
        yield
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """A fixture asks for what isn't there."""
    yield from _skipping()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """The test itself does."""
    yield from _skipping()
