"""AgniRegistry: gateways and agents announce themselves, stay alive, and are found.

    from agniregistry import Capacity, Client, Filter, Key, Kind, Spec

    with Client("127.0.0.1:7400") as client:
        spec = Spec(region="global", domain="a.example", capacity=Capacity(cpu=1))
        with client.register(Key.gateway(), spec):
            found = client.discover(Filter(kind=Kind.GATEWAY), region="global")

Names are imported when they are first used, so that `import agniregistry` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agniregistry.client import AsyncClient, Client, RetryPolicy, Timeout
    from agniregistry.errors import AgniError
    from agniregistry.identity import Tls
    from agniregistry.types import Capacity, Filter, Key, Kind, ReadOptions, Spec

__all__ = [
    "AgniError",
    "AsyncClient",
    "Capacity",
    "Client",
    "Filter",
    "Key",
    "Kind",
    "ReadOptions",
    "RetryPolicy",
    "Spec",
    "Timeout",
    "Tls",
]

_HOMES = {
    "AgniError": "agniregistry.errors",
    "AsyncClient": "agniregistry.client",
    "Client": "agniregistry.client",
    "RetryPolicy": "agniregistry.config",
    "Timeout": "agniregistry.config",
    "Tls": "agniregistry.identity",
    **dict.fromkeys(
        ("Capacity", "Filter", "Key", "Kind", "ReadOptions", "Spec"), "agniregistry.types"
    ),
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agniregistry' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
