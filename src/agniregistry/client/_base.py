"""What the sync and the async client share: options, channel settings, error mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc

from agniregistry import types as t
from agniregistry.client._status import error_from_status
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import AgniError

DEFAULT_TTL_MS = 15_000
"""The time to live of a registration that names none, in milliseconds."""

ALL = t.Filter()
"""The filter that everything of the default namespace matches."""

DEFAULT_READ = t.ReadOptions()
"""Reads as the server does by default: linearizable."""

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""The largest answer that a client accepts, in bytes; the server's pages are far smaller."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # The SDK's own retries know about reasons and delays; gRPC's would multiply with them.
    ("grpc.enable_retries", 0),
    # A restarted node should be found again within moments, not after gRPC's default of 1 s+.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A pod that comes again has another address. gRPC would ask for a name's address no more than
    # every 30 s, in which a rolling restart gives new ones to all nodes.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A watch on a dead connection must notice within 15 s, though it never sends anything: gRPC
    # would stop asking after two pings, and wait a minute for a ping that is on its way already.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    # Two clients of one process must not share (and close) a connection.
    ("grpc.use_local_subchannel_pool", 1),
)


Trace = Callable[[], Mapping[str, str]]
"""Answers the headers of the trace that a call is part of: `traceparent`, `tracestate`."""


def after_lost_answer(answer: Any) -> Any:
    """The answer to an attempt after one whose answer was lost: what it found gone may have been
    removed by that one."""
    if isinstance(answer, tuple):
        return tuple(map(after_lost_answer, answer))
    if isinstance(answer, t.Deregistered) and not answer.existed:
        return replace(answer, maybe_removed=True)
    return answer


class ClientBase:
    """Options, written once for both clients."""

    def __init__(
        self,
        target: str | Sequence[str],
        timeout: Timeout | None,
        retry: RetryPolicy | None,
        metadata: Sequence[tuple[str, str]],
        trace: Trace | None,
    ) -> None:
        self.target = target if isinstance(target, str) else ",".join(target)
        """Where the registry is, as it was given."""
        self.timeout = timeout or Timeout()
        """How long calls may take."""
        self.retry = retry or RetryPolicy()
        """When and how often calls are tried again."""
        self._metadata = tuple(metadata)
        self._trace = trace
        self._closing = False

    def _timeout(self, timeout_ms: int | None) -> Timeout:
        """This call's timeout: its own total, or the client's."""
        if timeout_ms is None:
            return self.timeout
        return Timeout(total_ms=timeout_ms, attempt_ms=min(timeout_ms, self.timeout.attempt_ms))

    def _headers(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call that begins."""
        if self._trace is None:
            return self._metadata
        return (*self._metadata, *self._trace().items())

    def _error(self, failure: grpc.RpcError) -> AgniError:
        """The typed error for what gRPC raised (grpc.Call and AioRpcError read alike)."""
        code = failure.code()
        message = failure.details() or code.name.lower().replace("_", " ")
        return error_from_status(code, message, failure.trailing_metadata(), closed=self._closing)
