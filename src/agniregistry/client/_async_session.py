"""`AsyncSession`: `_session.Session` for asyncio."""

from __future__ import annotations

from typing import Protocol, TypeVar

from agniregistry import types as t
from agniregistry.client import _calls as calls
from agniregistry.client._async_calls import AsyncDataCalls
from agniregistry.client._session import Seen
from agniregistry.errors import NotFoundError

T = TypeVar("T")


class SendCall(Protocol):
    """What sends a call for a session."""

    async def __call__(self, call: calls.Call[T], timeout_ms: int | None, /) -> T:
        """Sends it until it is answered."""
        ...


class AsyncSession(AsyncDataCalls):
    """Reads and writes as the client's, remembering what they have shown; never to be closed."""

    def __init__(self, send: SendCall) -> None:
        self._send = send
        self._seen = Seen()

    async def _call(self, call: calls.Call[T], timeout_ms: int | None) -> T:
        try:
            answer = await self._send(call, timeout_ms)
        except NotFoundError as error:
            self._seen.see_missing(error)
            raise
        self._seen.see(answer)
        return answer

    def _read(self, read: t.ReadOptions) -> t.ReadOptions:
        return self._seen.demand(read)
