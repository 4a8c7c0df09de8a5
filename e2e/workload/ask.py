"""Asks the load one question, `begin`, `report`, `nodes`, `linked` or `calm`; prints the answer."""

from __future__ import annotations

import os
import socket
import sys

SOCKET = os.environ.get("LOAD_SOCKET", "/tmp/load")


def main() -> None:
    """Asks and prints."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        connection.sendall(sys.argv[1].encode() + b"\n")
        with connection.makefile() as answer:
            print(answer.read(), end="")


if __name__ == "__main__":
    main()
