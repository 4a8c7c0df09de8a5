"""One operation against a registry, asked and answered in the words of a history.

Each is a single attempt: what the SDK repeated by itself would be two operations. A write whose
refusal leaves any doubt about its effect counts as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from history import REFUSALS, WRITES, Outcome, Reply, Request
from lease_check import LEASE_LOST

from agniregistry import types as t
from agniregistry.client import Client
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import AgniError, NotFoundError
from agniregistry.identity import Tls

HARMLESS = frozenset(
    {"INVALID_FIELD", "MESSAGE_TOO_LARGE", "OVERLOADED", "NOT_READY", "UNIMPLEMENTED"}
)
"""Refusals that come before anything is proposed. NOT_LEADER, DISK_FULL and SHUTTING_DOWN may come
after it, when another leader can still carry it out."""


def connect(address: str, timeout_ms: int, tls: Tls | None = None) -> Client:
    """A client that tries once."""
    timeout = Timeout(total_ms=timeout_ms, attempt_ms=timeout_ms)
    return Client(address, timeout=timeout, retry=RetryPolicy.never(), tls=tls)


def key_of(name: str) -> t.Key:
    """The registry's key of a history's key."""
    return t.Key(t.Kind.GATEWAY, name)


def spec_of(value: str) -> t.Spec:
    """A spec that a value stands for."""
    return t.Spec(region="global", ip="12.34.56.78", port=4000, payload=value.encode())


def perform(
    client: Client,
    f: str,
    key: str,
    request: Request,
    seen: MutableMapping[int, int] | None = None,
) -> tuple[Outcome, Reply]:
    """Makes one call; never raises what the registry, or the way to it, answers.

    `seen` has the newest revision of each partition that this session has been shown, which no
    stale read may fall behind; it is brought up to date.
    """
    outcome, reply = _perform(client, f, key, request, {} if seen is None else seen)
    if seen is not None and reply.store_revision:
        seen[reply.partition] = max(seen.get(reply.partition, 0), reply.store_revision)
    return outcome, reply


def _perform(
    client: Client, f: str, key: str, request: Request, seen: Mapping[int, int]
) -> tuple[Outcome, Reply]:
    try:
        reply = _CALLS[f](client, key_of(key), request, seen)
    except NotFoundError as error:
        if f != "get":
            return Outcome.FAIL, Reply(node=client.target, reason=error.reason)
        # A stale answer without a position says nothing that could be judged.
        stale = request.consistency == "stale"
        return (Outcome.INFO if stale else Outcome.OK), Reply(node=client.target)
    except AgniError as error:
        certain = f not in WRITES or error.reason in REFUSALS | HARMLESS
        outcome = Outcome.FAIL if certain else Outcome.INFO
        return outcome, Reply(node=client.target, reason=error.reason)
    if reply.reason == LEASE_LOST:
        return Outcome.FAIL, reply
    return Outcome.OK, reply


def _register(client: Client, key: t.Key, request: Request, _: object) -> Reply:
    done = client.put(
        key,
        spec_of(request.value),
        ttl_ms=request.ttl_ms,
        incarnation=request.incarnation,
        expected_revision=request.expected_revision,
    )
    return Reply(
        partition=done.header.partition,
        revision=done.revision,
        store_revision=done.header.revision,
        create_revision=done.create_revision,
        term=done.header.term,
        node=client.target,
        incarnation=done.incarnation,
        lease_id=done.lease_id,
        ttl_ms=done.ttl_ms,
        created=done.created,
    )


def _update(client: Client, key: t.Key, request: Request, _: object) -> Reply:
    done = client.update(
        key,
        spec_of(request.value),
        ["payload"],
        incarnation=request.incarnation,
        expected_revision=request.expected_revision,
    )
    where = done.header
    return Reply(
        where.partition, done.revision, where.revision, term=where.term, node=client.target
    )


def _deregister(client: Client, key: t.Key, request: Request, _: object) -> Reply:
    done = client.deregister(
        key, incarnation=request.incarnation, expected_revision=request.expected_revision
    )
    where = done.header
    return Reply(
        partition=where.partition,
        # Where nothing was removed there is no revision of its own.
        revision=done.revision if done.existed else 0,
        store_revision=where.revision,
        term=where.term,
        node=client.target,
        existed=done.existed,
    )


def _renew(client: Client, _key: t.Key, request: Request, _: object) -> Reply:
    lost = client.renew([request.lease_id]).lost_lease_ids
    reason = LEASE_LOST if lost else ""
    return Reply(node=client.target, lease_id=request.lease_id, reason=reason)


def _get(client: Client, key: t.Key, request: Request, seen: Mapping[int, int]) -> Reply:
    at_least = seen if request.consistency == "stale" else {}
    read = t.ReadOptions(t.Consistency(request.consistency), at_least=at_least)
    found = client.get(key, read=read)
    record, where = found.record, found.header or t.Header()
    return Reply(
        partition=where.partition,
        revision=record.revision,
        store_revision=where.revision,
        create_revision=record.create_revision,
        term=where.term,
        node=client.target,
        value=record.spec.payload.decode(),
        incarnation=record.incarnation,
        lease_id=record.lease_id,
        ttl_ms=record.ttl_ms,
        status=found.status.value,
        age_ms=where.age_ms,
    )


_CALLS = {
    "register": _register,
    "update": _update,
    "deregister": _deregister,
    "renew": _renew,
    "get": _get,
}
