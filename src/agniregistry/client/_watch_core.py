"""What both watches share: the request, reading messages, and turning them into items.

Pure: the two shells around it (`_watch.py`) only open streams and wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from agniregistry import types as t
from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.client import _convert as convert
from agniregistry.errors import InternalError

PHASES: Mapping[t.WatchPhase, r.WatchPhase.ValueType] = {
    phase: r.WatchPhase.Value(f"WATCH_PHASE_{phase.name}") for phase in t.WatchPhase
}
_PHASES_BACK = {wire: phase for phase, wire in PHASES.items()}


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch, and from where on."""

    filter: t.Filter
    """Of which records."""
    resume_token: bytes = b""
    """Go on after this; empty means "from now"."""
    include_current: bool = False
    """Without a token: first send everything that matches now."""
    include_previous: bool = False
    """Send the records as they were before each change, too."""
    progress_interval_ms: int | None = None
    """Yield `Progress` at least this often, in milliseconds; None keeps it to itself."""

    def resumed(self, token: bytes) -> WatchRequest:
        """The request that goes on after the token; without one, the same again."""
        return replace(self, resume_token=token, include_current=False) if token else self

    def encode(self) -> bytes:
        """The bytes to send."""
        message = r.WatchRequest(
            filter=convert.filter_to_wire(self.filter),
            include_current=self.include_current,
            include_previous=self.include_previous,
        )
        convert.put_field(message, "resume_token", self.resume_token, "resume_token")
        convert.put_field(
            message, "progress_interval_ms", self.progress_interval_ms or 0, "progress_interval_ms"
        )
        return message.SerializeToString()


def decode_message(data: bytes) -> t.WatchMessage:
    """One message of the stream."""
    try:
        message = r.WatchResponse.FromString(data)
    except DecodeError as error:
        raise InternalError("a message of the watch can't be decoded") from error
    phase = _PHASES_BACK.get(message.phase, t.WatchPhase.PROGRESS)
    return t.WatchMessage(
        phase=phase,
        changes=tuple(
            convert.change_from_wire(event, live=phase is t.WatchPhase.LIVE)
            for event in message.events
        ),
        resume_token=message.resume_token,
        present=tuple(convert.key_from_wire(key) for key in message.present),
        present_complete=message.present_complete,
        present_partition=message.present_partition,
    )


def encode_message(message: t.WatchMessage) -> bytes:
    """One message of the stream (only a server needs this)."""
    return r.WatchResponse(
        phase=PHASES[message.phase],
        events=[convert.change_to_wire(change) for change in message.changes],
        resume_token=message.resume_token,
        present=[convert.key_to_wire(key) for key in message.present],
        present_complete=message.present_complete,
        present_partition=message.present_partition,
    ).SerializeToString()


def request_from_wire(data: bytes) -> WatchRequest:
    """The request as a server reads it."""
    message = r.WatchRequest.FromString(data)
    return WatchRequest(
        filter=convert.filter_from_wire(message.filter),
        resume_token=message.resume_token,
        include_current=message.include_current,
        include_previous=message.include_previous,
        progress_interval_ms=message.progress_interval_ms or None,
    )


def items_of(message: t.WatchMessage, *, first: bool, progress: bool) -> tuple[t.WatchItem, ...]:
    """What a watch yields for a message.

    `first` is False after a resumption, whose CREATED message is no news to the reader.
    """
    token = message.resume_token
    match message.phase:
        case t.WatchPhase.CREATED:
            return (t.Started(token),) if first else ()
        case t.WatchPhase.PROGRESS:
            return (t.Progress(token),) if progress else ()
        case t.WatchPhase.GAP:
            return (t.Gap(token), *message.changes)
        case t.WatchPhase.SYNCED:
            return (*message.changes, t.Synced(token))
        case t.WatchPhase.SYNC if message.present_complete:
            return (*message.changes, t.Present(message.present_partition, message.present))
        case _:
            return message.changes
