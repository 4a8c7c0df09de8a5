"""Time for the fake: real, or moved by the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What the fake asks for the time."""

    def now_ms(self) -> int:
        """A time that never goes back, in milliseconds."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds, for people only."""
        ...

    def pause_ms(self, due_ms: int | None) -> float | None:
        """How long to wait in real milliseconds for that moment; None means until told."""
        ...

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Has the listener called after each jump of this clock."""
        ...


class SystemClock:
    """Real time."""

    def now_ms(self) -> int:
        """The monotonic clock."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """The wall clock."""
        return time.time_ns() // 1_000_000

    def pause_ms(self, due_ms: int | None) -> float | None:
        """The time that is left, and a millisecond more, so that it has come by then."""
        return None if due_ms is None else max(0, due_ms - self.now_ms()) + 1

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Real time does not jump."""


class FakeClock:
    """Stands still until `advance` is called."""

    def __init__(self, start_unix_ms: int = 1_700_000_000_000) -> None:
        self._start = start_unix_ms
        self._now = 0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        """The time that was advanced altogether."""
        return self._now

    def wall_ms(self) -> int:
        """The start plus that."""
        return self._start + self._now

    def pause_ms(self, due_ms: int | None) -> float | None:
        """Nothing happens by itself."""
        return None

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Has the listener called after each `advance`."""
        self._listeners.append(listener)

    def advance(self, milliseconds: int) -> None:
        """Moves on; what falls due meanwhile has happened when this returns."""
        with self._lock:
            self._now += milliseconds
        for listener in tuple(self._listeners):
            listener()
