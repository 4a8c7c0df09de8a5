"""`Timeout` and `RetryPolicy`: small, frozen, checked when made, shared by both clients."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_TARGET = "127.0.0.1:7400"
"""host:port of a node on this machine."""

ATTEMPTS_MAX = 100
"""The most attempts that a policy may ask for: every loop has a bound."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long a call may take."""

    total_ms: int = 10_000
    """For the whole call with all its attempts and pauses, in milliseconds. Too small a value
    turns a restart of a node into errors; too large a one hides that nobody answers."""
    attempt_ms: int = 5_000
    """For one attempt, in milliseconds: a silent connection costs this much before the next."""

    def __post_init__(self) -> None:
        if self.total_ms <= 0 or self.attempt_ms <= 0:
            raise ValueError("timeouts must be above 0 ms")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often a refused or broken call is tried again.

    Every call of the registry is safe to repeat: writes are idempotent by key and incarnation,
    and compare-and-set by revision. So one policy serves them all.
    """

    max_attempts: int = 5
    """Attempts altogether, 1..100; 1 means never again."""
    initial_delay_ms: int = 50
    """The upper bound of the first pause, in milliseconds."""
    max_delay_ms: int = 5_000
    """The upper bound of any pause that the server did not ask for, in milliseconds."""
    multiplier: float = 2.0
    """How the upper bound grows from pause to pause."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= ATTEMPTS_MAX:
            raise ValueError(f"max_attempts must be within 1..{ATTEMPTS_MAX}")
        if self.initial_delay_ms < 0 or self.max_delay_ms < self.initial_delay_ms:
            raise ValueError("delays must hold 0 <= initial_delay_ms <= max_delay_ms")
        if not self.multiplier >= 1.0:
            raise ValueError("multiplier must be at least 1")

    @classmethod
    def never(cls) -> RetryPolicy:
        """One attempt, no more."""
        return cls(max_attempts=1)
