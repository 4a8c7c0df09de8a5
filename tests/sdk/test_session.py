"""Sessions: what they remember, what they ask for, and that both clients' do the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agniregistry import errors
from agniregistry import types as t
from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.client import _calls as calls
from agniregistry.client import _convert as convert
from agniregistry.client._async_session import AsyncSession
from agniregistry.client._session import Seen, Session

STALE = t.ReadOptions(t.Consistency.STALE, max_staleness_ms=500)
KEY = t.Key.agent("a")
headers = st.builds(t.Header, st.just("one"), st.integers(0, 3), st.integers(0, 50))


@given(st.lists(headers))
def test_the_highest_revision_of_each_partition_is_demanded(shown: list[t.Header]) -> None:
    seen = Seen()
    highest: dict[int, int] = {}
    for header in shown:
        seen.see(t.Updated(header.revision, header))
        if header.revision:
            highest[header.partition] = max(header.revision, highest.get(header.partition, 0))
    assert seen.demand(STALE) == t.ReadOptions(t.Consistency.STALE, 500, highest)


def test_every_kind_of_answer_is_remembered() -> None:
    seen = Seen()
    one, two, three = (t.Header("one", number, 10 + number) for number in range(3))
    seen.see(t.Page(headers=(one,)))
    seen.see((t.Deregistered(True, header=two), errors.InvalidFieldError("wrong", field="key")))
    seen.see(t.Instance(t.Record(KEY, t.Spec()), header=three))
    seen.see(t.Renewed(1))
    assert seen.demand(STALE).at_least == {0: 10, 1: 11, 2: 12}


def test_only_stale_reads_demand_anything() -> None:
    seen = Seen()
    seen.see(t.Updated(5, t.Header("one", 0, 5)))
    for consistency in (None, t.Consistency.LINEARIZABLE, t.Consistency.LEADER):
        assert seen.demand(t.ReadOptions(consistency)).at_least == {}


def test_what_the_caller_demands_counts_too() -> None:
    seen = Seen()
    seen.see(t.Updated(5, t.Header("one", 0, 5)))
    read = t.ReadOptions(t.Consistency.STALE, at_least={0: 3, 1: 4})
    assert seen.demand(read).at_least == {0: 5, 1: 4}


def test_another_registry_begins_anew() -> None:
    seen = Seen()
    seen.see(t.Updated(500, t.Header("one", 0, 500)))
    seen.see(t.Updated(2, t.Header("restored", 1, 2)))
    assert seen.demand(STALE).at_least == {1: 2}


class Sent:
    """A registry that answers reads from one state, and notes what was demanded."""

    def __init__(self) -> None:
        self.header = t.Header("one", 2, 40)
        self.exists = True
        self.demands: list[dict[int, int]] = []

    def __call__(self, call: Any, timeout_ms: int | None) -> Any:
        if call.path == calls.REGISTRY + "Get":
            read = r.GetRequest.FromString(call.request).read
            self.demands.append(dict(read.at_least))
            if not self.exists:
                state = {"partition": "2", "revision": "60"}
                raise errors.NotFoundError("there is none", metadata=state)
            record = t.Instance(t.Record(KEY, t.Spec()), header=self.header)
            response = r.GetResponse(
                header=convert.header_to_wire(self.header),
                instance=convert.instance_to_wire(record),
            )
            return call.answer(response.SerializeToString())
        header = t.Header("one", 2, 50)
        response = r.UpdateResponse(header=convert.header_to_wire(header), revision=50)
        return call.answer(response.SerializeToString())


async def steps(session: Any, sent: Sent) -> None:
    """Reads, writes, and reads what is gone; an answer may be awaitable."""

    async def done(answer: Any) -> Any:
        return await answer if asyncio.iscoroutine(answer) else answer

    await done(session.get(KEY, read=STALE))
    await done(session.get(KEY, read=STALE))
    await done(session.update(KEY, t.Spec(owner="me"), ["owner"]))
    await done(session.get(KEY))
    sent.exists = False
    for _ in range(2):
        with pytest.raises(errors.NotFoundError):
            await done(session.get(KEY, read=STALE))
    assert sent.demands == [{}, {2: 40}, {}, {2: 50}, {2: 60}]


async def test_a_session_demands_what_it_was_shown() -> None:
    sent = Sent()
    await steps(Session(sent), sent)


async def test_an_async_session_demands_what_it_was_shown() -> None:
    sent = Sent()

    async def send(call: Any, timeout_ms: int | None) -> Any:
        return sent(call, timeout_ms)

    await steps(AsyncSession(send), sent)
