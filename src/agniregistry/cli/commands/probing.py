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


def led_by(status: t.ClusterStatus) -> list[tuple[int, int]]:
    """The partitions that a node says it leads, with their terms."""
    held = status.partitions
    return [(each.partition, each.term) for each in held if each.leader_id == status.node_id]


def answering(found: t.ClusterMembers, settings: Settings) -> set[int]:
    """The ids of those members who answer at their client address, asked from here."""
    return set(statuses(found, settings))


def statuses(found: t.ClusterMembers, settings: Settings) -> dict[int, t.ClusterStatus]:
    """What members answer at their client address, by their ids; who doesn't answer is left out."""
    present = [each for each in found.members if each.state is not t.MemberState.LEFT]

    def probe(member: t.ClusterMember) -> t.ClusterStatus | None:
        try:
            with settings.at(member.client_address, PROBE_MS).connect() as client:
                told: t.ClusterStatus = client.status()
                return told
        except AgniError:
            return None

    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        answers = list(pool.map(probe, present))
    return {
        member.node_id: answer
        for member, answer in zip(present, answers, strict=True)
        if answer is not None
    }
