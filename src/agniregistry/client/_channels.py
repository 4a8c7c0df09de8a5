"""The channels to one node: one at a time, or old and new while a certificate is being replaced.

grpcio can't change a client channel's certificate (its `dynamic_ssl_server_credentials` is for
servers). So the files are looked at between calls, at most every `Tls.check_interval_ms`, and
when they have changed a second channel is made beside the first. Calls stay on the first until
the second has shaken hands: a registry that does not accept the new certificate yet costs nothing.
Then new calls and reconnecting streams go to the second. The first is closed when the last call
or stream on it has ended. So nothing fails for a rotation.

Files that can't be used are logged, once, and looked at again; the channel stays as it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc

from agniregistry.client._base import CHANNEL_OPTIONS
from agniregistry.client._target import Target, check_security
from agniregistry.errors import IdentityError
from agniregistry.identity import Tls

log = logging.getLogger("agniregistry.identity")

C = TypeVar("C")
Options = Sequence[tuple[str, int | str]]
Signature = tuple[tuple[int, int, int], ...]
Done = Callable[[bytes | None, bool], None]
"""Gets an answer, or None and whether there was somebody to refuse it."""

_UNREACHED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


def was_reached(code: grpc.StatusCode) -> bool:
    """Whether a call with this end has reached a node that does its work."""
    return code not in _UNREACHED


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What goes along with a call."""

    timeout_s: float
    """How long its answer is waited for, in seconds."""
    metadata: tuple[tuple[str, str], ...]
    """Its metadata."""


class Warmup(Protocol):
    """A channel on its way to its first connection."""

    def ready(self) -> bool:
        """Whether it is connected."""
        ...

    def stop(self) -> None:
        """Ends the looking."""
        ...


class Flavour(Protocol[C]):
    """What differs between sync and asyncio."""

    def open(
        self, address: str, credentials: grpc.ChannelCredentials | None, options: Options
    ) -> C:
        """Makes a channel; it connects with its first call."""
        ...

    def warm(self, channel: C) -> Warmup:
        """Has the channel connect."""
        ...

    def discard(self, channel: C) -> None:
        """Closes a channel that nobody uses any more, without waiting."""
        ...

    def send(self, channel: C, path: str, request: bytes, options: SendOptions, done: Done) -> None:
        """Calls without waiting; `done` runs wherever gRPC has the answer.

        A node that comes back within the time is heard, however long gRPC has seen none there.
        """
        ...


@dataclass(slots=True, eq=False)
class Link(Generic[C]):
    """One channel with its stubs, and how many calls and streams are on it."""

    channel: C
    methods: dict[str, Callable[..., Any]] = field(default_factory=dict)
    users: int = 0


class Channels(Generic[C]):
    """Hands out the channel for a call. Thread-safe; blocks for the files' reading at most."""

    def __init__(
        self,
        target: Target,
        tls: Tls | None,
        credentials: grpc.ChannelCredentials | None,
        flavour: Flavour[C],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_security(target, tls, credentials)
        self._address = target.address
        self._tls = tls
        self._flavour = flavour
        self._clock = clock
        self._lock = threading.Lock()
        self._retired: list[Link[C]] = []
        self._pending: tuple[Link[C], Warmup] | None = None
        self._refused: Signature | None = None
        self._closed = False
        self._options: Options = CHANNEL_OPTIONS
        self._signature: Signature = ()
        if tls is not None:
            if tls.server_name:
                override = ("grpc.ssl_target_name_override", tls.server_name)
                self._options = (*CHANNEL_OPTIONS, override)
            self._signature = signature_of(tls)
            credentials = credentials_of(tls, patience=True)
        self._next_look = self._later()
        self._link = self._open(credentials)

    def acquire(self) -> Link[C]:
        """The channel for one call or stream; `release` it when that has ended."""
        if self._tls is None:
            return self._link
        with self._lock:
            if not self._closed:
                if self._clock() >= self._next_look:
                    self._look(self._tls)
                self._switch()
            link = self._link
            link.users += 1
            unused = [each for each in self._retired if not each.users]
            for each in unused:
                self._retired.remove(each)
        for each in unused:
            self._flavour.discard(each.channel)
        return link

    def release(self, link: Link[C]) -> None:
        """A call or stream has ended. Closes nothing: gRPC's own threads come along here."""
        if self._tls is not None:
            with self._lock:
                link.users -= 1

    def close(self) -> tuple[C, ...]:
        """Ends rotation; answers with every channel that is to be closed."""
        with self._lock:
            self._closed = True
            links = [self._link, *self._retired]
            self._retired.clear()
            if self._pending is not None:
                pending, warmup = self._pending
                warmup.stop()
                links.append(pending)
                self._pending = None
        return tuple(link.channel for link in links)

    # -- inside, under the lock -----------------------------------------------------------

    def _look(self, tls: Tls) -> None:
        """Begins a channel with the new files, if they are new and can be used."""
        self._next_look = self._later()
        signature = signature_of(tls)
        if signature == self._signature:
            return
        try:
            credentials = credentials_of(tls, patience=False)
        except IdentityError as error:
            if signature != self._refused:
                log.warning("the new certificate is not used: %s", error.message)
            self._refused = signature
            return
        self._signature, self._refused = signature, None
        if self._pending is not None:
            stale, warmup = self._pending
            warmup.stop()
            self._retired.append(stale)
        link = self._open(credentials)
        self._pending = (link, self._flavour.warm(link.channel))

    def _switch(self) -> None:
        """Goes over to the channel with the new files as soon as it is connected."""
        if self._pending is None or not self._pending[1].ready():
            return
        self._pending[1].stop()
        self._retired.append(self._link)
        self._link = self._pending[0]
        self._pending = None
        log.info("calls to %s use the new certificate", self._address)

    def _open(self, credentials: grpc.ChannelCredentials | None) -> Link[C]:
        return Link(self._flavour.open(self._address, credentials, self._options))

    def _later(self) -> float:
        return self._clock() + (self._tls.check_interval_ms / 1000 if self._tls else 0)


def signature_of(tls: Tls) -> Signature:
    """What changes when a file is replaced or written: its number, size and time."""
    found = []
    for file in tls.files:
        try:
            status = Path(file).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def credentials_of(tls: Tls, *, patience: bool) -> grpc.ChannelCredentials:
    """What gRPC is given of the files; an `IdentityError` names the file at fault."""
    from agniregistry.identity import files

    material = files.load(tls, patience_ms=files.MISMATCH_PATIENCE_MS if patience else 0)
    own = material.identity
    return grpc.ssl_channel_credentials(
        root_certificates=material.bundle.pem,
        private_key=own.key_pem if own else None,
        certificate_chain=own.chain_pem if own else None,
    )


class SyncFlavour:
    """Channels of the sync client."""

    def open(
        self, address: str, credentials: grpc.ChannelCredentials | None, options: Options
    ) -> grpc.Channel:
        """Makes a channel."""
        if credentials is None:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, credentials, options=options)

    def warm(self, channel: grpc.Channel) -> Warmup:
        """Has it connect; gRPC reports from a thread of its own until `stop`."""
        return _SyncWarmup(channel)

    def discard(self, channel: grpc.Channel) -> None:
        """Closes it."""
        channel.close()

    def send(
        self, channel: grpc.Channel, path: str, request: bytes, options: SendOptions, done: Done
    ) -> None:
        """Calls; `done` runs in a thread of gRPC's."""

        def ended(call: Any) -> None:
            code = call.code()
            done(call.result() if code is grpc.StatusCode.OK else None, was_reached(code))

        try:
            method: Any = channel.unary_unary(path, None, None)
            call = method.future(
                request,
                timeout=options.timeout_s,
                metadata=options.metadata,
                wait_for_ready=True,
            )
        except ValueError:  # gRPC's word for a closed channel
            done(None, False)
            return
        call.add_done_callback(ended)


class _SyncWarmup:
    """Hears of the channel's state."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._ready = threading.Event()
        channel.subscribe(self._heard, try_to_connect=True)

    def ready(self) -> bool:
        return self._ready.is_set()

    def stop(self) -> None:
        self._channel.unsubscribe(self._heard)

    def _heard(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._ready.set()
