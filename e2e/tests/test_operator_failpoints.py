"""The operator killed between every two of its actions: it goes on as if nothing had happened.

A scale-out, a scale-in and a roll are done once in peace. What the operator did is in its log; then
all is done again, in a registry of its own for each, with a SIGKILL before one of these actions.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from end_state import differences, end_of
from operator_handle import OperatorProcess
from operator_lab import Lab, Operators, several
from theatre import Theatre

from agni_e2e import Cluster
from agni_e2e.waiting import until

SCENARIOS: dict[str, dict[str, Any]] = {
    "scale-out": {"nodes": 4},
    "scale-in": {"nodes": 3},
    "roll": {"nodes": 3, "config": {"queue_limit": 1000}},
}
"""Each begins where the one before it ends."""
SAMPLE = (
    "ApplyChild StatefulSet/web-3",
    "RemoveMember web-3",
    "DeleteStatefulSet web-3",
    "DrainMember web-0",
    "DeletePod web-0-0",
    "ReturnMember web-0",
)
"""What `make e2e-quick` tries: where membership and objects are out of step, and in a roll."""
AT_ONCE = 4
"""Registries that are worked upon at the same time."""
DEATH_S = 60.0


@dataclass
class Peace:
    """What a scenario is like when nothing happens."""

    points: list[str] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)


@contextmanager
def settled(
    cluster: Cluster, theatre: Theatre, operators: Operators, spaces: list[str]
) -> Iterator[list[Lab]]:
    """Registries of three nodes that are settled, and that nobody looks after any more."""
    with several(cluster, theatre, operators, spaces) as found:
        founder = operators.start(*spaces)
        for lab in found:
            lab.apply()
        for lab in found:
            lab.settled(timeout_s=180.0)
        founder.stop()
        yield found


def settle(lab: Lab) -> None:
    """Waits until all is done and leaderships are even, which goes on a moment longer."""
    lab.settled()

    def is_even() -> bool:
        led = [node["leaders"] for node in lab.status().get("nodes") or ()]
        return bool(led) and max(led) - min(led) <= 1 and lab.is_settled()

    until("leaderships are even", is_even, timeout_s=60.0)


def still(lab: Lab) -> dict[str, Any]:
    """The end, when the garbage collector has come to its own."""
    seen: list[dict[str, Any]] = []

    def is_still() -> bool:
        seen.append(end_of(lab))
        return seen[-1] in seen[-2:-1]

    until("nothing changes any more", is_still, timeout_s=60.0, poll_s=2.0)
    return seen[-1]


def in_peace(lab: Lab) -> dict[str, Peace]:
    """All scenarios without a fault."""
    found = {}
    for name, changes in SCENARIOS.items():
        lab.apply(**changes)
        operator = lab.start(log_level="debug")
        settle(lab)
        operator.stop()
        points = [point for _, point in operator.actions()]
        found[name] = Peace(list(dict.fromkeys(points)), still(lab))
    return found


def killed(lab: Lab, point: str) -> OperatorProcess:
    """An operator that has died at a point."""
    operator = lab.start(failpoint=point, lease="the-dead")
    until(f"{point}: the operator dies", lambda: operator.code() is not None, timeout_s=DEATH_S)
    assert operator.code() == -signal.SIGKILL, operator.tail()
    assert operator.said(f"killed by the failpoint {point}")
    return operator


def disturbed(peace: dict[str, Peace], lab: Lab, points: dict[str, str]) -> list[str]:
    """All scenarios, each with a death if there is a point for it; answers what went wrong."""
    wrong = []
    for name, changes in SCENARIOS.items():
        lab.apply(**changes)
        if point := points.get(name):
            killed(lab, point)
        # A lease of its own: that of the dead would be waited for (test_operator_lease.py).
        operator = lab.start(lease=name)
        settle(lab)
        operator.stop()
        found = differences(still(lab), peace[name].end)
        wrong += [f"{lab.namespace}: {name}, killed before {point}: {line}" for line in found]
    return wrong


def test_operator_killed_between_any_two_actions(
    quick: Cluster, theatre: Theatre, operators: Operators, tell: Callable[[str], None]
) -> None:
    is_all = os.environ.get("E2E_FAILPOINTS") == "all"
    with settled(quick, theatre, operators, ["in-peace"]) as (lab,):
        peace = in_peace(lab)
    chosen = {
        name: [p for p in found.points if is_all or p.startswith(SAMPLE)]
        for name, found in peace.items()
    }
    tries = [
        {name: points[number] for name, points in chosen.items() if number < len(points)}
        for number in range(max(map(len, chosen.values())))
    ]
    spaces = [f"killed-{number}" for number in range(len(tries))]
    began = time.monotonic()
    with settled(quick, theatre, operators, spaces) as found, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(partial(disturbed, peace), found, tries)
        wrong = [words for each in answers for words in each]
    total = sum(map(len, chosen.values()))
    assert not wrong, "\n".join(wrong)
    took_s = time.monotonic() - began
    tell(f"{total} kills of the operator in {took_s:.0f} s, each with the end that it has in peace")
