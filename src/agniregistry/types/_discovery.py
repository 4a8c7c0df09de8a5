"""What discovery answers: candidates with their scores, and who was left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agniregistry.types._answers import Header
from agniregistry.types._records import Instance, Key


class ExclusionReason(StrEnum):
    """Why a record was not answered."""

    NOT_REGISTERED = "not_registered"
    """There is no such record."""
    EXPIRED = "expired"
    """Its lease has run out."""
    DRAINING = "draining"
    """It is draining."""
    SUSPECT = "suspect"
    """It is suspect."""
    REGION = "region"
    """Its region isn't among those demanded."""
    LABELS = "labels"
    """A label is missing or different."""
    CAPACITY = "capacity"
    """Its total capacity is too small."""
    FREE_CAPACITY = "free_capacity"
    """Too little of it is free."""
    OUTRANKED = "outranked"
    """It matches, but others ranked higher or were drawn."""
    FILTER = "filter"
    """Its name, status or gateway doesn't match."""


@dataclass(frozen=True, slots=True)
class Score:
    """How a rank came about; each part is 0..1, the total is their weighted sum."""

    total: float = 0.0
    """What it was ranked by."""
    region_match: float = 0.0
    """1 in the preferred region (or with none preferred), else 0."""
    free_capacity: float = 0.0
    """The smallest free share over the four resources, 0..1."""
    freshness: float = 0.0
    """How recently its load was reported, 0..1; 0.5 when never."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that was found."""

    instance: Instance
    """The record with its liveness and load."""
    score: Score
    """Why it stands here."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A record that was not answered, and why."""

    key: Key
    """Which record."""
    reason: ExclusionReason
    """Why."""
    detail: str = ""
    """The same for people, with figures."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The best records for a need, best first."""

    candidates: tuple[Candidate, ...] = ()
    """What was found."""
    exclusions: tuple[Exclusion, ...] = ()
    """With `explain`: what was left out."""
    matched: int = 0
    """How many records matched the filter."""
    headers: tuple[Header, ...] = ()
    """One for each partition that was asked."""
