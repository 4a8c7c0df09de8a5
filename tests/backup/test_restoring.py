"""How a restore deals with answers that are lost, late or refused: against a registry to order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from archive_model import record
from hypothesis import given
from hypothesis import strategies as st

from agniregistry import types as t
from agniregistry.api.v1 import types_pb2
from agniregistry.backup import read_record
from agniregistry.cli import restoring
from agniregistry.errors import (
    AlreadyExistsError,
    InternalError,
    InvalidFieldError,
    OutcomeUnknownError,
    OverloadedError,
)


class Registry:
    """Keeps records by name and answers as told."""

    def __init__(self, answer: Callable[[str, int], Exception | None]) -> None:
        self.stored: dict[str, bytes] = {}
        self.attempts: Counter[str] = Counter()
        self.renewed: Counter[int] = Counter()
        self.drained: list[t.DeregisterOperation] = []
        self.lost: set[int] = set()
        self.renewal_failures = 0
        self._answer = answer
        self._lock = threading.Lock()

    def restore(self, records: Sequence[bytes]) -> tuple[Any, ...]:
        with self._lock:
            return tuple(self._put(each) for each in records)

    def _put(self, data: bytes) -> Any:
        wanted = read_record(data)
        self.attempts[wanted.name] += 1
        failure = self._answer(wanted.name, self.attempts[wanted.name])
        if failure is not None and not isinstance(failure, OutcomeUnknownError):
            return failure
        created = wanted.name not in self.stored
        if not created and self.stored[wanted.name] != data:
            return AlreadyExistsError("it exists")
        self.stored[wanted.name] = data
        if failure is not None:
            return failure
        lease = int(wanted.name) if wanted.ttl_ms else 0
        return t.Registered(
            key=t.Key.agent(wanted.name), revision=1, create_revision=1, lease_id=lease,
            ttl_ms=wanted.ttl_ms, next_renewal_ms=50, created=created, incarnation=0,
            header=t.Header("", 0, 1, 1, 0),
        )  # fmt: skip

    def renew(self, lease_ids: Sequence[int]) -> t.Renewed:
        with self._lock:
            if self.renewal_failures:
                self.renewal_failures -= 1
                raise OverloadedError("later")
            lost = self.lost & set(lease_ids)
            self.renewed.update(set(lease_ids) - lost)
            return t.Renewed(len(lease_ids) - len(lost), tuple(lost), 50)

    def batch(self, operations: Sequence[t.DeregisterOperation]) -> tuple[Any, ...]:
        with self._lock:
            self.drained += operations
            return tuple(t.Deregistered(1, True, t.Header("", 0, 1, 1, 0)) for _ in operations)


def run(registry: Registry, records: list[bytes]) -> tuple[restoring.Restored, int]:
    """What a restore of these does, and how many it said were handed over."""
    seen: list[int] = []
    done = restoring.restore(registry, records, seen.append)  # type: ignore[arg-type]
    return done, sum(seen)


def test_what_can_not_be_done_now_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PAUSE_S", 0.001)

    def answer(name: str, attempt: int) -> Exception | None:
        match int(name) % 4, attempt:
            case 0, 1 | 2:
                return OverloadedError("later")
            case 1, 1:
                return OutcomeUnknownError("it may have been done")
        return None

    registry = Registry(answer)
    records = [record(str(each), ttl_ms=15_000) for each in range(1, 1_201)]
    done, told = run(registry, records)
    assert told == 1_200
    assert len(registry.stored) == 1_200
    # Where the outcome was unknown, the repeat finds the record there.
    assert (done.created, done.present) == (900, 300)
    assert (done.kept, done.refused, done.expired) == (0, 0, 0)
    assert set(registry.renewed) == set(range(1, 1_201)), "each lease has its full time at the end"


def test_what_exists_and_what_is_refused_is_told() -> None:
    registry = Registry(
        lambda name, _: InvalidFieldError("no", field="spec") if name == "3" else None
    )
    registry.stored = {"1": record("1"), "2": record("2", {"other": "content"})}
    done, _ = run(registry, [record(str(each)) for each in range(1, 6)])
    assert (done.created, done.present, done.kept, done.refused) == (2, 1, 1, 1)
    assert done.refusals == ["default/agent/3: no [INVALID_FIELD]"]
    assert registry.stored["2"] == record("2", {"other": "content"})


def test_leases_that_are_lost_are_counted_and_late_renewals_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restoring, "PAUSE_S", 0.001)
    registry = Registry(lambda *_: None)
    registry.lost, registry.renewal_failures = {2}, 3
    done, _ = run(registry, [record(str(each), ttl_ms=1_000) for each in range(1, 4)])
    assert done.expired == 1
    assert set(registry.renewed) == {1, 3}


def test_leases_of_others_are_not_kept_alive() -> None:
    registry = Registry(lambda *_: None)
    registry.stored = {"1": record("1", ttl_ms=1_000)}
    run(registry, [record("1", ttl_ms=1_000), record("2", ttl_ms=1_000)])
    assert set(registry.renewed) == {2}


def test_what_was_draining_drains_for_as_long_as_it_was_asked_to() -> None:
    message = types_pb2.Record.FromString(record("1", updated_unix_ms=1_000))
    message.draining.CopyFrom(types_pb2.Draining(deadline_unix_ms=61_000, successor="2"))
    registry = Registry(lambda *_: None)
    run(registry, [message.SerializeToString(), record("2")])
    (drained,) = registry.drained
    assert (drained.key.name, drained.drain_ms, drained.successor) == ("1", 60_000, "2")


def test_a_refusal_for_good_ends_it_and_leaves_leases_alone() -> None:
    registry = Registry(lambda *_: None)

    def broken(_: Sequence[bytes]) -> tuple[Any, ...]:
        raise InternalError("a fault")

    registry.restore = broken  # type: ignore[method-assign]
    with pytest.raises(InternalError):
        run(registry, [record("1", ttl_ms=1_000)])
    assert not registry.renewed


@given(st.lists(st.integers(0, 300_000), max_size=30))
def test_a_portion_fits_a_call(sizes: list[int]) -> None:
    records = [bytes(size) for size in sizes]
    found = list(restoring.batches(records))
    assert [each for batch in found for each in batch] == records
    for batch in found:
        assert 1 <= len(batch) <= restoring.BATCH_RECORDS_MAX
        assert len(batch) == 1 or sum(map(len, batch)) <= restoring.BATCH_BYTES_MAX
