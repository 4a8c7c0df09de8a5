"""Whether a history could have happened one operation after the other, record by record.

Wing and Gong's search with Lowe's memo of (linearized operations, state), over a doubly linked
list of calls and returns, as in porcupine. Each key stands for itself, which is what makes it
cheap. It doesn't trust revisions; `version_order` does, and judges far more operations.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from history import Operation, Outcome, Violation, judged
from record_model import Illegal, State, step

STEPS_MAX = 20_000_000
SECONDS_MAX = 60.0
_LOOK_AT_CLOCK_EVERY = 4_096
_HEAD = 0


class Result(StrEnum):
    """What the search came to."""

    OK = "ok"
    VIOLATION = "violation"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One key's result; where it isn't ok, the longest order that was found and what stopped it."""

    key: str
    result: Result
    steps: int
    prefix: tuple[Operation, ...] = ()
    state: State = None
    offending: Operation | None = None

    def __str__(self) -> str:
        if self.result is Result.OK:
            return f"{self.key}: ok after {self.steps} steps"
        lines = [
            f"{self.key}: {self.result} after {self.steps} steps",
            f"  {len(self.prefix)} operations have a place, then the record is {self.state}",
            *(f"  ... {each}" for each in self.prefix[-5:]),
        ]
        if self.offending is not None:
            lines.append(f"  which has no place: {self.offending}")
        return "\n".join(lines)


@dataclass
class _Timeline:
    """Calls and returns of one key in order of time, as a list that entries are lifted out of.

    Entry 0 is the head; operation i has its call at 1 + i and its return at 1 + count + i.
    Unknown outcomes have no return. A call and a return at one instant overlap.
    """

    operations: Sequence[Operation]
    after: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.operations)
        moments = [(each.call_ns, 0, 1 + i) for i, each in enumerate(self.operations)]
        moments += [
            (each.return_ns, 1, 1 + count + i)
            for i, each in enumerate(self.operations)
            if each.return_ns is not None and each.outcome is not Outcome.INFO
        ]
        moments.sort()
        self.after = [_HEAD] * (1 + 2 * count)
        self.before = [_HEAD] * (1 + 2 * count)
        last = _HEAD
        for _, _, entry in moments:
            self.after[last], self.before[entry] = entry, last
            last = entry
        self.after[last], self.before[_HEAD] = _HEAD, last

    def _pair(self, call: int) -> tuple[int, ...]:
        operation = self.operations[call - 1]
        if operation.outcome is Outcome.INFO or operation.return_ns is None:
            return (call,)
        return (call, call + len(self.operations))

    def lift(self, call: int) -> None:
        """Takes an operation out."""
        for entry in self._pair(call):
            self.after[self.before[entry]] = self.after[entry]
            self.before[self.after[entry]] = self.before[entry]

    def unlift(self, call: int) -> None:
        """Puts the operation that was last taken out back where it was."""
        for entry in reversed(self._pair(call)):
            self.after[self.before[entry]] = entry
            self.before[self.after[entry]] = entry


def check_key(
    key: str,
    operations: Sequence[Operation],
    steps_max: int = STEPS_MAX,
    deadline_s: float = float("inf"),
) -> Verdict:
    """Judges one key's operations, all of them; `unknown` when the budget runs out."""
    timeline = _Timeline(operations)
    count = len(operations)
    definite = [each.outcome is not Outcome.INFO for each in operations]
    left = sum(definite)
    state: State = None
    placed, steps = 0, 0
    stack: list[tuple[int, State]] = []
    seen: set[tuple[int, State]] = {(0, None)}
    best: tuple[list[int], State, Operation | None] = ([], None, None)
    entry = timeline.after[_HEAD]
    while left:
        steps += 1
        late = steps % _LOOK_AT_CLOCK_EVERY == 0 and time.monotonic() > deadline_s
        if late or steps > steps_max:
            return _verdict(key, Result.UNKNOWN, steps, operations, best)
        if _HEAD < entry <= count:
            new = step(state, operations[entry - 1])
            mask = placed | (1 << (entry - 1))
            if not isinstance(new, Illegal) and (mask, new) not in seen:
                seen.add((mask, new))
                stack.append((entry, state))
                state, placed = new, mask
                left -= definite[entry - 1]
                timeline.lift(entry)
                entry = timeline.after[_HEAD]
            else:
                entry = timeline.after[entry]
            continue
        # A return that comes before its operation has a place: one of the choices was wrong.
        if best[2] is None or len(stack) > len(best[0]):
            best = ([call for call, _ in stack], state, operations[entry - 1 - count])
        if not stack:
            return _verdict(key, Result.VIOLATION, steps, operations, best)
        entry, state = stack.pop()
        placed &= ~(1 << (entry - 1))
        left += definite[entry - 1]
        timeline.unlift(entry)
        entry = timeline.after[entry]
    return Verdict(key, Result.OK, steps)


def _verdict(
    key: str,
    result: Result,
    steps: int,
    operations: Sequence[Operation],
    best: tuple[list[int], State, Operation | None],
) -> Verdict:
    calls, state, offending = best
    prefix = tuple(operations[call - 1] for call in calls)
    return Verdict(key, result, steps, prefix, state, offending)


def check(
    operations: Iterable[Operation],
    steps_max: int = STEPS_MAX,
    seconds_max: float = SECONDS_MAX,
) -> list[Verdict]:
    """Judges each key of a history within a budget of steps a key and of time for them all.

    Stale reads promise less and renewals change no record, so both are left out. Keys with leases
    need their expiries as unknown `expire` operations.
    """
    deadline = time.monotonic() + seconds_max
    keys: dict[str, list[Operation]] = defaultdict(list)
    for each in judged(operations):
        if each.f != "renew" and each.request.consistency != "stale":
            keys[each.key].append(each)
    return [check_key(key, listed, steps_max, deadline) for key, listed in sorted(keys.items())]


def violations(verdicts: Iterable[Verdict]) -> list[Violation]:
    """The verdicts that are violations, in the form that all checkers share."""
    found = []
    for each in verdicts:
        if each.result is Result.VIOLATION:
            offending = () if each.offending is None else (each.offending,)
            found.append(Violation("I2", f"not linearizable: {each}", offending))
    return found
