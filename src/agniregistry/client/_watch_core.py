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


class Course:
    """How far a watch has come, over all its streams: what it yields, and where it resumes.

    Until the current state that was asked for is whole, there is nothing to resume from: a stream
    that breaks before that begins the state anew, and `Started` says so. A difference that breaks
    is told anew from its beginning.
    """

    def __init__(self, request: WatchRequest) -> None:
        self.token = request.resume_token
        """Resumes right after everything that was yielded."""
        self.started = False
        """Whether a stream has ever begun."""
        self._request = request
        self._whole = bool(request.resume_token) or not request.include_current
        self._gap = False
        self._resumed = False

    def next_request(self) -> bytes:
        """What the next stream is opened with."""
        self._resumed = self.started
        return self._request.resumed(self.token).encode()

    def items(self, message: t.WatchMessage) -> tuple[t.WatchItem, ...]:
        """What is yielded for a message. Once that is done but for the last, call `passed`."""
        token = message.resume_token if self._whole else b""
        changes = message.changes
        match message.phase:
            case t.WatchPhase.CREATED:
                is_news = not (self.started and self._whole)
                self.started = True
                return (t.Started(token),) if is_news else ()
            case t.WatchPhase.GAP:
                self._gap = True
                self._resumed = False
                return (t.Gap(token), *changes)
            case t.WatchPhase.SYNCED:
                self._gap = False
                return (*changes, t.Synced(message.resume_token))
            case t.WatchPhase.SYNC if message.present_complete:
                return (*changes, t.Present(message.present_partition, message.present))
            case t.WatchPhase.SYNC:
                return changes
        items: tuple[t.WatchItem, ...] = changes
        if message.phase is t.WatchPhase.PROGRESS:
            items = (t.Progress(token),) if self._request.progress_interval_ms is not None else ()
        if self._gap and self._resumed:
            # This node still knows each change, so that no difference follows: what the broken one
            # has left open is closed by the changes themselves.
            self._gap = False
            return (t.Gap(self.token), t.Synced(self.token), *items)
        return items

    def passed(self, message: t.WatchMessage) -> None:
        """Moves the token on; what the message held has been yielded, or is about to be."""
        if message.phase is t.WatchPhase.SYNCED:
            self._whole = True
        if self._whole and message.phase is not t.WatchPhase.SYNC:
            self.token = message.resume_token or self.token
