"""Serves any object with the registry's methods over gRPC on loopback.

The fake uses it, so that both clients, and programs in other languages, can be tested against it
over a real connection. It lives here because only the client knows wire messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message

from agniregistry import types as t
from agniregistry.api.v1 import cluster_pb2 as c
from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.client import _calls as calls
from agniregistry.client import _convert as convert
from agniregistry.client._status import DETAILS_KEY, encode_details
from agniregistry.client._watch_core import encode_message, request_from_wire
from agniregistry.errors import AgniError, InvalidFieldError

WORKERS = 64
"""Threads of the server: each watch holds one, so this bounds the watches too."""

Answer = Callable[[Any, bytes], Message]


def _expected(message: Any) -> int | None:
    return message.expected_revision if message.HasField("expected_revision") else None


def _need(message: Any, *fields: str) -> None:
    for field in fields:
        if not message.HasField(field):
            raise InvalidFieldError(f"{field} is missing", field=field)


def _key(message: Any) -> t.Key:
    if message.key.kind not in convert.KINDS.values():
        raise InvalidFieldError("key.kind must be gateway or agent", field="key.kind")
    return convert.key_from_wire(message.key)


def _register_operation(message: r.RegisterRequest) -> t.RegisterOperation:
    _need(message, "spec", "key")
    return t.RegisterOperation(
        _key(message),
        convert.spec_from_wire(message.spec),
        message.ttl_ms,
        message.incarnation,
        _expected(message),
    )


def _update_operation(message: r.UpdateRequest) -> t.UpdateOperation:
    _need(message, "key", "spec")
    return t.UpdateOperation(
        _key(message),
        convert.spec_from_wire(message.spec),
        tuple(message.update_mask.paths),
        message.incarnation,
        _expected(message),
    )


def _deregister_operation(message: r.DeregisterRequest) -> t.DeregisterOperation:
    _need(message, "key")
    return t.DeregisterOperation(
        _key(message),
        message.incarnation,
        _expected(message),
        message.drain_ms,
        message.successor,
    )


def _registered(answer: t.Registered) -> r.RegisterResponse:
    return r.RegisterResponse(
        header=convert.header_to_wire(answer.header),
        key=convert.key_to_wire(answer.key),
        revision=answer.revision,
        create_revision=answer.create_revision,
        lease_id=answer.lease_id,
        ttl_ms=answer.ttl_ms,
        next_renewal_ms=answer.next_renewal_ms,
        created=answer.created,
        incarnation=answer.incarnation,
    )


def _updated(answer: t.Updated) -> r.UpdateResponse:
    return r.UpdateResponse(header=convert.header_to_wire(answer.header), revision=answer.revision)


def _deregistered(answer: t.Deregistered) -> r.DeregisterResponse:
    return r.DeregisterResponse(
        header=convert.header_to_wire(answer.header),
        revision=answer.revision,
        existed=answer.existed,
    )


def _put(registry: Any, data: bytes) -> Message:
    o = _register_operation(r.RegisterRequest.FromString(data))
    return _registered(
        registry.put(
            o.key,
            o.spec,
            ttl_ms=o.ttl_ms,
            incarnation=o.incarnation,
            expected_revision=o.expected_revision,
        )
    )


def _update(registry: Any, data: bytes) -> Message:
    o = _update_operation(r.UpdateRequest.FromString(data))
    return _updated(
        registry.update(
            o.key,
            o.spec,
            o.update_mask,
            incarnation=o.incarnation,
            expected_revision=o.expected_revision,
        )
    )


def _deregister(registry: Any, data: bytes) -> Message:
    o = _deregister_operation(r.DeregisterRequest.FromString(data))
    return _deregistered(
        registry.deregister(
            o.key,
            incarnation=o.incarnation,
            expected_revision=o.expected_revision,
            drain_ms=o.drain_ms,
            successor=o.successor,
        )
    )


def _batch(registry: Any, data: bytes) -> Message:
    operations: list[t.BatchOperation | AgniError] = []
    for item in r.BatchRequest.FromString(data).operations:
        try:
            match item.WhichOneof("operation"):
                case "register":
                    operations.append(_register_operation(item.register))
                case "update":
                    operations.append(_update_operation(item.update))
                case "deregister":
                    operations.append(_deregister_operation(item.deregister))
                case _:
                    message = "operations has one that says not what to do"
                    operations.append(InvalidFieldError(message, field="operations"))
        except InvalidFieldError as error:
            operations.append(error)
    sound = [o for o in operations if not isinstance(o, AgniError)]
    answers = iter(registry.batch(sound) if sound or not operations else ())
    return r.BatchResponse(
        results=[
            _write_result(o if isinstance(o, AgniError) else next(answers)) for o in operations
        ]
    )


def _write_result(answer: calls.BatchResult) -> r.WriteResult:
    match answer:
        case t.Registered():
            return r.WriteResult(register=_registered(answer))
        case t.Updated():
            return r.WriteResult(update=_updated(answer))
        case t.Deregistered():
            return r.WriteResult(deregister=_deregistered(answer))
    metadata = dict(answer.metadata) | ({"field": answer.field} if answer.field else {})
    return r.WriteResult(
        error=r.WriteError(
            code=calls.code_number(answer.code),
            reason=answer.reason,
            message=answer.message,
            metadata=metadata,
            retry_delay_ms=answer.retry_delay_ms or 0,
        )
    )


def _get(registry: Any, data: bytes) -> Message:
    message = r.GetRequest.FromString(data)
    _need(message, "key")
    found = registry.get(_key(message), read=convert.read_from_wire(message.read))
    return r.GetResponse(
        header=convert.header_to_wire(found.header), instance=convert.instance_to_wire(found)
    )


def _list(registry: Any, data: bytes) -> Message:
    message = r.ListRequest.FromString(data)
    page = registry.list(
        convert.filter_from_wire(message.filter),
        page_size=message.page_size,
        page_token=message.page_token,
        read=convert.read_from_wire(message.read),
    )
    return r.ListResponse(
        headers=[convert.header_to_wire(header) for header in page.headers],
        instances=[convert.instance_to_wire(instance) for instance in page.instances],
        next_page_token=page.next_page_token,
        resume_token=page.resume_token,
    )


def _renew(registry: Any, data: bytes) -> Message:
    message = r.RenewRequest.FromString(data)
    loads = [
        t.LeaseLoad(load.lease_id, convert.capacity_from_wire(load.free)) for load in message.loads
    ]
    answer = registry.renew(tuple(message.lease_ids), loads)
    return r.RenewResponse(
        renewed=answer.renewed,
        lost_lease_ids=answer.lost_lease_ids,
        next_renewal_ms=answer.next_renewal_ms,
    )


_EXCLUSIONS = {reason: wire for wire, reason in calls.EXCLUSIONS.items()}


def _discover(registry: Any, data: bytes) -> Message:
    message = r.DiscoverRequest.FromString(data)
    answer = registry.discover(
        convert.filter_from_wire(message.filter),
        region=message.region,
        limit=message.limit,
        choices=message.choices,
        explain=message.explain,
        explain_names=tuple(message.explain_names),
        read=convert.read_from_wire(message.read),
    )
    return r.DiscoverResponse(
        headers=[convert.header_to_wire(header) for header in answer.headers],
        candidates=[
            r.Candidate(
                instance=convert.instance_to_wire(candidate.instance),
                score=r.Score(
                    total=candidate.score.total,
                    region_match=candidate.score.region_match,
                    free_capacity=candidate.score.free_capacity,
                    freshness=candidate.score.freshness,
                ),
            )
            for candidate in answer.candidates
        ],
        exclusions=[
            r.Exclusion(
                key=convert.key_to_wire(exclusion.key),
                reason=_EXCLUSIONS[exclusion.reason],
                detail=exclusion.detail,
            )
            for exclusion in answer.exclusions
        ],
        matched=answer.matched,
    )


def _fill(message: Message, value: Any) -> Message:
    """Copies a dataclass into the message of the same field names."""
    for field in message.DESCRIPTOR.fields:
        given = getattr(value, field.name)
        if field.message_type is not None:
            for item in given:
                _fill(getattr(message, field.name).add(), item)
        elif isinstance(given, tuple):
            getattr(message, field.name).extend(given)
        else:
            setattr(message, field.name, given)
    return message


def _status(registry: Any, data: bytes) -> Message:
    c.StatusRequest.FromString(data)
    return _fill(c.StatusResponse(), registry.status())


def _routing(registry: Any, data: bytes) -> Message:
    c.RoutingRequest.FromString(data)
    return _fill(c.RoutingResponse(), registry.routing())


def _snapshot(registry: Any, data: bytes) -> Message:
    message = c.SnapshotRequest.FromString(data)
    response = c.SnapshotResponse()
    for taken in registry.snapshot(tuple(message.partitions)):
        _fill(response.snapshots.add(), taken)
    return response


_UNARY: dict[str, Answer] = {
    calls.REGISTRY + "Register": _put,
    calls.REGISTRY + "Update": _update,
    calls.REGISTRY + "Deregister": _deregister,
    calls.REGISTRY + "Batch": _batch,
    calls.REGISTRY + "Get": _get,
    calls.REGISTRY + "List": _list,
    calls.REGISTRY + "Renew": _renew,
    calls.REGISTRY + "Discover": _discover,
    calls.CLUSTER + "Status": _status,
    calls.CLUSTER + "Routing": _routing,
    calls.CLUSTER + "Snapshot": _snapshot,
}


def _abort(context: grpc.ServicerContext, error: AgniError) -> None:
    context.set_trailing_metadata(((DETAILS_KEY, encode_details(error)),))
    context.abort(grpc.StatusCode[error.code], error.message)


if TYPE_CHECKING:
    _Generic = grpc.GenericRpcHandler[Any, Any]
else:  # The stubs know it as generic, the library doesn't.
    _Generic = grpc.GenericRpcHandler


class _Handler(_Generic):
    """Answers every method of both services from one object."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method, None for one that is not known."""
        path = handler_call_details.method
        if path == calls.REGISTRY + "Watch":
            return grpc.unary_stream_rpc_method_handler(self._watch)
        answer = _UNARY.get(path)
        if answer is None:
            return None

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return answer(self._registry, data).SerializeToString()
            except AgniError as error:
                _abort(context, error)
            except DecodeError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"malformed request: {error}")
            raise AssertionError("abort returns never")

        return grpc.unary_unary_rpc_method_handler(handle)

    def _watch(self, data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            stream = self._registry.stream(request_from_wire(data))
            if not context.add_callback(stream.cancel):
                return
            for message in stream:
                yield encode_message(message)
        except AgniError as error:
            _abort(context, error)


class serve:  # noqa: N801 - reads as the verb that it is: `with serve(registry) as address`
    """Serves the registry while its `with` block runs; gives host:port."""

    def __init__(self, registry: Any, address: str = "127.0.0.1:0") -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="agniregistry-fake")
        self._server = grpc.server(
            self._pool,
            handlers=[_Handler(registry)],
            options=(("grpc.so_reuseport", 0),),
        )
        self._port = self._server.add_insecure_port(address)
        self._host = address.rpartition(":")[0]

    def __enter__(self) -> str:
        self._server.start()
        return f"{self._host}:{self._port}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()
