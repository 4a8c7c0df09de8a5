"""A backup of the sync client: an iterator over its parts, which come as fast as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from agniregistry import types as t
from agniregistry.client._backup_calls import Order
from agniregistry.errors import AgniError


class Backup:
    """Iterates over a backup's parts, the last of which is a `BackupEnd`; a context manager.

    It doesn't resume: after an error, take another one from its beginning.
    """

    def __init__(
        self,
        stream: Any,
        to_error: Callable[[grpc.RpcError], AgniError],
        on_close: Callable[[Backup], None],
    ) -> None:
        self._stream = stream
        self._to_error = to_error
        self._on_close = on_close
        self._order = Order()

    def __iter__(self) -> Iterator[t.BackupPart]:
        return self

    def __next__(self) -> t.BackupPart:
        try:
            data = next(self._stream)
        except StopIteration:
            self.close()
            self._order.check_ended()
            raise
        except grpc.RpcError as failure:
            self.close()
            raise self._to_error(failure) from failure
        return self._order.part(data)

    def close(self) -> None:
        """Ends it; safe to call twice and from any thread."""
        self._stream.cancel()
        self._on_close(self)

    def __enter__(self) -> Backup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
