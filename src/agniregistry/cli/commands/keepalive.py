"""`register --keep-alive`: holds registrations until somebody ends it, then takes them back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import click

from agniregistry import types as t
from agniregistry.cli import data, render
from agniregistry.cli.options import current
from agniregistry.cli.output import note, say, stream_line

Held = tuple[t.Key, t.Spec, int, int | None]
"""Key, spec, time to live in milliseconds, incarnation (None for "now")."""

POLL_S = 0.2
"""How often the main thread looks whether a registration has failed, in seconds."""


def keep_alive(client: Any, wanted: Sequence[Held]) -> None:
    """Registers, renews until Ctrl-C or SIGTERM, then deregisters."""
    failed = threading.Event()
    context = click.get_current_context()

    def heard(event: t.RegistrationEvent) -> None:
        with context.scope(cleanup=False):  # This runs in the renewing thread.
            _tell(event)
        if event.type is t.RegistrationEventType.FAILED:
            failed.set()

    with _terminable(), ExitStack() as stack:
        handles = []
        for key, spec, ttl_ms, incarnation in wanted:
            handle = stack.enter_context(
                client.register(key, spec, ttl_ms=ttl_ms, incarnation=incarnation, on_event=heard)
            )
            handles.append(handle)
            _tell_registered(handle)
        note("renewing until Ctrl-C, then deregistering")
        try:
            while not failed.wait(POLL_S):
                pass
        except KeyboardInterrupt:
            note("")
    for handle in handles:
        if handle.state is t.RegistrationState.FAILED:
            handle.check()
        if not stream_line({"event": "deregistered", "key": data.key_data(handle.key)}):
            say(f"{render.short(handle.key)} deregistered")


def _tell_registered(handle: Any) -> None:
    result = handle.result
    if not stream_line({"event": "registered", **data.registered_data(result)}):
        say(
            f"{render.short(handle.key)} registered at revision {result.revision}, "
            f"lease {result.lease_id} for {render.duration(result.ttl_ms)}"
        )


def _tell(event: t.RegistrationEvent) -> None:
    """Each thing that its owner should know; renewals are news for programs only."""
    if _is_data():
        plain = {
            "event": event.type.value,
            "key": data.key_data(event.key),
            "lease_id": str(event.lease_id),
            "incarnation": event.incarnation,
        }
        if event.error:
            plain["error"] = str(event.error)
        stream_line(plain)
    elif event.type is not t.RegistrationEventType.RENEWED:
        note(f"{render.short(event.key)}: {event.type.value} {event.error or ''}".rstrip())


def _is_data() -> bool:
    """Whether stdout is read by a program."""
    return current().output in ("json", "yaml")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as service managers send it, ends as Ctrl-C does; SIGINT does so even where a
    script's background job has inherited that it be ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
