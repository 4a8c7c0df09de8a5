"""What the load writes, and where its parts keep from each other."""

from __future__ import annotations

from agniregistry.types import Capacity, Key, Spec

WRITTEN = "load"
"""The namespace of records that are written, read and watched."""
PROBED = "probe"
"""The namespace of records that only show for how long writes stop."""


def written(number: int) -> Key:
    """The record that one writer alone writes."""
    return Key.gateway(f"writer-{number}", WRITTEN)


def leased(number: int) -> Key:
    """A record that lives by its lease."""
    return Key.agent(f"worker-{number}", WRITTEN)


def probed(number: int) -> Key:
    """A record of the probe."""
    return Key.gateway(f"probe-{number}", PROBED)


def spec_of(turn: int) -> Spec:
    """A spec that each turn changes: a write that changed nothing would be no write."""
    return Spec(
        region="global",
        ip="192.0.2.7",
        port=4000,
        capacity=Capacity(cpu=1, memory=1024),
        payload=str(turn).encode(),
    )
