"""A settled registry costs nearly nothing: no write, hardly any time, little memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from audit import requests_of
from chart_account import account_of_chart
from operator_lab import Lab

from agni_e2e.waiting import until

QUIET_S = float(os.environ.get("E2E_QUIET_S", "60"))
"""How long nothing is to happen; five minutes is what is promised (docs/e2e.md)."""
SHARE_MAX = 0.01
"""Of one core."""
MEMORY_MIB_MAX = 100.0


def test_a_settled_registry_is_left_in_peace(lab: Lab, tell: Callable[[str], None]) -> None:
    with account_of_chart(lab) as account:
        lab.apply()
        operator = lab.start(token=account.token, lease=account.name)
        lab.settled()

        def writes() -> list[str]:
            return requests_of(lab.cluster, account.user, writes=True)

        before, version = writes(), lab.registry()["metadata"]["resourceVersion"]
        began, used_s = time.monotonic(), operator.processor_s()
        until("the time is over", lambda: time.monotonic() - began > QUIET_S,
              timeout_s=QUIET_S + 10, poll_s=1.0)  # fmt: skip
        share = (operator.processor_s() - used_s) / (time.monotonic() - began)
        memory = operator.memory()
        tell(
            f"settled for {QUIET_S:.0f} s: {100 * share:.2f} % of a core, "
            f"{memory.now:.0f} MiB resident, {memory.most:.0f} at most"
        )
        assert writes() == before, json.dumps(writes()[len(before) :], indent=1)
        assert lab.registry()["metadata"]["resourceVersion"] == version
        assert share < SHARE_MAX
        assert memory.now < MEMORY_MIB_MAX
        operator.stop()
