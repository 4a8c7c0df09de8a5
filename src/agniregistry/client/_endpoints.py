"""The nodes that a client knows, and which of them it asks next.

There are the targets that it was given and the members that the partition map names. A target may
be asked at once. A member has to prove first that it can be reached from here and is the node that
it should be: addresses behind a port-forward or another network lead nowhere, or to somebody else.
Whoever fails is not asked again, while there is another one, until it has answered a probe in the
background; probes of one address are ever farther apart. Pure: its owner holds the lock, sends,
and hands in time and chance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from agniregistry.client._channels import Channels
from agniregistry.client._routes import Routes, Where
from agniregistry.client._target import Target
from agniregistry.errors import (
    AgniError,
    ConnectionFailedError,
    DeadlineExceededError,
    DiskFullError,
    NoLeaderError,
    NotReadyError,
    OverloadedError,
    ShuttingDownError,
    UnavailableError,
)

C = TypeVar("C")

BACK_OFF_S_MIN, BACK_OFF_S_MAX = 0.2, 30.0
"""How long an address that failed once, or again and again, is left alone, in seconds."""

FOREIGN_S = 60.0
"""How long an address is left alone where another node than expected answers, in seconds."""

NO_LEADER_S = 3.0
"""How long a node is left alone that could reach no leader, in seconds; it waits as long itself."""

BLAMED_FROM_S = 0.5
"""Silence below this is the caller's impatience and says nothing of the node, in seconds."""

SPARES = 2
"""Nodes that are kept reachable, so that there is another one when one stops."""

URGENT_S, URGENT_SHARE = 0.5, 0.125
"""While fewer than that are reachable, a node that once was is probed sooner: after this time, in
seconds, or this share of the usual one where that is longer."""


@dataclass(slots=True, eq=False)
class Endpoint(Generic[C]):
    """A node and how it does."""

    target: Target
    is_given: bool
    """Whether it is one of the targets; else a member that the map names."""
    channels: Channels[C] | None
    """The way there; made when it is first needed."""
    is_up: bool
    """Whether it is worth asking."""
    node_id: int = 0
    """Who has to answer there; 0 for whoever it is."""
    zone: str = ""
    """Where it runs; empty when unknown."""
    failures: int = 0
    """How often in a row it could not be reached."""
    retry_at: float = 0.0
    """When to probe it next, on the owner's clock in seconds."""
    urgent_at: float = 0.0
    """The same while others are few."""
    is_proven: bool = False
    """Whether it has been what it should be before; a target is from the beginning."""
    in_flight: int = 0
    """Calls on their way."""
    users: int = 0
    """Calls, probes and streams."""
    is_wanted: bool = False
    """Whether a call would have gone there, had it been up."""
    is_probed: bool = False
    """Whether a probe is on its way."""


class Endpoints(Generic[C]):
    """All of them."""

    def __init__(
        self, given: Sequence[Endpoint[C]], zone: str, chance: Callable[[], float]
    ) -> None:
        self.given = tuple(given)
        """The targets."""
        self.by_member: dict[int, Endpoint[C]] = {}
        """The members that the map names, by their identity; some may be targets."""
        self.retired: list[Endpoint[C]] = []
        """Those that the map no longer names; they end with their last user."""
        self.routes: Routes | None = None
        """The map; None as long as there is nothing to choose from."""
        self.is_news = False
        """Whether somebody is wanted who was not before: there may be someone to probe."""
        self._zone = zone
        self._chance = chance

    def __iter__(self) -> Iterator[Endpoint[C]]:
        """Each of them once."""
        yield from self.given
        yield from (each for each in self.by_member.values() if not each.is_given)

    def adopt(self, routes: Routes | None) -> None:
        """Takes a new map over."""
        before, self.by_member = self.by_member, {}
        self.routes = routes
        given = {each.target.address: each for each in self.given}
        for member in routes.members.values() if routes else ():
            address, known = member.client_address, before.get(member.node_id)
            if known is None or known.target.address != address:
                target = Target(address, self.given[0].target.secure)
                known = given.get(address) or Endpoint(target, False, None, False, member.node_id)
            known.zone = member.zone
            self.by_member[member.node_id] = known
        kept = set(self.by_member.values())
        self.retired += (each for each in before.values() if not (each.is_given or each in kept))

    def pick(
        self, where: Where, partition: int | None, tried: Collection[Endpoint[C]]
    ) -> Endpoint[C] | None:
        """Whom to ask next; None when all that may be asked have been tried."""
        if where is Where.REPLICA:
            suited = self._replica(partition, tried)
        else:
            suited = self.leader(partition, tried) if where is Where.LEADER else None
        if suited is not None:
            return suited
        reachable = [each for each in self.given if each.is_up and each not in tried]
        if reachable:
            return self._calmer(reachable)
        if where is not Where.GIVEN:
            others = self.by_member.values()
            reachable = [each for each in others if each.is_up and each not in tried]
            if reachable:
                return self._calmer(reachable)
        # Nobody is known to be there: whoever once was may be there again.
        left = [
            each
            for each in (self.given if where is Where.GIVEN else self)
            if _was_there(each) and each not in tried
        ]
        return min(left, key=lambda each: each.retry_at) if left else None

    def leader(self, partition: int | None, tried: Collection[Endpoint[C]]) -> Endpoint[C] | None:
        """Who leads a partition; None when that is unknown, or nobody who may be asked."""
        if self.routes is None or partition is None:
            return None
        found = self.by_member.get(self.routes.leader(partition))
        if found is None or found in tried:
            return None
        if not found.is_up:
            self._want(found)
            return None
        return found

    def _replica(self, partition: int | None, tried: Collection[Endpoint[C]]) -> Endpoint[C] | None:
        if self.routes is None:
            return None
        found = []
        for node_id in self.by_member if partition is None else self.routes.replicas(partition):
            each = self.by_member.get(node_id)
            if each is not None and each.is_up and each not in tried:
                found.append(each)
            elif each is not None:
                self._want(each)
        if self._zone:
            found = [each for each in found if each.zone == self._zone] or found
        return self._calmer(found) if found else None

    def _want(self, endpoint: Endpoint[C]) -> None:
        if not endpoint.is_up and not endpoint.is_wanted:
            endpoint.is_wanted = self.is_news = True

    def _calmer(self, found: Sequence[Endpoint[C]]) -> Endpoint[C]:
        """The power of two choices: of two that chance picks, the one with less on its way."""
        count = len(found)
        if count == 1:
            return found[0]
        first = int(self._chance() * count) % count
        second = (first + 1 + int(self._chance() * (count - 1)) % (count - 1)) % count
        one, other = found[first], found[second]
        return other if other.in_flight < one.in_flight else one

    def answered(self, endpoint: Endpoint[C]) -> None:
        """It does its work."""
        endpoint.is_up, endpoint.is_proven, endpoint.failures = True, True, 0

    def failed(self, endpoint: Endpoint[C], now: float, at_least_s: float = 0.0) -> None:
        """It doesn't: it is left alone for a while."""
        endpoint.failures += 1
        bound_s = BACK_OFF_S_MIN * 2.0 ** min(endpoint.failures - 1, 16)
        pause_s = max(at_least_s, min(BACK_OFF_S_MAX, bound_s))
        endpoint.is_up = False
        spread = 0.75 + 0.5 * self._chance()
        endpoint.retry_at = now + pause_s * spread
        urgent_s = min(pause_s, max(URGENT_S, URGENT_SHARE * pause_s))
        endpoint.urgent_at = now + max(at_least_s, urgent_s) * spread

    def to_probe(self, may_be_members: bool) -> list[tuple[float, Endpoint[C]]]:
        """Who is to be probed, and when."""
        up = sum(each.is_up for each in self)
        if not up:
            return []  # Nobody else is there: the calls themselves find out.
        is_urgent = up < SPARES
        return [
            (each.urgent_at if is_urgent and _was_there(each) else each.retry_at, each)
            for each in self
            if not each.is_up
            and not each.is_probed
            and (each.is_given or (may_be_members and (each.is_wanted or is_urgent)))
        ]


def _was_there(endpoint: Endpoint[C]) -> bool:
    return endpoint.is_given or endpoint.is_proven


def blame_s(error: AgniError | None, waited_s: float) -> float | None:
    """For how long at least a node is left alone after an attempt of this length; None for not at
    all: what it answered was meant for the caller."""
    if isinstance(error, NoLeaderError):
        return NO_LEADER_S
    if isinstance(error, ConnectionFailedError | ShuttingDownError | NotReadyError):
        return 0.0
    if isinstance(error, DeadlineExceededError):
        return 0.0 if waited_s >= BLAMED_FROM_S else None
    return 0.0 if type(error) is UnavailableError else None


def may_go_elsewhere(error: AgniError) -> bool:
    """Whether another node may do at once what this one did not. An overloaded leader is the same
    for all that pass requests on to it."""
    if isinstance(error, OverloadedError | DiskFullError) or error.retry_delay_ms is not None:
        return False
    return isinstance(error, UnavailableError | DeadlineExceededError)
