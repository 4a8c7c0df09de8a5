"""Two operators and one lease: one acts, and the other one takes over when it is time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from operator_handle import STOP_S, OperatorProcess
from operator_lab import Lab

from agni_e2e.waiting import until
from agniregistry.errors import ConflictError
from agniregistry_operator.model import actions as a

AFTER_A_KILL_S_MAX = 15.0
AFTER_A_STOP_S_MAX = STOP_S


def waiting(lab: Lab) -> OperatorProcess:
    """One that would act if there were no other."""
    operator = lab.start()
    until("it waits", lambda: operator.said("waits for the lease"), timeout_s=30.0)
    return operator


def acts_after(lab: Lab, operator: OperatorProcess, began: float) -> float:
    """How long after a moment the operator has first done something for the registry."""
    until("the other one acts", operator.actions, timeout_s=60.0, poll_s=0.02)
    took_s = time.monotonic() - began
    lab.settled()
    return took_s


def since(lab: Lab) -> dict[str, str]:
    """When each condition last changed."""
    return {c["type"]: c["lastTransitionTime"] for c in lab.status()["conditions"]}


def test_the_other_one_takes_over(lab: Lab, tell: Callable[[str], None]) -> None:
    lab.apply()
    first = lab.start()
    lab.settled()
    second = waiting(lab)
    before = since(lab)

    began = time.monotonic()
    first.kill()
    killed_s = acts_after(lab, second, began)

    third = waiting(lab)
    began = time.monotonic()
    second.signal(signal.SIGTERM)
    stopped_s = acts_after(lab, third, began)
    until("the second one ends", lambda: second.code() is not None, timeout_s=30.0)
    tell(f"another operator acts {killed_s:.1f} s after SIGKILL, {stopped_s:.1f} s after SIGTERM")
    assert second.code() == 0
    assert killed_s < AFTER_A_KILL_S_MAX
    assert stopped_s < AFTER_A_STOP_S_MAX
    assert since(lab) == before, "a settled registry stays so while its operators change"
    assert lab.stage.epochs == sorted(set(lab.stage.epochs)), "each has a higher epoch"


def test_one_that_was_paused_does_no_harm(lab: Lab) -> None:
    lab.apply()
    first = lab.start()
    lab.settled()
    second = waiting(lab)
    first.signal(signal.SIGSTOP)
    try:
        until("the second one leads", lambda: second.said("leads with epoch"), timeout_s=30.0)
        lab.apply(nodes=4)
        lab.settled()
        old, new = lab.stage.epochs
        done = first.actions()
    finally:
        first.signal(signal.SIGCONT)
    until("the first one ends", lambda: first.code() is not None, timeout_s=15.0)
    assert first.code() == 1
    assert first.said("the lease is lost")
    assert first.actions() == done, "it has done nothing after its pause"
    assert lab.stage.epoch == new
    with pytest.raises(ConflictError, match="somebody else has taken over") as refused:
        lab.stage.change(old, a.DrainMember(1, "web-0", "it is paused no more"))
    assert refused.value.reason == "EPOCH_OUTDATED"
    assert lab.is_settled()
