"""The registry's HTTP/JSON interface behind the methods of `Client`, for the contract tests.

It is what somebody without the SDK would write: httpx, JSON, Server-Sent Events. Errors become
the SDK's by their reason; the few fields that HTTP knows under its own name are translated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from http_json import (
    amounts,
    error_of,
    filter_query,
    given,
    instance_of,
    key_of,
    members_of,
    read_query,
    record_of,
    registered_of,
    spec_body,
    token_bytes,
    token_text,
)

from agniregistry import types as t


class HttpAdapter:
    """Has `Client`'s methods, over HTTP/1.1 and JSON."""

    speaks_json = True
    """JSON has neither NaN nor infinity, and no kinds but those it names."""

    def __init__(self, target: str) -> None:
        self._http = httpx.Client(base_url=f"http://{target}", timeout=30)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _call(self, method: str, path: str, query: Any = (), body: Any = None) -> httpx.Response:
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        response = self._http.request(
            method, path, params=list(query), content=content, headers=headers
        )
        if response.status_code >= 400:
            raise error_of(response.json()["error"])
        return response

    @staticmethod
    def _path(key: t.Key) -> str:
        return f"/v1/{key.kind}s/{quote(key.name, safe='')}"

    @staticmethod
    def _write_body(operation: Any, **more: Any) -> dict[str, Any]:
        body = {"namespace": operation.key.namespace, "name": operation.key.name}
        for name in ("ttl_ms", "incarnation", "drain_ms", "successor"):
            if getattr(operation, name, 0):
                body[name] = getattr(operation, name)
        if operation.expected_revision is not None:
            body["expected_revision"] = operation.expected_revision
        return body | more

    def put(
        self,
        key: t.Key,
        spec: t.Spec,
        *,
        ttl_ms: int = 0,
        incarnation: int = 0,
        expected_revision: int | None = None,
    ) -> t.Registered:
        """As `Client.put`."""
        operation = t.RegisterOperation(key, spec, ttl_ms, incarnation, expected_revision)
        body = self._write_body(operation, **spec_body(str(key.kind), spec))
        response = self._call("POST", f"/v1/{key.kind}s", body=body)
        answer = registered_of(response.json())
        assert response.status_code == (201 if answer.created else 200)
        return answer

    def update(
        self,
        key: t.Key,
        spec: t.Spec,
        update_mask: Sequence[str],
        *,
        incarnation: int = 0,
        expected_revision: int | None = None,
    ) -> t.Updated:
        """As `Client.update`, with a mask: without one, HTTP takes the fields that are given."""
        operation = t.UpdateOperation(key, spec, update_mask, incarnation, expected_revision)
        body = self._write_body(operation, update_mask=list(update_mask))
        body |= spec_body(str(key.kind), spec)
        answer = self._call("PATCH", self._path(key), body=body).json()
        return t.Updated(answer["revision"])

    def deregister(
        self,
        key: t.Key,
        *,
        incarnation: int = 0,
        expected_revision: int | None = None,
        drain_ms: int = 0,
        successor: str = "",
    ) -> t.Deregistered:
        """As `Client.deregister`."""
        query = given(
            namespace=key.namespace,
            incarnation=incarnation,
            drain_ms=drain_ms,
            successor=successor,
        )
        if expected_revision is not None:
            query.append(("expected_revision", expected_revision))
        answer = self._call("DELETE", self._path(key), query).json()
        return t.Deregistered(answer["existed"], answer["revision"])

    def batch(self, operations: Sequence[t.BatchOperation]) -> tuple[Any, ...]:
        """As `Client.batch`."""
        words = {
            t.RegisterOperation: "register",
            t.UpdateOperation: "update",
            t.DeregisterOperation: "deregister",
        }
        bodies = []
        for operation in operations:
            body = self._write_body(operation, kind=str(operation.key.kind))
            if not isinstance(operation, t.DeregisterOperation):
                body |= spec_body(str(operation.key.kind), operation.spec)
            if isinstance(operation, t.UpdateOperation):
                body["update_mask"] = list(operation.update_mask)
            bodies.append({words[type(operation)]: body})
        answer = self._call("POST", "/v1/batch", body={"operations": bodies}).json()
        return tuple(self._result(item) for item in answer["results"])

    @staticmethod
    def _result(item: dict[str, Any]) -> Any:
        if "error" in item:
            return error_of(item["error"])
        if "register" in item:
            return registered_of(item["register"])
        if "update" in item:
            return t.Updated(item["update"]["revision"])
        return t.Deregistered(item["deregister"]["existed"], item["deregister"]["revision"])

    def renew(self, lease_ids: Sequence[int], loads: Sequence[t.LeaseLoad] = ()) -> t.Renewed:
        """As `Client.renew`."""
        body: dict[str, Any] = {"lease_ids": [str(lease) for lease in lease_ids]}
        if loads:
            body["loads"] = [
                {"lease_id": str(load.lease_id), "free": amounts(load.free)} for load in loads
            ]
        answer = self._call("POST", "/v1/leases/renew", body=body).json()
        lost = tuple(int(lease) for lease in answer["lost_lease_ids"])
        return t.Renewed(answer["renewed"], lost, answer["next_renewal_ms"])

    def get(self, key: t.Key, *, read: t.ReadOptions | None = None) -> t.Instance:
        """As `Client.get`."""
        query = given(namespace=key.namespace) + read_query(read)
        response = self._call("GET", self._path(key), query)
        header = t.Header(
            partition=int(response.headers["x-agni-partition"]),
            revision=int(response.headers["x-agni-revision"]),
        )
        return instance_of(response.json(), header)

    def list(
        self,
        filter: t.Filter,
        *,
        page_size: int = 0,
        page_token: str = "",
        read: t.ReadOptions | None = None,
    ) -> t.Page:
        """As `Client.list`; HTTP has a path for each kind, so without one both are asked."""
        if filter.kind is None:
            fields = {name: getattr(filter, name) for name in filter.__slots__}
            pages = [
                self.list(t.Filter(**(fields | {"kind": kind})), page_size=page_size, read=read)
                for kind in t.Kind
            ]
            return t.Page(tuple(instance for page in pages for instance in page.instances))
        query = filter_query(filter) + read_query(read)
        query += given(page_size=page_size, page_token=page_token)
        answer = self._call("GET", f"/v1/{filter.kind}s", query).json()
        return t.Page(
            instances=tuple(instance_of(item) for item in answer["instances"]),
            next_page_token=answer["next_page_token"],
            resume_token=token_bytes(answer["resume_token"]),
        )

    def list_all(self, filter: t.Filter, *, page_size: int = 0) -> Iterator[t.Instance]:
        """As `Client.list_all`."""
        page = self.list(filter, page_size=page_size)
        yield from page.instances
        while page.next_page_token:
            page = self.list(filter, page_size=page_size, page_token=page.next_page_token)
            yield from page.instances

    def discover(
        self,
        filter: t.Filter,
        *,
        region: str = "",
        limit: int = 0,
        choices: int = 0,
        explain: bool = False,
        explain_names: Sequence[str] = (),
    ) -> t.Discovery:
        """As `Client.discover`."""
        query = filter_query(filter, "require_region")
        query += given(kind=filter.kind, region=region, limit=limit, choices=choices)
        query += [("explain", "true")] if explain else []
        query += [("explain_name", name) for name in explain_names]
        answer = self._call("GET", "/v1/discover", query).json()
        return t.Discovery(
            candidates=tuple(
                t.Candidate(instance_of(item["instance"]), t.Score(**item["score"]))
                for item in answer["candidates"]
            ),
            exclusions=tuple(
                t.Exclusion(key_of(item["key"]), t.ExclusionReason(item["reason"]), item["detail"])
                for item in answer["exclusions"]
            ),
            matched=answer["matched"],
        )

    def watch(
        self,
        filter: t.Filter,
        *,
        resume_token: bytes = b"",
        include_current: bool = False,
        include_previous: bool = False,
        progress_interval_ms: int | None = None,
    ) -> EventStream:
        """As `Client.watch`, but a broken connection ends it."""
        query = filter_query(filter)
        query += given(kind=filter.kind, progress_interval_ms=progress_interval_ms)
        query += [("resume_token", token_text(resume_token))] if resume_token else []
        query += [("include_current", "true")] if include_current else []
        query += [("include_previous", "true")] if include_previous else []
        return EventStream(self._http, query, progress_interval_ms is not None)

    def status(self) -> t.ClusterStatus:
        """As `Client.status`."""
        answer = self._call("GET", "/v1/status").json()
        partitions = tuple(
            t.PartitionStatus(**{**item, "leader_id": int(item["leader_id"])})
            for item in answer.pop("partitions")
        )
        node_id = int(answer.pop("node_id"))
        return t.ClusterStatus(**answer, node_id=node_id, partitions=partitions)

    def routing(self) -> t.RoutingTable:
        """As `Client.routing`."""
        answer = self._call("GET", "/v1/routing").json()
        return t.RoutingTable(
            epoch=answer["epoch"],
            partition_count=answer["partition_count"],
            members=tuple(
                t.Member(**{**item, "node_id": int(item["node_id"])}) for item in answer["members"]
            ),
            partitions=tuple(
                t.PartitionRoute(
                    item["partition"],
                    tuple(int(replica) for replica in item["replica_ids"]),
                    int(item["leader_id"]),
                )
                for item in answer["partitions"]
            ),
        )

    def members(self) -> t.ClusterMembers:
        """As `Client.members`."""
        answer = self._call("GET", "/v1/members").json()
        return members_of(answer)

    def snapshot(self, partitions: Sequence[int] = ()) -> tuple[t.SnapshotTaken, ...]:
        """As `Client.snapshot`."""
        answer = self._call("POST", "/v1/snapshots", body={"partitions": list(partitions)})
        return tuple(t.SnapshotTaken(**item) for item in answer.json()["snapshots"])


class EventStream:
    """A watch over Server-Sent Events."""

    def __init__(self, http: httpx.Client, query: Any, progress: bool) -> None:
        self._http = http
        self._query = query
        self._progress = progress
        self._response: httpx.Response | None = None
        self._closed = False
        self.resume_token = b""
        self._items = self._run()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> t.WatchItem:
        return next(self._items)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; the connection goes with it."""
        self._closed = True
        self._items.close()

    def _run(self) -> Iterator[t.WatchItem]:
        with self._http.stream("GET", "/v1/watch", params=self._query, timeout=30) as response:
            if response.status_code >= 400:
                response.read()
                raise error_of(response.json()["error"])
            event: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                    continue
                if "data" in event:
                    yield from self._message(event)
                event = {}

    def _message(self, event: dict[str, str]) -> Iterator[t.WatchItem]:
        body = json.loads(event["data"])
        phase = event["event"]
        if phase == "error":
            raise error_of(body["error"])
        token = self.resume_token = token_bytes(body["resume_token"]) or self.resume_token
        if phase == "created":
            yield t.Started(token)
        if phase == "progress" and self._progress:
            yield t.Progress(token)
        if phase == "gap":
            yield t.Gap(token)
        for item in body["events"]:
            yield t.Change(
                type=t.EventType(item["type"]),
                key=key_of(item["key"]),
                revision=item["revision"],
                partition=item["partition"],
                record=record_of(item["record"]) if "record" in item else None,
                previous=record_of(item["previous"]) if "previous" in item else None,
                created=item["created"],
                live=phase == "live",
            )
        if "present" in body:
            keys = tuple(key_of(key) for key in body["present"])
            yield t.Present(body["present_partition"], keys)
        if phase == "synced":
            yield t.Synced(token)
