"""The error tree: complete, drawn as it is, picklable, and the same after a trip over gRPC."""

from __future__ import annotations

import pickle

import pytest
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2 as status
from hypothesis import given
from hypothesis import strategies as st

from agniregistry import errors
from agniregistry.client._status import decode_details, encode_details

REASONS = {
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "CLIENT_CLOSED": errors.ClientClosedError,
    "CONNECTION_FAILED": errors.ConnectionFailedError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "DISK_FULL": errors.DiskFullError,
    "IDENTITY_EXISTS": errors.IdentityExistsError,
    "IDENTITY_INVALID": errors.IdentityInvalidError,
    "IDENTITY_MISSING": errors.IdentityMissingError,
    "INTERNAL": errors.InternalError,
    "INVALID_FIELD": errors.InvalidFieldError,
    "LEASE_LOST": errors.LeaseLostError,
    "MESSAGE_TOO_LARGE": errors.MessageTooLargeError,
    "NOT_FOUND": errors.NotFoundError,
    "NOT_LEADER": errors.NotLeaderError,
    "NOT_READY": errors.NotReadyError,
    "OVERLOADED": errors.OverloadedError,
    "PAGE_TOKEN_EXPIRED": errors.PageTokenExpiredError,
    "NO_LEADER": errors.NoLeaderError,
    "OUTCOME_UNKNOWN": errors.OutcomeUnknownError,
    "PAGE_TOKEN_INVALID": errors.PageTokenInvalidError,
    "RESUME_TOKEN_FOREIGN": errors.ResumeTokenForeignError,
    "RESUME_TOKEN_INVALID": errors.ResumeTokenInvalidError,
    "REVISION_MISMATCH": errors.RevisionMismatchError,
    "SHUTTING_DOWN": errors.ShuttingDownError,
    "STALENESS_EXCEEDED": errors.StalenessExceededError,
    "STALE_INCARNATION": errors.StaleIncarnationError,
    "UNIMPLEMENTED": errors.UnimplementedError,
}


def subclasses(cls: type) -> set[type]:
    """All below, and itself."""
    return {cls}.union(*(subclasses(child) for child in cls.__subclasses__()))


@pytest.mark.parametrize(("reason", "cls"), REASONS.items())
def test_each_reason_has_its_class(reason: str, cls: type[errors.AgniError]) -> None:
    error = errors.error_for(reason, cls.code, "why", {"field": "spec.port"}, 5)
    assert type(error) is cls
    assert error.reason == cls("why").reason == reason
    assert (error.field, error.retry_delay_ms) == ("spec.port", 5)
    assert reason in str(error)


def test_every_leaf_is_among_the_reasons() -> None:
    leaves = {cls for cls in subclasses(errors.AgniError) if not cls.__subclasses__()}
    assert leaves == set(REASONS.values())


def test_the_tree_is_drawn_as_it_is() -> None:
    drawing = errors.__doc__ or ""
    for cls in subclasses(errors.AgniError):
        assert cls.__name__ in drawing


def test_only_what_may_succeed_later_is_retryable() -> None:
    retryable = {cls for cls in subclasses(errors.AgniError) if cls.retryable}
    assert retryable == subclasses(errors.UnavailableError) | {errors.DeadlineExceededError}


@pytest.mark.parametrize("cls", sorted(subclasses(errors.AgniError), key=lambda c: c.__name__))
def test_errors_survive_pickling(cls: type[errors.AgniError]) -> None:
    error = cls("why", field="f", metadata={"a": "b"}, retry_delay_ms=7)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert vars(again) == vars(error)


def test_a_reason_from_the_future_stays_legible() -> None:
    error = errors.error_for("QUOTA_EXCEEDED", "FAILED_PRECONDITION", "no more")
    assert isinstance(error, errors.ConflictError)
    assert error.reason == "QUOTA_EXCEEDED"
    assert type(errors.error_for("", "DATA_LOSS", "odd")) is errors.InternalError


text = st.text(max_size=50)


@given(text, st.dictionaries(text, text, max_size=5), st.one_of(st.none(), st.integers(0, 10**9)))
def test_details_survive_the_wire(
    message: str, metadata: dict[str, str], delay_ms: int | None
) -> None:
    error = errors.OverloadedError(message, metadata=metadata, retry_delay_ms=delay_ms)
    reason, received, received_ms = decode_details(encode_details(error))
    assert reason == "OVERLOADED"
    assert {k: v for k, v in received.items() if k != "field"} == {
        k: v for k, v in metadata.items() if k != "field"
    }
    assert received_ms == delay_ms


@given(st.binary(max_size=200))
def test_unreadable_details_never_raise(data: bytes) -> None:
    decode_details(data)


def test_the_details_are_googles_own() -> None:
    error = errors.OverloadedError("busy", field="x", retry_delay_ms=1500)
    message = status.Status.FromString(encode_details(error))
    info, retry = details.ErrorInfo(), details.RetryInfo()
    assert message.details[0].Unpack(info)
    assert message.details[1].Unpack(retry)
    assert (info.reason, info.domain, info.metadata["field"]) == (
        "OVERLOADED",
        "agniregistry",
        "x",
    )
    assert retry.retry_delay.ToMilliseconds() == 1500
