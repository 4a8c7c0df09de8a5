"""--wait: what is agreed upon at once is done a while later, and a command can wait for that."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from agniregistry import types as t
from agniregistry.cli import render
from agniregistry.cli.exits import CliError, Exit
from agniregistry.cli.options import DURATION
from agniregistry.errors import AgniError

F = TypeVar("F", bound=Callable[..., Any])

WAIT_MS_DEFAULT = 60_000
"""How long --wait waits unless --wait-max says else, in milliseconds."""
LOOK_PAUSE_S = 0.3
"""Time between two looks."""


def waiting(command: F) -> F:
    """Hands on `wait_ms`: how long to wait, in milliseconds; 0 not to."""

    @click.option("--wait", "is_wanted", is_flag=True, help="End only when it is done.")
    @click.option("--wait-max", "wait_ms", type=DURATION, default=WAIT_MS_DEFAULT,
                  help="With --wait: how long. [default: 1m]")  # fmt: skip
    @functools.wraps(command)
    def wrapped(*args: Any, is_wanted: bool, wait_ms: int, **kwargs: Any) -> Any:
        return command(*args, wait_ms=wait_ms if is_wanted else 0, **kwargs)

    return wrapped  # type: ignore[return-value]


def wait_until(
    client: Any, wait_ms: int, missing: Callable[[t.ClusterMembers], str], remedy: str
) -> None:
    """Looks again and again until nothing is missing any more.

    Raises:
        CliError: When time is over; it says what is missing still.
    """
    deadline = time.monotonic() + wait_ms / 1_000
    while True:
        try:
            still = missing(client.members())
        except AgniError as error:
            # A leader may be changing, which is what some of these commands are about.
            still = error.message
        if not still:
            return
        if time.monotonic() >= deadline:
            waited = render.duration(wait_ms)
            raise CliError(f"after {waited}: {still}", remedy, Exit.UNAVAILABLE, "WAITED_TOO_LONG")
        time.sleep(LOOK_PAUSE_S)
