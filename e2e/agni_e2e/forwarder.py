"""Lets connections to a port of loopback come out inside the sandbox, which has no way in.

It listens before it enters the sandbox's network, and connects after: a socket stays in the
network that it was made in. Its port is written to a file once it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import socket
from pathlib import Path

CHUNK_BYTES = 1 << 16
LOOPBACK = "127.0.0.1"


def enter_network(pid: int) -> None:
    """Moves this thread into the network of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        if libc.setns(namespace.fileno(), 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of a connection, to its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def serve(listener: socket.socket, host: str, port: int) -> None:
    """Serves until it is ended."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    server = await asyncio.start_server(handle, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Listens outside, connects inside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pid", type=int, required=True, help="a process of the network inside")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where it leads")
    parser.add_argument("--port-file", type=Path, required=True, help="told the port it listens at")
    arguments = parser.parse_args()
    host, _, port = arguments.to.rpartition(":")
    listener = socket.create_server((LOOPBACK, 0))
    enter_network(arguments.pid)
    unfinished = arguments.port_file.with_suffix(".unfinished")
    unfinished.write_text(str(listener.getsockname()[1]))
    unfinished.rename(arguments.port_file)
    asyncio.run(serve(listener, host, int(port)))


if __name__ == "__main__":
    main()
