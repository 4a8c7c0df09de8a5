"""Exit codes that scripts can rely on, and how a failure is told.

A failure is one line on stderr for people, with a second line on what to do about it; with
`-o json` it is one JSON object, so that scripts need not parse prose.
"""

from __future__ import annotations

import json
import sys
from enum import IntEnum

import click

from agniregistry import errors
from agniregistry.backup import ArchiveExistsError
from agniregistry.wal import CorruptError, MissingError, WalError


class Exit(IntEnum):
    """What a script may rely on."""

    OK = 0
    """Done."""
    FAILED = 1
    """Failed for a reason that has no code of its own."""
    USAGE = 2
    """The command line, or a value in it, is wrong."""
    NOT_FOUND = 3
    """There is no such record, lease, context or file, or discovery found nothing."""
    CONFLICT = 4
    """The record is not as expected: it exists, has another revision or a newer owner."""
    UNAVAILABLE = 5
    """The registry did not answer, or cannot at present; trying later may help."""
    CORRUPT = 6
    """A log or snapshot on disk is damaged."""


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "failed for a reason without a code of its own",
    Exit.USAGE: "the command line, or a value in it, is wrong",
    Exit.NOT_FOUND: "no such record, lease, context or file; discovery found nothing",
    Exit.CONFLICT: "not as expected: it exists, has another revision or a newer owner",
    Exit.UNAVAILABLE: "no answer from the registry, or not at present; try later",
    Exit.CORRUPT: "a write-ahead log or a snapshot is damaged",
}


class CliError(click.ClickException):
    """A failure that the CLI found by itself."""

    def __init__(
        self,
        message: str,
        remedy: str = "",
        exit_code: Exit = Exit.FAILED,
        reason: str = "FAILED",
        **details: object,
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.code = exit_code
        self.reason = reason
        self.details = details


def usage_error(message: str, remedy: str = "") -> CliError:
    """The command line is wrong in a way that click cannot know."""
    return CliError(message, remedy, Exit.USAGE, "USAGE")


def not_found(message: str, remedy: str = "") -> CliError:
    """What was named does not exist."""
    return CliError(message, remedy, Exit.NOT_FOUND, "NOT_FOUND")


_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (errors.InvalidRequestError, Exit.USAGE),
    (errors.NotFoundError, Exit.NOT_FOUND),
    (errors.ConflictError, Exit.CONFLICT),
    (errors.LeaseLostError, Exit.CONFLICT),
    (errors.UnavailableError, Exit.UNAVAILABLE),
    (errors.DeadlineExceededError, Exit.UNAVAILABLE),
    (errors.IdentityMissingError, Exit.NOT_FOUND),
    (errors.IdentityExistsError, Exit.CONFLICT),
    (errors.IdentityError, Exit.USAGE),
    (ArchiveExistsError, Exit.CONFLICT),
    (CorruptError, Exit.CORRUPT),
    (MissingError, Exit.NOT_FOUND),
)

_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (errors.DiskFullError, "free space on the node's disk; reads and renewals still work"),
    (errors.OverloadedError, "try again in a moment"),
    (errors.StaleIncarnationError, "a newer owner has registered; leave out --incarnation"),
    (errors.RevisionMismatchError, "read it again with `agnictl get` and repeat with its revision"),
    (errors.AlreadyExistsError, "leave out --create-only to replace it"),
    (errors.NotFoundError, "`agnictl list -A` shows every record"),
    (errors.UnimplementedError, "the node is older than this agnictl, see `agnictl version`"),
    (errors.ResumeTokenForeignError, "start without --resume-token; it is of another cluster"),
)


def exit_code(error: Exception) -> Exit:
    """The code that goes with an error."""
    if isinstance(error, CliError):
        return error.code
    if isinstance(error, click.UsageError):
        return Exit.USAGE
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def describe(error: Exception, address: str) -> dict[str, object]:
    """What is to be told: message, remedy, reason and details, for people and for scripts."""
    told: dict[str, object] = {"message": str(error), "reason": "FAILED", "remedy": ""}
    if isinstance(error, CliError):
        told.update(message=error.message, reason=error.reason, remedy=error.remedy)
        told.update(error.details)
    elif isinstance(error, click.UsageError):
        told.update(message=error.format_message().rstrip("."), reason="USAGE")
        if error.ctx is not None:
            told["remedy"] = f"{error.ctx.command_path} --help"
    elif isinstance(error, WalError):
        told.update(message=error.message, remedy=error.remedy)
        told["reason"] = "CORRUPT" if isinstance(error, CorruptError) else "NOT_FOUND"
        if isinstance(error, ArchiveExistsError):
            told["reason"] = "EXISTS"
        if isinstance(error, CorruptError):
            told.update(file=str(error.file), offset=error.offset)
    elif isinstance(error, errors.AgniError):
        told.update(message=error.message, reason=error.reason)
        told["remedy"] = next((text for kind, text in _REMEDIES if isinstance(error, kind)), "")
        if error.field:
            told["field"] = error.field
        if isinstance(error, errors.IdentityError):
            remedy = error.metadata.get("remedy", "")
            told.update(message=error.message.removesuffix(f"; {remedy}"), remedy=remedy)
            told["file"] = error.metadata.get("file", "")
        elif "tls" in error.metadata:
            what, _, told["remedy"] = error.message.partition("; ")
            told.update(message=f"{address}: {what}", detail=error.metadata["detail"])
        elif isinstance(error, errors.ConnectionFailedError | errors.DeadlineExceededError):
            told["message"] = f"no answer from {address}"
            told["detail"] = error.message
            told["remedy"] = "is a node running there? give another with --address or a context"
    elif isinstance(error, OSError):
        told["message"] = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    told["exit_code"] = int(exit_code(error))
    return told


def tell(error: Exception, address: str, as_json: bool) -> None:
    """Writes the failure to stderr."""
    told = describe(error, address)
    if as_json:
        shown = {name: value for name, value in told.items() if value != ""}
        click.echo(json.dumps({"error": shown}), err=True)
        return
    colour = sys.stderr.isatty()
    named = str(told.get("field") or "")
    field = f"{named}: " if named and named not in str(told["message"]) else ""
    prefix = click.style("error:", fg="red", bold=True) if colour else "error:"
    click.echo(f"{prefix} {field}{told['message']}", err=True)
    if told["remedy"]:
        hint = click.style("  try:", dim=True) if colour else "  try:"
        click.echo(f"{hint} {told['remedy']}", err=True)
