"""What the checkers cost, printed: `python tests/chaos/measure.py [operations]`.

Nothing here is asserted: figures belong to a machine. The search for a linearization is exponential
in the clients of one key, so it shows which shapes of a run it can judge.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import lease_check
import version_order
import watch_check
from event_log import Log
from history import Operation
from linearizable import check_key
from simulated import run, watch
from simulated_leases import life

SHAPES = ((500, 5), (1_000, 5), (1_000, 10), (2_000, 10), (500, 20))
OPERATIONS = 1_000_000


def timed(what: str, work: Callable[[], object]) -> None:
    """Prints how long it took and what came of it."""
    began = time.perf_counter()
    result = work()
    print(f"{what:58} {1_000 * (time.perf_counter() - began):10,.1f} ms   {result}", flush=True)


def with_stale_read(operations: Sequence[Operation]) -> list[Operation]:
    """One read, late in the history, shows what an early one showed."""
    reads = [n for n, each in enumerate(operations) if each.f == "get" and each.reply.value]
    stale = list(operations)
    stale[reads[-3]] = replace(stale[reads[-3]], reply=stale[reads[1]].reply)
    return stale


def search(calls: int, clients: int) -> None:
    """One key's search, on what is right and on what isn't."""
    operations, _ = run(Random(1), clients=clients, keys=1, calls=calls, unknown=0.02)
    where = f"linearizable, {calls} operations, {clients} clients on one key"

    def judge(history: Sequence[Operation]) -> str:
        verdict = check_key("key0", history, deadline_s=time.monotonic() + 5)
        return f"{verdict.result}, {verdict.steps} steps"

    timed(where, lambda: judge(operations))
    timed(f"{where}, stale read", lambda: judge(with_stale_read(operations)))


def main(total: int) -> None:
    """All of them, the cheap ones at full size."""
    for calls, clients in SHAPES:
        search(calls, clients)
    operations, registry = run(Random(2), clients=64, keys=1_000, calls=total, unknown=0.0)
    log = Log(registry.events)
    stale = with_stale_read(operations)
    many = f"{total:,} operations, 64 clients"
    timed(f"version order, {many}", lambda: f"{len(version_order.check(operations))} violations")
    timed("the same, with the log", lambda: f"{len(version_order.check(operations, log))}")
    timed("the same, stale read", lambda: f"{len(version_order.check(stale))} violations")
    stream = watch(Random(3), log)
    events = sum(len(each.events) for each in stream.messages)
    timed(f"watch, {events:,} events", lambda: f"{len(watch_check.check(stream, log))} violations")
    leases = [life(Random(seed), f"gw{seed}") for seed in range(200)]
    history = [each for operations, _, _ in leases for each in operations]
    timed(f"leases, 200 of {len(history):,} operations", lambda: len(lease_check.check(history)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else OPERATIONS)
