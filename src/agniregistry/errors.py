"""Every way in which the registry, or the way to it, can refuse.

    AgniError                       code of its own branch, `reason`, `field`, `metadata`
    ├── InvalidRequestError         the request is wrong; repeating it does not help
    │   ├── InvalidFieldError       INVALID_FIELD: `field` says which one
    │   ├── MessageTooLargeError    MESSAGE_TOO_LARGE
    │   ├── PageTokenInvalidError   PAGE_TOKEN_INVALID
    │   ├── ResumeTokenInvalidError RESUME_TOKEN_INVALID
    │   └── ResumeTokenForeignError RESUME_TOKEN_FOREIGN: of another cluster
    ├── NotFoundError               NOT_FOUND
    ├── ConflictError               the stored record is not what the request expects
    │   ├── AlreadyExistsError      ALREADY_EXISTS
    │   ├── RevisionMismatchError   REVISION_MISMATCH: `stored_revision`
    │   └── StaleIncarnationError   STALE_INCARNATION: a newer owner has registered
    ├── PageTokenExpiredError       PAGE_TOKEN_EXPIRED: start at the first page again
    ├── UnavailableError            not now; `retryable`, with `retry_delay_ms` where known
    │   ├── OverloadedError         OVERLOADED
    │   ├── DiskFullError           DISK_FULL: reads and renewals still work
    │   ├── NotLeaderError          NOT_LEADER
    │   ├── NoLeaderError           NO_LEADER: a majority of a partition's replicas is missing
    │   ├── OutcomeUnknownError     OUTCOME_UNKNOWN: the leader was lost on the way
    │   ├── NotReadyError           NOT_READY
    │   ├── ShuttingDownError       SHUTTING_DOWN
    │   ├── StalenessExceededError  STALENESS_EXCEEDED
    │   └── ConnectionFailedError   CONNECTION_FAILED (client side)
    ├── IdentityError               certificates, keys and bundles in files (client side)
    │   ├── IdentityInvalidError    IDENTITY_INVALID: damaged, expired, or not belonging together
    │   ├── IdentityMissingError    IDENTITY_MISSING: there is no such file
    │   └── IdentityExistsError     IDENTITY_EXISTS: another one is there already
    ├── DeadlineExceededError       DEADLINE_EXCEEDED: no answer in time, outcome unknown
    ├── UnimplementedError          UNIMPLEMENTED
    ├── InternalError               INTERNAL: a fault of the registry, please report it
    ├── LeaseLostError              LEASE_LOST (client side)
    └── ClientClosedError           CLIENT_CLOSED (client side)

Reasons are stable strings, equal over gRPC, HTTP and here. Users catch by branch, and nobody
has to import grpc to do so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class AgniError(Exception):
    """The root: whatever AgniRegistry raises on purpose is one of these."""

    default_reason: ClassVar[str] = "INTERNAL"
    """The reason that an instance has unless it is given another one."""
    code: ClassVar[str] = "INTERNAL"
    """The gRPC status code's name that goes with the reason."""
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without anybody changing anything."""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_delay_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """What is wrong, where, and what to do."""
        self.reason = reason or self.default_reason
        """The stable reason."""
        self.metadata: Mapping[str, str] = dict(metadata or {})
        """Details by name, such as stored_revision."""
        self.field = field or self.metadata.get("field")
        """The request's field at fault, if it is one field's fault."""
        self.retry_delay_ms = retry_delay_ms
        """How long the server asks to wait before the next attempt, in milliseconds."""

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _rebuild,
            (
                type(self),
                self.message,
                self.reason,
                self.field,
                dict(self.metadata),
                self.retry_delay_ms,
            ),
        )


def _rebuild(
    cls: type[AgniError],
    message: str,
    reason: str,
    field: str | None,
    metadata: Mapping[str, str],
    retry_delay_ms: int | None,
) -> AgniError:
    """Makes errors picklable, so that they survive process pools."""
    return cls(
        message, reason=reason, field=field, metadata=metadata, retry_delay_ms=retry_delay_ms
    )


class InvalidRequestError(AgniError):
    """The request is wrong; repeating it does not help."""

    default_reason = "INVALID_FIELD"
    code = "INVALID_ARGUMENT"


class InvalidFieldError(InvalidRequestError):
    """A field's value is refused; `field` names it."""


class MessageTooLargeError(InvalidRequestError):
    """The request is larger than the server accepts."""

    default_reason = "MESSAGE_TOO_LARGE"


class PageTokenInvalidError(InvalidRequestError):
    """The page token is not one of this cluster's, or was given with another filter."""

    default_reason = "PAGE_TOKEN_INVALID"


class ResumeTokenInvalidError(InvalidRequestError):
    """The resume token can't be read."""

    default_reason = "RESUME_TOKEN_INVALID"


class ResumeTokenForeignError(InvalidRequestError):
    """The resume token belongs to another cluster."""

    default_reason = "RESUME_TOKEN_FOREIGN"


class NotFoundError(AgniError):
    """There is no such record."""

    default_reason = "NOT_FOUND"
    code = "NOT_FOUND"


class ConflictError(AgniError):
    """The stored record is not what the request expects."""

    default_reason = "REVISION_MISMATCH"
    code = "FAILED_PRECONDITION"


class AlreadyExistsError(ConflictError):
    """The record exists, but was expected not to."""

    default_reason = "ALREADY_EXISTS"
    code = "ALREADY_EXISTS"


class RevisionMismatchError(ConflictError):
    """The record has another revision than was expected."""

    @property
    def stored_revision(self) -> int | None:
        """The revision that the record has, if the server said so."""
        text = self.metadata.get("stored_revision", "")
        return int(text) if text.isdigit() else None


class StaleIncarnationError(ConflictError):
    """A newer incarnation of the owner has registered: this one should stop."""

    default_reason = "STALE_INCARNATION"


class PageTokenExpiredError(AgniError):
    """The state that the pages showed is no longer kept: start at the first page again."""

    default_reason = "PAGE_TOKEN_EXPIRED"
    code = "OUT_OF_RANGE"


class UnavailableError(AgniError):
    """Not now; try again, no earlier than after `retry_delay_ms` where that is given."""

    default_reason = "UNAVAILABLE"
    code = "UNAVAILABLE"
    retryable = True


class OverloadedError(UnavailableError):
    """The server has more to do than it accepts."""

    default_reason = "OVERLOADED"
    code = "RESOURCE_EXHAUSTED"


class DiskFullError(UnavailableError):
    """The server's disk is full: it refuses writes, while reads and renewals go on."""

    default_reason = "DISK_FULL"
    code = "RESOURCE_EXHAUSTED"


class NotLeaderError(UnavailableError):
    """The asked node does not lead the record's partition and could not pass the request on."""

    default_reason = "NOT_LEADER"


class NoLeaderError(UnavailableError):
    """Nobody leads the record's partition: a majority of its replicas can't be reached."""

    default_reason = "NO_LEADER"


class OutcomeUnknownError(UnavailableError):
    """The partition's leader was lost on the way: the write may have been done, or may yet be."""

    default_reason = "OUTCOME_UNKNOWN"


class NotReadyError(UnavailableError):
    """The node is starting."""

    default_reason = "NOT_READY"


class ShuttingDownError(UnavailableError):
    """The node is stopping."""

    default_reason = "SHUTTING_DOWN"


class StalenessExceededError(UnavailableError):
    """The node's state is older than the request accepts."""

    default_reason = "STALENESS_EXCEEDED"


class ConnectionFailedError(UnavailableError):
    """No connection to the registry, or it broke before the answer (client side)."""

    default_reason = "CONNECTION_FAILED"


class IdentityError(AgniError):
    """Certificates, keys and bundles that can't be used (client side).

    `metadata` has the `file` and the `remedy`; the message names both.
    """

    default_reason = "IDENTITY_INVALID"
    code = "FAILED_PRECONDITION"


class IdentityInvalidError(IdentityError):
    """A file that is damaged, expired, or does not belong to the others."""

    default_reason = "IDENTITY_INVALID"


class IdentityMissingError(IdentityError):
    """There is no such file."""

    default_reason = "IDENTITY_MISSING"


class IdentityExistsError(IdentityError):
    """Another one is there already, and is not overwritten."""

    default_reason = "IDENTITY_EXISTS"


class DeadlineExceededError(AgniError):
    """No answer in time. Whether a write took place is unknown; repeating it is safe."""

    default_reason = "DEADLINE_EXCEEDED"
    code = "DEADLINE_EXCEEDED"
    retryable = True


class UnimplementedError(AgniError):
    """The server does not know this call."""

    default_reason = "UNIMPLEMENTED"
    code = "UNIMPLEMENTED"


class InternalError(AgniError):
    """A fault of the registry itself."""


class LeaseLostError(AgniError):
    """The lease ran out and the record could not be registered again (client side)."""

    default_reason = "LEASE_LOST"
    code = "FAILED_PRECONDITION"


class ClientClosedError(AgniError):
    """The client, watch or registration was closed before (client side)."""

    default_reason = "CLIENT_CLOSED"
    code = "CANCELLED"


def _leaves() -> dict[str, type[AgniError]]:
    """Each reason's class: the first class that carries it as its own default."""
    found: dict[str, type[AgniError]] = {"INVALID_FIELD": InvalidFieldError}
    queue: list[type[AgniError]] = [AgniError]
    while queue:
        cls = queue.pop()
        queue.extend(cls.__subclasses__())
        if "default_reason" in vars(cls) and not cls.__subclasses__():
            found[cls.default_reason] = cls
    found["REVISION_MISMATCH"] = RevisionMismatchError
    found["INTERNAL"] = InternalError
    return found


_BY_REASON = _leaves()

_BY_CODE: Mapping[str, type[AgniError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "FAILED_PRECONDITION": ConflictError,
    "OUT_OF_RANGE": PageTokenExpiredError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNIMPLEMENTED": UnimplementedError,
    "CANCELLED": ClientClosedError,
}


def error_for(
    reason: str,
    code: str,
    message: str,
    metadata: Mapping[str, str] | None = None,
    retry_delay_ms: int | None = None,
) -> AgniError:
    """The error for a refusal: by its stable reason, else by its status code's branch.

    A reason that this version does not know keeps its text, so that newer servers stay legible.
    """
    cls = _BY_REASON.get(reason) or _BY_CODE.get(code, InternalError)
    return cls(message, reason=reason or None, metadata=metadata, retry_delay_ms=retry_delay_ms)
