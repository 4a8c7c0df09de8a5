"""Maps that lead astray, over real connections: a client behind a port-forward is not misled."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.testing import FakeRegistry

AGENT = t.Spec(region="eu")
QUICK = RetryPolicy(max_attempts=5, initial_delay_ms=1, max_delay_ms=20)


class Misled(FakeRegistry[Any]):
    """A registry whose map names another leader than itself."""

    leads_to = ""
    asked = 0

    def routing(self, *, timeout_ms: int | None = None) -> t.RoutingTable:
        """The first of two members, but the second leads."""
        self.asked += 1
        members = (t.Member(1, "192.0.2.1:1"), t.Member(2, self.leads_to))
        return t.RoutingTable(1, 1, members, (t.PartitionRoute(0, (1, 2), 2),))


@pytest.fixture
def misled() -> Iterator[Misled]:
    with Misled() as registry:
        yield registry


@pytest.fixture
def astray() -> Iterator[str]:
    """An address where connections are accepted and nobody ever speaks."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def put_for_a_while(client: Client, misled: Misled) -> float:
    """Writes until the map was there for long; answers the longest time that one took."""
    longest, until = 0.0, time.monotonic() + 2.0
    number = 0
    while time.monotonic() < until or not misled.asked:
        number += 1
        began = time.monotonic()
        client.put(t.Key.agent(f"n{number % 50}"), AGENT)
        longest = max(longest, time.monotonic() - began)
    return longest


def test_addresses_that_lead_nowhere_cost_no_call_anything(misled: Misled, astray: str) -> None:
    misled.leads_to = astray
    with misled.serve() as address, Client(address) as client:
        longest = put_for_a_while(client, misled)
        assert len(misled.list(page_size=1000).instances) == 50
        assert not any(each.is_up for each in client._router.endpoints if not each.is_given)
    assert longest < 1.0


def test_another_registry_at_a_members_address_is_never_written_to(misled: Misled) -> None:
    with FakeRegistry() as other, other.serve() as leads_to, misled.serve() as address:
        misled.leads_to = leads_to
        with Client(address) as client:
            put_for_a_while(client, misled)
        assert not other.list().instances


async def test_an_async_client_is_not_misled_either(misled: Misled) -> None:
    with FakeRegistry() as other, other.serve() as leads_to, misled.serve() as address:
        misled.leads_to = leads_to
        async with AsyncClient(address) as client:
            async with asyncio.timeout(10):
                while client._router.endpoints.routes is None:
                    await client.put(t.Key.agent("a"), AGENT)
            for number in range(200):
                await client.put(t.Key.agent(f"n{number}"), AGENT)
        assert not other.list().instances


@pytest.mark.parametrize(
    "error",
    [
        errors.ShuttingDownError("the node is stopping"),
        errors.NotReadyError("the node is starting"),
        errors.NotLeaderError("another one leads", metadata={"leader_id": "7"}),
        errors.NoLeaderError("nobody leads"),
        errors.OutcomeUnknownError("the leader was lost"),
    ],
)
def test_a_refusing_target_costs_no_pause(error: errors.AgniError) -> None:
    """A pause is any share of what the policy says: a whole day leaves chance no short one."""
    slow = RetryPolicy(max_attempts=2, initial_delay_ms=86_400_000, max_delay_ms=86_400_000)
    with ExitStack() as stack:
        fakes = [stack.enter_context(FakeRegistry()) for _ in range(2)]
        targets = [stack.enter_context(fake.serve()) for fake in fakes]
        for fake in fakes:
            fake.fail_next(error)
        client = stack.enter_context(Client(targets, retry=slow, timeout=Timeout(2_000, 2_000)))
        with pytest.raises(type(error)):
            client.list()
        # Each was asked once, and only then would it have paused.
        assert not any(fake._failures for fake in fakes)


def test_one_attempt_stays_one(misled: Misled) -> None:
    with FakeRegistry() as other, other.serve() as there, misled.serve() as here:
        for fake in (misled, other):
            fake.fail_next(errors.NotReadyError("starting"))
        once = Client([here, there], retry=RetryPolicy.never())
        with once as client, pytest.raises(errors.NotReadyError):
            client.list()
        assert len(misled._failures) + len(other._failures) == 1


@pytest.mark.parametrize("targets", ["", "a:1,,b:1", [], ["a:1", ""], ",".join(["a:1"] * 33)])
def test_targets_without_sense_are_refused(targets: Any) -> None:
    with pytest.raises(errors.InvalidFieldError, match=r"must be 1\.\.32 addresses") as caught:
        Client(targets)
    assert caught.value.field == "target"


def test_several_targets_must_agree_on_tls() -> None:
    with pytest.raises(errors.InvalidFieldError, match="over TLS"):
        Client("a:1,https://b:1")
