"""Reads and writes the rich error status that gRPC carries in `grpc-status-details-bin`.

The messages are google.rpc.Status, ErrorInfo and RetryInfo, described here by hand in a pool of
their own: the SDK then needs neither googleapis-common-protos nor grpcio-status, and can't clash
with a program that uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from agniregistry.client._calls import code_number
from agniregistry.client._handshake import handshake_fault
from agniregistry.errors import (
    AgniError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    MessageTooLargeError,
    error_for,
)

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "agniregistry"
_PREFIX = "type.googleapis.com/google.rpc."
_FIELD = descriptor_pb2.FieldDescriptorProto


def _messages() -> Mapping[str, Any]:
    """Builds the message classes, wire-compatible with Google's."""
    file = descriptor_pb2.FileDescriptorProto(
        name="agniregistry/client/status.proto", package="agniregistry.client", syntax="proto3"
    )
    text, number, raw, nested = (
        _FIELD.TYPE_STRING, _FIELD.TYPE_INT64, _FIELD.TYPE_BYTES, _FIELD.TYPE_MESSAGE
    )  # fmt: skip
    layout: dict[str, list[tuple[str, int, Any, str, bool]]] = {
        "Any": [("type_url", 1, text, "", False), ("value", 2, raw, "", False)],
        "Status": [
            ("code", 1, number, "", False),
            ("message", 2, text, "", False),
            ("details", 3, nested, "Any", True),
        ],
        "Pair": [("key", 1, text, "", False), ("value", 2, text, "", False)],
        "ErrorInfo": [
            ("reason", 1, text, "", False),
            ("domain", 2, text, "", False),
            ("metadata", 3, nested, "Pair", True),
        ],
        "Duration": [("seconds", 1, number, "", False), ("nanos", 2, number, "", False)],
        "RetryInfo": [("retry_delay", 1, nested, "Duration", False)],
    }
    for name, fields in layout.items():
        message = file.message_type.add(name=name)
        for field, tag, kind, type_name, repeated in fields:
            item = message.field.add(name=field, number=tag, type=kind)
            item.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if type_name:
                item.type_name = f".agniregistry.client.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"agniregistry.client.{name}")
        )
        for name in layout
    }


_MESSAGE = _messages()


def encode_details(error: AgniError) -> bytes:
    """The details that a server sends along with this error."""
    status = _MESSAGE["Status"](code=code_number(error.code), message=error.message)
    info = _MESSAGE["ErrorInfo"](reason=error.reason, domain=DOMAIN)
    metadata = dict(error.metadata)
    if error.field:
        metadata["field"] = error.field
    for key, value in metadata.items():
        info.metadata.add(key=key, value=value)
    status.details.add(type_url=_PREFIX + "ErrorInfo", value=info.SerializeToString())
    if error.retry_delay_ms is not None:
        seconds, milliseconds = divmod(error.retry_delay_ms, 1000)
        retry = _MESSAGE["RetryInfo"]()
        retry.retry_delay.seconds = seconds
        retry.retry_delay.nanos = milliseconds * 1_000_000
        status.details.add(type_url=_PREFIX + "RetryInfo", value=retry.SerializeToString())
    encoded: bytes = status.SerializeToString()
    return encoded


def decode_details(data: bytes) -> tuple[str, dict[str, str], int | None]:
    """The reason, its metadata and the retry delay in milliseconds; unreadable bytes say nothing.

    Proxies may cut or replace trailers, so this never raises: the plain status code remains.
    """
    reason, delay_ms = "", None
    metadata: dict[str, str] = {}
    try:
        for detail in _MESSAGE["Status"].FromString(data).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                info = _MESSAGE["ErrorInfo"].FromString(detail.value)
                if info.domain == DOMAIN:
                    reason = info.reason
                    metadata = {pair.key: pair.value for pair in info.metadata}
            elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = _MESSAGE["RetryInfo"].FromString(detail.value).retry_delay
                delay_ms = max(0, delay.seconds * 1000 + delay.nanos // 1_000_000)
    except DecodeError:
        return reason, metadata, delay_ms
    return reason, metadata, delay_ms


def error_from_status(
    code: grpc.StatusCode, message: str, trailers: Any, *, closed: bool = False
) -> AgniError:
    """The typed error for a failed call.

    `closed` says that the client itself was closed, which gRPC reports as a cancellation.
    """
    reason, delay_ms = "", None
    metadata: dict[str, str] = {}
    for key, value in trailers or ():
        if key == DETAILS_KEY:
            reason, metadata, delay_ms = decode_details(value)
    if reason:
        return error_for(reason, code.name, message, metadata, delay_ms)
    if closed:
        return ClientClosedError("the client was closed during the call")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError("no answer in time; repeating the call is safe")
    if code is grpc.StatusCode.UNAVAILABLE and (fault := handshake_fault(message)):
        return ConnectionFailedError(fault[1], metadata={"tls": fault[0], "detail": message})
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ConnectionFailedError(
            f"no connection to the registry, or it broke: {message}", retry_delay_ms=delay_ms
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return MessageTooLargeError(message)
    return error_for("", code.name, message, metadata, delay_ms)
