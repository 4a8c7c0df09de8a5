"""Clients as people write them, with the SDK's own retries: what fails here fails a user.

`python -m nemesis.callers --addresses host:port,…` until SIGTERM; the last line says how many
calls there were and which failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections import Counter
from collections.abc import Sequence

from agniregistry.client import Client
from agniregistry.errors import AgniError
from agniregistry.identity import Tls
from nemesis import access
from nemesis.calls import key_of, spec_of

CLIENTS_EACH = 2
PAUSE_S = 0.005


class Callers:
    """Two clients that begin at each node and know all; each registers a record and finds it."""

    def __init__(self, addresses: Sequence[str], tls: Tls | None = None) -> None:
        self.calls = 0
        self._tls = tls
        self.failed: Counter[str] = Counter()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(number, addresses), daemon=True)
            for number in range(len(addresses) * CLIENTS_EACH)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets each finish what it has begun."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int, addresses: Sequence[str]) -> None:
        key = key_of(f"caller-{number}")
        first = number % len(addresses)
        with Client([*addresses[first:], *addresses[:first]], tls=self._tls) as client:
            turn = 0
            while not self._ended.wait(PAUSE_S):
                turn += 1
                try:
                    client.put(key, spec_of(f"{number}.{turn}"), incarnation=turn)
                    found = client.get(key)
                    stale = found.record.incarnation != turn
                    self._count("STALE" if stale else "")
                except AgniError as error:
                    self._count(error.reason)

    def _count(self, failure: str) -> None:
        with self._lock:
            self.calls += 2
            if failure:
                self.failed[failure] += 1


def main() -> None:
    """Calls until SIGTERM."""
    parser = argparse.ArgumentParser(prog="nemesis.callers")
    parser.add_argument("--addresses", required=True, help="host:port,host:port,...")
    access.add_argument(parser)
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    callers = Callers(given.addresses.split(","), access.tls_of(given.tls_dir))
    print("ready", flush=True)
    ended.wait()
    callers.stop()
    print(json.dumps({"calls": callers.calls, "failed": callers.failed}), flush=True)


if __name__ == "__main__":
    main()
