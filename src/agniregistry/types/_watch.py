"""What a watch yields.

The server promises, in each partition: events ordered by revision, each once, none left out
between two live messages. Where it cannot send every change (the token was too old, the reader
too slow), it says so: a `Gap` comes first, then the newest state of whatever changed, then
`Synced`. A reader that keeps state handles `Present` too; one that only reacts may ignore it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agniregistry.types._records import Key, Record


class EventType(StrEnum):
    """What happened to a record."""

    PUT = "put"
    """It was created or changed; the record is as it is now."""
    DEREGISTERED = "deregistered"
    """Its owner, or somebody for it, removed it."""
    EXPIRED = "expired"
    """Its lease ran out, or its time of draining."""
    REMOVED = "removed"
    """It changed and no longer matches the filter."""


class WatchPhase(StrEnum):
    """What a message of a watch means."""

    CREATED = "created"
    """The watch exists; carries its first token, unless the current state follows, and no event."""
    LIVE = "live"
    """Changes as they happen."""
    PROGRESS = "progress"
    """No change: everything up to the token has been sent."""
    GAP = "gap"
    """A difference begins: what follows until SYNCED is the newest state of what changed."""
    SYNC = "sync"
    """Part of a difference, or of the current state that was asked for."""
    SYNCED = "synced"
    """The difference, or the current state, is complete."""


@dataclass(frozen=True, slots=True)
class Change:
    """A record was created, changed or removed."""

    type: EventType
    """What happened."""
    key: Key
    """Which record."""
    revision: int
    """The partition's revision of the change."""
    partition: int = 0
    """The partition."""
    record: Record | None = None
    """The record after the change; None when it is gone."""
    previous: Record | None = None
    """The record before the change, if it was asked for and there was one."""
    created: bool = False
    """Whether the change created the record."""
    live: bool = True
    """False while current state or a difference is being sent, True for a change as it happens."""


@dataclass(frozen=True, slots=True)
class Started:
    """The watch exists: every later change will be seen. Sent once, first.

    With `include_current` it has no token, and comes again whenever the state begins anew because
    the watch broke before `Synced`: forget what was sent before.
    """

    resume_token: bytes = b""
    """Resumes right here; empty with `include_current`, whose first token is that of `Synced`."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes were skipped; the newest state of whatever changed follows, up to `Synced`.

    Another one before `Synced` begins the difference anew: what was said to be `Present` counts no
    longer.
    """

    resume_token: bytes = b""
    """Resumes right here."""


@dataclass(frozen=True, slots=True)
class Present:
    """Within a difference: keys that still exist unchanged, where removals are forgotten.

    Whatever a reader holds of this partition that appears neither here nor as a `Change`
    between `Gap` and `Synced` is gone.
    """

    partition: int
    """The partition that the keys belong to."""
    keys: tuple[Key, ...] = ()
    """Some of them; several of these may follow each other."""


@dataclass(frozen=True, slots=True)
class Synced:
    """The current state, or the difference after a gap, is complete."""

    resume_token: bytes = b""
    """Resumes right here."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing changed: everything up to here has been sent."""

    resume_token: bytes = b""
    """Resumes right here."""


WatchItem = Change | Started | Gap | Present | Synced | Progress
"""Whatever a watch yields."""


@dataclass(frozen=True, slots=True)
class WatchMessage:
    """One message of a watch as the server sent it: what a `WatchItem` is taken from."""

    phase: WatchPhase
    """What it means."""
    changes: tuple[Change, ...] = ()
    """The changes."""
    resume_token: bytes = b""
    """Resumes right after this message, on any node; empty while a state or difference is sent."""
    present: tuple[Key, ...] = ()
    """See `Present`."""
    present_complete: bool = False
    """Whether `present` is in use for `present_partition`."""
    present_partition: int = 0
    """The partition that `present` speaks of."""
