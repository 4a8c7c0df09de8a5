"""Turns commented protos into a page of Markdown.

Reads the protos line by line instead of using a compiler's source info, because ours keep to one
shape (a comment block above each item, one item a line), which `test_tidy` relies on as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PREAMBLE = """\
# API

Generated from `proto/agniregistry/api/v1` by `make docs`; change the protos, not this page.

gRPC and HTTP/JSON share one port (127.0.0.1:7400 unless set otherwise). gRPC has reflection and
health; `/openapi.json` describes HTTP with every status. In JSON the keys are the fields' names,
enums are short lower-case words (`gateway`, `alive`, `put`), identities of leases and nodes are
strings, other 64-bit numbers are numbers, and a spec's fields stand flat beside `namespace` and
`name`.

## Errors

A gRPC error carries `google.rpc.ErrorInfo` with `domain` "agniregistry", a stable `reason` and
metadata; over HTTP the same is
`{"error": {"code", "reason", "message", "field", "metadata"}}`. Where a delay is known,
`google.rpc.RetryInfo` and the header `Retry-After` carry it. Every write may be repeated.

| reason | gRPC code | HTTP | what to do |
|---|---|---|---|
| INVALID_FIELD | INVALID_ARGUMENT | 400 | repair the field that `field` names |
| MESSAGE_TOO_LARGE | RESOURCE_EXHAUSTED | 413 | send less at once |
| NOT_FOUND | NOT_FOUND | 404 | register first; over HTTP also: there is no such path |
| STALE_INCARNATION | FAILED_PRECONDITION | 409 | a newer owner has the name: stop |
| REVISION_MISMATCH | FAILED_PRECONDITION | 409 | read again (`stored_revision`), then decide |
| ALREADY_EXISTS | ALREADY_EXISTS | 409 | somebody was first |
| EXPIRING | UNAVAILABLE | 503 | the record is being removed: repeat after the delay |
| PAGE_TOKEN_INVALID | INVALID_ARGUMENT | 400 | list from the start |
| PAGE_TOKEN_EXPIRED | OUT_OF_RANGE | 410 | list from the start |
| RESUME_TOKEN_INVALID | INVALID_ARGUMENT | 400 | watch with `include_current` |
| RESUME_TOKEN_FOREIGN | INVALID_ARGUMENT | 400 | the token is another cluster's |
| OVERLOADED | RESOURCE_EXHAUSTED | 429 | repeat after the delay |
| DISK_FULL | RESOURCE_EXHAUSTED | 507 | repeat after the delay; make room |
| NOT_LEADER | UNAVAILABLE | 503 | ask `leader_id`, or repeat |
| NO_LEADER | UNAVAILABLE | 503 | a majority of the replicas can't be reached: repeat |
| OUTCOME_UNKNOWN | UNAVAILABLE | 503 | leader lost, the write may have taken place: repeat |
| NOT_READY | UNAVAILABLE | 503 | repeat |
| SHUTTING_DOWN | UNAVAILABLE | 503 | repeat elsewhere |
| STALENESS_EXCEEDED | UNAVAILABLE | 503 | allow an older answer, or ask the leader |
| DEADLINE_EXCEEDED | DEADLINE_EXCEEDED | 504 | a write may have taken place: repeat it |
| REQUEST_TOO_SLOW | DEADLINE_EXCEEDED | 504 | the request did not arrive in time: send it faster |
| REQUEST_BROKEN | CANCELLED, INVALID_ARGUMENT | 500, 400 | the request ended too early: repeat it |
| METHOD_NOT_ALLOWED | UNIMPLEMENTED | 405 | use a method that the path knows |
| UNSUPPORTED_MEDIA_TYPE | INVALID_ARGUMENT | 415 | send `application/json` |
| UNIMPLEMENTED | UNIMPLEMENTED | 501 | this server is older than the request |
| EPOCH_OUTDATED | FAILED_PRECONDITION | 409 | another operator has taken over: stop |
| MEMBER_LEFT | FAILED_PRECONDITION | 409 | the node was removed: wipe its directory to join anew |
| MEMBER_IN_USE | FAILED_PRECONDITION | 409 | the node holds replicas, or is the last one |
| MEMBERS_FULL | FAILED_PRECONDITION | 409 | too many nodes have joined this cluster in its life |
| UNFIT_TO_LEAD | FAILED_PRECONDITION | 409 | the node's disk is full or slow: see to it |
| VERSION_MISMATCH | FAILED_PRECONDITION | 409 | it was placed anew meanwhile: look again |
| NOT_A_NODE | PERMISSION_DENIED | 403 | only nodes may ask this of each other |
| NOT_THE_OPERATOR | PERMISSION_DENIED | 403 | use the operator's certificate |
| SNAPSHOT_FAILED | INTERNAL | 500 | see the message; what was there before stays |
| INTERNAL | INTERNAL | 500 | a fault of ours: report it |

The SDK adds reasons of its own, which never come from a server:

| reason | code | when |
|---|---|---|
| CONNECTION_FAILED | UNAVAILABLE | no connection, or it broke before the answer |
| LEASE_LOST | FAILED_PRECONDITION | the lease ran out, and registering again failed |
| CLIENT_CLOSED | CANCELLED | the client, watch or registration was closed before |
| IDENTITY_MISSING | FAILED_PRECONDITION | a certificate, key or bundle is not there |
| IDENTITY_INVALID | FAILED_PRECONDITION | damaged, expired, or not belonging together |
| IDENTITY_EXISTS | FAILED_PRECONDITION | another one is there already, and is not overwritten |

## Watching

- A watch tells of changes of records. `filter.min_free` and `filter.statuses` hang on load and
  leases, which change without a change of the record, so a watch refuses them with INVALID_FIELD:
  list or discover for those.
- Each message carries the `resume_token` of the state after it. In the middle of a difference
  (phase SYNC) there is no such state and the token is empty: keep the last one that wasn't. A
  watch that breaks there resumes before the difference, which is then sent anew; it holds each
  record's newest state, so that taking it twice changes nothing.
- GAP says that single changes were left out, because the token is too old or the watcher too slow.
  SYNC messages follow with the newest state of all that changed, and with what is still `present`
  where removals are no longer known one by one; SYNCED ends them.
"""


@dataclass
class Item:
    """A service, message or enum, with its lines."""

    kind: str
    name: str
    comment: str
    rows: list[tuple[str, str, str]] = field(default_factory=list)


ITEM = re.compile(r"^(service|message|enum) (\w+) \{")
RPC = re.compile(r"^rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\)")
VALUE = re.compile(r"^(\w+) = (\d+);")
FIELD = re.compile(r"^((?:optional |repeated )?(?:map<[^>]+>|[\w.]+)) (\w+) = (\d+)(?: \[.*\])?;")


def items_of(text: str) -> Iterator[Item]:
    """The items of one proto, a nested message under its parent's name."""
    open_items: list[Item | None] = []
    comment: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("//"):
            comment.append(line[2:].strip())
            continue
        said, comment = " ".join(comment), []
        found = ITEM.match(line)
        if found:
            parent = next((item.name for item in reversed(open_items) if item), None)
            name = f"{parent}.{found[2]}" if parent else found[2]
            open_items.append(Item(found[1], name, said))
        elif line.endswith("{"):
            open_items.append(None)  # a oneof: its fields are the message's
        if line.endswith("}") and open_items:
            closed = open_items.pop()
            if closed:
                yield closed
            continue
        item = next((item for item in reversed(open_items) if item), None)
        row = row_of(item.kind, line, said) if item and not found else None
        if item and row:
            item.rows.append(row)


def row_of(kind: str, line: str, said: str) -> tuple[str, str, str] | None:
    """One line of an item's table: name, type, meaning."""
    if kind == "service" and (rpc := RPC.match(line)):
        request = f"{rpc[2] or ''}{link(rpc[3])}"
        return f"`{rpc[1]}`", f"{request} → {rpc[4] or ''}{link(rpc[5])}", said
    if kind == "enum" and (value := VALUE.match(line)):
        return f"`{value[1]}`", value[2], said
    if kind == "message" and (one := FIELD.match(line)):
        return f"`{one[2]}`", f"`{one[1]}`", said
    return None


def link(name: str) -> str:
    """A link to a message of this page."""
    return f"[{name}](#{name.lower()})"


HEADS = {
    "service": ("call", "request → answer"),
    "message": ("field", "type"),
    "enum": ("value", "number"),
}


def section(item: Item) -> str:
    """Markdown of one item."""
    lines = [f"### {item.name}", "", item.comment, ""]
    if item.rows:
        first, second = HEADS[item.kind]
        lines += [f"| {first} | {second} | meaning |", "|---|---|---|"]
        lines += [f"| {name} | {kind} | {said} |" for name, kind, said in item.rows]
        lines.append("")
    return "\n".join(lines)


def api_page(folder: Path) -> str:
    """The whole page: services first, then everything they speak of."""
    items = [item for path in sorted(folder.glob("*.proto")) for item in items_of(path.read_text())]
    parts = [PREAMBLE]
    for title, kinds in (
        ("Services", ("service",)),
        ("Messages", ("message",)),
        ("Enumerations", ("enum",)),
    ):
        parts.append(f"## {title}\n")
        parts += [section(item) for item in items if item.kind in kinds]
    return "\n".join(parts).rstrip() + "\n"
