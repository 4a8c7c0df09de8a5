"""Whom a client asks: decided without a network, with time, chance and every answer handed in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agniregistry import errors
from agniregistry import types as t
from agniregistry.api.v1 import cluster_pb2 as c
from agniregistry.client import _calls as calls
from agniregistry.client._channels import Channels, Done, Options, SendOptions
from agniregistry.client._endpoints import (
    BACK_OFF_S_MAX,
    FOREIGN_S,
    NO_LEADER_S,
    Endpoint,
    blame_s,
    may_go_elsewhere,
)
from agniregistry.client._retry import Attempts
from agniregistry.client._router import DIRECT_S_MAX, MAP_S, Router, Way
from agniregistry.client._routes import Routes, Where
from agniregistry.client._serve import _fill
from agniregistry.client._target import parse_targets
from agniregistry.config import RetryPolicy, Timeout

PARTITIONS = 4
KEYS = [t.Key.agent(f"n{number}") for number in range(40)]
UNREACHABLE = errors.ConnectionFailedError("nobody there")
ENDS = [None, UNREACHABLE, errors.NoLeaderError("nobody leads"), errors.NotFoundError("nothing")]


def table(
    leaders: Sequence[int] = (1, 2, 3, 1), epoch: int = 1, members: Sequence[int] = (1, 2, 3)
) -> t.RoutingTable:
    """A map of nodes a, b and c, in zones of the same names."""
    return t.RoutingTable(
        epoch=epoch,
        partition_count=PARTITIONS,
        members=tuple(t.Member(each, f"{'.abcdef'[each]}:1", ".abcdef"[each]) for each in members),
        partitions=tuple(
            t.PartitionRoute(partition, tuple(members), leader)
            for partition, leader in enumerate(leaders)
        ),
    )


class Net:
    """Answers what is asked in the background, when the test says so."""

    def __init__(self) -> None:
        self.table = table()
        self.cluster = dict.fromkeys("abcdef", "one")
        self.down: set[str] = set()
        self.silent_about_themselves: set[str] = set()
        self.waiting: list[tuple[str, str, Done]] = []
        self.asked: Counter[str] = Counter()
        self.closed: list[str] = []

    def open(self, address: str, credentials: object, options: Options) -> str:
        return address

    def warm(self, channel: str) -> Any:
        raise AssertionError("nothing rotates here")

    def discard(self, channel: str) -> None:
        self.closed.append(channel)

    def send(
        self, channel: str, path: str, request: bytes, options: SendOptions, done: Done
    ) -> None:
        self.asked[f"{path.rpartition('/')[2]} {channel}"] += 1
        self.waiting.append((channel, path, done))

    def answer(self) -> None:
        """Answers all that waits, and what is asked because of that."""
        while self.waiting:
            channel, path, done = self.waiting.pop(0)
            name = channel[0]
            if name in self.down or name in self.silent_about_themselves:
                done(None, name not in self.down)
            elif path == calls.CLUSTER + "Routing":
                done(_fill(c.RoutingResponse(), self.table).SerializeToString(), True)
            else:
                status = t.ClusterStatus(self.cluster[name], "abcdef".index(name) + 1)
                done(_fill(c.StatusResponse(), status).SerializeToString(), True)


class Lab:
    """A router on a network that isn't there."""

    def __init__(self, targets: str = "a:1", zone: str = "", chance: float = 0.5) -> None:
        self.now = 100.0
        self.net = Net()
        self.chances: list[float] = []
        self.router: Router[str] = Router(
            parse_targets(targets),
            lambda target: Channels(target, None, None, self.net),
            self.net,
            (),
            zone,
            clock=lambda: self.now,
            chance=lambda: self.chances.pop(0) if self.chances else chance,
        )

    def call(
        self, where: Where = Where.ANY, key: t.Key | None = None, error: Any = None
    ) -> Way[str]:
        """One attempt with its end."""
        way = self.router.begin(where, key, set())
        self.router.end(way, error)
        return way

    def asked(self, where: Where, key: t.Key | None = None) -> str:
        """Who is asked."""
        return self.call(where, key).endpoint.target.address

    def settle(self) -> None:
        """Calls that want every leader, until all that can be reached has been."""
        for _ in range(3):
            for key in KEYS:
                self.call(Where.LEADER, key)
            self.net.answer()
            self.now += 1

    def leader_of(self, key: t.Key) -> str:
        """Whom the map names."""
        routes = self.router.endpoints.routes
        assert routes is not None
        return routes.members[routes.leader(routes.partition_of(key) or 0)].client_address


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_who_calls_once_never_pays_for_the_map(lab: Lab) -> None:
    lab.call()
    assert not lab.net.asked
    lab.call()
    assert lab.net.asked == {"Routing a:1": 1}


def test_what_is_about_one_node_needs_no_map_and_goes_nowhere_else(lab: Lab) -> None:
    for _ in range(5):
        assert lab.asked(Where.GIVEN) == "a:1"
    assert not lab.net.asked
    lab.settle()
    for _ in range(5):
        lab.call(Where.GIVEN, error=UNREACHABLE)
        assert lab.router.begin(Where.GIVEN, None, set()).endpoint.target.address == "a:1"


def test_keys_go_to_their_leaders_once_those_have_proved_themselves(lab: Lab) -> None:
    assert {lab.asked(Where.LEADER, key) for key in KEYS} == {"a:1"}
    lab.settle()
    for key in KEYS:
        way = lab.call(Where.LEADER, key)
        assert way.endpoint.target.address == lab.leader_of(key)
        assert way.is_direct
    assert {lab.asked(Where.LEADER, key) for key in KEYS} == {"a:1", "b:1", "c:1"}
    assert lab.net.asked == {"Routing a:1": 1, "Status a:1": 1, "Status b:1": 1, "Status c:1": 1}


def test_a_registry_of_one_node_is_left_as_it_is() -> None:
    lab = Lab()
    lab.net.table = table((1, 1, 1, 1), members=(1,))
    lab.settle()
    assert lab.router.endpoints.routes is None
    assert lab.net.asked == {"Routing a:1": 1}


def test_an_address_that_leads_nowhere_is_asked_ever_more_rarely(lab: Lab) -> None:
    lab.net.down = {"b", "c"}
    asked = []
    for _ in range(600):
        for key in KEYS[:4]:
            assert lab.asked(Where.LEADER, key) == "a:1"
        lab.net.answer()
        asked.append(lab.net.asked["Status b:1"])
        lab.now += 0.5
    assert 5 < asked[20] < asked[-1] < 20
    assert asked[-1] - asked[-200] <= 100 / BACK_OFF_S_MAX + 1
    lab.net.down = set()
    lab.now += 1.25 * BACK_OFF_S_MAX
    lab.settle()
    assert {lab.asked(Where.LEADER, key) for key in KEYS} == {"a:1", "b:1", "c:1"}


def test_an_address_of_another_registry_is_never_used(lab: Lab) -> None:
    lab.net.cluster["b"] = "another"
    for _ in range(int(FOREIGN_S) // 3 - 1):
        lab.settle()
        assert "b:1" not in {lab.asked(Where.LEADER, key) for key in KEYS}
    assert lab.net.asked["Status b:1"] == 1


def test_an_address_of_another_node_is_never_used(lab: Lab) -> None:
    members = (t.Member(1, "a:1"), t.Member(2, "c:1"), t.Member(3, "b:1"))
    lab.net.table = t.RoutingTable(1, 1, members, (t.PartitionRoute(0, (1, 2, 3), 2),))
    lab.settle()
    assert {lab.asked(Where.LEADER, key) for key in KEYS} == {"a:1"}


def test_another_node_is_asked_at_once_when_one_is_gone(lab: Lab) -> None:
    lab.settle()
    key = next(each for each in KEYS if lab.leader_of(each) == "b:1")
    tried: set[Endpoint[str]] = set()
    asked = []
    for _ in range(3):
        way = lab.router.begin(Where.LEADER, key, tried)
        asked.append(way.endpoint.target.address)
        lab.router.end(way, UNREACHABLE)
        goes_on = lab.router.goes_on(Where.LEADER, way, tried, UNREACHABLE)
        assert goes_on == (len(asked) < 3)
    assert asked[0] == "b:1"
    assert sorted(asked) == ["a:1", "b:1", "c:1"]
    assert lab.router.begin(Where.LEADER, key, tried).endpoint.target.address == "a:1"


def test_a_target_that_is_gone_is_probed_and_not_tried_by_calls() -> None:
    lab = Lab("a:1,b:1", chance=0.0)
    assert lab.asked(Where.ANY) == "a:1"
    lab.call(error=UNREACHABLE)
    lab.net.down = {"a"}
    for _ in range(40):
        assert lab.asked(Where.ANY) == "b:1"
        lab.net.answer()
        lab.now += 0.1
    assert 2 < lab.net.asked["Status a:1"] < 8
    lab.net.down = set()
    for _ in range(40):
        lab.call()
        lab.net.answer()
        lab.now += 0.2
    assert {lab.asked(Where.ANY) for lab.chances in ([0.0, 0.0], [0.9, 0.0])} == {"a:1", "b:1"}


def test_members_that_were_proven_are_a_last_resort(lab: Lab) -> None:
    lab.settle()
    lab.net.down = {"a", "b", "c"}
    for each in lab.router.endpoints:
        lab.router.endpoints.failed(each, lab.now)
    tried: set[Endpoint[str]] = set()
    asked = []
    for _ in range(3):
        way = lab.router.begin(Where.ANY, None, tried)
        asked.append(way.endpoint.target.address)
        lab.router.end(way, UNREACHABLE)
        lab.router.goes_on(Where.ANY, way, tried, UNREACHABLE)
    assert sorted(asked) == ["a:1", "b:1", "c:1"]


def test_nodes_that_were_there_are_probed_often_while_few_are_left(lab: Lab) -> None:
    lab.settle()
    lab.net.down = {"b", "c"}
    for gone in ("b:1", "c:1"):
        key = next(each for each in KEYS if lab.leader_of(each) == gone)
        assert lab.call(Where.LEADER, key, UNREACHABLE).endpoint.target.address == gone
    asked = [lab.net.asked["Status b:1"]]
    for _ in range(3_000):
        lab.call()
        lab.net.answer()
        asked.append(lab.net.asked["Status b:1"])
        lab.now += 0.1
    assert asked[20] - asked[0] >= 3
    assert asked[-1] - asked[-1_000] >= 100 / (1.25 * BACK_OFF_S_MAX / 8) - 1
    assert asked[-1] - asked[0] <= 150


def test_a_target_may_refuse_to_tell_of_itself_and_a_member_may_not() -> None:
    lab = Lab("a:1,b:1", chance=0.0)
    lab.net.silent_about_themselves = {"a", "c"}
    lab.call(error=UNREACHABLE)
    for _ in range(40):
        lab.settle()
    assert lab.router.endpoints.given[0].is_up
    assert "c:1" not in {lab.asked(Where.LEADER, key) for key in KEYS}


def test_the_only_node_is_tried_again_and_again_and_never_probed(lab: Lab) -> None:
    for _ in range(5):
        assert lab.call(error=UNREACHABLE).endpoint.target.address == "a:1"
    assert not any("Status" in each for each in lab.net.asked)
    lab.call()
    assert lab.router.endpoints.given[0].is_up


def test_the_map_is_asked_for_again_now_and_then(lab: Lab) -> None:
    lab.settle()
    before = lab.net.asked["Routing a:1"]
    for _ in range(100):
        lab.call()
        lab.net.answer()
        lab.now += MAP_S / 10
    routing = sum(count for what, count in lab.net.asked.items() if what.startswith("Routing"))
    assert 8 <= routing - before <= 13


def test_a_later_term_makes_the_map_old_and_the_one_who_knows_is_asked(lab: Lab) -> None:
    lab.settle()
    key = next(each for each in KEYS if lab.leader_of(each) == "b:1")
    lab.router.learn(lab.call(Where.LEADER, key), t.Header("one", 1, 7, term=3))
    lab.net.table = table((1, 3, 3, 1))
    way = lab.call(Where.LEADER, key)
    lab.router.learn(way, t.Header("one", 1, 8, term=3))
    lab.now += 1
    assert lab.asked(Where.LEADER, key) == "b:1"
    lab.net.answer()
    assert not lab.net.asked["Routing b:1"]
    lab.router.learn(way, t.Header("one", 1, 9, term=4))
    lab.now += 1
    lab.call()
    lab.net.answer()
    assert lab.net.asked["Routing b:1"] == 1
    assert lab.asked(Where.LEADER, key) == "c:1"


def test_a_refusal_that_names_the_leader_is_followed(lab: Lab) -> None:
    lab.settle()
    key = next(each for each in KEYS if lab.leader_of(each) == "b:1")
    tried: set[Endpoint[str]] = set()
    way = lab.router.begin(Where.LEADER, key, tried)
    error = errors.NotLeaderError("not me", metadata={"leader_id": "3"})
    lab.router.end(way, error)
    assert lab.router.goes_on(Where.LEADER, way, tried, error)
    assert lab.router.begin(Where.LEADER, key, tried).endpoint.target.address == "c:1"
    assert way.endpoint.is_up


def test_an_older_map_is_not_taken(lab: Lab) -> None:
    lab.net.table = table((2, 2, 2, 2), epoch=5)
    lab.settle()
    lab.net.table = table((1, 1, 1, 1), epoch=4)
    lab.now += 2 * MAP_S
    lab.settle()
    assert {lab.leader_of(key) for key in KEYS} == {"b:1"}


def test_a_map_without_sense_is_not_taken(lab: Lab) -> None:
    lab.net.table = t.RoutingTable(1, 3, table().members)
    lab.settle()
    assert lab.router.endpoints.routes is None
    with pytest.raises(ValueError, match="power of two"):
        Routes(lab.net.table)


def test_members_that_leave_are_let_go_with_their_last_call(lab: Lab) -> None:
    lab.settle()
    key = next(each for each in KEYS if lab.leader_of(each) == "c:1")
    way = lab.router.begin(Where.LEADER, key, set())
    lab.net.table = table((1, 2, 2, 1), epoch=2, members=(1, 2))
    lab.now += 2 * MAP_S
    lab.settle()
    assert lab.net.closed == []
    lab.router.end(way, None)
    lab.call()
    assert lab.net.closed == ["c:1"]
    assert sorted(lab.router.close()) == ["a:1", "b:1"]


def test_stale_reads_are_spread_and_go_to_the_calmer_of_two() -> None:
    lab = Lab()
    lab.settle()
    lab.chances = [each / 30 for each in range(30) for _ in "ab"]
    assert {lab.asked(Where.REPLICA, KEYS[0]) for _ in range(30)} == {"a:1", "b:1", "c:1"}
    assert {lab.asked(Where.REPLICA) for lab.chances in ([0.0, 0.0], [0.4, 0.0], [0.9, 0.0])} == {
        "a:1", "b:1", "c:1"
    }  # fmt: skip
    chance = random.Random(7)
    lab.chances = [chance.random() for _ in range(600)]
    held = [lab.router.begin(Where.REPLICA, KEYS[0], set()) for _ in range(300)]
    counts = Counter(way.endpoint.target.address for way in held)
    assert len(counts) == 3
    assert max(counts.values()) - min(counts.values()) <= 5
    lab.router.endpoints.by_member[1].in_flight += 100
    lab.chances = [chance.random() for _ in range(100)]
    for _ in range(50):
        assert lab.asked(Where.REPLICA, KEYS[0]) != "a:1"


def test_stale_reads_prefer_the_callers_zone() -> None:
    lab = Lab(zone="b")
    lab.settle()
    assert {lab.asked(Where.REPLICA, key) for key in KEYS} == {"b:1"}
    lab.router.endpoints.by_member[2].is_up = False
    assert "b:1" not in {lab.asked(Where.REPLICA, key) for key in KEYS}


def test_a_silent_leader_may_not_eat_all_the_time(lab: Lab) -> None:
    attempts = Attempts(RetryPolicy(), Timeout(60_000, 30_000))
    assert lab.router.timeout_s(lab.call(), attempts) == 30.0
    lab.settle()
    direct = lab.call(Where.LEADER, next(key for key in KEYS if lab.leader_of(key) == "b:1"))
    assert lab.router.timeout_s(direct, attempts) == DIRECT_S_MAX
    assert lab.router.timeout_s(lab.call(Where.REPLICA), attempts) == DIRECT_S_MAX
    short = Attempts(RetryPolicy(), Timeout(1_000, 1_000), clock=lambda: 0.0)
    assert lab.router.timeout_s(lab.call(), short) == 0.5


@pytest.mark.parametrize(
    ("error", "waited_s", "blame", "elsewhere"),
    [
        (UNREACHABLE, 0.0, 0.0, True),
        (errors.ShuttingDownError("bye"), 0.0, 0.0, True),
        (errors.NotReadyError("soon"), 0.0, 0.0, True),
        (errors.NoLeaderError("nobody"), 0.0, NO_LEADER_S, True),
        (errors.UnavailableError("a proxy says so"), 0.0, 0.0, True),
        (errors.DeadlineExceededError("silence"), 2.0, 0.0, True),
        (errors.DeadlineExceededError("impatience"), 0.1, None, True),
        (errors.NotLeaderError("not me"), 0.0, None, True),
        (errors.OutcomeUnknownError("who knows"), 0.0, None, True),
        (errors.StalenessExceededError("old"), 0.0, None, True),
        (errors.OverloadedError("busy"), 0.0, None, False),
        (errors.DiskFullError("full", retry_delay_ms=5), 0.0, None, False),
        (errors.UnavailableError("later", retry_delay_ms=5), 0.0, 0.0, False),
        (errors.NotFoundError("nothing"), 0.0, None, False),
        (errors.InvalidFieldError("wrong", field="key"), 0.0, None, False),
    ],
)
def test_what_a_failure_says_of_its_node(
    error: errors.AgniError, waited_s: float, blame: float | None, elsewhere: bool
) -> None:
    assert blame_s(error, waited_s) == blame
    assert may_go_elsewhere(error) == elsewhere


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Where.ANY, Where.LEADER, Where.REPLICA, Where.GIVEN]),
            st.sampled_from(KEYS),
            st.sampled_from(
                [None, UNREACHABLE, errors.NoLeaderError(""), errors.NotFoundError("")]
            ),
            st.floats(0.0, 5.0),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.integers(1, 3),
    st.sets(st.sampled_from("abc")),
)
def test_there_is_always_somebody_to_ask_and_everybody_is_asked_before_giving_up(
    steps: list[tuple[Where, t.Key, Any, float, bool]], count: int, down: set[str]
) -> None:
    lab = Lab("a:1,b:1,c:1"[: 4 * count - 1])
    lab.net.down = down
    for where, key, error, pause_s, answers in steps:
        tried: set[Endpoint[str]] = set()
        given_up = error is None
        for _ in range(4):
            way = lab.router.begin(where, key, tried)
            lab.router.end(way, error)
            given_up = error is None or not lab.router.goes_on(where, way, tried, error)
            if given_up:
                break
        assert given_up
        if error is not None and may_go_elsewhere(error):
            assert set(lab.router.endpoints.given) <= tried
        if answers:
            lab.net.answer()
        lab.now += pause_s
    lab.net.answer()
    assert all(each.users == each.in_flight == 0 for each in lab.router.endpoints)
