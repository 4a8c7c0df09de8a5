"""What a registration that is kept alive tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agniregistry.errors import AgniError
from agniregistry.types._records import Key


class RegistrationState(StrEnum):
    """How a registration does."""

    ACTIVE = "active"
    """Registered, and renewed in time."""
    UNCERTAIN = "uncertain"
    """Renewals go unanswered; the record may expire. Renewing goes on."""
    LOST = "lost"
    """The lease is gone; registering again is under way."""
    FAILED = "failed"
    """It ended: a newer incarnation took over, or the registry refuses the record."""
    CLOSED = "closed"
    """Its owner closed it."""


class RegistrationEventType(StrEnum):
    """What happened to a registration."""

    RENEWED = "renewed"
    """The lease was extended."""
    UNANSWERED = "unanswered"
    """A renewal, or registering again, did not succeed; it is tried again."""
    LOST = "lost"
    """The server says that the lease is gone."""
    REREGISTERED = "reregistered"
    """Registered again, with a higher incarnation, under a new lease."""
    FAILED = "failed"
    """Given up for good; `error` says why."""


@dataclass(frozen=True, slots=True)
class RegistrationEvent:
    """One thing that happened to a registration."""

    type: RegistrationEventType
    """What."""
    key: Key
    """To which record."""
    lease_id: int = 0
    """Its lease at that moment."""
    incarnation: int = 0
    """Its incarnation at that moment."""
    error: AgniError | None = None
    """What went wrong, where something did."""
