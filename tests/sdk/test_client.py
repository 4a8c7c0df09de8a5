"""The client itself: retries as the server asks, deadlines, closing, threads, forks."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.config import RetryPolicy, Timeout

KEY = t.Key.gateway("a")


def test_a_refusal_for_overload_is_outlived(fake: Any, client: Client, spec: t.Spec) -> None:
    fake.fail_next(errors.OverloadedError("busy", retry_delay_ms=120), times=2)
    before = time.monotonic()
    assert client.put(KEY, spec).created
    assert time.monotonic() - before >= 0.24


def test_attempts_are_bounded(fake: Any, client: Client, spec: t.Spec) -> None:
    fake.fail_next(errors.NotReadyError("starting"), times=client.retry.max_attempts)
    with pytest.raises(errors.NotReadyError) as caught:
        client.put(KEY, spec)
    assert caught.value.__cause__ is not None
    assert client.put(KEY, spec).created


def test_a_delay_beyond_the_deadline_is_an_error_at_once(
    fake: Any, client: Client, spec: t.Spec
) -> None:
    fake.fail_next(errors.DiskFullError("full", retry_delay_ms=60_000))
    before = time.monotonic()
    with pytest.raises(errors.DiskFullError) as caught:
        client.put(KEY, spec)
    assert caught.value.retry_delay_ms == 60_000
    assert time.monotonic() - before < 2


def test_what_is_wrong_is_not_repeated(fake: Any, client: Client, spec: t.Spec) -> None:
    fake.fail_next(errors.StaleIncarnationError("old"), times=1)
    with pytest.raises(errors.StaleIncarnationError):
        client.put(KEY, spec)
    assert client.put(KEY, spec).created


def test_a_lost_answer_is_not_a_lost_write(fake: Any, client: Client, spec: t.Spec) -> None:
    first = client.put(KEY, spec, incarnation=1, expected_revision=0)
    again = client.put(KEY, spec, incarnation=1, expected_revision=0)
    assert again.revision == first.revision


@pytest.mark.parametrize("lost", [errors.OutcomeUnknownError, errors.DeadlineExceededError])
def test_a_removal_whose_answer_was_lost_is_not_missing(
    fake: Any, client: Client, lost: type[errors.AgniError]
) -> None:
    fake.fail_next(lost("the answer was lost"))
    again = client.deregister(KEY)
    assert (again.existed, again.maybe_removed) == (False, True)
    fake.fail_next(lost("the answer was lost"))
    removal = t.DeregisterOperation(KEY)
    (one,) = client.batch([removal])
    assert isinstance(one, t.Deregistered)
    assert one.maybe_removed
    fake.fail_next(errors.OverloadedError("busy"))
    assert not client.deregister(KEY).maybe_removed, "an attempt that was refused has done nothing"


async def test_async_a_removal_whose_answer_was_lost(fake: Any, address: str) -> None:
    async with AsyncClient(address) as client:
        fake.fail_next(errors.OutcomeUnknownError("the answer was lost"))
        assert (await client.deregister(KEY)).maybe_removed
        assert not (await client.deregister(KEY)).maybe_removed


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Recorder(grpc.ServerInterceptor):  # type: ignore[misc]
    """Notes the headers of every call."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """As gRPC wants it."""
        method = details.method.rpartition("/")[2]
        self.seen.append((method, dict(details.invocation_metadata)))
        return continuation(details)

    def traces(self, method: str) -> list[tuple[str | None, str | None]]:
        """What the calls of a method said of their trace."""
        headers = [each for name, each in self.seen if name == method]
        return [(each.get("traceparent"), each.get("tracestate")) for each in headers]


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    """A server that knows no method, and where it is."""
    noted = Recorder()
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[noted])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield noted, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_each_call_says_which_trace_it_is_part_of(recorder: tuple[Recorder, str]) -> None:
    noted, address = recorder
    current = {"traceparent": PARENT, "tracestate": "vendor=some"}
    with Client(address, metadata=[("team", "red")], trace=lambda: current) as client:
        with pytest.raises(errors.UnimplementedError):
            client.get(KEY)
        current = {}
        with pytest.raises(errors.UnimplementedError):
            client.get(KEY)
        current = {"traceparent": PARENT}
        with pytest.raises(errors.UnimplementedError):
            next(client.watch())
    assert noted.traces("Get") == [(PARENT, "vendor=some"), (None, None)]
    assert noted.traces("Watch") == [(PARENT, None)]
    assert all(headers["team"] == "red" for _, headers in noted.seen)


async def test_async_each_call_says_which_trace_it_is_part_of(
    recorder: tuple[Recorder, str],
) -> None:
    noted, address = recorder
    async with AsyncClient(address, trace=lambda: {"traceparent": PARENT}) as client:
        with pytest.raises(errors.UnimplementedError):
            await client.get(KEY)
        with pytest.raises(errors.UnimplementedError):
            await anext(client.watch())
    assert noted.traces("Get") == noted.traces("Watch") == [(PARENT, None)]


def test_silence_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(target, timeout=Timeout(total_ms=400, attempt_ms=150)) as client:
            before = time.monotonic()
            with pytest.raises((errors.DeadlineExceededError, errors.UnavailableError)):
                client.get(KEY)
            assert time.monotonic() - before < 3


def test_nobody_there_is_a_connection_that_failed() -> None:
    with (
        Client("127.0.0.1:1", retry=RetryPolicy.never()) as client,
        pytest.raises(errors.ConnectionFailedError) as caught,
    ):
        client.status(timeout_ms=2000)
    assert caught.value.retryable


def test_a_restarted_server_is_found_again(fake: Any, spec: t.Spec) -> None:
    with fake.serve() as address:
        client = Client(address, retry=RetryPolicy(20, 20, 200))
        client.put(KEY, spec)
    with client, fake.serve(address):
        assert client.get(KEY).spec == spec


def test_a_closed_client_says_so(address: str, spec: t.Spec) -> None:
    client = Client(address)
    client.put(KEY, spec)
    client.close()
    client.close()
    for call in (lambda: client.get(KEY), client.watch, client.cache):
        with pytest.raises(errors.ClientClosedError):
            call()


def test_closing_ends_a_call_that_waits(fake: Any, address: str) -> None:
    client = Client(address, timeout=Timeout(60_000, 30_000))
    fake.fail_next(errors.OverloadedError("busy", retry_delay_ms=50_000))
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.get(KEY)
        except errors.AgniError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while fake._failures:
        time.sleep(0.005)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(caught[0], errors.ClientClosedError)


def test_many_threads_share_a_client(client: Client, spec: t.Spec) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                key = t.Key.agent(f"n{number}-{turn}")
                client.put(key, t.Spec(region="eu"))
                assert client.get(key).key == key
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(list(client.list_all(t.Filter(kind=t.Kind.AGENT), page_size=7))) == 80


def test_a_client_from_before_a_fork_refuses(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(errors.ClientClosedError, match="fork"):
        client.get(KEY)


def test_values_that_no_message_can_hold_are_refused_by_field(client: Client) -> None:
    for spec, field in (
        (t.Spec(region="eu", port=-1), "spec.port"),
        (t.Spec(region="\ud800"), "spec.region"),
        (t.Spec(region=5), "spec.region"),
        (t.Spec(region="eu", labels={"a": 5}), "spec.labels"),
        (t.Spec(region="eu", capacity=t.Capacity(cpu="x")), "spec.capacity.cpu"),
    ):
        with pytest.raises(errors.InvalidFieldError) as caught:
            client.put(t.Key.agent("a"), spec)
        assert caught.value.field == field


async def test_the_async_client_retries_too(fake: Any, address: str, spec: t.Spec) -> None:
    async with AsyncClient(address) as client:
        fake.fail_next(errors.OverloadedError("busy", retry_delay_ms=50), times=2)
        assert (await client.put(KEY, spec)).created
        fake.fail_next(errors.NotFoundError("odd"))
        with pytest.raises(errors.NotFoundError):
            await client.get(KEY)
        await client.aclose()
        with pytest.raises(errors.ClientClosedError):
            await client.get(KEY)
