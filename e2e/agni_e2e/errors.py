"""What can go wrong with the platform itself, apart from what is tested on it."""

from __future__ import annotations


class PlatformError(Exception):
    """The platform can't be built, started or used; the text says what to do."""


class ApiError(PlatformError):
    """The API server refused a request.

    Attributes:
        status: The HTTP status.
        reason: Kubernetes' own word for it (`NotFound`, `Invalid`).
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
