"""Waits for a condition, never for a while: a deadline, and a sentence when it has passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from agni_e2e.errors import PlatformError

Answer = TypeVar("Answer")

POLL_S = 0.1


def until(
    what: str, condition: Callable[[], Answer], *, timeout_s: float, poll_s: float = POLL_S
) -> Answer:
    """The first true answer of the condition.

    Raises:
        PlatformError: It was false until the deadline; `what` names the condition.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise PlatformError(f"{what}: not within {timeout_s:g} s")
        time.sleep(poll_s)
