"""Ports of loopback for nodes that have to be known by their address before they listen."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

PORTS = range(10_000, 32_000)
"""The system gives none of these to whoever asks for any, nor to a connection's own end: nobody
takes one in between, and a node that starts again finds its own free."""


def free_ports(count: int) -> list[int]:
    """So many that nobody listens on just now; held together, so that they differ."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(PORTS)
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports.append(port)
        return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
