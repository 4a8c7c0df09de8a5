"""Writes to every partition all the time, to see for how long each stops taking them.

Each write is one attempt at the next node, whether or not the one before has been answered: who
waits for an answer which will never come would measure their own patience.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from itertools import count, cycle, pairwise

from records import probed, spec_of

from agniregistry import AsyncClient
from agniregistry.errors import AgniError
from agniregistry.types import Key

PERIOD_S = 0.05
"""Time between two writes to one partition: the resolution of what is measured."""
KEPT = 40_000
"""Acknowledged writes of one partition that are remembered: half an hour's."""


class Probe:
    """Who writes, and when writes were acknowledged, by partition."""

    def __init__(self, clients: Sequence[AsyncClient], partitions: int) -> None:
        self._clients = clients
        self._partitions = partitions
        self._keys: dict[int, Key] = {}
        self._at: dict[int, deque[float]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def find_keys(self) -> None:
        """One key of each partition."""
        for number in count():
            key = probed(number)
            try:
                done = await self._clients[0].put(key, spec_of(0))
            except AgniError:
                await asyncio.sleep(PERIOD_S)
                continue
            self._keys.setdefault(done.header.partition, key)
            if len(self._keys) == self._partitions:
                break
        self._at = {partition: deque(maxlen=KEPT) for partition in self._keys}

    async def work(self) -> None:
        """Writes for ever."""
        targets = cycle(self._clients)
        for turn in count(1):
            for partition, key in self._keys.items():
                task = asyncio.create_task(self._write(next(targets), partition, key, turn))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            # Another node each turn, where there are as many partitions as nodes.
            next(targets)
            await asyncio.sleep(PERIOD_S)

    async def _write(self, client: AsyncClient, partition: int, key: Key, turn: int) -> None:
        try:
            await client.put(key, spec_of(turn), incarnation=turn)
        except AgniError:
            return
        self._at[partition].append(time.monotonic())

    def gap_s(self, since: float) -> float:
        """The longest time, since a moment, in which some partition took no write."""
        now = time.monotonic()
        longest = 0.0
        for at in self._at.values():
            known = [*at, now]
            gaps = [after - before for before, after in pairwise(known) if after > since]
            longest = max(longest, *gaps) if gaps else now - since
        return longest
