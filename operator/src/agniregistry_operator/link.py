"""The registry's own word: its members, its partitions, and the admin calls, through the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from agniregistry import types as t
from agniregistry.client import AsyncClient, RetryPolicy, Timeout
from agniregistry.errors import AgniError
from agniregistry.identity import Tls
from agniregistry.placement import (
    Cluster,
    Node,
    NodeState,
    Partition,
    SetWanted,
    TransferLeader,
    leader_of,
)
from agniregistry_operator.model import actions as a
from agniregistry_operator.model.observed import Member, Registry

ANSWER_MS = 3_000
"""How long a node may take to show that it is there."""
CHANGE_MS = 10_000
"""How long an admin call may take."""
LAG_ENTRIES_MAX = 1_000
"""Log entries that a node may be behind and still count as caught up."""


class Link:
    """Connections to one registry's nodes; belongs to the event loop in which it was made."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._clients: dict[str, AsyncClient] = {}
        self._tls: Tls | None = None
        self.fault = ""
        """Why nobody answered, in the last look."""
        self.silences: dict[str, str] = {}
        """Why addresses didn't answer, in the last look."""

    async def aclose(self) -> None:
        """Ends all connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def use(self, tls: Tls, addresses: Sequence[str]) -> None:
        """Keeps connections to these addresses alone."""
        if tls != self._tls:
            await self.aclose()
        self._tls = tls
        for address in [known for known in self._clients if known not in addresses]:
            await self._clients.pop(address).aclose()

    def _client(self, address: str) -> AsyncClient:
        if address not in self._clients:
            assert self._tls is not None, "use() comes first"
            self._clients[address] = AsyncClient(
                address,
                tls=self._tls,
                timeout=Timeout(total_ms=ANSWER_MS),
                retry=RetryPolicy(max_attempts=1),
            )
        return self._clients[address]

    async def look(self, addresses: Sequence[str]) -> Registry | None:
        """What the registry says; None while nobody answers."""
        self.silences = {}
        answers = await asyncio.gather(*[self._status(address) for address in addresses])
        statuses = dict(zip(addresses, answers, strict=True))
        alive = [address for address, status in statuses.items() if status is not None]
        found = await self._members(alive)
        leader = found.system_leader_id if found is not None else 0
        leads = [a for a in alive if (status := statuses[a]) and status.node_id == leader]
        if leads and leads[0] != alive[0]:
            # Whoever leads the system group is the first to know who belongs to it.
            found = await self._members(leads) or found
        if found is None or not found.members:
            return None
        self.fault = ""
        cluster_id = next(status.cluster_id for status in statuses.values() if status is not None)
        return registry_of(cluster_id, found, [s for s in statuses.values() if s is not None])

    async def _members(self, addresses: Sequence[str]) -> t.ClusterMembers | None:
        """The members as the first of these knows them that answers."""
        for address in addresses:
            try:
                return await self._client(address).members()
            except AgniError as error:
                self.fault = error.message
        return None

    async def _status(self, address: str) -> t.ClusterStatus | None:
        try:
            return await self._client(address).status()
        except AgniError as error:
            self.fault = f"{address}: {error.message}"
            self.silences[address] = error.message
            # A pod that comes again has another address: a new connection asks for it at once, and
            # doesn't wait as long as one that has failed.
            if (client := self._clients.pop(address, None)) is not None:
                await client.aclose()
            return None

    async def change(self, action: a.Action, addresses: Sequence[str]) -> None:
        """One admin call, to whichever node answers.

        Raises:
            AgniError: It was refused, or nobody answered.
        """
        last: AgniError | None = None
        for address in addresses:
            try:
                await self._change(self._client(address), action)
                return
            except AgniError as error:
                if not error.retryable:
                    raise
                last = error
        if last is not None:
            raise last

    async def _change(self, client: AsyncClient, action: a.Action) -> None:
        match action:
            case a.DrainMember():
                call = client.drain_member
            case a.ReturnMember():
                call = client.return_member
            case a.RemoveMember():
                call = client.remove_member
            case a.MoveStep(step=SetWanted() as step):
                await client.place_partition(
                    step.partition,
                    step.nodes,
                    expected_version=step.expected_version,
                    author_epoch=self._epoch,
                    timeout_ms=CHANGE_MS,
                )
                return
            case a.MoveStep(step=TransferLeader() as step):
                await client.transfer_leader(
                    step.partition, step.to, author_epoch=self._epoch, timeout_ms=CHANGE_MS
                )
                return
            case _:
                raise TypeError(f"{a.key_of(action)} is no admin call")
        await call(action.node_id, author_epoch=self._epoch, timeout_ms=CHANGE_MS)


def registry_of(
    cluster_id: str, found: t.ClusterMembers, statuses: Sequence[t.ClusterStatus]
) -> Registry:
    """The registry as the planner sees it. Pure."""
    by_id = {status.node_id: status for status in statuses}
    claims = {
        node_id: [(p.partition, p.term) for p in status.partitions if p.leader_id == node_id]
        for node_id, status in by_id.items()
    }
    committed: dict[int, int] = {}
    for status in statuses:
        for part in status.partitions:
            known = committed.get(part.partition, 0)
            committed[part.partition] = max(known, part.commit_index)
    # A node shows what it once held, too, and is never caught up with that.
    votes = {(node_id, p.partition) for p in found.placements for node_id in p.voters}
    led = {partition for claimed in claims.values() for partition, _ in claimed}
    members = tuple(
        _member(member, by_id.get(member.node_id), committed, votes, led)
        for member in found.members
    )
    nodes = tuple(Node(m.node_id, m.name, m.zone, m.state, reachable=m.reachable) for m in members)
    partitions = tuple(
        Partition(
            number=placement.partition,
            wanted=placement.wanted,
            version=placement.wanted_version,
            voters=placement.voters,
            learners=placement.learners,
            reached=placement.reached_version,
            leader=leader_of(placement.partition, placement.leader_id, claims),
        )
        for placement in found.placements
    )
    cluster = Cluster(nodes, partitions, found.replication)
    voters = frozenset(found.system_voters)
    return Registry(cluster_id, cluster, members, found.system_leader_id, voters)


def _member(
    member: t.ClusterMember,
    status: t.ClusterStatus | None,
    committed: Mapping[int, int],
    votes: Collection[tuple[int, int]],
    led: Collection[int],
) -> Member:
    state = NodeState(member.state.value)
    is_there = status is not None and state is not NodeState.LEFT
    # Whoever hasn't heard a leader that there is counts for no quorum yet, however little it lacks:
    # after a restart others may take a while to find it under its new address.
    lagging = status is not None and any(
        part.applied_index + LAG_ENTRIES_MAX < committed.get(part.partition, 0)
        or (part.leader_id == 0 and part.partition in led)
        for part in status.partitions
        if (member.node_id, part.partition) in votes
    )
    ends_ms = status.certificate_not_after_unix_ms if status else 0
    return Member(
        node_id=member.node_id,
        name=member.name,
        zone=member.zone,
        state=state,
        replaces=member.replaces,
        reachable=is_there,
        version=status.version if status else "",
        trust_hash=status.trust_sha256 if status else "",
        certificate_not_after=ends_ms / 1000 if ends_ms else None,
        lagging=lagging,
        writable=status.writable if status else True,
        fault=status.message if status else "",
    )
