"""Sends each call of a client to a node that can answer it, and learns which those are.

The partition map is asked for in the background, when a client makes its second call: whoever asks
once and leaves never pays for it. From then on it is asked for again every half minute while there
are calls, and soon after a sign that it is old: a leader that can't be reached, a refusal that
names another one, or an answer from a later term. Nothing here waits, and nothing runs while no
call is made: each call looks whether something is due.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import grpc

from agniregistry import types as t
from agniregistry.client import _calls as calls
from agniregistry.client._channels import Channels, Flavour, Link, SendOptions
from agniregistry.client._endpoints import (
    FOREIGN_S,
    Endpoint,
    Endpoints,
    blame_s,
    may_go_elsewhere,
)
from agniregistry.client._retry import Attempts
from agniregistry.client._routes import Routes, Where
from agniregistry.client._target import Target
from agniregistry.errors import AgniError, IdentityError, InternalError, NotLeaderError

log = logging.getLogger("agniregistry.routing")

C = TypeVar("C")

CALLS_BEFORE_MAP = 2
"""The map is asked for with this call of a client."""

MAP_S = 30.0
"""How often the map is asked for anew, in seconds, give or take a quarter."""

MAP_SOON_S = 1.0
"""The same while a partition has no leader, or where a map could not be had."""

MAP_GAP_S, MAP_SPREAD_S = 0.25, 0.25
"""After a sign that the map is old: the least time since the last one, and what chance adds."""

ASK_S = 2.0
"""How long an answer to a question in the background is waited for, in seconds."""

DIRECT_S_MAX = 2.0
"""How long a leader or a replica may be silent before another node is asked, in seconds."""


@dataclass(slots=True)
class Way(Generic[C]):
    """The way that one attempt or stream takes."""

    where: Where
    endpoint: Endpoint[C]
    link: Link[C]
    channels: Channels[C]
    partition: int | None = None
    is_direct: bool = False
    """Whether it goes to the leader of the key's partition."""
    began: float = 0.0


class Router(Generic[C]):
    """The nodes of one client. Thread-safe; blocks for the reading of certificates at most."""

    def __init__(
        self,
        targets: Sequence[Target],
        open_channels: Callable[[Target], Channels[C]],
        flavour: Flavour[C],
        metadata: Sequence[tuple[str, str]],
        zone: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._open_channels = open_channels
        self._flavour = flavour
        self._options = SendOptions(ASK_S, tuple(metadata))
        self._clock = clock
        self._chance = chance
        self._lock = threading.RLock()
        given = [Endpoint(target, True, open_channels(target), True) for target in targets]
        self.endpoints: Endpoints[C] = Endpoints(given, zone, chance)
        """Who may be asked."""
        self._cluster_id = ""
        self._terms: dict[int, int] = {}
        self._calls = 0
        self._map_at = 0.0
        self._map_asked = float("-inf")
        self._map_from: Endpoint[C] | None = None
        self._map_failures = 0
        self._is_asking = False
        self._work_at = 0.0
        self._closed = False

    # -- one attempt ----------------------------------------------------------------------

    def begin(
        self, where: Where, key: t.Key | None, tried: set[Endpoint[C]], *, is_stream: bool = False
    ) -> Way[C]:
        """The way for an attempt. Once all have been tried, they are tried anew."""
        routes = self.endpoints.routes
        partition = routes.partition_of(key) if routes is not None and key is not None else None
        now = self._clock()
        with self._lock:
            # Whoever watches makes one call for ever, and needs the map all the same.
            before = self._calls
            self._calls += CALLS_BEFORE_MAP if is_stream else where is not Where.GIVEN
            if before < CALLS_BEFORE_MAP <= self._calls:
                self._work_at = now
            leader = None
            if where is Where.LEADER and partition is not None:
                leader = self.endpoints.leader(partition, tried)
            endpoint = leader or self.endpoints.pick(where, partition, tried)
            if endpoint is None:
                tried.clear()
                endpoint = self.endpoints.pick(where, partition, tried) or self.endpoints.given[0]
            endpoint.users += 1
            endpoint.in_flight += not is_stream
            channels = self._channels_of(endpoint)
        if now >= self._work_at or self.endpoints.is_news or self.endpoints.retired:
            self._work()
        return Way(
            where, endpoint, channels.acquire(), channels, partition, leader is not None, now
        )

    def timeout_s(self, way: Way[C], attempts: Attempts) -> float:
        """How long the attempt may take. One silent node of several may not eat all the time."""
        has_map = self.endpoints.routes is not None
        if way.is_direct or (has_map and way.where is Where.REPLICA):
            return min(attempts.timeout_s(0.5), DIRECT_S_MAX)
        return attempts.timeout_s(0.5 if has_map or len(self.endpoints.given) > 1 else 1.0)

    def end(self, way: Way[C], error: AgniError | None) -> None:
        """A call has ended."""
        way.channels.release(way.link)
        endpoint = way.endpoint
        with self._lock:
            endpoint.users -= 1
            endpoint.in_flight -= 1
            if error is not None:
                self._blame(way, error)
            elif not endpoint.is_up or endpoint.failures:
                self.endpoints.answered(endpoint)

    def end_stream(self, way: Way[C]) -> None:
        """A stream has ended, for whatever reason."""
        way.channels.release(way.link)
        with self._lock:
            way.endpoint.users -= 1

    def blame(self, way: Way[C], error: AgniError) -> None:
        """A stream has broken."""
        with self._lock:
            self._blame(way, error)

    def _blame(self, way: Way[C], error: AgniError) -> None:
        now = self._clock()
        blame = blame_s(error, now - way.began)
        if blame is not None:
            self.endpoints.failed(way.endpoint, now, blame)
            self._work_at = 0.0
        if isinstance(error, NotLeaderError) and way.partition is not None:
            self._hear_leader(way.partition, error.metadata.get("leader_id", ""))
        if way.is_direct and may_go_elsewhere(error):
            self._map_is_old(now, None)

    def goes_on(self, where: Where, way: Way[C], tried: set[Endpoint[C]], error: AgniError) -> bool:
        """Whether another node may be asked at once."""
        tried.add(way.endpoint)
        if not may_go_elsewhere(error):
            return False
        with self._lock:
            return self.endpoints.pick(where, way.partition, tried) is not None

    def learn(self, way: Way[C], header: t.Header | None) -> None:
        """Looks whether an answer shows that the map is old: a later term has another leader."""
        if header is None or self._terms.get(header.partition, -1) >= header.term:
            return
        with self._lock:
            before = self._terms.get(header.partition)
            self._terms[header.partition] = header.term
            if before is not None:
                self._map_is_old(self._clock(), way.endpoint)

    def close(self) -> tuple[C, ...]:
        """Ends everything; answers with every channel that is to be closed."""
        with self._lock:
            self._closed = True
            everybody = [*self.endpoints, *self.endpoints.retired]
            self.endpoints.retired = []
        return tuple(
            channel
            for each in everybody
            if each.channels is not None
            for channel in each.channels.close()
        )

    # -- in the background ----------------------------------------------------------------

    def _channels_of(self, endpoint: Endpoint[C]) -> Channels[C]:
        if endpoint.channels is None:
            endpoint.channels = self._open_channels(endpoint.target)
        return endpoint.channels

    def _hear_leader(self, partition: int, text: str) -> None:
        if self.endpoints.routes is not None and text.isdigit():
            self.endpoints.routes.set_leader(partition, int(text))
            self._work_at = 0.0

    def _map_is_old(self, now: float, who_knows: Endpoint[C] | None) -> None:
        soon = max(now, self._map_asked + MAP_GAP_S) + MAP_SPREAD_S * self._chance()
        self._map_at = min(self._map_at, soon)
        self._map_from = who_knows or self._map_from
        self._work_at = 0.0

    def _work(self) -> None:
        """Does what is due, and finds out when there is more to do."""
        with self._lock:
            if self._closed:
                return
            now = self._clock()
            self.endpoints.is_news = False
            to_probe = self.endpoints.to_probe(bool(self._cluster_id))
            times = [when for when, _ in to_probe]
            due = [each for when, each in to_probe if when <= now]
            is_map_due = self._calls >= CALLS_BEFORE_MAP and not self._is_asking
            if is_map_due:
                times.append(self._map_at)
            is_map_due = is_map_due and self._map_at <= now
            # What is due now ends with an answer, which looks again.
            later = [each for each in times if each > now]
            self._work_at = min(later, default=now + MAP_SOON_S)
            unused = [each for each in self.endpoints.retired if not each.users]
            self.endpoints.retired = [each for each in self.endpoints.retired if each.users]
            if is_map_due:
                self._is_asking, self._map_asked, self._map_at = True, now, float("inf")
                asked = self._map_from if self._map_from and self._map_from.is_up else None
                asked = asked or self.endpoints.pick(Where.ANY, None, ())
                self._map_from = None
            for each in due:
                each.is_probed = True
        for each in unused:
            for channel in each.channels.close() if each.channels else ():
                self._flavour.discard(channel)
        if is_map_due and asked is not None:
            self._ask(asked, calls.routing(), partial(self._map_came, asked))
        for each in due:
            self._probe(each)

    def _probe(self, endpoint: Endpoint[C]) -> None:
        self._ask(endpoint, calls.status(), partial(self._probed, endpoint))

    def _probed(self, endpoint: Endpoint[C], status: t.ClusterStatus | None, reached: bool) -> None:
        now = self._clock()
        endpoint.is_probed = endpoint.is_wanted = False
        self._work_at = 0.0
        # A target may refuse to tell of itself, if only it is there. A member has to prove itself.
        if not reached or (status is None and endpoint.node_id):
            self.endpoints.failed(endpoint, now)
            return
        expected = (self._cluster_id, endpoint.node_id)
        found = (status.cluster_id, status.node_id) if status is not None else expected
        if endpoint.node_id and found != expected:
            log.info("%s is another node than it should be", endpoint.target.address)
            # It may as well be the registry that is another one now.
            self._cluster_id, endpoint.is_proven = "", False
            self.endpoints.failed(endpoint, now, FOREIGN_S)
            return
        self.endpoints.answered(endpoint)

    def _map_came(self, asked: Endpoint[C], table: t.RoutingTable | None, _: bool) -> None:
        self._is_asking, self._work_at = False, 0.0
        routes, current = _routes_of(table), self.endpoints.routes
        if routes is None:
            self._map_failures += 1
            self._map_again(MAP_SOON_S * 2.0 ** min(self._map_failures, 16))
            return
        self._map_failures = 0
        self._map_again(MAP_S if routes.is_whole else MAP_SOON_S)
        is_behind = current is not None and routes.epoch < current.epoch
        if is_behind and self._cluster_id:
            return
        self.endpoints.adopt(routes if routes.is_plural else None)
        if not self._cluster_id and routes.is_plural:
            self._ask(asked, calls.status(), self._identified)

    def _map_again(self, seconds: float) -> None:
        again = self._clock() + min(MAP_S, seconds) * (0.75 + 0.5 * self._chance())
        self._map_at = min(self._map_at, again)

    def _identified(self, status: t.ClusterStatus | None, _: bool) -> None:
        self._work_at = 0.0
        if status is None:
            self._map_again(MAP_SOON_S)
        else:
            self._cluster_id = status.cluster_id

    def _ask(
        self, endpoint: Endpoint[C], call: calls.Call[Any], took: Callable[[Any, bool], None]
    ) -> None:
        """Asks without waiting; `took` gets the answer under the lock, or None and whether the
        node was there to refuse it."""
        try:
            with self._lock:
                if self._closed:
                    return
                channels = self._channels_of(endpoint)
                endpoint.users += 1
            link = channels.acquire()
        except IdentityError as error:
            log.warning("%s can't be asked: %s", endpoint.target.address, error.message)
            with self._lock:
                took(None, False)
            return

        def done(data: bytes | None, reached: bool) -> None:
            channels.release(link)
            with self._lock:
                endpoint.users -= 1
                if self._closed:
                    return
                took(_read(call, data), reached)
            self._work()

        self._flavour.send(link.channel, call.path, call.request, self._options, done)


def _read(call: calls.Call[Any], data: bytes | None) -> Any:
    try:
        return None if data is None else call.answer(data)
    except InternalError:
        return None


def _routes_of(table: t.RoutingTable | None) -> Routes | None:
    try:
        return None if table is None else Routes(table)
    except ValueError:
        return None


class Streams(Generic[C]):
    """The streams of one watch, one after the other: each goes to a node that is up."""

    def __init__(self, router: Router[C], to_error: Callable[[grpc.RpcError], AgniError]) -> None:
        self._router = router
        self._to_error = to_error
        self._way: Way[C] | None = None

    def begin(self) -> Way[C]:
        """The way for the next one; `Router.end_stream` when it has ended."""
        self._way = self._router.begin(Where.ANY, None, set(), is_stream=True)
        return self._way

    def error(self, failure: grpc.RpcError) -> AgniError:
        """The typed error for what has ended the newest one, for which its node is blamed."""
        error = self._to_error(failure)
        if self._way is not None:
            self._router.blame(self._way, error)
        return error
