"""The life of a node's process: lock, start, wait for a signal, drain, stop.

Signals, in order of what can be lost by them (nothing that was acknowledged, at any time):
while the node recovers, a signal ends it at once; while it serves, the first one drains and
stops it; the second one ends it at once. "At once" is the kernel's own default action and not a
line of Python, so that it holds even when the interpreter is stuck.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from agniregistry_node.config import NodeConfig
from agniregistry_node.errors import EXIT_OK, EXIT_REMOVED
from agniregistry_node.layers import Layered
from agniregistry_node.lock import DataDirLock

if TYPE_CHECKING:
    from agniregistry_node._bridge import Server

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
REMOVED = "removed from the cluster"
LOOK_S = 1.0
"""Time between two looks at whether the node still belongs to its cluster."""

LEVELS = ("debug", "info", "warn", "error", "off")


def log_line(config: NodeConfig, level: str, message: str, **fields: Any) -> None:
    """One JSON object on standard error, in the form of the engine's own lines."""
    if LEVELS.index(level) < LEVELS.index(config.log_level):
        return
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"ts": now, "level": level, "msg": message, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


@contextmanager
def first_signal() -> Iterator[socket.socket]:
    """A socket that gives a byte, the signal's number, when this process is asked to stop.

    The handlers themselves do nothing: Python's C code writes the byte from whichever thread the
    kernel picked, so the main thread wakes up even if that was one of the engine's.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before_descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before_descriptor)
        reader.close()
        writer.close()


def run(layered: Layered) -> int:
    """Runs a node until it is asked to stop; answers the exit code.

    Raises:
        AgniNodeError: When it can't start.
    """
    from agniregistry_node._bridge import Server, build_profile, version

    config = layered.config
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    began_ns = monotonic_ns()
    with DataDirLock(config.data_dir):
        server = Server.start(config)
        with first_signal() as reader:
            changed = {
                name: getattr(config, name)
                for name, source in layered.sources.items()
                if source != "default"
            }
            log_line(
                config,
                "info",
                "node started",
                version=version,
                build_profile=build_profile,
                address=server.local_address(),
                data_dir=os.path.realpath(config.data_dir),
                pid=os.getpid(),
                start_ms=(monotonic_ns() - began_ns) // 1_000_000,
                settings=changed,
            )
            reason = wait_for_end(reader, server)
            # From here on a second signal ends the process at once.
            for each in STOP_SIGNALS:
                signal.signal(each, signal.SIG_DFL)
        patience = config.drain_timeout_ms
        log_line(config, "info", "draining", reason=reason, timeout_ms=patience)
        server.drain(patience)
        server.stop()
    log_line(config, "info", "node stopped")
    return EXIT_REMOVED if reason == REMOVED else EXIT_OK


def wait_for_end(reader: socket.socket, server: Server) -> str:
    """Waits until the process is asked to stop, or has no cluster any more; says which."""
    reader.settimeout(LOOK_S)
    while True:
        with suppress(TimeoutError):
            return signal.Signals(reader.recv(1)[0]).name
        if server.has_left():
            return REMOVED
