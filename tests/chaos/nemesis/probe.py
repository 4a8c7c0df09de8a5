"""Writes to every partition all the time, to see for how long each stops taking them.

`python -m nemesis.probe --addresses host:port,… --partitions N --into FILE` until SIGTERM; then the
file holds, for each partition, when writes were acknowledged (CLOCK_MONOTONIC, in nanoseconds) and
in which term of the partition.
Each write goes to the next node, whether or not the one before has been answered: a client that
waits for an answer which will never come would measure its own patience.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count, cycle
from pathlib import Path

from agniregistry.client import AsyncClient
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import AgniError
from agniregistry.identity import Tls
from agniregistry.types import Key
from nemesis import access
from nemesis.calls import key_of, spec_of

PERIOD_S = 0.02
"""Time between two writes to one partition: the resolution of what is measured."""
PATIENCE_MS = 2_000


class Probe:
    """Who writes, and what was acknowledged."""

    def __init__(self, clients: Sequence[AsyncClient]) -> None:
        self.acknowledged: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._clients = clients
        self._under_way: set[asyncio.Task[None]] = set()

    async def keys(self, partitions: int) -> dict[int, Key]:
        """One key of each partition."""
        found: dict[int, Key] = {}
        for number in count():
            key = key_of(f"probe-{number}")
            try:
                done = await self._clients[0].put(key, spec_of("first"))
            except AgniError:
                await asyncio.sleep(PERIOD_S)
                continue
            found.setdefault(done.header.partition, key)
            if len(found) == partitions:
                return found
        raise AssertionError

    async def run(self, keys: dict[int, Key], ended: asyncio.Event) -> None:
        """Writes until it is told to end, and sees to the end what is under way."""
        targets = cycle(self._clients)
        turn = 0
        while not ended.is_set():
            turn += 1
            for partition, key in keys.items():
                write = self._write(next(targets), partition, key, str(turn))
                task = asyncio.create_task(write)
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            # Another node each turn, where there are as many partitions as nodes.
            next(targets)
            await asyncio.sleep(PERIOD_S)
        await asyncio.gather(*self._under_way)

    async def _write(self, client: AsyncClient, partition: int, key: Key, value: str) -> None:
        try:
            done = await client.put(key, spec_of(value))
        except AgniError:
            return
        self.acknowledged[partition].append((time.monotonic_ns(), done.header.term))


async def probe(
    addresses: Sequence[str], partitions: int, tls: Tls | None
) -> dict[int, list[tuple[int, int]]]:
    """Writes until SIGTERM; by partition, when writes were acknowledged, and in which term."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    once = RetryPolicy.never()
    timeout = Timeout(total_ms=PATIENCE_MS, attempt_ms=PATIENCE_MS)
    clients = [AsyncClient(address, timeout=timeout, retry=once, tls=tls) for address in addresses]
    probe = Probe(clients)
    keys = await probe.keys(partitions)
    print("ready", flush=True)
    await probe.run(keys, ended)
    for client in clients:
        await client.aclose()
    return {partition: sorted(writes) for partition, writes in probe.acknowledged.items()}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="nemesis.probe")
    parser.add_argument("--addresses", required=True, help="host:port,host:port,...")
    parser.add_argument("--partitions", required=True, type=int)
    parser.add_argument("--into", required=True, type=Path)
    access.add_argument(parser)
    given = parser.parse_args()
    tls = access.tls_of(given.tls_dir)
    acknowledged = asyncio.run(probe(given.addresses.split(","), given.partitions, tls))
    given.into.write_text(json.dumps(acknowledged))


if __name__ == "__main__":
    main()
