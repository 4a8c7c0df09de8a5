"""For tests: the operator kills itself at a point that is named, as a crash there would.

The names are those of actions, and `WriteStatus KIND/STEP` before a status is written.
"""

from __future__ import annotations

import logging
import os
import signal

log = logging.getLogger("agniregistry.operator")

VARIABLE = "AGNI_OPERATOR_FAILPOINT"
"""It dies at the first point whose name begins with this variable's value."""


def reach(point: str) -> None:
    """Says that a point is reached; returns unless it is the one."""
    prefix = os.environ.get(VARIABLE)
    if prefix and point.startswith(prefix):
        log.error("killed by the failpoint %s at %s", prefix, point)
        os.kill(os.getpid(), signal.SIGKILL)
