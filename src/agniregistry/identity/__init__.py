"""Who is who: SPIFFE IDs, the files that prove them, and a CA for development.

What works with certificates imports `cryptography`; it is imported when it is first used, so that
a client on plaintext does without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from agniregistry.identity.spiffe import Role, SpiffeId, check_trust_domain
from agniregistry.identity.tls import Tls

if TYPE_CHECKING:
    from agniregistry.identity.dev_ca import DevCa, Leaf
    from agniregistry.identity.files import (
        Bundle,
        Identity,
        Material,
        load,
        load_bundle,
        load_identity,
    )

__all__ = [
    "Bundle",
    "DevCa",
    "Identity",
    "Leaf",
    "Material",
    "Role",
    "SpiffeId",
    "Tls",
    "check_trust_domain",
    "load",
    "load_bundle",
    "load_identity",
]

_HOMES = {
    **dict.fromkeys(("DevCa", "Leaf"), "agniregistry.identity.dev_ca"),
    **dict.fromkeys(
        ("Bundle", "Identity", "Material", "load", "load_bundle", "load_identity"),
        "agniregistry.identity.files",
    ),
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agniregistry.identity' has no attribute {name!r}")
    return getattr(import_module(home), name)
