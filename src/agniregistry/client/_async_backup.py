"""A backup of the asyncio client: `Backup`, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

import grpc

from agniregistry import types as t
from agniregistry.client._backup_calls import Order
from agniregistry.errors import AgniError


class AsyncBackup:
    """Iterates over a backup's parts, the last of which is a `BackupEnd`; a context manager.

    It doesn't resume: after an error, take another one from its beginning.
    """

    def __init__(
        self,
        stream: Any,
        to_error: Callable[[grpc.RpcError], AgniError],
        on_close: Callable[[AsyncBackup], None],
    ) -> None:
        self._stream = stream
        self._messages = aiter(stream)
        self._to_error = to_error
        self._on_close = on_close
        self._order = Order()

    def __aiter__(self) -> AsyncIterator[t.BackupPart]:
        return self

    async def __anext__(self) -> t.BackupPart:
        try:
            data = await anext(self._messages)
        except StopAsyncIteration:
            await self.aclose()
            self._order.check_ended()
            raise
        except grpc.RpcError as failure:
            await self.aclose()
            raise self._to_error(failure) from failure
        return self._order.part(data)

    async def aclose(self) -> None:
        """Ends it; safe to call twice."""
        self._stream.cancel()
        self._on_close(self)

    async def __aenter__(self) -> AsyncBackup:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
