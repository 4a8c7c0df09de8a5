"""When the SDK tries again: bounds that hold for every policy, checked over many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agniregistry.client._retry import Attempts, bound_ms, pause_ms
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import InvalidFieldError, OverloadedError, UnavailableError

policies = st.builds(
    lambda attempts, initial, more, multiplier: RetryPolicy(
        attempts, initial, initial + more, multiplier
    ),
    st.integers(1, 100),
    st.integers(0, 10_000),
    st.integers(0, 100_000),
    st.floats(1.0, 100.0),
)
chances = st.floats(0.0, 1.0)
delays = st.one_of(st.none(), st.integers(0, 100_000))


@given(policies, st.integers(1, 10_000), delays, chances)
def test_a_pause_is_never_below_the_servers_wish_nor_above_the_bound(
    policy: RetryPolicy, failures: int, delay_ms: int | None, chance: float
) -> None:
    pause = pause_ms(policy, failures, delay_ms, chance)
    assert (delay_ms or 0) <= pause <= (delay_ms or 0) + policy.max_delay_ms


@given(policies, st.integers(1, 200))
def test_the_bound_grows_until_its_limit(policy: RetryPolicy, failures: int) -> None:
    assert bound_ms(policy, failures) <= bound_ms(policy, failures + 1) <= policy.max_delay_ms
    assert bound_ms(policy, 1) == policy.initial_delay_ms


@given(policies, st.integers(1, 100_000), delays, chances)
def test_attempts_and_time_are_bounded(
    policy: RetryPolicy, total_ms: int, delay_ms: int | None, chance: float
) -> None:
    now = [0.0]
    attempts = Attempts(policy, Timeout(total_ms, 50), clock=lambda: now[0], chance=lambda: chance)
    tried = 0
    while True:
        tried += 1
        now[0] += min(attempts.timeout_s(), 0.05)
        pause = attempts.pause_s(OverloadedError("busy", retry_delay_ms=delay_ms))
        if pause is None:
            break
        assert pause * 1000 >= (delay_ms or 0) - 1e-6  # Milliseconds as seconds are rounded.
        now[0] += pause
        assert now[0] <= total_ms / 1000
    assert tried <= policy.max_attempts
    assert now[0] <= total_ms / 1000 + 0.06


def test_what_cannot_succeed_is_not_repeated() -> None:
    attempts = Attempts(RetryPolicy(), Timeout())
    assert attempts.pause_s(InvalidFieldError("port is wrong", field="port")) is None


def test_a_delay_beyond_the_deadline_is_not_waited_for() -> None:
    attempts = Attempts(RetryPolicy(), Timeout(total_ms=1000))
    assert attempts.pause_s(UnavailableError("away", retry_delay_ms=5000)) is None


@pytest.mark.parametrize(
    "values",
    [
        {"max_attempts": 0},
        {"max_attempts": 101},
        {"initial_delay_ms": -1},
        {"initial_delay_ms": 10, "max_delay_ms": 5},
        {"multiplier": 0.5},
        {"multiplier": float("nan")},
    ],
)
def test_policies_without_sense_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        RetryPolicy(**values)


def test_timeouts_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Timeout(total_ms=0)


def test_one_attempt_is_a_policy() -> None:
    assert Attempts(RetryPolicy.never(), Timeout()).pause_s(UnavailableError("away")) is None
