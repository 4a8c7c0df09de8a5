"""SPIFFE IDs: parsed and checked as the SPIFFE ID specification says, and the registry's own paths.

    spiffe://TRUST_DOMAIN/registry/node/NAME           a node of the registry
    spiffe://TRUST_DOMAIN/operator                     whoever looks after the cluster
    spiffe://TRUST_DOMAIN/t/NAMESPACE/gateway/NAME     a gateway
    spiffe://TRUST_DOMAIN/t/NAMESPACE/agent/NAME       an agent

Strict on purpose: nothing is decoded, folded or normalized, so that two IDs are the same exactly
if their bytes are. Whoever compares IDs to decide about access can rely on that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agniregistry.errors import InvalidFieldError

SCHEME: Final = "spiffe://"
"""What every ID begins with, in lower case."""

ID_BYTES_MAX: Final = 2048
"""The longest ID, in bytes."""

TRUST_DOMAIN_BYTES_MAX: Final = 255
"""The longest name of a trust domain, in bytes."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_NODE_NAME = re.compile(r"[a-z0-9-]{1,63}")


def _refuse(what: str, remedy: str, field: str = "spiffe_id") -> InvalidFieldError:
    return InvalidFieldError(f"{field} {what}; {remedy}", field=field)


def check_trust_domain(name: str) -> str:
    """The name as it is, if it may be a trust domain's; `InvalidFieldError` else."""
    field = "trust_domain"
    if not name:
        raise _refuse("is empty", "give a name such as eu.example.org", field)
    if not _TRUST_DOMAIN.fullmatch(name):
        raise _refuse(
            f"{name[:64]!r} has a character that it must not have",
            "use a-z, 0-9, dot, dash and underscore: no port, no capitals",
            field,
        )
    if len(name) > TRUST_DOMAIN_BYTES_MAX:
        raise _refuse(
            f"has {len(name)} bytes", f"use at most {TRUST_DOMAIN_BYTES_MAX} bytes", field
        )
    return name


def _check_segment(segment: str, field: str) -> str:
    if not segment:
        raise _refuse("has an empty segment", "leave out the slash too many", field)
    if segment in (".", ".."):
        raise _refuse(f"has the segment {segment!r}", "name it otherwise", field)
    if not _SEGMENT.fullmatch(segment):
        raise _refuse(
            f"{segment[:64]!r} has a character that a SPIFFE ID must not have",
            "use A-Z, a-z, 0-9, dot, dash and underscore",
            field,
        )
    return segment


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A checked SPIFFE ID; equal and hashable by its bytes."""

    trust_domain: str
    """Who vouches for it, such as eu.example.org."""
    path: str = ""
    """Empty (the trust domain itself), or what begins with a slash."""

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        if self.path:
            if not self.path.startswith("/"):
                raise _refuse("has a path without a slash before it", "begin it with /")
            for segment in self.path[1:].split("/"):
                _check_segment(segment, "spiffe_id")
        size = len(str(self))
        if size > ID_BYTES_MAX:
            raise _refuse(f"has {size} bytes", f"use at most {ID_BYTES_MAX} bytes")

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Reads an ID; `InvalidFieldError` says what is wrong with a text that is none."""
        if not text.startswith(SCHEME):
            raise _refuse(f"{text[:64]!r} does not begin with {SCHEME}", "give the whole ID")
        domain, slash, rest = text[len(SCHEME) :].partition("/")
        return cls(domain, slash + rest)

    @classmethod
    def node(cls, trust_domain: str, name: str) -> SpiffeId:
        """The node of the registry that its configuration gives this name."""
        if not _NODE_NAME.fullmatch(name):
            remedy = "use 1 to 63 of a-z, 0-9 and dash"
            raise _refuse(f"{name[:64]!r} is no name of a node", remedy, "name")
        return cls(trust_domain, f"/registry/node/{name}")

    @classmethod
    def operator(cls, trust_domain: str) -> SpiffeId:
        """Whoever looks after the cluster, a person or a program."""
        return cls(trust_domain, "/operator")

    @classmethod
    def gateway(cls, trust_domain: str, namespace: str, name: str) -> SpiffeId:
        """The gateway that may register under this namespace and name."""
        return cls._tenant(trust_domain, namespace, "gateway", name)

    @classmethod
    def agent(cls, trust_domain: str, namespace: str, name: str) -> SpiffeId:
        """The agent that may register under this namespace and name."""
        return cls._tenant(trust_domain, namespace, "agent", name)

    @classmethod
    def _tenant(cls, trust_domain: str, namespace: str, kind: str, name: str) -> SpiffeId:
        _check_segment(namespace, "namespace")
        _check_segment(name, "name")
        return cls(trust_domain, f"/t/{namespace}/{kind}/{name}")

    @property
    def role(self) -> Role | None:
        """What the path says it is in the registry; None for a path that is not one of ours."""
        match self.path.split("/")[1:]:
            case ["registry", "node", name] if _NODE_NAME.fullmatch(name):
                return Role("node", name=name)
            case ["operator"]:
                return Role("operator")
            case ["t", namespace, "gateway" | "agent" as kind, name]:
                return Role(kind, namespace=namespace, name=name)
        return None


@dataclass(frozen=True, slots=True)
class Role:
    """What an ID is in the registry."""

    kind: str
    """node, operator, gateway or agent."""
    namespace: str = ""
    """Of a gateway or agent; empty else."""
    name: str = ""
    """Of a node, gateway or agent; empty else."""
