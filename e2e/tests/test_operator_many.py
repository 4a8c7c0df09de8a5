"""Fifty registries and one operator: how long it takes to settle them, and with how much memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import yaml
from operator_lab import Lab, Operators, registry_of, several
from theatre import Theatre

from agni_e2e import Cluster, PlatformError
from agni_e2e.waiting import until

REGISTRIES = 50
SETTLE_S_MAX = 180.0
BUSY_S_MAX = 480.0
"""The same on a machine that does a lot beside: that one's time is told, and no more."""
BUSY_LOAD = 3.0
"""What waits for each processor before the test begins, where that is so."""
MEMORY_MIB_MAX = 250.0


def test_fifty_registries_are_settled_by_one_small_operator(
    quick: Cluster, theatre: Theatre, operators: Operators, tell: Callable[[str], None]
) -> None:
    spaces = [f"many-{number:02}" for number in range(REGISTRIES)]
    with several(quick, theatre, operators, spaces) as found:
        is_busy = os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)
        operator = operators.start(lease="many")
        began = time.monotonic()
        registries = [registry_of(space) for space in spaces]
        quick.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(registries))
        late = wait_for_all(found, BUSY_S_MAX if is_busy else SETTLE_S_MAX)
        took_s, memory = time.monotonic() - began, operator.memory()
        tell(
            f"{REGISTRIES} registries of 3 nodes: settled in {took_s:.0f} s, "
            f"{memory.most:.0f} MiB resident at most, {operator.processor_s():.0f} s of a processor"
        )
        assert not late, f"not settled within {took_s:.0f} s: {late}"
        assert memory.most < MEMORY_MIB_MAX
        assert all(lab.stage.model.joins == 3 for lab in found)
        operator.stop()


def wait_for_all(labs: list[Lab], timeout_s: float) -> list[str]:
    """Waits until all are settled; answers those that weren't in time."""
    late = {lab.namespace: lab for lab in labs}

    def is_done() -> bool:
        for space in [s for s, lab in late.items() if lab.is_settled()]:
            del late[space]
        return not late

    try:
        until("all registries are settled", is_done, timeout_s=timeout_s, poll_s=1.0)
    except PlatformError:
        return sorted(late)
    return []
