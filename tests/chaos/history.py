"""What the clients of a chaos run did and saw: the one input that all checkers share.

One process stamps calls and returns with one monotonic clock, so the order in real time is sound.
Record each attempt as an operation of its own: what an SDK retries by itself is two operations.
An answer is `ok`, `fail` (certainly not applied) or `info` (unknown, as after a timeout).
The file is JSON lines. A call is written before it is made and its answer after, so a harness
that is killed leaves calls without answers, which count as unknown, and at most one torn line.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

INFINITY = math.inf
WRITES = frozenset({"register", "update", "deregister", "renew", "expire"})
READS = frozenset({"get"})
REFUSALS = frozenset({"NOT_FOUND", "STALE_INCARNATION", "REVISION_MISMATCH", "ALREADY_EXISTS"})
"""Refusals that are decided from the record's state, and so say something about it."""


class HistoryError(Exception):
    """A history that no checker may trust."""


class Outcome(StrEnum):
    """What is known of an operation's effect."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. `value` stands for the whole spec and is unique to one write."""

    value: str = ""
    incarnation: int = 0
    expected_revision: int | None = None
    ttl_ms: int = 0
    lease_id: int = 0
    consistency: str = "linearizable"


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered.

    `revision` is the record's own, 0 where there is none; `store_revision` is the partition's,
    from the header. `value` is none where a read found no record.
    """

    partition: int = 0
    revision: int = 0
    store_revision: int = 0
    create_revision: int = 0
    term: int = 0
    node: str = ""
    value: str | None = None
    incarnation: int = 0
    lease_id: int = 0
    ttl_ms: int = 0
    created: bool = False
    existed: bool = False
    status: str = ""
    age_ms: int = 0
    reason: str = ""


NOTHING_ASKED = Request()
NOTHING_SAID = Reply()


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client, times in nanoseconds of the harness's monotonic clock."""

    proc: int
    key: str
    f: str
    request: Request
    call_ns: int
    return_ns: int | None
    reply: Reply
    outcome: Outcome

    @property
    def is_write(self) -> bool:
        """Whether it may change a record."""
        return self.f in WRITES

    @property
    def end_ns(self) -> float:
        """Until when it may take effect: without end where its outcome is unknown."""
        if self.outcome is Outcome.INFO or self.return_ns is None:
            return INFINITY
        return self.return_ns

    def __str__(self) -> str:
        end = "?" if self.return_ns is None else f"{self.return_ns / 1e9:.6f}"
        asked = _compact(self.request, NOTHING_ASKED)
        said = _compact(self.reply, NOTHING_SAID)
        span = f"[{self.call_ns / 1e9:.6f}, {end}] s"
        return f"proc {self.proc} {self.f} {self.key} {asked} -> {self.outcome} {said} {span}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which one (I5, Ordered, ...), how, and by what."""

    rule: str
    message: str
    operations: tuple[Operation, ...] = field(default=())

    def __str__(self) -> str:
        return "\n    ".join((f"{self.rule}: {self.message}", *map(str, self.operations)))


def judged(operations: Iterable[Operation]) -> Iterator[Operation]:
    """The operations that say something about the state.

    An unknown write may take effect at any time after its call; an unknown read says nothing, nor
    does a refusal that has nothing to do with the record, such as for overload.
    """
    for operation in operations:
        match operation.outcome:
            case Outcome.OK:
                yield operation
            case Outcome.INFO if operation.is_write:
                yield replace(operation, return_ns=None)
            case Outcome.FAIL if operation.reply.reason in REFUSALS:
                yield operation


def check_one_in_flight(operations: Iterable[Operation]) -> None:
    """A client waits for its answer, or gives up, before it calls again."""
    busy: dict[int, tuple[float, Operation]] = {}
    for operation in sorted(operations, key=lambda each: each.call_ns):
        until, before = busy.get(operation.proc, (-INFINITY, operation))
        if operation.call_ns < until:
            message = f"proc {operation.proc} has two operations in flight"
            raise HistoryError(f"{message}: {before} and {operation}")
        end = INFINITY if operation.return_ns is None else operation.return_ns
        if end < operation.call_ns:
            raise HistoryError(f"it returns before its call: {operation}")
        # Only an operation that the harness itself did not survive has no return.
        busy[operation.proc] = (end, operation)


def _compact(item: Request | Reply, nothing: Request | Reply) -> dict[str, Any]:
    """Its fields that are not as they are by default."""
    defaults = asdict(nothing)
    return {name: value for name, value in asdict(item).items() if value != defaults[name]}


def _call_part(operation: Operation) -> dict[str, Any]:
    return {
        "proc": operation.proc,
        "key": operation.key,
        "f": operation.f,
        "in": _compact(operation.request, NOTHING_ASKED),
        "call_ns": operation.call_ns,
    }


def _return_part(operation: Operation) -> dict[str, Any]:
    return {
        "return_ns": operation.return_ns,
        "out": _compact(operation.reply, NOTHING_SAID),
        "class": operation.outcome.value,
    }


def _known(kind: type[Request | Reply], given: dict[str, Any]) -> dict[str, Any]:
    unknown = given.keys() - {each.name for each in fields(kind)}
    if unknown:
        raise HistoryError(f"unknown fields in a {kind.__name__}: {sorted(unknown)}")
    return given


def _decode(line: dict[str, Any]) -> Operation:
    said = line.get("out", {})
    return Operation(
        proc=line["proc"],
        key=line["key"],
        f=line["f"],
        request=Request(**_known(Request, line["in"])) if line["in"] else NOTHING_ASKED,
        call_ns=line["call_ns"],
        return_ns=line.get("return_ns"),
        reply=Reply(**_known(Reply, said)) if said else NOTHING_SAID,
        outcome=Outcome(line.get("class", "info")),
    )


class Recorder:
    """Writes a history while it happens; threads may share it."""

    def __init__(self, path: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._busy: dict[int, tuple[int, Operation]] = {}
        self._calls = 0
        if path.exists():
            _cut_torn_line(path)
            self._calls = path.read_bytes().count(b"\n")
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, proc: int, key: str, f: str, request: Request = NOTHING_ASKED) -> None:
        """Notes that a client is about to call."""
        if f not in WRITES | READS:
            raise HistoryError(f"f must be one of {sorted(WRITES | READS)}, not {f!r}")
        with self._lock:
            if proc in self._busy:
                raise HistoryError(f"proc {proc} has a call in flight, use another proc")
            self._calls += 1
            now = self._clock()
            started = Operation(proc, key, f, request, now, None, NOTHING_SAID, Outcome.INFO)
            self._busy[proc] = (self._calls, started)
            self._write({"id": self._calls, **_call_part(started)})

    def answer(self, proc: int, outcome: Outcome, reply: Reply = NOTHING_SAID) -> Operation:
        """Notes what came of the client's call."""
        now = self._clock()
        with self._lock:
            if proc not in self._busy:
                raise HistoryError(f"proc {proc} has no call in flight")
            number, started = self._busy.pop(proc)
            done = replace(started, return_ns=now, reply=reply, outcome=outcome)
            self._write({"id": number, **_return_part(done)})
            return done

    def close(self) -> None:
        """Ends the file; calls that are still in flight count as unknown."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        # One write of a whole line: a kill tears at most the last one.
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _cut_torn_line(path: Path) -> None:
    whole = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, whole)


def write_history(path: Path, operations: Iterable[Operation]) -> None:
    """Writes a history that is complete already, a line an operation."""
    with path.open("w") as file:
        for each in operations:
            line = {**_call_part(each), **_return_part(each)}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def read_history(path: Path) -> list[Operation]:
    """Reads a history in order of the calls; a torn last line is left out.

    Raises:
        HistoryError: if anything but the last line is damaged, or a client had two in flight.
    """
    done: list[Operation] = []
    calls: dict[int, dict[str, Any]] = {}
    lines = path.read_bytes().split(b"\n")
    # What follows the last line feed is torn, or empty.
    for number, text in enumerate(lines[:-1], 1):
        try:
            line = json.loads(text)
            if "call_ns" not in line:
                done.append(_decode({**calls.pop(line["id"]), **line}))
            elif "class" in line:
                done.append(_decode(line))
            else:
                calls[line["id"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise HistoryError(f"{path.name}:{number} is damaged: {error!r}") from error
    done.extend(map(_decode, calls.values()))
    done.sort(key=lambda each: each.call_ns)
    # A harness that was started again uses its clients' numbers again.
    check_one_in_flight(each for each in done if each.return_ns is not None)
    return done
