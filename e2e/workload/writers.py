"""Callers as people write them, with the SDK's own retries: what fails here fails a user.

Each writes a record of its own and reads it back; others read all of them. What was acknowledged
before a read began must be in its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from records import spec_of, written

from agniregistry import AsyncClient
from agniregistry.errors import AgniError

PAUSE_S = 0.05
FAILURES_KEPT = 20


@dataclass
class Written:
    """One record, as its writer knows it."""

    number: int
    turn: int = 0
    """The newest write that was begun; it is the record's incarnation, too."""
    acknowledged: int = 0
    """The newest write that was answered."""
    unknown: set[int] = field(default_factory=set)
    """Writes that failed, of which nobody knows whether they were made."""


class Callers:
    """Writers and readers over clients that know the registry in different ways."""

    def __init__(self, clients: Sequence[AsyncClient]) -> None:
        self._clients = clients
        self.records = [Written(number) for number in range(len(clients) * 2)]
        self.calls = 0
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self.failed_at = 0.0
        """When a call failed last."""

    def begin(self) -> None:
        """Forgets what was counted before."""
        self.calls, self.failed, self.wrong = 0, [], []

    def work(self) -> list[asyncio.Task[None]]:
        """Two writers and a reader a client, for ever."""
        count = len(self._clients)
        writers = [self._write(self._clients[r.number % count], r) for r in self.records]
        readers = [self._read(client) for client in self._clients]
        return [asyncio.create_task(each) for each in (*writers, *readers)]

    async def check(self) -> None:
        """Reads each record once more: nothing that was acknowledged may be gone."""
        await asyncio.gather(*[self._look(self._clients[0], r) for r in self.records])

    def report(self) -> dict[str, Any]:
        """What was counted."""
        return {
            "calls": self.calls,
            "failed": len(self.failed),
            "failures": self.failed[:FAILURES_KEPT],
            "wrong": self.wrong[:FAILURES_KEPT],
        }

    async def _write(self, client: AsyncClient, record: Written) -> None:
        while True:
            record.turn += 1
            turn = record.turn
            self.calls += 1
            try:
                await client.put(written(record.number), spec_of(turn), incarnation=turn)
                record.acknowledged = turn
            except AgniError as error:
                record.unknown.add(turn)
                self._fail("write", record, error)
            await self._look(client, record)
            await asyncio.sleep(PAUSE_S)

    async def _read(self, client: AsyncClient) -> None:
        while True:
            for record in self.records:
                await self._look(client, record)
                await asyncio.sleep(PAUSE_S)

    async def _look(self, client: AsyncClient, record: Written) -> None:
        """Reads a record; it must be at least what was acknowledged before."""
        least = record.acknowledged
        if not least:
            return
        self.calls += 1
        try:
            found = await client.get(written(record.number))
        except AgniError as error:
            self._fail("read", record, error)
            return
        seen = found.record.incarnation
        if not least <= seen <= record.turn:
            self.wrong.append(f"writer-{record.number}: read {seen} after {least} was acknowledged")

    def _fail(self, what: str, record: Written, error: AgniError) -> None:
        turn = record.turn
        self.failed_at = time.monotonic()
        self.failed.append(f"{what} of writer-{record.number} in turn {turn}: {error}")
