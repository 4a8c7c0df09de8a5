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
        self._refusals: dict[tuple[int, int], str] = {}

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
        targets = cycle(range(len(self._clients)))
        for turn in count(1):
            for partition, key in self._keys.items():
                task = asyncio.create_task(self._write(next(targets), partition, key, turn))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            # Another node each turn, where there are as many partitions as nodes.
            next(targets)
            await asyncio.sleep(PERIOD_S)

    async def _write(self, node: int, partition: int, key: Key, turn: int) -> None:
        try:
            await self._clients[node].put(key, spec_of(turn), incarnation=turn)
        except AgniError as error:
            self._refusals[node, partition] = str(error)
            return
        self._refusals.pop((node, partition), None)
        self._at[partition].append(time.monotonic())

    def refusal(self, node: int, partition: int) -> str:
        """Why the newest write over a node that was answered failed; empty where it didn't."""
        return self._refusals.get((node, partition), "")

    def silent_s(self) -> dict[int, float]:
        """For how long each partition has taken no write."""
        now = time.monotonic()
        return {partition: now - at[-1] for partition, at in self._at.items() if at}

    def gap_s(self, since: float) -> float:
        """The longest time, since a moment, in which some partition took no write."""
        now = time.monotonic()
        longest = 0.0
        for at in self._at.values():
            known = [*at, now]
            gaps = [after - before for before, after in pairwise(known) if after > since]
            longest = max(longest, *gaps) if gaps else now - since
        return longest
