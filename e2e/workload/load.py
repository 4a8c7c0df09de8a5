"""The load of the tests on Kubernetes, as a program in a pod: `load.py` until it is killed.

Its settings come from the environment. Over a socket (see `ask.py`) it is told when a fault begins,
and asked what there was to see since then.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from leases import Leases
from probing import Probe
from stuck import Stuck
from watching import Watching
from writers import Callers

from agniregistry import AsyncClient, RetryPolicy, Timeout, Tls
from agniregistry.errors import AgniError

SOCKET = os.environ.get("LOAD_SOCKET", "/tmp/load")
SERVICE = os.environ["LOAD_SERVICE"]
"""host:port of the Service for clients."""
NODES = os.environ["LOAD_NODES"].split(",")
"""host:port of each node."""
PARTITIONS = int(os.environ["LOAD_PARTITIONS"])
FOLDER = Path(os.environ["LOAD_TLS"])
BUNDLE = Path(os.environ["LOAD_TRUST"])
HEALTH_PORT = 7402
PATIENCE_MS = 2_000
CALM_S, CALM_GAP_S = 5.0, 1.0
LATE_S = 0.02
"""How late this process itself may be before that counts as a pause of its own."""


def tls() -> Tls:
    """The pod's own certificate."""
    return Tls(ca_file=BUNDLE, cert_file=FOLDER / "tls.crt", key_file=FOLDER / "tls.key")


def client_once(address: str) -> AsyncClient:
    """A client that asks one node once."""
    timeout = Timeout(total_ms=PATIENCE_MS, attempt_ms=PATIENCE_MS)
    return AsyncClient(address, timeout=timeout, retry=RetryPolicy.never(), tls=tls())


def are_linked() -> bool:
    """Whether every node has connections to all others, by its metrics.

    A node that has just come again is asked by its leaders before the others have found it.
    """
    for address in NODES:
        url = f"http://{address.partition(':')[0]}:{HEALTH_PORT}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return False
        links = [line for line in lines if line.startswith("agni_peer_connected{")]
        if sum(line.endswith(" 1") for line in links) < len(NODES) - 1:
            return False
    return True


class Load:
    """Everything that goes on, from its start to its end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        # As people may know a registry: by its Service, by its nodes, by both.
        ways: list[list[str]] = [[SERVICE], NODES, [SERVICE, *NODES]]
        self._clients = [AsyncClient(way, tls=tls()) for way in ways]
        self._once = [client_once(address) for address in NODES]
        self.callers = Callers(self._clients)
        self.leases = Leases(self._clients[0])
        self.watching = Watching(self._clients[1], self.callers.records)
        self.probe = Probe(self._once, PARTITIONS)
        self.stuck = Stuck(self.probe, self._once)
        self._since = time.monotonic()
        self._latest_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins all of it; returns when everything goes on."""
        for client in (*self._clients, *self._once):
            await self._stack.enter_async_context(client)
        self._tasks = [*self.callers.work(), asyncio.create_task(self.watching.work())]
        await self.leases.work()
        await self.probe.find_keys()
        late = (self.probe.work(), self.stuck.work(), self._beat())
        self._tasks += [asyncio.create_task(each) for each in late]

    async def _beat(self) -> None:
        """Notices when this process itself stood still."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LATE_S)
            self._latest_s = max(self._latest_s, time.monotonic() - before - LATE_S)

    def begin(self) -> dict[str, Any]:
        """A fault begins: what was counted before belongs to others."""
        self._since, self._latest_s = time.monotonic(), 0.0
        for part in (self.callers, self.leases, self.watching, self.stuck):
            part.begin()
        return {}

    async def report(self) -> dict[str, Any]:
        """What there was to see since the fault began."""
        await self.callers.check()
        ended = [repr(task) for task in self._tasks if task.done()]
        return {
            "gap_s": round(self.probe.gap_s(self._since), 3),
            "late_s": round(self._latest_s, 3),
            "stuck": self.stuck.report(),
            "seconds": round(time.monotonic() - self._since, 1),
            "leases": await self.leases.report(),
            "watch": await self.watching.report(),
            "ended": ended,
            **self.callers.report(),
        }

    async def nodes(self) -> dict[str, Any]:
        """What each node says of itself, by its address."""
        found: dict[str, Any] = {}
        for address, client in zip(NODES, self._once, strict=True):
            try:
                status = await client.status()
            except AgniError as error:
                found[address] = {"error": str(error)}
                continue
            found[address] = {
                "certificate": status.certificate_sha256,
                "trust": status.trust_sha256,
                "node_id": status.node_id,
            }
        return found

    def calm(self) -> dict[str, Any]:
        """Whether, for a while, no call has failed and every partition took writes."""
        since = time.monotonic() - CALM_S
        is_calm = self.callers.failed_at < since and self.probe.gap_s(since) < CALM_GAP_S
        return {"calm": is_calm}


async def serve(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one question."""
    question = (await reader.readline()).decode().strip()
    try:
        if question == "begin":
            answer = load.begin()
        elif question == "report":
            answer = await load.report()
        elif question == "nodes":
            answer = await load.nodes()
        elif question == "linked":
            answer = {"linked": await asyncio.to_thread(are_linked)}
        else:
            answer = load.calm()
    except AgniError as error:
        answer = {"error": str(error)}
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()
    writer.close()


async def main() -> None:
    """Loads the registry for ever."""
    async with AsyncExitStack() as stack:
        load = Load(stack)
        await load.start()
        server = await asyncio.start_unix_server(
            lambda reader, writer: serve(load, reader, writer), SOCKET
        )
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
