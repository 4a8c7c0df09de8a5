"""Whether nodes are there: the cluster's own word is who takes part, not who runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from agniregistry import types as t
from agniregistry.cli.settings import Settings
from agniregistry.errors import AgniError

PROBE_MS = 1_000
"""How long a node may take to show that it is there."""
PROBES_AT_ONCE = 16
"""Nodes that are asked at the same time."""


def answering(found: t.ClusterMembers, settings: Settings) -> set[int]:
    """The ids of those members who answer at their client address, asked from here."""
    present = [each for each in found.members if each.state is not t.MemberState.LEFT]

    def probe(member: t.ClusterMember) -> bool:
        try:
            with settings.at(member.client_address, PROBE_MS).connect() as client:
                client.status()
        except AgniError:
            return False
        return True

    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        answers = list(pool.map(probe, present))
    return {member.node_id for member, is_there in zip(present, answers, strict=True) if is_there}
