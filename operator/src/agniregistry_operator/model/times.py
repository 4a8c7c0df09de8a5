"""Times and durations as Kubernetes writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds_of(text: str) -> float:
    """The seconds of a duration such as 1h30m.

    Raises:
        ValueError: It is none.
    """
    found = _DURATION.fullmatch(text)
    if not text or not found:
        raise ValueError(f"must be a duration such as 10m or 1h30m, not {text!r}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def stamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, in whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str | None) -> float | None:
    """Seconds since 1970 of an RFC 3339 time; None of None, and of what is no time."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def words(seconds: float) -> str:
    """A span of time for people: 45 s, 12 min, 3 h."""
    if seconds < 120:
        return f"{max(0, int(seconds))} s"
    return f"{int(seconds // 60)} min" if seconds < 7200 else f"{int(seconds // 3600)} h"
