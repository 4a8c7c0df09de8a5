"""What it gains to ask a key's leader directly: `python tests/sdk/measure_routing.py`.

Two clients of the same target take turns with keys that another node leads: one knows the map and
asks the leader, the other asks its target, which passes the request on. Says for each kind of call
how long it took, and how much processor time the three nodes spent on it.
"""

from __future__ import annotations

import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from loopback_cluster import ThreeNodes, wait_until

from agniregistry import types as t
from agniregistry.client import Client
from agniregistry.client._routes import Routes

SPEC = t.Spec(region="eu")
LEADER = t.ReadOptions(t.Consistency.LEADER)
KEYS = 60
TURNS = 40
CALLS_A_TURN = 100


@contextmanager
def without_map(address: str) -> Iterator[Client]:
    """A client that never asks for the map."""
    with Client(address) as client:
        client._router._calls = -(10**9)
        yield client
        assert client._router.endpoints.routes is None


def learn(client: Client) -> Routes:
    """Calls until all nodes are reached; answers the map."""

    def reached() -> bool:
        for number in range(20):
            client.put(t.Key.agent(f"learn-{number}"), SPEC)
        return sum(each.is_up for each in client._router.endpoints) == 3

    wait_until("all nodes are reached", reached)
    routes = client._router.endpoints.routes
    assert routes is not None
    return routes


def keys_led_elsewhere(client: Client, routes: Routes) -> list[t.Key]:
    """Keys whose partition the client's target does not lead."""
    target = client._router.endpoints.given[0]
    own = next(n for n, each in client._router.endpoints.by_member.items() if each is target)
    keys: list[t.Key] = []
    number = 0
    while len(keys) < KEYS:
        number += 1
        key = t.Key.agent(f"key-{number}")
        if routes.leader(routes.partition_of(key) or 0) != own:
            keys.append(key)
    return keys


def compare(
    what: str, ways: dict[str, Client], nodes: ThreeNodes, call: Callable[[Client, int], Any]
) -> None:
    """Has the clients take turns, and prints a line for each."""
    processes = [psutil.Process(node.process.pid) for node in nodes.nodes if node.process]
    times: dict[str, list[float]] = {name: [] for name in ways}
    spent = dict.fromkeys(ways, 0.0)
    number = 0
    for turn in range(TURNS):
        for name in sorted(ways, reverse=bool(turn % 2)):
            before = sum(sum(each.cpu_times()[:2]) for each in processes)
            for _ in range(CALLS_A_TURN):
                number += 1
                began = time.perf_counter()
                call(ways[name], number)
                times[name].append((time.perf_counter() - began) * 1e6)
            spent[name] += sum(sum(each.cpu_times()[:2]) for each in processes) - before
    for name, found in times.items():
        found.sort()
        count = len(found)
        print(
            f"{what:16} {name:10} p10 {found[count // 10]:5.0f} us, p50 {found[count // 2]:5.0f} us"
            f", p90 {found[count * 9 // 10]:5.0f} us, nodes {spent[name] / count * 1e6:5.0f} us"
        )


def main() -> None:
    """Measures."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = ThreeNodes(Path(folder))
        try:
            nodes.start()
            address = nodes.addresses[0]
            with Client(address) as direct, without_map(address) as forwarded:
                routes = learn(direct)
                keys = keys_led_elsewhere(direct, routes)
                ways = {"direct": direct, "forwarded": forwarded}
                key = keys[0]
                cost_s = timeit.timeit(lambda: routes.partition_of(key), number=20_000) / 20_000
                print(f"the partition of a key: {cost_s * 1e6:.1f} us")
                compare("put", ways, nodes, lambda c, n: c.put(keys[n % KEYS], SPEC, incarnation=n))
                compare("get", ways, nodes, lambda c, n: c.get(keys[n % KEYS]))
                compare(
                    "get, lease read", ways, nodes, lambda c, n: c.get(keys[n % KEYS], read=LEADER)
                )
        finally:
            nodes.close()


if __name__ == "__main__":
    main()
