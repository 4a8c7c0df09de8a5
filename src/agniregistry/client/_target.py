"""What targets say: where the registry is, and whether the way there is encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from agniregistry.config import DEFAULT_TARGET
from agniregistry.errors import InvalidFieldError
from agniregistry.identity import Tls

DEFAULT_PORT = DEFAULT_TARGET.rpartition(":")[2]
"""The port of a URL that names none."""

TARGETS_MAX = 32
"""The most targets that a client may be given."""

_SECURE = {"https": True, "grpcs": True, "http": False, "grpc": False}


@dataclass(frozen=True, slots=True)
class Target:
    """A target, read."""

    address: str
    """What gRPC connects to."""
    secure: bool | None
    """Whether it must be TLS, must not be, or (None) goes by what else is given."""


def parse_target(text: str) -> Target:
    """Reads host:port, a URL (https, grpcs, http, grpc), or one of gRPC's own names (dns:///…)."""
    scheme, found, rest = text.partition("://")
    secure = _SECURE.get(scheme.lower()) if found else None
    if secure is None:
        return Target(text, None)
    host = rest.removesuffix("/")
    if not host or any(mark in host for mark in "/?#@"):
        raise InvalidFieldError(
            f"target {text!r} must be {scheme}://HOST:PORT and nothing more", field="target"
        )
    bare = host.endswith("]") if host.startswith("[") else ":" not in host
    return Target(f"{host}:{DEFAULT_PORT}" if bare else host, secure)


def parse_targets(given: str | Sequence[str]) -> tuple[Target, ...]:
    """Reads one target or several, in a sequence or between commas; each counts once."""
    texts = [given] if isinstance(given, str) else list(given)
    parts = [part.strip() for text in texts for part in text.split(",")]
    if not all(parts) or not 1 <= len(parts) <= TARGETS_MAX:
        raise InvalidFieldError(
            f"target must be 1..{TARGETS_MAX} addresses with commas between them, not {given!r}",
            field="target",
        )
    return tuple(dict.fromkeys(map(parse_target, parts)))


def check_security(
    target: Target, tls: Tls | None, credentials: grpc.ChannelCredentials | None
) -> None:
    """Refuses what contradicts itself, before anything is sent the wrong way."""
    if tls is not None and credentials is not None:
        raise InvalidFieldError("tls and credentials are two ways; give one of them", field="tls")
    given = tls is not None or credentials is not None
    if target.secure is True and not given:
        raise InvalidFieldError(
            f"{target.address} is asked for over TLS, but nothing says whom to trust; "
            "give tls=Tls(ca_file=…, cert_file=…, key_file=…)",
            field="tls",
        )
    if target.secure is False and given:
        raise InvalidFieldError(
            f"{target.address} is asked for in plaintext, but certificates are given; "
            "write https:// or leave the scheme out",
            field="target",
        )
