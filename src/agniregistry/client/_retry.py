"""When to try again: exponential backoff with full jitter that never undercuts the server's wish.

Full jitter (a pause drawn evenly from zero up to a growing bound) spreads clients that failed
together. Where the server named a delay, the jitter is added on top of it. Pure: the clock and
the chance are handed in.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import (
    AgniError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalError,
    OutcomeUnknownError,
)

ANSWER_LOST = (ConnectionFailedError, DeadlineExceededError, InternalError, OutcomeUnknownError)
"""After these it isn't known whether a write took place."""


def bound_ms(policy: RetryPolicy, failures: int) -> float:
    """The upper bound of the pause after this many failures in a row (1 and more)."""
    exponent = min(max(failures, 1) - 1, 64)
    try:
        grown = policy.initial_delay_ms * policy.multiplier**exponent
    except OverflowError:
        return float(policy.max_delay_ms)
    return min(float(policy.max_delay_ms), grown)


def pause_ms(
    policy: RetryPolicy, failures: int, server_delay_ms: int | None, chance: float
) -> float:
    """The pause after this many failures in a row; `chance` is drawn from 0..1."""
    return (server_delay_ms or 0) + bound_ms(policy, failures) * chance


class Attempts:
    """Counts the attempts of one call against its policy and its deadline."""

    def __init__(
        self,
        policy: RetryPolicy,
        timeout: Timeout,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._attempt_s = timeout.attempt_ms / 1000
        self._clock = clock
        self._chance = chance
        self._deadline = clock() + timeout.total_ms / 1000
        self.failures = 0
        self.answer_lost = False
        """Whether an attempt may have taken place whose answer never came."""

    def timeout_s(self, share: float = 1.0) -> float:
        """How long the next attempt may take, in seconds: at most this share of what is left."""
        return max(0.001, min(self._attempt_s, share * (self._deadline - self._clock())))

    def pause_s(self, error: AgniError, *, elsewhere: bool = False) -> float | None:
        """How long to pause after this failure, in seconds; None means to give up.

        `elsewhere` says that another node may be asked, which needs no pause and does not count:
        only when all have failed has an attempt. It gives up early where the pause would outlast
        the deadline: waiting for a certain failure helps nobody.
        """
        self.answer_lost |= isinstance(error, ANSWER_LOST)
        if elsewhere and error.retryable and self._policy.max_attempts > 1:
            return 0.0 if self._clock() < self._deadline else None
        self.failures += 1
        if not error.retryable or self.failures >= self._policy.max_attempts:
            return None
        pause = pause_ms(self._policy, self.failures, error.retry_delay_ms, self._chance()) / 1000
        return pause if self._clock() + pause < self._deadline else None
