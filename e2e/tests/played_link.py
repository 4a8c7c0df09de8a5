"""The operator's way to a registry that is played in another process: a question, an answer.

The operator under test is a process of its own, so that its memory, its time and its death are
real. What it imports beside the product must be little: this module, and nothing of the stage.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agniregistry.errors import AgniError, UnavailableError
from agniregistry.identity import Tls
from agniregistry_operator.link import Link
from agniregistry_operator.model import actions as a
from agniregistry_operator.model.observed import Registry

LENGTH = struct.Struct(">I")


def framed(message: object) -> bytes:
    """A message with its length before it."""
    content = pickle.dumps(message)
    return LENGTH.pack(len(content)) + content


def check_files(tls: Tls) -> None:
    """A certificate is there, and its key is the operator's alone."""
    assert Path(tls.cert_file).read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    assert Path(tls.key_file).stat().st_mode & 0o077 == 0


class PlayedLink(Link):
    """One registry as the operator reaches it."""

    def __init__(self, epoch: int, stage: str) -> None:
        super().__init__(epoch)
        self._stage = stage
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def aclose(self) -> None:
        """Ends the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def use(self, tls: Tls, addresses: Sequence[str]) -> None:
        """The certificate is a real one."""
        check_files(tls)

    async def look(self, addresses: Sequence[str]) -> Registry | None:
        """Whatever the stage says."""
        found: Registry | None = await self._ask("look", addresses)
        return found

    async def change(self, action: a.Action, addresses: Sequence[str]) -> None:
        """What nodes would do."""
        refused: AgniError | None = await self._ask("change", addresses, action)
        if refused is not None:
            raise refused

    async def _ask(self, *question: object) -> Any:
        async with self._turn:
            try:
                return await self._asked(framed((self._epoch, *question)))
            except (OSError, asyncio.IncompleteReadError) as error:
                await self.aclose()
                raise UnavailableError(f"the stage: {error}") from error
            except asyncio.CancelledError:
                # The answer would be taken for the next question's.
                await self.aclose()
                raise

    async def _asked(self, question: bytes) -> Any:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._stage)
        reader, writer = self._streams
        writer.write(question)
        await writer.drain()
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return pickle.loads(await reader.readexactly(length))
