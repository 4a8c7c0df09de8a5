"""What the nodes say while a partition takes no writes: who reads that it stopped asks why."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from probing import Probe

from agniregistry import AsyncClient
from agniregistry.errors import AgniError

PERIOD_S = 0.5
STUCK_S = 2.5
"""An election ends before."""
ASKED_S = 1.0
"""A node that is gone doesn't answer."""
KEPT = 60


class Stuck:
    """Looks at partitions that stopped, for ever."""

    def __init__(self, probe: Probe, clients: Sequence[AsyncClient]) -> None:
        self._probe = probe
        self._clients = clients
        self._seen: deque[str] = deque(maxlen=KEPT)

    def begin(self) -> None:
        """Forgets what was seen before."""
        self._seen.clear()

    def report(self) -> list[str]:
        """A line a look, and a word of each node about the partition."""
        return list(self._seen)

    async def work(self) -> None:
        """Asks every node about each partition that took no write for a while."""
        while True:
            await asyncio.sleep(PERIOD_S)
            for partition, gap_s in self._probe.silent_s().items():
                if gap_s >= STUCK_S:
                    words = [self._word(n, partition) for n in range(len(self._clients))]
                    said = "; ".join(await asyncio.gather(*words))
                    at = time.strftime("%H:%M:%S")
                    self._seen.append(f"{at} partition {partition}, {gap_s:.1f} s: {said}")

    async def _word(self, number: int, partition: int) -> str:
        error = self._probe.refusal(number, partition)
        try:
            status = await asyncio.wait_for(self._clients[number].status(), ASKED_S)
        except (AgniError, TimeoutError) as failure:
            return f"node {number} says nothing ({failure or 'no answer'}; write: {error})"
        found = [each for each in status.partitions if each.partition == partition]
        if not found:
            return f"node {number} ({status.node_id}) has no replica (write: {error})"
        one = found[0]
        doubt = ", suspect" if one.is_suspect else ""
        return (
            f"node {number} ({status.node_id}): term {one.term}, leader {one.leader_id}, commit "
            f"{one.commit_index}, applied {one.applied_index}{doubt} (write: {error})"
        )
