"""Whether a history could have happened one operation after the other, record by record.

Wing and Gong's search with Lowe's memo of (linearized operations, state), over a doubly linked
list of calls and returns, as in porcupine. Each key stands for itself, which is what makes it
cheap. It doesn't trust revisions; `version_order` does, and judges far more operations.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


class _Timeline:
    """Calls and returns of one key in order of time, as a list that entries are lifted out of.

    Entry 0 is the head; operation i has its call at 1 + i and its return at 1 + count + i. A call
    and a return at one instant overlap. All operations have a known outcome.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.count = count = len(operations)
        moments = [(each.call_ns, 0, 1 + i) for i, each in enumerate(operations)]
        moments += [(each.return_ns or 0, 1, 1 + count + i) for i, each in enumerate(operations)]
        moments.sort()
        self.after = [_HEAD] * (1 + 2 * count)
        self.before = [_HEAD] * (1 + 2 * count)
        last = _HEAD
        for _, _, entry in moments:
            self.after[last], self.before[entry] = entry, last
            last = entry
        self.after[last], self.before[_HEAD] = _HEAD, last

    def lift(self, call: int) -> None:
        """Takes an operation out."""
        for entry in (call, call + self.count):
            self.after[self.before[entry]] = self.after[entry]
            self.before[self.after[entry]] = self.before[entry]

    def unlift(self, call: int) -> None:
        """Puts the operation that was last taken out back where it was."""
        for entry in (call + self.count, call):
            self.after[self.before[entry]] = entry
            self.before[self.after[entry]] = entry


class _Search:
    """One key's search.

    Unknown writes may be placed or not, which would double the work with each of them. Three
    things keep them cheap: they are tried last; one is placed only where the very next operation
    comes out differently because of it; and a configuration is given up if it was met before
    with no more of them placed, which leaves at least as much freedom.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.known = [each for each in operations if each.outcome is not Outcome.INFO]
        self.unknown = [each for each in operations if each.outcome is Outcome.INFO]
        self.unknown.sort(key=lambda each: each.call_ns)
        self.timeline = _Timeline(self.known)
        # What is placed: entries of the timeline, and -1 - j for unknown write j; with the state
        # before it, and the moment by which an unknown write must have been called.
        self.stack: list[tuple[int, State, int]] = []
        self.seen: dict[tuple[int, State], list[int]] = {}
        self.state: State = None
        self.placed = self.used = 0
        self.steps = 0
        self.best: tuple[tuple[Operation, ...], State, Operation | None] = ((), None, None)

    def run(self, steps_max: int, deadline_s: float) -> Result:
        """Searches until all known operations are placed, nothing is left to try, or for long."""
        timeline, count = self.timeline, self.timeline.count
        left, limit_ns = count, 0
        entry = timeline.after[_HEAD]
        while left:
            self.steps += 1
            late = self.steps % _LOOK_AT_CLOCK_EVERY == 0 and time.monotonic() > deadline_s
            if late or self.steps > steps_max:
                return Result.UNKNOWN
            if 0 < entry <= count:
                if self._place(entry, limit_ns):
                    left -= 1
                    timeline.lift(entry)
                    entry = _HEAD
                entry = timeline.after[entry]
                continue
            if entry > count:
                # A return comes before its operation has a place: only an unknown write helps.
                blocked = self.known[entry - 1 - count]
                limit_ns = blocked.return_ns or 0
                self._note(blocked)
                entry = -1
            if -entry <= len(self.unknown) and self.unknown[-1 - entry].call_ns <= limit_ns:
                entry = timeline.after[_HEAD] if self._place(entry, limit_ns) else entry - 1
                continue
            if not self.stack:
                return Result.VIOLATION
            entry, self.state, limit_ns = self.stack.pop()
            if entry < 0:
                self.used &= ~(1 << (-1 - entry))
                entry -= 1
            else:
                self.placed &= ~(1 << entry)
                left += 1
                timeline.unlift(entry)
                entry = timeline.after[entry]
        return Result.OK

    def operation(self, entry: int) -> Operation:
        """Which operation an entry of the stack stands for."""
        return self.unknown[-1 - entry] if entry < 0 else self.known[entry - 1]

    def _place(self, entry: int, limit_ns: int) -> bool:
        """Places an operation next, if that is possible, new and to some purpose."""
        placed, used = self.placed, self.used
        if entry < 0:
            bit = 1 << (-1 - entry)
            if used & bit:
                return False
            used |= bit
        else:
            placed |= 1 << entry
        operation = self.operation(entry)
        new = step(self.state, operation)
        if isinstance(new, Illegal):
            return False
        if self.stack and self.stack[-1][0] < 0 and step(self.stack[-1][1], operation) == new:
            return False
        masks = self.seen.setdefault((placed, new), [])
        if any(mask & used == mask for mask in masks):
            return False
        masks.append(used)
        self.stack.append((entry, self.state, limit_ns))
        self.state, self.placed, self.used = new, placed, used
        return True

    def _note(self, blocked: Operation) -> None:
        if self.best[2] is None or len(self.stack) > len(self.best[0]):
            prefix = tuple(self.operation(entry) for entry, _, _ in self.stack)
            self.best = (prefix, self.state, blocked)


def check_key(
    key: str,
    operations: Sequence[Operation],
    steps_max: int = STEPS_MAX,
    deadline_s: float = float("inf"),
) -> Verdict:
    """Judges one key's operations, all of them; `unknown` when the budget runs out."""
    search = _Search(operations)
    result = search.run(steps_max, deadline_s)
    if result is Result.OK:
        return Verdict(key, result, search.steps)
    return Verdict(key, result, search.steps, *search.best)


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
