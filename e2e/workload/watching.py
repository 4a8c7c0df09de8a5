"""A watch that has been open since the beginning: it must see every change, once and in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from records import WRITTEN, leased, written
from writers import Written

from agniregistry import AsyncClient, Filter
from agniregistry.types import Change, EventType, Gap, Key

CATCH_UP_S = 20.0
POLL_S = 0.05
FAULTS_KEPT = 20


class Watching:
    """What the watch saw, compared with what the writers wrote."""

    def __init__(self, client: AsyncClient, records: Sequence[Written]) -> None:
        self._client = client
        self._records = {written(record.number): record for record in records}
        self._leased = {leased(number) for number in range(1000)}
        self._seen: dict[Key, int] = {}
        self._revisions: dict[int, int] = {}
        self.changes = 0
        self.faults: list[str] = []

    def begin(self) -> None:
        """Forgets what was counted before; what was seen last is still known."""
        self.changes, self.faults = 0, []

    async def work(self) -> None:
        """Watches for ever."""
        async with self._client.watch(Filter(namespace=WRITTEN), include_current=True) as watch:
            async for item in watch:
                if isinstance(item, Gap):
                    self.faults.append("the watch left something out")
                elif isinstance(item, Change):
                    self._look(item)
        self.faults.append("the watch has ended")

    def _look(self, change: Change) -> None:
        self.changes += 1
        if change.live:
            before = self._revisions.get(change.partition, 0)
            if change.revision <= before:
                self.faults.append(f"{change.key}: revision {change.revision} after {before}")
            self._revisions[change.partition] = change.revision
        if change.type is not EventType.PUT or change.record is None:
            self.faults.append(f"{change.key}: {change.type.value}")
        elif change.key in self._records:
            self._follow(self._records[change.key], change.key, change.record.incarnation)

    def _follow(self, record: Written, key: Key, turn: int) -> None:
        """A writer's turns come one after the other; those that failed may be missing."""
        before = self._seen.get(key)
        self._seen[key] = turn
        if before is None:
            return
        missed = [each for each in range(before + 1, turn) if each not in record.unknown]
        if missed or turn <= before:
            self.faults.append(f"{key.name}: turn {turn} after {before}")

    async def report(self) -> dict[str, Any]:
        """What is wrong, once all that was acknowledged by now should have been seen."""
        wanted = {key: record.acknowledged for key, record in self._records.items()}
        deadline = time.monotonic() + CATCH_UP_S
        while late := [key for key, turn in wanted.items() if self._seen.get(key, 0) < turn]:
            if time.monotonic() > deadline:
                self.faults += [f"{key.name}: turn {wanted[key]} was not seen" for key in late]
                break
            await asyncio.sleep(POLL_S)
        return {"changes": self.changes, "faults": self.faults[:FAULTS_KEPT]}
