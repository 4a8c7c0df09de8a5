"""Watches of a run, kept as they came: the log of what happened, and streams to be judged.

A watcher goes on by its newest token, on the next address, when its stream breaks. What comes is
written down message by message, so that a watcher in another process can be judged, too.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from event_log import Change, Log, LogEvent, Match, position_of
from watch_check import Message, Phase, Positions, Stream, WatchEvent

from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.api.v1 import registry_pb2_grpc as rg
from agniregistry.identity import Tls
from nemesis import access

PAUSE_S = 0.05
PROGRESS_MS = 500
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_CHANGES = {
    r.EVENT_TYPE_PUT: Change.PUT,
    r.EVENT_TYPE_DEREGISTERED: Change.DEREGISTERED,
    r.EVENT_TYPE_EXPIRED: Change.EXPIRED,
    r.EVENT_TYPE_REMOVED: Change.REMOVED,
}
_PHASES = {getattr(r, f"WATCH_PHASE_{each.name}"): each for each in Phase}


class Watcher:
    """Watches what begins with a prefix ("" is everything) and writes it into a file."""

    def __init__(
        self, addresses: Sequence[str], path: Path, prefix: str = "", tls: Tls | None = None
    ) -> None:
        self._addresses = tuple(addresses)
        self._prefix = prefix
        self._tls = tls
        self._file = path.open("a")
        self._ended = threading.Event()
        self._call: Any = None
        self.created = threading.Event()
        """Set when the first stream exists: what is written from then on will be seen."""
        self.at: Positions = {}
        """The newest position."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, ends: Positions, seconds: float) -> bool:
        """Waits until everything up to these positions has come."""
        deadline = time.monotonic() + seconds
        while any(self.at.get(each, 0) < revision for each, revision in ends.items()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """Ends the watch; its file is whole."""
        self._ended.set()
        while self._thread.is_alive():
            if self._call is not None:
                self._call.cancel()
            self._thread.join(0.05)
        self._file.close()

    def _run(self) -> None:
        token = b""
        for turn in range(1 << 30):
            if self._ended.is_set():
                return
            address = self._addresses[turn % len(self._addresses)]
            with access.channel(address, self._tls, CHANNEL_OPTIONS) as channel:
                with contextlib.suppress(grpc.RpcError):
                    token = self._stream(address, channel, token)
                self._call = None
            self._ended.wait(PAUSE_S)

    def _stream(self, address: str, channel: grpc.Channel, token: bytes) -> bytes:
        """One stream until it breaks; what has come by then is in the file."""
        request = r.WatchRequest(resume_token=token, progress_interval_ms=PROGRESS_MS)
        request.filter.name_prefix = self._prefix
        self._call = call = rg.RegistryServiceStub(channel).Watch(request)
        opened = False
        try:
            for message in call:
                if not opened:
                    self._write({"node": address, "token": _text(token), "prefix": self._prefix})
                    opened = True
                data = _text(message.SerializeToString())
                self._write({"at_ns": time.monotonic_ns(), "message": data})
                if message.resume_token:
                    token = message.resume_token
                    self.at = position_of(token)
                self.created.set()
        except grpc.RpcError:
            pass
        return token

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(slots=True)
class Watched:
    """What came to one watcher: its streams, each resuming where the one before ended."""

    streams: list[Stream] = field(default_factory=list)
    events: dict[tuple[int, int], LogEvent] = field(default_factory=dict)
    whole: bool = True
    """It was told of every single change."""

    def log(self) -> Log | None:
        """The log, if this was a watcher of everything; none if it has holes."""
        return Log(self.events.values()) if self.whole else None


def read_watch(path: Path) -> Watched:
    """What a watcher has written."""
    watched = Watched()
    messages: list[Message] = []
    for line in map(json.loads, path.read_text().splitlines()):
        if "message" in line:
            message = r.WatchResponse.FromString(base64.b64decode(line["message"]))
            messages.append(_message(message, line["at_ns"]))
            if message.phase in (r.WATCH_PHASE_GAP, r.WATCH_PHASE_SYNC):
                watched.whole = False
            for event in message.events:
                # What comes twice is for the check of the stream; here it is one change.
                place = (event.partition, event.revision)
                watched.events.setdefault(place, _logged(event, line["at_ns"]))
            continue
        messages = []
        token = base64.b64decode(line["token"])
        before = watched.streams[-1].node if watched.streams else ""
        watched.streams.append(
            Stream(
                *(line["node"], match_prefix(line["prefix"]), messages),
                start=position_of(token) if token else None,
                resumed_from=before,
                name=f"{path.stem} {len(watched.streams) + 1}",
            )
        )
    return watched


def match_prefix(prefix: str) -> Match:
    """The filter of a watcher, as the checkers want it."""
    return lambda key, _value: key.startswith(prefix)


def _message(message: r.WatchResponse, at_ns: int) -> Message:
    token = message.resume_token
    return Message(
        phase=_PHASES[message.phase],
        events=tuple(_event(each) for each in message.events),
        positions=position_of(token) if token else None,
        present=tuple(each.name for each in message.present),
        present_partition=message.present_partition if message.present_complete else None,
        at_ns=at_ns,
    )


def _event(event: r.Event) -> WatchEvent:
    there = event.HasField("record") and event.type == r.EVENT_TYPE_PUT
    return WatchEvent(
        partition=event.partition,
        revision=event.revision,
        key=event.key.name,
        change=_CHANGES[event.type],
        value=event.record.spec.payload.decode() if there else None,
        created=event.created,
    )


def _logged(event: r.Event, at_ns: int) -> LogEvent:
    same = _event(event)
    return LogEvent(
        *(same.partition, same.revision, same.key, same.change, same.value),
        ttl_ms=event.record.ttl_ms if same.value is not None else 0,
        seen_ns=at_ns,
    )
