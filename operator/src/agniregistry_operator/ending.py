"""How tasks are ended: a single cancellation may get lost.

`asyncio.wait_for` of Python 3.11 forgets one that comes in the moment in which what it waits for is
done. The task then goes on, and whoever waits for its end waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 0.2
"""Time after which a task that goes on is cancelled again."""


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Returns when all tasks have ended, however they did."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=AGAIN_S)
        # What they failed with is asked for, or asyncio complains that nobody did.
        await asyncio.gather(*done, return_exceptions=True)
